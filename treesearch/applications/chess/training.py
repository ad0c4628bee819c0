"""Linear models of openings: a hierarchical softmax on a tree, of which the flat softmax is the one of depth 1.

Shapes: **B** batch, **C** classes, **F** features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from treesearch.applications.chess.openings import Positions, Split
from treesearch.applications.fitting import fit
from treesearch.evaluation.trainer import BETAS
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree


@dataclass(frozen=True)
class TrainingSettings:
    """The same for every model; each takes the best of the grid on the validation split."""

    epochs: int = 20
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.06)
    weight_decays: tuple[float, ...] = (0.0, 0.03)  # of AdamW, times the learning rate


@dataclass(frozen=True)
class Trained:
    """A model with the parameters of its best epoch."""

    layer: HierarchicalSoftmax
    learning_rate: float
    weight_decay: float
    valid_nll: float  # nats
    epoch: int  # from 1


def flat_tree(num_classes: int) -> Tree:
    """The tree whose hierarchical softmax is a flat one."""
    return Tree.from_nested(list(range(num_classes)))


def tensors_of(positions: Positions) -> tuple[Tensor, Tensor]:
    """Features [B, F] and classes [B]."""
    return torch.from_numpy(positions.x), torch.from_numpy(positions.y)


def train_layer(
    tree: Tree,
    split: Split,
    *,
    settings: TrainingSettings,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> Trained:
    """Train with AdamW, the rate falling linearly to zero; the epoch with the least validation NLL is kept.

    Args:
        tree: Over the classes.
        split: Examples.
        settings: Of the training.
        learning_rate: At the first step.
        weight_decay: Of weights and biases.
        seed: Of parameters and order.
        on_epoch: Called after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    (x_BF, y_B), (valid_x, valid_y) = tensors_of(split.train), tensors_of(split.valid)
    layer = HierarchicalSoftmax(x_BF.shape[1], tree)
    layer.reset_parameters(generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), learning_rate, betas=BETAS, weight_decay=weight_decay, fused=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(torch.randperm(len(y_B), generator=generator), settings.batch_size):
            yield x_BF[rows], y_B[rows]

    @torch.no_grad()
    def valid_nll() -> float:
        return float(layer.nll(valid_x, valid_y))

    fitted = fit(
        layer,
        [optimizer],
        batches=batches,
        num_batches=math.ceil(len(y_B) / settings.batch_size),
        epochs=settings.epochs,
        learning_rate=learning_rate,
        loss=layer.nll,
        valid_nll=valid_nll,
        on_epoch=lambda epoch: on_epoch(),
    )
    assert fitted.valid_nll is not None
    return Trained(layer, learning_rate, weight_decay, fitted.valid_nll, fitted.epoch)


def best_of_grid(
    tree: Tree, split: Split, *, settings: TrainingSettings, seed: int, on_epoch: Callable[[], None] = lambda: None
) -> Trained:
    """The training of the grid's rates and weight decays with the least validation NLL; see `train_layer`."""
    trainings = [
        train_layer(
            tree, split, settings=settings, learning_rate=rate, weight_decay=decay, seed=seed, on_epoch=on_epoch
        )
        for rate in settings.learning_rates
        for decay in settings.weight_decays
    ]
    return min(trainings, key=lambda trained: trained.valid_nll)
