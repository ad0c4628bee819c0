"""Contexts and next words of a split of a text, and their batches as tensors.

Shapes: **B** batch, **T** tokens, **n** context size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TextSplit:
    """Contexts and next words of one split."""

    windows: NDArray[np.int32]  # [T, n]
    labels: NDArray[np.int32]  # [T]


@dataclass(frozen=True)
class Examples:
    """A split on a device; ids stay int32, which is half the memory, until a batch is taken."""

    windows: Tensor  # int32 [T, n]
    labels: Tensor  # int32 [T]

    @classmethod
    def of(cls, split: TextSplit, device: torch.device) -> Self:
        """A copy of the split; its windows may be a read-only view."""
        windows, labels = (torch.from_numpy(np.array(ids, np.int32)) for ids in (split.windows, split.labels))
        return cls(windows.to(device), labels.to(device))

    def __len__(self) -> int:
        return self.labels.shape[0]

    def batch(self, row_B: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts int64 [B, n] and next words int64 [B] of these rows."""
        return self.windows.index_select(0, row_B).long(), self.labels.index_select(0, row_B).long()

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every example once, in an order that ``generator`` (on the CPU) draws; the last batch may be smaller."""
        order_T = torch.randperm(len(self), generator=generator).to(self.labels.device)
        yield from map(self.batch, torch.split(order_T, batch_size))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every example once, in the order of the text."""
        parts = zip(torch.split(self.windows, batch_size), torch.split(self.labels, batch_size), strict=True)
        yield from ((windows.long(), labels.long()) for windows, labels in parts)
