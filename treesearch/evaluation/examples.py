"""Batches of a split as tensors, from memory or from disk.

Shapes: **B** batch, **T** examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from treesearch.data import Split
from treesearch.evaluation.encoders import as_batch

Batch = tuple[Tensor, Tensor]  # inputs, int64 ids or float32 numbers, and classes int64 [B]
SHUFFLED_BYTES = 64 << 20  # of the parts in which examples on disk are shuffled


class Examples(ABC):
    """A split that is read in batches on a device."""

    @staticmethod
    def of(split: Split, device: torch.device) -> Examples:
        """In memory, on the device, unless its inputs are memory-mapped."""
        return MappedExamples(split, device) if split.mapped else HeldExamples(split, device)

    @abstractmethod
    def __len__(self) -> int:
        """T."""

    @abstractmethod
    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every example once, in an order that ``generator`` (on the CPU) draws; the last batch may be smaller."""

    @abstractmethod
    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every example once, in the order of the split."""


class HeldExamples(Examples):
    """A copy of the split; ids stay int32, which is half the memory, until a batch is taken."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self._inputs = torch.from_numpy(np.array(split.inputs)).to(device)
        self._labels = torch.from_numpy(np.array(split.labels, np.int32)).to(device)

    def __len__(self) -> int:
        return self._labels.shape[0]

    def batch(self, row_B: Tensor) -> Batch:
        """The examples of these rows."""
        return as_batch(self._inputs.index_select(0, row_B)), self._labels.index_select(0, row_B).long()

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """See `Examples`."""
        order_T = torch.randperm(len(self), generator=generator).to(self._labels.device)
        yield from map(self.batch, torch.split(order_T, batch_size))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """See `Examples`."""
        parts = zip(torch.split(self._inputs, batch_size), torch.split(self._labels, batch_size), strict=True)
        yield from ((as_batch(inputs), labels.long()) for inputs, labels in parts)


class MappedExamples(Examples):
    """A split whose inputs are on disk: a part of them is in memory at any time.

    Shuffled, parts come in random order and are read whole; examples are shuffled within a part only.
    """

    def __init__(self, split: Split, device: torch.device, part_bytes: int = SHUFFLED_BYTES) -> None:
        self._split, self._device = split, device
        self._part_bytes = part_bytes

    def __len__(self) -> int:
        return len(self._split)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """See `Examples`; only the last batch is smaller."""
        parts = [(begin, min(begin + self._rows(), len(self))) for begin in range(0, len(self), self._rows())]
        left: Batch | None = None  # of the part before, less than a batch
        for index in torch.randperm(len(parts), generator=generator).tolist():
            inputs, labels = self._read(*parts[index])
            order = torch.randperm(len(labels), generator=generator)
            inputs, labels = inputs[order], labels[order]
            if left is not None:
                inputs, labels = torch.cat([left[0], inputs]), torch.cat([left[1], labels])
            whole = len(labels) - len(labels) % batch_size
            for begin in range(0, whole, batch_size):
                yield self._on_device(inputs[begin : begin + batch_size], labels[begin : begin + batch_size])
            left = inputs[whole:], labels[whole:]
        if left is not None and len(left[1]):
            yield self._on_device(*left)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """See `Examples`."""
        for begin in range(0, len(self), batch_size):
            yield self._on_device(*self._read(begin, begin + batch_size))

    def _rows(self) -> int:
        """Of a part."""
        return max(1, self._part_bytes // max(1, self._split.inputs[:1].nbytes))

    def _read(self, begin: int, end: int) -> Batch:
        inputs, labels = (np.array(array[begin:end]) for array in (self._split.inputs, self._split.labels))
        return torch.from_numpy(inputs), torch.from_numpy(labels)

    def _on_device(self, inputs: Tensor, labels: Tensor) -> Batch:
        return as_batch(inputs.to(self._device)), labels.to(self._device).long()
