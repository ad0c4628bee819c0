"""Encoders of ids: windows of words, histories of items, bags of words.

Shapes: **B** batch, **D** features, **n** ids of an input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from treesearch.evaluation.encoders.base import Encoder

EMBEDDING_DEVIATION = 0.1


class FeedForwardEncoder(Encoder):
    """The feed-forward language model of Bengio et al. 2003: embeddings side by side, one tanh layer.

    Args:
        num_ids: Ids that an input may hold.
        context: n, ids of an input.
        embedding: Size of an id's embedding.
        features: D.
        padding: Id whose embedding is zero and stays so; None: there is none.
    """

    def __init__(
        self, num_ids: int, *, context: int, embedding: int, features: int, padding: int | None = None
    ) -> None:
        super().__init__()
        self.out_features = features
        self.embedding = nn.Embedding(num_ids, embedding, padding_idx=padding, sparse=True)
        self.hidden = nn.Linear(context * embedding, features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Unit-variance pre-activations: embeddings N(0, 0.1), weights N(0, 100 / fan-in) capped at Glorot's scale."""
        _reset_embedding(self.embedding, generator)
        _reset_linear(self.hidden, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """From int64 [B, n] to [B, D], inside (-1, 1)."""
        hidden: Tensor = torch.tanh(self.hidden(self.embedding(inputs).flatten(1)))
        return hidden


class GRUEncoder(Encoder):
    """The last state of a gated recurrent unit that reads the ids in order (GRU4Rec, Hidasi et al. 2016).

    Args: as `FeedForwardEncoder`, but for the context, which may be of any length.
    """

    def __init__(self, num_ids: int, *, embedding: int, features: int, padding: int | None = None) -> None:
        super().__init__()
        self.out_features = features
        self.embedding = nn.Embedding(num_ids, embedding, padding_idx=padding, sparse=True)
        self.recurrent = nn.GRU(embedding, features, batch_first=True)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Embeddings N(0, 1), since a small input would leave the gates where they are; weights as torch's own."""
        _reset_embedding(self.embedding, generator, deviation=1.0)
        bound = 1 / math.sqrt(self.out_features)
        with torch.no_grad():
            for parameter in self.recurrent.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """From int64 [B, n], oldest first, to [B, D], inside (-1, 1)."""
        last: Tensor = self.recurrent(self.embedding(inputs))[1][0]
        return last


class BagEncoder(Encoder):
    """The mean embedding of the ids, whatever their order, and one tanh layer (after fastText, Joulin et al. 2017).

    Args: as `FeedForwardEncoder`, but for the context; ``padding`` is left out of the mean.
    """

    def __init__(self, num_ids: int, *, embedding: int, features: int, padding: int | None = None) -> None:
        super().__init__()
        self.out_features = features
        self.embedding = nn.EmbeddingBag(num_ids, embedding, mode="mean", padding_idx=padding, sparse=True)
        self.hidden = nn.Linear(embedding, features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Embeddings N(0, 1): a mean of n of them is as large as one of N(0, 1 / n)."""
        _reset_embedding(self.embedding, generator, deviation=1.0)
        _reset_linear(self.hidden, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """From int64 [B, n] to [B, D], inside (-1, 1); without any id the mean is zero."""
        hidden: Tensor = torch.tanh(self.hidden(self.embedding(inputs)))
        return hidden


@torch.no_grad()
def _reset_embedding(
    table: nn.Embedding | nn.EmbeddingBag, generator: torch.Generator, deviation: float = EMBEDDING_DEVIATION
) -> None:
    table.weight.normal_(0.0, deviation, generator=generator)
    if table.padding_idx is not None:
        table.weight[table.padding_idx] = 0


@torch.no_grad()
def _reset_linear(linear: nn.Linear, generator: torch.Generator) -> None:
    linear.weight.normal_(0.0, 1 / math.sqrt(linear.in_features), generator=generator)
    linear.bias.zero_()
