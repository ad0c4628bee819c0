"""Shared arrays on their way to workers: memory-mapped ones travel as the name of their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import DataError


@dataclass(frozen=True)
class MappedFile:
    """A memory-mapped array, opened again where it is needed."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    fortran_order: bool

    @classmethod
    def of(cls, array: np.memmap[Any, Any]) -> MappedFile:
        """Of a whole map, not a part of one."""
        in_fortran_order = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
        return cls(str(array.filename), array.dtype.str, array.shape, array.offset, in_fortran_order)

    def open(self) -> np.memmap[Any, Any]:
        """The array.

        Raises:
            DataError: The file is not there.
        """
        try:
            return np.memmap(
                self.path,
                np.dtype(self.dtype),
                mode="r",
                offset=self.offset,
                shape=self.shape,
                order="F" if self.fortran_order else "C",
            )
        except (OSError, ValueError) as error:
            raise DataError(
                f"features on disk must be readable under the same path on every node, but {self.path!r} is not"
                f" ({error}); put it on a shared disk, or give an .npz"
            ) from None


def pack(arrays: Mapping[str, NDArray[Any]], put: Callable[[NDArray[Any]], Any]) -> dict[str, Any]:
    """What stands for each array: a `MappedFile`, or what ``put`` gives for it; one that has two names is put once."""
    known: dict[int, Any] = {}
    packed = {}
    for name, array in arrays.items():
        if id(array) not in known:
            known[id(array)] = MappedFile.of(array) if isinstance(array, np.memmap) else put(array)
        packed[name] = known[id(array)]
    return packed


def unpack(packed: Mapping[str, Any], get: Callable[[list[Any]], list[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays again; ``get`` gives those that were put.

    Raises:
        DataError: A file is not there.
    """
    names = [name for name, value in packed.items() if not isinstance(value, MappedFile)]
    arrays = dict(zip(names, get([packed[name] for name in names]), strict=True))
    return {name: value.open() if isinstance(value, MappedFile) else arrays[name] for name, value in packed.items()}


def num_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Memory that the arrays take where they are shared."""
    held = {id(array): array.nbytes for array in arrays.values() if not isinstance(array, np.memmap)}
    return sum(held.values())
