"""Morphological categories of subword units: prefix, stem, suffix, whole word, other.

What a unit is shows in where it stands in words: alone, first, in the middle or last. That is a proxy: a stem that
mostly begins words counts as a prefix.

Shapes: **C** units, **T** units of a text, **P** positions in a word, in the order of `POSITIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.data.categories import is_placeholder
from treesearch.errors import DataError

POSITIONS = ("alone", "first", "middle", "last")
WORD, PREFIX, STEM, SUFFIX, OTHER = "word", "prefix", "stem", "suffix", "other"
_BY_POSITION = np.array([WORD, PREFIX, STEM, SUFFIX], object)
DETECTED_SHARE = 0.01  # of the units that must carry a marker for its convention to be detected
AUTO = "auto"


@dataclass(frozen=True)
class Convention:
    """How a vocabulary marks words: ``marker`` at the start of a unit, or at its end where it tells a word's end."""

    marker: str
    tells: Literal["start", "continuation", "end"]

    def marked(self, unit: str) -> bool:
        """Whether the unit carries the marker."""
        return unit.endswith(self.marker) if self.tells == "end" else unit.startswith(self.marker)

    def text(self, unit: str) -> str:
        """The unit without its marker."""
        return unit.removesuffix(self.marker) if self.tells == "end" else unit.removeprefix(self.marker)

    def special(self, unit: str) -> bool:
        """Whether the unit is a token in brackets, a word of its own; ``<</w>`` only looks like one."""
        return is_placeholder(unit) and not (self.tells == "end" and self.marked(unit))


CONVENTIONS = {
    "wordpiece": Convention("##", "continuation"),
    "metaspace": Convention("▁", "start"),
    "byte-level": Convention("Ġ", "start"),
    "end-of-word": Convention("</w>", "end"),
}


def morphology_categories(
    units: Sequence[str],
    statistics: ArrayLike | None = None,
    *,
    convention: str | None = AUTO,
    threshold: float = 0.5,
) -> tuple[str, ...]:
    """``word``, ``prefix``, ``stem``, ``suffix`` or ``other`` for each unit.

    ``other`` is a unit without a letter (numbers, punctuation, a marker alone) or in brackets (``<unk>``, ``[CLS]``).
    Of the rest, a unit goes by the position that it has most often, of equals the first: alone is ``word``, first
    ``prefix``, in the middle ``stem``, last ``suffix``; where that is less than ``threshold`` of the times, it is free
    to stand anywhere, which is ``stem`` too. A unit that the statistics have not met, and every unit without them, goes
    by the convention, which tells two kinds only: what starts a word is ``word`` and what continues one ``suffix``;
    where ends are marked, what ends a word is ``word`` and what does not ``prefix``.

    Args:
        units: C units, markers included.
        statistics: [C, P] how often a unit stands in each position, see `word_positions` and `stream_positions`; None:
            by the convention alone.
        convention: A key of `CONVENTIONS`; ``auto``: see `detect_convention`; None: there are no markers, and a unit
            that the statistics have not met is ``other``.
        threshold: Share of the times, in (0, 1].

    Raises:
        DataError: The statistics do not fit the units, there are neither these nor a convention, no convention is
            detected or known, or ``threshold`` is out of range.
    """
    if not 0 < threshold <= 1:
        raise DataError(f"threshold must lie in (0, 1], but got {threshold!r:.40}; 0.5 is the half")
    rule = _convention(units, convention)
    if rule is None:
        if statistics is None:
            raise DataError("units go by a convention or by statistics, but got neither; pass one of them")
        category_C = np.full(len(units), OTHER, object)
    else:
        marked_C = np.array([rule.marked(unit) for unit in units], bool)
        free, bound = WORD, PREFIX if rule.tells == "end" else SUFFIX
        category_C = np.where(marked_C == (rule.tells != "continuation"), free, bound).astype(object)
    if statistics is not None:
        count_CP = _check_statistics(statistics, len(units))
        total_C, most_C = count_CP.sum(axis=1), count_CP.argmax(axis=1)
        met_C = total_C > 0
        category_C[met_C] = _BY_POSITION[most_C[met_C]]
        category_C[met_C & (count_CP.max(axis=1) < threshold * total_C)] = STEM
    for number, unit in enumerate(units):
        special = is_placeholder(unit) if rule is None else rule.special(unit)
        if special or not any(map(str.isalpha, unit if rule is None else rule.text(unit))):
            category_C[number] = OTHER
    return tuple(category_C.tolist())


