"""Feature folders on disk: ``x.npy`` and ``y.npy``, written row by row and read with ``mmap_mode="r"``.

The header of an ``.npy`` file names the number of rows, which a stream knows only at its end. numpy pads headers so
that the first dimension can grow in place (see ``numpy.lib.format``): one of no rows is written first, and the true one
over it at the end.

Shapes: **N** rows in all, **n** rows of one call, **D** features.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from treesearch.errors import DataError

FEATURE_FILE = "x.npy"  # float16 or float32 [N, D]
TARGET_FILE = "y.npy"  # int32 [N]; comes last: a folder without it was not finished
MAX_TARGET = np.iinfo(np.int32).max


class FeatureWriter:
    """Streams features and targets into a folder; a context manager.

    Both files appear when the context ends well: ``x.npy``, ``dtype`` [N, D], and ``y.npy``, int32 [N]; files of these
    names are replaced. After an exception there is nothing new in the folder.

    Args:
        folder: Is made where it is missing.
        dtype: ``float16`` or ``float32``, of the features.

    Attributes:
        num_rows: Rows written so far.

    Raises:
        DataError: The type is another one.
        OSError: The folder cannot be made, or the files cannot be written.
    """

    def __init__(self, folder: str | Path, *, dtype: DTypeLike = np.float16) -> None:
        self.folder = Path(folder)
        self.dtype = _feature_type(dtype)
        self.num_rows = 0
        self._num_features: int | None = None
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in (FEATURE_FILE, TARGET_FILE):
                self._files[name] = tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{name}.", delete=False)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, x: NDArray[np.floating], y: NDArray[np.integer]) -> None:
        """Append rows.

        Args:
            x: float [n, D]; the first call decides D.
            y: integers [n], 0 to 2**31 - 1.

        Raises:
            DataError: Shapes do not fit, a feature is not finite or too large for the type, or a target is no class.
        """
        x, y = np.asarray(x), np.asarray(y)
        width = x.shape[-1] if self._num_features is None and x.ndim else self._num_features
        if x.ndim != 2 or x.shape[1] != width or width == 0 or y.shape != x.shape[:1]:
            wanted = "D >= 1" if self._num_features is None else self._num_features
            raise DataError(f"rows must be x [n, {wanted}] and y [n], but got {x.shape} and {y.shape}")
        if not len(x):
            return
        with np.errstate(over="ignore"):  # told below
            rows = np.ascontiguousarray(x, self.dtype)
        if not np.isfinite(rows).all():
            raise DataError(self._not_finite(x, rows))
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > MAX_TARGET:
            raise DataError(
                f"targets must be integers from 0 to {MAX_TARGET}, but got {_describe(y)}; leave others out"
            )
        if self._num_features is None:
            self._num_features = width
            self._write_headers(0)
        self._files[FEATURE_FILE].write(rows.data)
        self._files[TARGET_FILE].write(np.ascontiguousarray(y, np.int32).data)
        self.num_rows += len(rows)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if not self.num_rows:
            raise DataError(f"features must have at least one row, but none came for {str(self.folder)!r}")
        self._write_headers(self.num_rows)
        umask = os.umask(0)
        os.umask(umask)
        for file in self._files.values():
            file.close()
            os.chmod(file.name, 0o666 & ~umask)
        (self.folder / TARGET_FILE).unlink(missing_ok=True)  # old targets never stand beside new features
        for name, file in self._files.items():
            os.replace(file.name, self.folder / name)

    def _discard(self) -> None:
        for file in self._files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)
        self._files = {}

    def _write_headers(self, num_rows: int) -> None:
        """Write both headers for so many rows; the same length for any number of them."""
        for name, dtype, tail in (
            (FEATURE_FILE, self.dtype, (self._num_features,)),
            (TARGET_FILE, np.dtype("<i4"), ()),
        ):
            self._files[name].seek(0)
            fields = {"descr": dtype.str, "fortran_order": False, "shape": (num_rows, *tail)}
            npy.write_array_header_1_0(self._files[name], fields)

    def _not_finite(self, x: NDArray[np.floating], rows: NDArray[np.floating]) -> str:
        row = self.num_rows + int(np.isfinite(rows).all(axis=1).argmin())
        if not np.isfinite(x).all():
            return f"features must be finite, but row {row} holds NaN or infinity; take a model that did not diverge"
        largest = np.abs(x).max()
        return (
            f"features must fit {self.dtype.name}, up to {np.finfo(self.dtype).max:g}, but rows from {row} on reach"
            f" {largest:g}; use float32"
        )


def _feature_type(dtype: DTypeLike) -> np.dtype[np.floating]:
    try:
        found = np.dtype(dtype).newbyteorder("<")
    except TypeError:
        found = None
    if found not in (np.dtype("<f2"), np.dtype("<f4")):
        raise DataError(f"features must be stored as float16 or float32, but got {dtype!r:.40}")
    return found  # type: ignore[return-value]  # one of the two


def _describe(y: NDArray[np.integer]) -> str:
    return f"{y.min()} to {y.max()}" if np.issubdtype(y.dtype, np.integer) else str(y.dtype)
