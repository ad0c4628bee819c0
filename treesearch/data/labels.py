"""Classification: labels of documents, as bags of words, or of feature vectors.

Shapes: **T** examples, **C** classes, **n** words of a document that count.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.data.dataset import MIN_CLASSES, Dataset, InputSpec, Split, content_hash, smoothed_counts
from treesearch.data.features import SortedExamplesWarning, load_features
from treesearch.errors import DataError
from treesearch.text_files import read_lines

WORD = re.compile(r"\w+|[^\w\s]")
SHUFFLE_SEED = 0
SHOWN = 3  # labels in a message


class CutDocumentsWarning(UserWarning):
    """Many documents have more words than the encoder reads."""


def load_documents(
    train: str | Path,
    valid: str | Path,
    test: str | Path,
    *,
    context: int,
    max_words: int | None = None,
    min_word_count: int = 1,
    unseen_labels: bool = False,
) -> Dataset:
    """Read three files of lines ``text TAB label`` (UTF-8; blank lines are skipped).

    Words are runs of letters, digits and underscores, and single other characters; case is folded. An input is the ids
    of a document's first ``context`` words that training documents have often enough, filled up with a padding id on
    the left. Classes are the labels of the training documents, by falling count, ties by name. Training documents are
    shuffled, always in the same way, since nodes learn from them in order.

    Args:
        train: It alone decides words, classes and counts.
        valid: As train.
        test: As train.
        context: n, words of a document at most.
        max_words: Different words at most, the most frequent, ties by name; None: all.
        min_word_count: Training occurrences that a word needs.
        unseen_labels: Whether labels that no training document has are classes too, after all others.

    Raises:
        DataError: A file cannot be read, a line has no label, a label is not among those of training (unless such are
            classes too), or there are fewer than three.

    Warns:
        CutDocumentsWarning: More than a tenth of the training documents are longer.
        SmoothedClassWarning: There are classes without a training document.
    """
    paths = {"train": Path(train), "valid": Path(valid), "test": Path(test)}
    read = {name: _read_lines(path) for name, path in paths.items()}
    label_counts = Counter(label for _, label in read["train"])
    if unseen_labels:
        label_counts.update({label: 0 for lines in read.values() for _, label in lines})
    names = sorted(label_counts, key=lambda label: (-label_counts[label], label))
    if len(names) < MIN_CLASSES:
        raise DataError(
            f"there must be at least {MIN_CLASSES} classes, but {str(train)!r} has {len(names)} labels"
            f"{' with those of the other files' if unseen_labels else ''}; two are one decision, without a tree"
        )
    word_ids = number_words(
        (document for document, _ in read["train"]), max_words=max_words, min_word_count=min_word_count
    )
    if not word_ids:
        raise DataError(
            f"no word of {str(train)!r} occurs {min_word_count} times; lower data.min_word_count, or give more text"
        )
    class_ids = {name: number for number, name in enumerate(names)}
    splits = {
        name: Split(
            word_bags([document for document, _ in lines], word_ids, context), _class_ids(lines, class_ids, paths[name])
        )
        for name, lines in read.items()
    }
    longer = np.mean([sum(word in word_ids for word in document) > context for document, _ in read["train"]])
    if longer > 0.1:
        warnings.warn(
            f"{100 * longer:.0f} % of the documents in {str(train)!r} have more than {context} known words, of which"
            " the first count; raise encoder.context",
            CutDocumentsWarning,
            stacklevel=2,
        )
    splits["train"] = _shuffled(splits["train"])
    arrays = [array for split in splits.values() for array in (split.inputs, split.labels)]
    return Dataset(
        splits["train"],
        splits["valid"],
        splits["test"],
        spec=InputSpec(context, len(word_ids) + 1, padding=len(word_ids)),
        class_names=tuple(names),
        counts=smoothed_counts(splits["train"].labels, len(names), repr(str(train))),
        source={
            "kind": "labels",
            "words": len(word_ids),
            "splits": {name: {"name": path.name, "examples": len(read[name])} for name, path in paths.items()},
        },
        hash=content_hash([*arrays, np.array(list(word_ids))], names),
        classify=True,
    )


def load_labelled_features(
    train: str | Path,
    valid: str | Path,
    test: str | Path,
    *,
    num_classes: int | None = None,
    class_names: str | Path | None = None,
) -> Dataset:
    """Feature vectors with labels, in the files of `load_features`: for an encoder that is trained, and in memory.

    Features are scaled to zero mean and unit deviation on the training split (a constant one stays zero), and the
    training examples are shuffled as documents are.

    Raises:
        DataError: As `load_features`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SortedExamplesWarning)  # they are shuffled below
        read = load_features(train, valid, test, num_classes=num_classes, class_names=class_names)
    x = np.asarray(read.train.inputs, np.float32)
    mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = 1 / np.where(deviation > 0, deviation, 1)

    def scaled(split: Split) -> Split:
        return Split(((split.inputs - mean) * scale).astype(np.float32), split.labels)

    return replace(
        read,
        train=_shuffled(scaled(read.train)),
        valid=scaled(read.valid),
        test=scaled(read.test),
        source=read.source | {"kind": "labels"},
    )


def split_words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, and single other characters, case folded."""
    return WORD.findall(text.casefold())


def number_words(
    documents: Iterable[Sequence[str]], *, max_words: int | None = None, min_word_count: int = 1
) -> dict[str, int]:
    """Ids of the words that occur often enough, the most frequent first, ties by name."""
    words = Counter(word for document in documents for word in document)
    often = sorted((word for word in words if words[word] >= min_word_count), key=lambda word: (-words[word], word))
    return {word: number for number, word in enumerate(often[:max_words])}


def word_bags(documents: Sequence[Sequence[str]], word_ids: Mapping[str, int], size: int) -> NDArray[np.int32]:
    """The first ``size`` words of each document that have an id, int32 [T, size]; padding on the left."""
    bags = np.full((len(documents), size), len(word_ids), np.int32)
    for row, document in enumerate(documents):
        ids = [word_ids[word] for word in document if word in word_ids][:size]
        bags[row, size - len(ids) :] = ids
    return bags


Document = tuple[list[str], str]


def _read_lines(path: Path) -> list[Document]:
    """Words and label of each line."""
    lines = []
    for number, line in read_lines(path, f"documents {str(path)!r}", DataError):
        if not line.strip():
            continue
        document, tab, label = line.rpartition("\t")
        if not tab or not label.strip():
            raise DataError(f"lines must be 'text TAB label', but line {number} of {str(path)!r} is {line!r:.60}")
        lines.append((split_words(document), label.strip()))
    if not lines:
        raise DataError(f"{str(path)!r} holds no documents; give lines of 'text TAB label'")
    return lines


def _class_ids(lines: Sequence[Document], class_ids: dict[str, int], path: Path) -> NDArray[np.int32]:
    unknown = sorted({label for _, label in lines} - class_ids.keys())
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN])) + (", .." if len(unknown) > SHOWN else "")
        raise DataError(
            f"labels must be among those of the training documents, but {str(path)!r} has {len(unknown)} others"
            f" ({shown:.160}); add examples to train, or leave them out"
        )
    return np.array([class_ids[label] for _, label in lines], np.int32)


def _shuffled(split: Split) -> Split:
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(split))
    return Split(split.inputs[order], split.labels[order])
