"""Training of one classifier on bags of words, and its results on the test split.

Shapes: **B** batch, **C** classes, **D** features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from treesearch.applications.fitting import fit
from treesearch.applications.taxonomy.classifiers import Classifier, reset
from treesearch.data import Dataset, InputSpec, Split
from treesearch.evaluation.encoders import BagEncoder
from treesearch.evaluation.examples import Examples
from treesearch.evaluation.trainer import BETAS
from treesearch.metrics import (
    HierarchicalMetrics,
    LevelAccuracy,
    Levels,
    consistency_violations,
    marginal_levels,
)
from treesearch.softmax import RowwiseAdam
from treesearch.taxonomy import Taxonomy

SCORE_BATCH = 512


@dataclass(frozen=True)
class TrainingSettings:
    """The same for every classifier."""

    features: int = 128  # D
    embedding: int = 128
    dropout: float = 0.3  # of features
    word_dropout: float = 0.3  # of words
    epochs: int = 40
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (0.01, 0.02)  # each classifier takes its best on the validation split
    keep_best: bool = True  # the parameters of the epoch with the least validation NLL; else those of the last


class TrainingData(Protocol):
    """What training reads of a data set: bags of ids with their labels."""

    @property
    def spec(self) -> InputSpec:
        """Of the bags, which have a padding id."""

    @property
    def train(self) -> Split:
        """To learn from."""

    @property
    def valid(self) -> Split:
        """To choose the epoch by."""


class TextClassifier(nn.Module):
    """A bag-of-words encoder under a classifier; ids of words are left out at random while it learns."""

    def __init__(self, spec: InputSpec, head: Classifier, settings: TrainingSettings) -> None:
        super().__init__()
        assert spec.padding is not None
        self.encoder = BagEncoder(
            spec.num_ids, embedding=settings.embedding, features=settings.features, padding=spec.padding
        )
        self.head = head
        self._padding, self._settings = spec.padding, settings

    def forward(self, ids_Bn: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Features [B, D]; with a generator, as they are learned from."""
        if generator is None:
            features: Tensor = self.encoder(ids_Bn)
            return features
        lost_Bn = torch.rand(ids_Bn.shape, generator=generator) < self._settings.word_dropout
        features = self.encoder(torch.where(lost_Bn, self._padding, ids_Bn))
        kept_BD = torch.rand(features.shape, generator=generator) >= self._settings.dropout
        return features * kept_BD / (1 - self._settings.dropout)

    def log_prob(self, ids_Bn: Tensor) -> Tensor:
        """Log-probabilities of the classes, [B, C]."""
        return self.head.log_prob(self(ids_Bn))


@dataclass(frozen=True)
class Trained:
    """A classifier with the parameters of the epoch that is kept."""

    model: TextClassifier
    valid_nll: float  # nats
    epoch: int  # from 1
    seconds: float  # of training, scores on the validation split not counted


