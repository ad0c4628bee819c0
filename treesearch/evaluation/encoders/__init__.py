"""Encoders: from an input to the vector that the output layer sees.

Shapes: **B** batch, **D** features, **T** examples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.config import EncoderConfig
from treesearch.data import InputSpec
from treesearch.errors import ConfigError, did_you_mean
from treesearch.evaluation.encoders.base import Encoder
from treesearch.evaluation.encoders.ids import BagEncoder, FeedForwardEncoder, GRUEncoder
from treesearch.evaluation.encoders.numbers import IdentityEncoder, MLPEncoder

__all__ = [
    "IDENTITY",
    "BagEncoder",
    "Encoder",
    "FeedForwardEncoder",
    "GRUEncoder",
    "IdentityEncoder",
    "MLPEncoder",
    "check_encoder",
    "encode",
    "untrained_encoder",
]

ENCODE_BATCH = 8192
IDENTITY = "identity"  # the kind that learns nothing
Maker = Callable[[InputSpec, EncoderConfig], Encoder]

OF_IDS: dict[str, Maker] = {
    "feedforward": lambda spec, own: FeedForwardEncoder(
        spec.num_ids, context=spec.size, embedding=own.embedding, features=own.features, padding=spec.padding
    ),
    "gru": lambda spec, own: GRUEncoder(
        spec.num_ids, embedding=own.embedding, features=own.features, padding=spec.padding
    ),
    "bag": lambda spec, own: BagEncoder(
        spec.num_ids, embedding=own.embedding, features=own.features, padding=spec.padding
    ),
}
OF_NUMBERS: dict[str, Maker] = {
    "mlp": lambda spec, own: MLPEncoder(spec.size, features=own.features),
    IDENTITY: lambda spec, own: IdentityEncoder(spec.size),
}


def check_encoder(settings: EncoderConfig, spec: InputSpec) -> None:
    """Refuse an encoder that does not exist, or does not read such inputs.

    Raises:
        ConfigError: One of these.
    """
    readers, others = (OF_IDS, OF_NUMBERS) if spec.are_ids else (OF_NUMBERS, OF_IDS)
    if settings.kind in others:
        reads, given = ("numbers", "ids") if spec.are_ids else ("ids", "numbers")
        raise ConfigError(
            f"encoder.kind {settings.kind!r} reads {reads}, but the data are {given}; choose one of {sorted(readers)}"
        )
    if settings.kind not in readers:
        raise ConfigError(f"unknown encoder.kind {settings.kind!r}{did_you_mean(settings.kind, readers)}")
    if settings.kind == IDENTITY and settings.features != spec.size:
        raise ConfigError(
            f"encoder.features must be {spec.size}, the size of the features, but got {settings.features}; leave it out"
        )


def untrained_encoder(settings: EncoderConfig, spec: InputSpec, generator: torch.Generator) -> Encoder:
    """The configured encoder for such inputs, with parameters drawn from ``generator``.

    Raises:
        ConfigError: There is no such encoder.
    """
    check_encoder(settings, spec)
    encoder = (OF_IDS if spec.are_ids else OF_NUMBERS)[settings.kind](spec, settings)
    encoder.reset_parameters(generator)
    return encoder


@torch.no_grad()
def encode(encoder: Encoder, inputs: NDArray[np.int32] | NDArray[np.floating]) -> NDArray[np.float32]:
    """Features of all inputs, float32 [T, D]."""
    features = np.empty((len(inputs), encoder.out_features), np.float32)
    for begin in range(0, len(inputs), ENCODE_BATCH):
        batch = as_batch(torch.from_numpy(np.array(inputs[begin : begin + ENCODE_BATCH])))
        features[begin : begin + ENCODE_BATCH] = encoder(batch.to(encoder.device)).cpu().numpy()
    return features


def as_batch(inputs: Tensor) -> Tensor:
    """Inputs as an encoder reads them: ids int64, numbers float32."""
    return inputs.float() if inputs.is_floating_point() else inputs.long()
