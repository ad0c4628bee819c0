"""Features of one split, in memory or on disk, read in blocks.

Shapes: **T** examples, **D** features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

CHUNK = 4096  # examples that the kernel of the frozen rung reads at a time; blocks are whole chunks
BLOCK_BYTES = 64 << 20  # of a block of features that are on disk, as float32


@dataclass(frozen=True)
class Features:
    """Features and labels of one split.

    Where ``x`` is memory-mapped, features stay on disk, of whatever float type, and are read a block at a time;
    ``rows`` then says which are meant.
    """

    x: NDArray[np.floating]  # [T, D]; float32 where it is in memory
    y: NDArray[np.int32]  # [T]
    rows: NDArray[np.int64] | None = None  # [K, 2] rising, disjoint ranges [begin, end) of rows; None: all

    @property
    def mapped(self) -> bool:
        """Whether features stay on disk."""
        return isinstance(self.x, np.memmap)

    @property
    def num_features(self) -> int:
        """D."""
        return int(self.x.shape[-1])

    @property
    def labels(self) -> NDArray[np.int32]:
        """Classes of the examples that are meant, int32."""
        if self.rows is None:
            return self.y
        return np.concatenate([self.y[:0], *(self.y[begin:end] for begin, end in self.rows.tolist())])

    def __len__(self) -> int:
        return self.y.size if self.rows is None else int((self.rows[:, 1] - self.rows[:, 0]).sum())

    def first(self, number: int | None) -> Features:
        """The first examples, at most so many; None for all."""
        if number is None or number >= len(self):
            return self
        if not self.mapped:
            return Features(self.x[:number], self.y[:number])
        rows = np.array([[0, self.y.size]]) if self.rows is None else self.rows
        sizes = rows[:, 1] - rows[:, 0]
        left = np.clip(number - (np.cumsum(sizes) - sizes), 0, sizes)  # of each range
        kept = np.stack([rows[:, 0], rows[:, 0] + left], axis=1)
        return replace(self, rows=kept[left > 0])

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """All examples in order: contiguous, read-only float32 [m, D] and int32 [m].

        m is a multiple of `CHUNK`, but for the last. One block where nothing has to be converted; others are valid up
        to the next.
        """
        if not self.mapped or (self.rows is None and self.x.dtype == np.float32 and self.x.flags.c_contiguous):
            yield _read_only(self.x), _read_only(self.y)
            return
        size = max(1, BLOCK_BYTES // (4 * self.num_features) // CHUNK) * CHUNK
        ranges = [(0, self.y.size)] if self.rows is None else self.rows.tolist()
        x, y = np.empty((size, self.num_features), np.float32), np.empty(size, np.int32)
        filled = 0
        for begin, end in ranges:
            while begin < end:
                take = min(end - begin, size - filled)
                x[filled : filled + take] = self.x[begin : begin + take]
                y[filled : filled + take] = self.y[begin : begin + take]
                begin, filled = begin + take, filled + take
                if filled == size:
                    yield _read_only(x), _read_only(y)
                    filled = 0
        if filled or not len(self):
            yield _read_only(x[:filled]), _read_only(y[:filled])

    def in_memory(self) -> Features:
        """The same as float32 arrays."""
        if not self.mapped:
            return self
        held, begin = np.empty((len(self), self.num_features), np.float32), 0
        for x, _ in self.blocks():
            held[begin : begin + len(x)] = x
            begin += len(x)
        return Features(held, self.labels.copy())

    def update(self, digest: blake2b) -> None:
        """Add the features, as float32, to a hash."""
        for x, _ in self.blocks():
            digest.update(x.data)


def _read_only(array: NDArray) -> NDArray:  # type: ignore[type-arg]
    """A contiguous view that refuses writes: workers get such data, and one type means one compiled kernel."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
