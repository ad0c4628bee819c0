"""What a search reads, whatever it came from: three splits of inputs and classes.

Shapes: **T** examples of a split, **C** classes, **n** ids of an input, **D** numbers of an input.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SmoothedClassWarning(UserWarning):
    """A class without a training example was given a count of 1, so that trees and losses stay finite."""


MIN_CLASSES = 3  # a tree over two classes is one decision: there is nothing to search
ClassVectors = Callable[[], NDArray[np.float32]]  # gives [C, any]


@dataclass(frozen=True)
class InputSpec:
    """What an encoder reads: ``size`` ids below ``num_ids``, or ``size`` numbers where ``num_ids`` is 0."""

    size: int
    num_ids: int = 0
    padding: int | None = None  # id that stands for nothing; None: there is no such id

    @property
    def are_ids(self) -> bool:
        """Whether inputs are ids, not numbers."""
        return self.num_ids > 0


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split."""

    inputs: NDArray[Any]  # int32 [T, n] or float [T, D]; may be a read-only view, or memory-mapped
    labels: NDArray[np.int32]  # [T]

    def __len__(self) -> int:
        return self.labels.size

    @property
    def mapped(self) -> bool:
        """Whether the inputs stay on disk and are read a part at a time."""
        return isinstance(self.inputs, np.memmap)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test examples over the same C classes."""

    train: Split
    valid: Split
    test: Split
    spec: InputSpec
    class_names: tuple[str, ...] | None  # [C]
    counts: NDArray[np.int64]  # [C] training counts, each >= 1 after smoothing
    source: dict[str, Any]  # provenance, JSON-able, the same on every machine: no absolute path, no time
    hash: str  # of all examples and class names, 32 hexadecimal digits; provenance is not in it
    noun: str = "examples"  # what a label is one of, for people
    classify: bool = False  # whether the most probable class is what is asked for
    seen: Seen | None = None  # where a list of classes is: those that are no answer to a test example
    vectors: Mapping[str, ClassVectors] = field(default_factory=dict)  # further ones by name, made when asked for

    @property
    def num_classes(self) -> int:
        """C."""
        return self.counts.size


@dataclass(frozen=True, eq=False)
class Seen:
    """Classes by example, in CSR form: those of example t are ``classes[ptr[t]:ptr[t + 1]]``, each once."""

    ptr: NDArray[np.int64]  # [T+1]
    classes: NDArray[np.int32]

    def of(self, example: int) -> NDArray[np.int32]:
        """The classes of one example."""
        return self.classes[self.ptr[example] : self.ptr[example + 1]]


def smoothed_counts(labels: NDArray[np.int32], num_classes: int, origin: str) -> NDArray[np.int64]:
    """Training counts [C]; a class without an example gets a count of 1, so that trees and losses stay finite.

    Warns:
        SmoothedClassWarning: There are such classes.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.int64)
    if missing := int((counts == 0).sum()):
        warnings.warn(
            f"{missing} of {num_classes} classes have no example in {origin}: they get a training count of 1",
            SmoothedClassWarning,
            stacklevel=3,
        )
    return np.maximum(counts, 1)


def content_hash(arrays: Sequence[NDArray[Any]], class_names: Sequence[str] | None) -> str:
    """Hash of arrays, types and shapes included, and of class names, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
        for begin in range(0, len(array), rows):  # in parts: it may be memory-mapped and large
            digest.update(np.ascontiguousarray(array[begin : begin + rows]).data)
    digest.update(json.dumps(class_names).encode())
    return digest.hexdigest()
