"""Encoders: from a window of class ids to the vector that the output layer sees.

Shapes: **B** batch, **D** features, **C** classes, **T** tokens, **n** context size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from treesearch.config import EncoderConfig
from treesearch.errors import ConfigError

ENCODE_BATCH = 8192


class Encoder(nn.Module, ABC):
    """What an encoder must offer; register another one in `ENCODERS`."""

    out_features: int

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters from ``generator``."""

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor:
        """From int64 [B, n] to [B, D]."""

    def row_sparse_parameters(self) -> list[Tensor]:
        """Tables whose gradients hold the rows that a batch has read: those of ``nn.Embedding(sparse=True)``."""
        tables = (module for module in self.modules() if isinstance(module, nn.Embedding) and module.sparse)
        return [table.weight for table in tables]


class FeedForwardEncoder(Encoder):
    """The feed-forward language model of Bengio et al. 2003: embeddings side by side, one tanh layer.

    Args:
        num_classes: C.
        context: n, words seen.
        embedding: Size of a word's embedding.
        features: D.
    """

    def __init__(self, num_classes: int, *, context: int, embedding: int, features: int) -> None:
        super().__init__()
        self.out_features = features
        self.embedding = nn.Embedding(num_classes, embedding, sparse=True)
        self.hidden = nn.Linear(context * embedding, features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Unit-variance pre-activations: embeddings N(0, 0.1), weights N(0, 100 / fan-in) capped at Glorot's scale."""
        fan_in = self.hidden.in_features
        with torch.no_grad():
            self.embedding.weight.normal_(0.0, 0.1, generator=generator)
            self.hidden.weight.normal_(0.0, 1 / math.sqrt(fan_in), generator=generator)
            self.hidden.bias.zero_()

    def forward(self, context: Tensor) -> Tensor:
        """From int64 [B, n] to [B, D], inside (-1, 1)."""
        hidden: Tensor = torch.tanh(self.hidden(self.embedding(context).flatten(1)))
        return hidden


ENCODERS: dict[str, type[FeedForwardEncoder]] = {"feedforward": FeedForwardEncoder}


def make_encoder(kind: str, num_classes: int, *, context: int, embedding: int, features: int) -> Encoder:
    """An untrained encoder by name.

    Raises:
        ConfigError: Unknown kind.
    """
    if kind not in ENCODERS:
        raise ConfigError(f"encoder.kind must be one of {sorted(ENCODERS)}, but got {kind!r}")
    return ENCODERS[kind](num_classes, context=context, embedding=embedding, features=features)


def untrained_encoder(settings: EncoderConfig, num_classes: int, generator: torch.Generator) -> Encoder:
    """The configured encoder with parameters drawn from ``generator``.

    Raises:
        ConfigError: Unknown kind.
    """
    encoder = make_encoder(
        settings.kind,
        num_classes,
        context=settings.context,
        embedding=settings.embedding,
        features=settings.features,
    )
    encoder.reset_parameters(generator)
    return encoder


@torch.no_grad()
def encode(encoder: Encoder, windows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Features of all windows [T, n], float32 [T, D]."""
    device = next(encoder.parameters()).device
    features = np.empty((len(windows), encoder.out_features), np.float32)
    for begin in range(0, len(windows), ENCODE_BATCH):
        context = torch.from_numpy(windows[begin : begin + ENCODE_BATCH].astype(np.int64)).to(device)
        features[begin : begin + ENCODE_BATCH] = encoder(context).cpu().numpy()
    return features