def word_positions(
    units: Sequence[str], words: Mapping[tuple[str, ...], int] | Iterable[tuple[Sequence[str], int]]
) -> NDArray[np.int64]:
    """How often each unit stands in each position of words, int64 [C, P].

    Args:
        units: C units.
        words: Each word as its units, with how often it occurs.

    Raises:
        DataError: A word has no unit, or one that is not among ``units``.
    """
    pairs = list(words.items() if isinstance(words, Mapping) else words)
    id_of = {unit: number for number, unit in enumerate(units)}
    length_W = np.array([len(word) for word, _ in pairs], np.int64)
    if (length_W == 0).any():
        raise DataError(f"every word must have a unit, but word {length_W.argmin()} has none; leave it out")
    try:
        stream_T = np.fromiter((id_of[unit] for unit in chain.from_iterable(word for word, _ in pairs)), np.int64)
    except KeyError as error:
        raise DataError(
            f"words must be of the given units, but one has {error.args[0]!r:.40}; add it to them"
        ) from None
    begins_T = np.zeros(stream_T.size, bool)
    begins_T[np.cumsum(length_W) - length_W] = True
    times_T = np.repeat(np.array([times for _, times in pairs], np.int64), length_W)
    return _count_positions(stream_T, begins_T, times_T, len(units))


def stream_positions(units: Sequence[str], stream: NDArray[np.integer], *, convention: str = AUTO) -> NDArray[np.int64]:
    """How often each unit stands in each position of the words of a text, int64 [C, P].

    Args:
        units: C units, markers included.
        stream: Integers [T], the text as unit ids; its words are told by the markers. A unit in brackets is a word of
            its own.
        convention: As for `morphology_categories`, but not None.

    Raises:
        DataError: No convention is detected or known.
    """
    rule = _convention(units, convention)
    if rule is None:
        raise DataError("words in a stream are told by a convention, but got None; name one, or use word_positions")
    marked_C = np.array([rule.marked(unit) for unit in units], bool)
    special_C = np.array([rule.special(unit) for unit in units], bool)
    begins_C = special_C | (~marked_C if rule.tells == "continuation" else marked_C & (rule.tells == "start"))
    ends_C = special_C | (marked_C & (rule.tells == "end"))
    begins_T = begins_C[stream]
    begins_T[1:] |= ends_C[stream[:-1]]
    begins_T[:1] = True
    return _count_positions(stream, begins_T, np.ones(stream.size, np.int64), len(units))


def detect_convention(units: Sequence[str]) -> str:
    """The key of `CONVENTIONS` whose marker most units carry, one in a hundred at least.

    Raises:
        DataError: There is none.
    """
    num_marked = {name: sum(map(rule.marked, units)) for name, rule in CONVENTIONS.items()}
    best = max(num_marked, key=lambda name: num_marked[name])
    if num_marked[best] < max(1, DETECTED_SHARE * len(units)):
        markers = ", ".join(repr(rule.marker) for rule in CONVENTIONS.values())
        raise DataError(
            f"one in a hundred units must carry a marker of word boundaries ({markers}), but at most"
            f" {num_marked[best]} of {len(units)} do; name the convention, or give units of words"
        )
    return best


def _convention(units: Sequence[str], name: str | None) -> Convention | None:
    if name is None:
        return None
    if name == AUTO:
        name = detect_convention(units)
    if name not in CONVENTIONS:
        raise DataError(f"convention must be one of {', '.join(CONVENTIONS)}, {AUTO} or None, but got {name!r:.40}")
    return CONVENTIONS[name]


def _check_statistics(statistics: ArrayLike, num_units: int) -> NDArray[np.float64]:
    count_CP = np.asarray(statistics)
    if count_CP.shape != (num_units, len(POSITIONS)) or count_CP.dtype.kind not in "iuf":
        raise DataError(
            f"statistics must be counts of shape ({num_units}, {len(POSITIONS)}), but got {count_CP.dtype} of shape"
            f" {count_CP.shape}; word_positions makes them"
        )
    if not (np.isfinite(count_CP) & (count_CP >= 0)).all():
        raise DataError("statistics must be finite and >= 0, but some are not; word_positions makes them")
    return count_CP.astype(np.float64)


def _count_positions(
    stream_T: NDArray[np.integer], begins_T: NDArray[np.bool_], times_T: NDArray[np.int64], num_units: int
) -> NDArray[np.int64]:
    last_T = np.append(begins_T[1:], True)[: begins_T.size]
    # In the order of POSITIONS: (begins, ends) is (1, 1), (1, 0), (0, 0), (0, 1).
    position_T = np.where(begins_T, np.where(last_T, 0, 1), np.where(last_T, 3, 2))
    code_T = stream_T.astype(np.int64) * len(POSITIONS) + position_T
    counts = np.bincount(code_T, weights=times_T, minlength=num_units * len(POSITIONS))
    return counts.astype(np.int64).reshape(num_units, len(POSITIONS))
