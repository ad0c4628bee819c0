"""`Contexts`: what was asked after what, for models that know what has gone before.

Shapes: **T** examples, **n** words of a context that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.autocomplete.completions import Completions
from treesearch.data import Split
from treesearch.data.labels import number_words, split_words, word_bags
from treesearch.errors import DataError
from treesearch.text_files import read_lines

MAX_WORDS = 32  # n


@dataclass(frozen=True, eq=False)
class Contexts:
    """Bags of words and the completion that followed each."""

    split: Split  # int32 [T, n] ids, classes [T]
    word_ids: Mapping[str, int]  # the padding comes after them
    num_unknown: int  # lines whose query is no completion: left out


def context_bag(text: str, word_ids: Mapping[str, int]) -> NDArray[np.int32]:
    """The ids of a context, int32 [1, n]."""
    return word_bags([split_words(text)], word_ids, MAX_WORDS)


def load_contexts(path: Path, completions: Completions) -> Contexts:
    """Read a UTF-8 file of lines ``context TAB query``; the last tab separates, blank lines are skipped.

    A context is any text, the query before for one; it may be empty. Case is folded, and the first 32 words count.

    Raises:
        DataError: The file cannot be read, a line has no tab, or no query is a completion.
    """
    contexts, labels, num_unknown = [], [], 0
    for number, line in read_lines(path, f"contexts {str(path)!r}", DataError):
        if not line or line.isspace():
            continue
        context, tab, query = line.rpartition("\t")
        if not tab:
            raise DataError(f"{str(path)!r}, line {number}: expected 'context TAB query', but got {line!r:.60}")
        rank = completions.texts.find(query)
        if rank is None:
            num_unknown += 1
            continue
        contexts.append(split_words(context))
        labels.append(rank)
    if not labels:
        raise DataError(
            f"{str(path)!r} must have queries that are among the completions, but none of its {num_unknown} lines has;"
            " give lines of 'context TAB query'"
        )
    word_ids = number_words(contexts)
    split = Split(word_bags(contexts, word_ids, MAX_WORDS), np.array(labels, np.int32))
    return Contexts(split, word_ids, num_unknown)
