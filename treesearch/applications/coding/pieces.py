"""Texts as bags of words and of pieces of words, so that an unknown word is known by its parts.

Shapes: **B** texts, **n** ids of the longest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
PIECE = 4  # letters of a piece
MIN_PIECE_COUNT = 2  # different words that a piece must be in
MOST_IDS = 192  # of a text


@dataclass(frozen=True)
class Pieces:
    """The words of some texts, and the pieces of four letters that several of these words share.

    A word is a run of letters and digits, case folded; its ends are letters of pieces too: ``<col``, ``olic``,
    ``lic>``. Do not call the constructor; `of` counts.
    """

    words: tuple[str, ...]  # ids 0, 1, ...
    pieces: tuple[str, ...]  # ids that follow

    @classmethod
    def of(cls, texts: Iterable[str]) -> Pieces:
        """Those of some texts."""
        words = sorted({word for text in texts for word in words_of(text)})
        counts = Counter(piece for word in words for piece in set(_pieces(word)))
        return cls(tuple(words), tuple(sorted(piece for piece in counts if counts[piece] >= MIN_PIECE_COUNT)))

    @property
    def num_ids(self) -> int:
        """Ids in all, with that of the padding, which is the last."""
        return len(self.words) + len(self.pieces) + 1

    @property
    def padding(self) -> int:
        """The id that stands for nothing."""
        return self.num_ids - 1

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def _piece_ids(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces, start=len(self.words))}

    def unknown(self, text: str) -> list[str]:
        """The words of a text that are not among these."""
        return [word for word in words_of(text) if word not in self._word_ids]

    def num_known(self, text: str) -> int:
        """How many words of a text are among these."""
        return len(words_of(text)) - len(self.unknown(text))

    def ids(self, text: str) -> list[int]:
        """Those of a text: of its words, then of their pieces; empty where it has nothing that is known."""
        words = words_of(text)
        whole = [self._word_ids[word] for word in words if word in self._word_ids]
        parts = (self._piece_ids.get(piece) for word in words for piece in _pieces(word))
        return [*whole, *(part for part in parts if part is not None)][:MOST_IDS]

    def bags(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Ids of each text, int32 [B, n], filled up with the padding on the left."""
        ids = [self.ids(text) for text in texts]
        bags_Bn = np.full((len(ids), max(map(len, ids), default=1) or 1), self.padding, np.int32)
        for row, own in enumerate(ids):
            bags_Bn[row, bags_Bn.shape[1] - len(own) :] = own
        return bags_Bn


def words_of(text: str) -> list[str]:
    """The words of a text, case folded."""
    return WORD.findall(text.casefold())


def _pieces(word: str) -> list[str]:
    marked = f"<{word}>"
    return [marked[begin : begin + PIECE] for begin in range(len(marked) - PIECE + 1)]
