"""`SortedTexts`: many texts in one block of memory, in order, so that those with a prefix stand together.

Shapes: **C** texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.autocomplete.match_kernels import prefix_range
from treesearch.errors import DataError


@dataclass(frozen=True, eq=False)
class SortedTexts:
    """UTF-8 texts in the order of their bytes, which is that of their characters (and of Python's strings).

    Do not call the constructor; `of` makes one.
    """

    blob: NDArray[np.uint8]  # all texts, one after the other
    offsets: NDArray[np.int64]  # [C+1] where each begins

    @classmethod
    def of(cls, texts: Sequence[str]) -> SortedTexts:
        """Those of texts that are in order.

        Raises:
            DataError: A text has a lone surrogate, which UTF-8 cannot hold.
        """
        try:
            blob = np.frombuffer("".join(texts).encode(), np.uint8)
        except UnicodeEncodeError as error:
            raise DataError(
                f"texts must be valid Unicode, but one has the lone surrogate {error.object[error.start]!r};"
                " leave it out"
            ) from None
        if blob.size == sum(map(len, texts)):  # all of it ASCII
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        else:
            lengths = np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))
        return cls(blob, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, rank: int) -> str:
        return self.blob[self.offsets[rank] : self.offsets[rank + 1]].tobytes().decode()

    def range(self, prefix: str) -> tuple[int, int]:
        """First and one behind the last of the ranks of the texts that begin with ``prefix``; equal if none does.

        Raises:
            DataError: The prefix is no valid Unicode.
        """
        try:
            encoded = np.frombuffer(prefix.encode(), np.uint8)
        except UnicodeEncodeError:
            raise DataError(f"a prefix must be valid Unicode (UTF-8), but got {prefix!r:.60}") from None
        low, high = prefix_range(self.blob, self.offsets, encoded)
        return int(low), int(high)

    def find(self, text: str) -> int | None:
        """The rank of a text, None where it is not among them: of those that begin with it, it comes first."""
        low, high = self.range(text)
        return low if low < high and self[low] == text else None

    @property
    def nbytes(self) -> int:
        """Memory."""
        return self.blob.nbytes + self.offsets.nbytes
