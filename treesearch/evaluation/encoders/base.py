"""What an encoder must offer.

Shapes: **B** batch, **D** features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """From an input, ids or numbers, to the vector that the output layer sees.

    Attributes:
        out_features: D.
    """

    out_features: int

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters from ``generator``."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """From a batch of inputs, int64 ids or float32 numbers, to [B, D]."""

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return any(True for _ in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU without any."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def row_sparse_parameters(self) -> list[Tensor]:
        """Tables whose gradients hold the rows that a batch has read: those of embeddings with ``sparse=True``."""
        tables = (m for m in self.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse)
        return [table.weight for table in tables]
