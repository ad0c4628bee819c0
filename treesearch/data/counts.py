"""Class counts and class vectors from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import DataError
from treesearch.text_files import read_lines


def load_counts(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Counts, float64 [C], and class names where the file has them.

    Args:
        path: ``.npy`` with a vector, or text lines ``name TAB count`` or ``count``.

    Raises:
        DataError: The file is missing or a line is neither.
    """
    if path.suffix == ".npy":
        return np.asarray(_load_npy(path), np.float64).reshape(-1), None
    names, counts = [], []
    for number, line in read_lines(path, f"counts file {path}", DataError):
        if not line.strip():
            continue
        *name, count = line.split("\t")
        try:
            counts.append(float(count))
        except ValueError:
            raise DataError(
                f"{path}, line {number}: expected 'name TAB count' or 'count', but got {line!r:.60}"
            ) from None
        if name:
            names.append("\t".join(name))
    if names and len(names) != len(counts):
        raise DataError(f"{path}: either every line has a name or none, but {len(names)} of {len(counts)} have")
    if not counts:
        raise DataError(f"{path} holds no counts; give one line per class")
    return np.asarray(counts), tuple(names) or None


def load_vectors(path: Path) -> NDArray[np.float32]:
    """Class vectors [C, D] from ``.npy``.

    Raises:
        DataError: The file is missing or holds no numbers.
    """
    return _load_npy(path)


def _load_npy(path: Path) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise DataError(f"{path} must hold a numeric array")
    return array
