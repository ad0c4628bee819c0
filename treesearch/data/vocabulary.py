"""From tokens to classes: which words get a class of their own, and in which order.

Readers number words as they meet them (raw ids); once the training counts are known, one gather turns raw ids into
classes. So a text never exists as one Python object per token.

Shapes: **T** tokens of a split, **C** classes.
"""

from __future__ import annotations

import operator
import warnings
from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from treesearch.data.corpus import Corpus
from treesearch.data.dataset import MIN_CLASSES, SmoothedClassWarning
from treesearch.errors import DataError

EOS = "<eos>"
UNK = "<unk>"


class TokenReader:
    """Numbers words in the order in which they are met, over all splits of one corpus."""

    def __init__(self) -> None:
        self._raw_ids: defaultdict[str, int] = defaultdict()
        self._raw_ids.default_factory = self._raw_ids.__len__
        self.eos = self._raw_ids[EOS]

    def extend(self, stream: array[int], tokens: Iterable[str]) -> None:
        """Append the raw ids of ``tokens`` to ``stream``, an ``array("i")``."""
        stream.extend(map(self._raw_ids.__getitem__, tokens))

    @property
    def words(self) -> list[str]:
        """All words met so far, by raw id."""
        return list(self._raw_ids)


def check_max_classes(max_classes: Any) -> int:
    """The vocabulary size as an int.

    Raises:
        DataError: It is not an integer or less than 3.
    """
    try:
        if isinstance(max_classes, bool):
            raise TypeError
        size = operator.index(max_classes)
    except TypeError:
        raise DataError(
            f"max_classes must be an integer, but got {max_classes!r}; give a number such as 10000"
        ) from None
    if size < MIN_CLASSES:
        raise DataError(f"max_classes >= {MIN_CLASSES} must hold, <eos> and <unk> included, but got {size}; raise it")
    return size


def build_corpus(
    reader: TokenReader,
    splits: tuple[array[int], array[int], array[int]],
    *,
    max_classes: int | None,
    origin: str,
    source: dict[str, Any],
) -> Corpus:
    """Choose the classes from the training counts and rewrite the splits.

    The vocabulary is ``<eos>``, ``<unk>`` if any split needs it, and the most frequent training words, ``max_classes``
    in all (None: every training word). Ids follow falling count, ties by name.

    Args:
        reader: The reader that numbered the words.
        splits: Raw ids of train, valid and test.
        max_classes: Upper bound on C.
        origin: What error messages call the training data.
        source: Provenance, taken over into the corpus.

    Raises:
        DataError: Fewer than three classes have a training example.
    """
    words = reader.words
    train, valid, test = (np.frombuffer(split, dtype=np.intc) for split in splits)
    count = np.bincount(train, minlength=len(words)).tolist()
    limit = len(words) + 1 if max_classes is None else max_classes

    seen = [raw for raw, word in enumerate(words) if count[raw] and word not in (EOS, UNK)]
    seen.sort(key=lambda raw: (-count[raw], words[raw]))
    # Every word is <eos>, in `seen`, or one that only <unk> can stand for (literal <unk>, or never in train).
    has_unk = len(seen) + 1 < len(words) or len(seen) + 1 > limit
    kept = seen[: limit - 1 - has_unk]

    class_count = {words[raw]: count[raw] for raw in [*kept, reader.eos]}
    if has_unk:
        class_count[UNK] = len(train) - sum(class_count.values())
    num_seen = sum(n > 0 for n in class_count.values())
    if num_seen < MIN_CLASSES:
        raise DataError(
            f"a corpus needs at least {MIN_CLASSES} classes with training examples, <eos> included, "
            f"but {origin} has {num_seen}; give a richer text"
        )
    if num_seen < len(class_count):  # all other classes were chosen for their examples
        warnings.warn(
            f"1 of {len(class_count)} classes has no example in {origin}: {UNK} gets a training count of 1",
            SmoothedClassWarning,
            stacklevel=3,
        )
    smoothed = {word: max(n, 1) for word, n in class_count.items()}
    names = sorted(smoothed, key=lambda word: (-smoothed[word], word))
    class_of = {word: i for i, word in enumerate(names)}
    unk = class_of.get(UNK, -1)  # -1 is never looked up: without <unk> every word has a class
    remap = np.array([class_of.get(word, unk) for word in words], np.int32)
    return Corpus(
        train=remap[train],
        valid=remap[valid],
        test=remap[test],
        class_names=tuple(names),
        counts=np.array([smoothed[word] for word in names], np.int64),
        eos=class_of[EOS],
        source=source,
    )
