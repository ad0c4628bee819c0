"""`Completions`: the queries that people ask, with counts; read from a file.

Shapes: **C** completions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.autocomplete.sorted_texts import SortedTexts
from treesearch.errors import DataError
from treesearch.text_files import read_lines


@dataclass(frozen=True, eq=False)
class Completions:
    """Different texts in order (class c is the c-th) and how often each was asked."""

    texts: SortedTexts
    counts: NDArray[np.float64]  # [C] finite, > 0

    @classmethod
    def of(cls, count_of: Mapping[str, float]) -> Completions:
        """Those of a mapping from text to count.

        Raises:
            DataError: There is none, one is blank or no valid Unicode, or a count (or the sum) is not finite and > 0.
        """
        if not count_of:
            raise DataError("there must be one completion at least, but got none")
        ordered = sorted(count_of)
        counts = np.fromiter((count_of[text] for text in ordered), np.float64, len(ordered))
        bad = np.flatnonzero(~(np.isfinite(counts) & (counts > 0)))
        if bad.size:
            raise DataError(f"counts must be finite and > 0, but that of {ordered[bad[0]]!r:.60} is {counts[bad[0]]:g}")
        with np.errstate(over="ignore"):
            total = counts.sum()
        if not np.isfinite(total):
            raise DataError("the sum of all counts must be finite, but is infinite; divide them by something")
        if not all(map(str.strip, ordered)):
            raise DataError("a completion must not be blank, but one is; leave it out")
        return cls(SortedTexts.of(ordered), counts)

    def __len__(self) -> int:
        return self.counts.size

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All texts, as class names: new strings, of which a million take 70 MB and more."""
        return tuple(self.texts[rank] for rank in range(len(self)))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Shares of the counts, [C]."""
        return self.counts / self.counts.sum()

    @property
    def entropy(self) -> float:
        """Of the counts, bits a query: no binary tree takes fewer decisions on average (Shannon 1948)."""
        share = self.probabilities
        return float(abs(share @ np.log2(share)))


def load_completions(path: Path) -> Completions:
    """Read a UTF-8 file of lines ``query TAB count``, or ``query`` for a count of one.

    The last tab separates; a query keeps the spaces and tabs that it has. Counts of a query that stands twice add up,
    so a log with one query a line will do. Blank lines are skipped.

    Raises:
        DataError: The file cannot be read, is not UTF-8 or holds no query, a query is blank, or a count is not a
            number, not finite or not > 0.
    """
    count_of: dict[str, float] = {}
    for number, line in read_lines(path, f"queries {str(path)!r}", DataError):
        if not line or line.isspace():
            continue
        query, tab, text = line.rpartition("\t")
        if not tab:
            query, count = text, 1.0
        else:
            try:
                count = float(text)
            except ValueError:
                raise DataError(
                    f"{str(path)!r}, line {number}: expected 'query TAB count', but the count is {text!r:.40};"
                    " correct it, or leave the line out"
                ) from None
            if not 0 < count < math.inf:
                raise DataError(
                    f"{str(path)!r}, line {number}: a count must be finite and > 0, but is {text.strip():.40};"
                    " correct it, or leave the line out"
                )
        if not query or query.isspace():
            raise DataError(f"{str(path)!r}, line {number}: a query must not be blank; leave the line out")
        count_of[query] = count_of.get(query, 0.0) + count
    if not count_of:
        raise DataError(f"{str(path)!r} holds no queries; give lines of 'query TAB count'")
    return Completions.of(count_of)