def train_classifier(
    head: Classifier,
    dataset: TrainingData,
    *,
    settings: TrainingSettings,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> Trained:
    """Train with Adam, the rate falling linearly to zero; the epoch that the settings say is kept.

    Args:
        head: Of ``settings.features`` inputs; its parameters are drawn anew.
        dataset: Of documents, with labels that the head knows.
        settings: Of the training.
        learning_rate: At the first step.
        seed: Of parameters, order and dropout: the encoder starts the same for every classifier.
        on_epoch: Called after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    model = TextClassifier(dataset.spec, head, settings)
    model.encoder.reset_parameters(generator)
    reset(model.head, generator)
    table = [*model.encoder.row_sparse_parameters(), *head.row_sparse_parameters()]
    ids = set(map(id, table))
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    optimizers: list[torch.optim.Optimizer] = [RowwiseAdam(table, betas=BETAS)]
    optimizers.append(torch.optim.Adam(rest, betas=BETAS, fused=True))
    examples = Examples.of(dataset.train, torch.device("cpu"))
    fitted = fit(
        model,
        optimizers,
        batches=lambda: examples.shuffled(settings.batch_size, generator),
        num_batches=math.ceil(len(examples) / settings.batch_size),
        epochs=settings.epochs,
        learning_rate=learning_rate,
        loss=lambda ids_Bn, target_B: model.head.loss(model(ids_Bn, generator), target_B, ids_Bn),
        valid_nll=lambda: mean_nll(model, dataset.valid),
        keep_best=settings.keep_best,
        on_epoch=lambda epoch: on_epoch(),
    )
    assert fitted.valid_nll is not None
    return Trained(model, fitted.valid_nll, fitted.epoch, fitted.seconds)


def train_at_best_rate(
    make: Callable[[], Classifier],
    dataset: Dataset,
    *,
    settings: TrainingSettings,
    rates: Sequence[float],
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> tuple[Trained, float]:
    """Train once with each learning rate; the one of the least validation NLL, and its rate.

    Args:
        make: Makes a head.
        dataset: As in `train_classifier`.
        settings: As there.
        rates: At least one.
        seed: As there.
        on_epoch: As there.
    """
    candidates = [
        (train_classifier(make(), dataset, settings=settings, learning_rate=rate, seed=seed, on_epoch=on_epoch), rate)
        for rate in rates
    ]
    return min(candidates, key=lambda pair: pair[0].valid_nll)


@torch.no_grad()
def class_log_prob(model: TextClassifier, split: Split) -> Tensor:
    """Log-probabilities of the classes for all documents of a split, [B, C]."""
    batches = Examples.of(split, torch.device("cpu")).in_order(SCORE_BATCH)
    return torch.cat([model.log_prob(ids_Bn) for ids_Bn, _ in batches])


@torch.no_grad()
def mean_nll(model: TextClassifier, split: Split) -> float:
    """Mean NLL of the labels of a split in nats."""
    total = 0.0
    for ids_Bn, target_B in Examples.of(split, torch.device("cpu")).in_order(SCORE_BATCH):
        total += float(model.head.nll(model(ids_Bn), target_B).sum())
    return total / len(split)


@torch.no_grad()
def result_row(
    trained: Trained, dataset: Dataset, taxonomy: Taxonomy, train_counts: NDArray[np.int64]
) -> dict[str, Any]:
    """The results of one classifier on the test split.

    Args:
        trained: The classifier.
        dataset: Gives the test split.
        taxonomy: Of its classes.
        train_counts: [C] training documents of each class.

    Returns:
        As `compare_classifiers` has them; None for what has no example. ``metrics`` holds the rest of
        `treesearch.metrics.HierarchicalMetrics`, from the class probabilities; ``marginal_violations`` is the share of
        documents for which the nodes of most mass at each level are not on one path.
    """
    head, levels = trained.model.head, Levels.of(taxonomy)
    ks = (1, 5) if taxonomy.num_classes > 5 else (1,)
    metrics = HierarchicalMetrics(levels, counts=train_counts, ks=ks)
    by_level, predicted, marginal = LevelAccuracy(levels), [], []
    for ids_Bn, target_B in Examples.of(dataset.test, torch.device("cpu")).in_order(SCORE_BATCH):
        hidden_BD = trained.model(ids_Bn)
        scores_BC = head.log_prob(hidden_BD)
        metrics.update(scores_BC, target_B)
        predicted.append(head.levels(hidden_BD, scores_BC.argmax(-1)))
        by_level.update_nodes(predicted[-1], target_B)
        marginal.append(marginal_levels(scores_BC, levels))
    found = metrics.compute()
    row = {
        "accuracy": found.pop("accuracy"),
        "accuracy_by_level": by_level.compute(),
        "rare_accuracy": found.pop("rare_accuracy"),
        "severity": found.pop("mistake_severity"),
        "nll": found.pop("nll"),
        "violations": consistency_violations(torch.cat(predicted), levels),
        "seconds": trained.seconds,
        "epoch": trained.epoch,
        "valid_nll": trained.valid_nll,
        "marginal_violations": consistency_violations(torch.cat(marginal), levels),
        "metrics": found,
    }
    return {key: _or_none(value) for key, value in row.items()}


def _or_none(value: Any) -> Any:
    """NaN, a mean over nothing, as None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _or_none(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_or_none(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
