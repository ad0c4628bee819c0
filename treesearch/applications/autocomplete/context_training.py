"""Training of a `ContextModel`: it begins as the model of counts and learns what contexts change.

Shapes: **B** batch, **C** completions, **D** features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from treesearch.applications.autocomplete.completions import Completions
from treesearch.applications.autocomplete.context_model import ContextModel
from treesearch.applications.autocomplete.contexts import Contexts
from treesearch.data import Split
from treesearch.errors import ConfigError
from treesearch.evaluation.encoders import BagEncoder
from treesearch.evaluation.examples import Examples
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

BETAS = (0.9, 0.99)
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
    num_steps, step = settings.epochs * math.ceil(len(examples) / settings.batch_size), 0
    count_nll = mean_nll(model, valid) if num_valid else None
    best_nll, best_epoch, best = count_nll, 0, _state(model)
    for epoch in range(1, settings.epochs + 1):
        for ids_Bn, target_B in examples.shuffled(settings.batch_size, generator):
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * (1 - step / num_steps)
            layer(encoder(ids_Bn), target_B).loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            step += 1
        nll = mean_nll(model, valid) if num_valid else None
        if nll is None or best_nll is None or nll < best_nll:
            best_nll, best_epoch, best = nll, epoch, _state(model)
        on_epoch(epoch, settings.epochs)
    encoder.load_state_dict(best[0])
    layer.load_state_dict(best[1])
    return TrainedContext(model, best_epoch, best_nll, count_nll)


def _state(model: ContextModel) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return copy.deepcopy((model.encoder.state_dict(), model.layer.state_dict()))


@torch.no_grad()
def mean_nll(model: ContextModel, split: Split) -> float:
    """Mean NLL of the completions that followed, nats: decisions on their paths alone."""
    total = 0.0
    for ids_Bn, target_B in Examples.of(split, CPU).in_order(1024):
        total -= float(model.layer(model.encoder(ids_Bn), target_B).output.sum())
    return total / len(split)
