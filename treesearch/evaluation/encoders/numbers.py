"""Encoders of numbers: a layer of their own, or none.

Shapes: **B** batch, **D** features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from treesearch.evaluation.encoders.base import Encoder


class MLPEncoder(Encoder):
    """One tanh layer on features of about unit variance.

    Args:
        size: Numbers of an input.
        features: D.
    """

    def __init__(self, size: int, *, features: int) -> None:
        super().__init__()
        self.out_features = features
        self.hidden = nn.Linear(size, features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Unit-variance pre-activations."""
        with torch.no_grad():
            self.hidden.weight.normal_(0.0, 1 / math.sqrt(self.hidden.in_features), generator=generator)
            self.hidden.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """From float32 [B, size] to [B, D], inside (-1, 1)."""
        hidden: Tensor = torch.tanh(self.hidden(inputs))
        return hidden


class IdentityEncoder(Encoder):
    """No encoder: the inputs are the hidden states of a model that was trained elsewhere.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.out_features = size

    def reset_parameters(self, generator: torch.Generator) -> None:
        """There are none."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs."""
        return inputs
