"""Training of a `ContextModel`: it begins as the model of counts and learns what contexts change.

Shapes: **B** batch, **C** completions, **D** features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from treesearch.applications.autocomplete.completions import Completions
from treesearch.applications.autocomplete.context_model import ContextModel
from treesearch.applications.autocomplete.contexts import Contexts
from treesearch.applications.fitting import fit
from treesearch.data import Split
from treesearch.errors import ConfigError
from treesearch.evaluation.encoders import BagEncoder
from treesearch.evaluation.examples import Examples
from treesearch.evaluation.trainer import BETAS
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ContextSettings:
    """Of the model and its training.

    Raises:
        ConfigError: A size, rate or share is out of range.
    """

    features: int = 64  # D
    embedding: int = 64
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 0.01  # at the first step; it falls linearly to zero
    holdout: float = 0.1  # share of the examples that chooses the epoch
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "embedding", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, but got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be finite and > 0, but got {self.learning_rate}")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout must lie in [0, 1), but got {self.holdout}")


@dataclass(frozen=True)
class TrainedContext:
    """A model and how it does on the examples held out, nats; None where none were."""

    model: ContextModel
    epoch: int  # that was kept; 0: the counts were never beaten
    nll: float | None
    count_nll: float | None  # of the counts alone


def train_context_model(
    tree: Tree,
    completions: Completions,
    contexts: Contexts,
    *,
    settings: ContextSettings | None = None,
    on_epoch: Callable[[int, int], None] = lambda *_: None,
) -> TrainedContext:
    """Train encoder and layer together; the epoch with the least NLL on the examples held out is kept.

    All weights of decisions begin at zero and biases at the logarithms of the counts, so that before the first step the
    model is that of the counts, and decisions that no example passes stay so. Gradients are row-sparse: a step costs
    what the paths of its batch cost, however many completions there are.

    Args:
        tree: Over C completions in order.
        completions: Give the counts.
        contexts: To learn from.
        settings: Of model and training.
        on_epoch: Told (epochs done, epochs in all).
    """
    settings = settings or ContextSettings()
    generator = torch.Generator().manual_seed(settings.seed)
    padding = len(contexts.word_ids)
    encoder = BagEncoder(padding + 1, embedding=settings.embedding, features=settings.features, padding=padding)
    encoder.reset_parameters(generator)
    layer = HierarchicalSoftmax(settings.features, tree.annotate(class_names=completions.names), sparse=True)
    layer.reset_parameters(completions.counts, generator)
    with torch.no_grad():
        for weight in layer.weights:
            weight.zero_()
    model = ContextModel(encoder, layer, contexts.word_ids)

    order = torch.randperm(len(contexts.split), generator=generator).numpy()
    num_valid = int(settings.holdout * len(order))
    train = Split(contexts.split.inputs[order[num_valid:]], contexts.split.labels[order[num_valid:]])
    valid = Split(contexts.split.inputs[order[:num_valid]], contexts.split.labels[order[:num_valid]])

    table = encoder.row_sparse_parameters()
    optimizers: list[torch.optim.Optimizer] = [RowwiseAdam([*table, *layer.parameters()], betas=BETAS)]
    optimizers.append(torch.optim.Adam(encoder.hidden.parameters(), betas=BETAS))
    examples = Examples.of(train, CPU)
    count_nll = mean_nll(model, valid) if num_valid else None
    fitted = fit(
        nn.ModuleList([encoder, layer]),
        optimizers,
        batches=lambda: examples.shuffled(settings.batch_size, generator),
        num_batches=math.ceil(len(examples) / settings.batch_size),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        loss=lambda ids_Bn, target_B: layer(encoder(ids_Bn), target_B).loss,
        valid_nll=lambda: mean_nll(model, valid) if num_valid else None,
        first_nll=count_nll,
        on_epoch=lambda epoch: on_epoch(epoch, settings.epochs),
    )
    return TrainedContext(model, fitted.epoch, fitted.valid_nll, count_nll)


@torch.no_grad()
def mean_nll(model: ContextModel, split: Split) -> float:
    """Mean NLL of the completions that followed, nats: decisions on their paths alone."""
    total = 0.0
    for ids_Bn, target_B in Examples.of(split, CPU).in_order(1024):
        total -= float(model.layer(model.encoder(ids_Bn), target_B).output.sum())
    return total / len(split)
