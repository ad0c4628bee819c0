"""Training of a coder: encoder and head on texts, then one temperature.

Shapes: **T** examples, **D** features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from treesearch.applications.coding.heads import CodingFlat, CodingTree
from treesearch.applications.coding.task import CodingTask
from treesearch.applications.taxonomy.classifiers import Classifier
from treesearch.applications.taxonomy.training import Trained, TrainingSettings, train_classifier
from treesearch.data import Split

Head = Literal["hs", "flat"]
LEARNING_RATES: dict[Head, float] = {"hs": 0.005, "flat": 0.01}  # chosen on validation splits: results/
LARGE = 20_000  # texts, from which on larger batches and fewer passes do
LARGEST_LOG_TEMPERATURE = 1.5


@dataclass(frozen=True)
class TrainedCoder:
    """A trained model, calibrated on the validation split."""

    trained: Trained
    temperature: float  # that its logits have been divided by


def coding_settings(task: CodingTask, *, epochs: int | None = None) -> TrainingSettings:
    """Settings that do for the size of a task: the first chapters in seconds, all codes in minutes.

    Args:
        task: Its texts are counted.
        epochs: Passes over them; None goes by their number.
    """
    large = len(task.train) >= LARGE
    settings = TrainingSettings(epochs=8, batch_size=256) if large else TrainingSettings(epochs=20, word_dropout=0.5)
    return settings if epochs is None else replace(settings, epochs=epochs)


def train_coder(
    task: CodingTask,
    *,
    seed: int,
    head: Head = "hs",
    settings: TrainingSettings | None = None,
    learning_rate: float | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> TrainedCoder:
    """Train on the texts of a task; the validation split chooses the epoch and the temperature.

    Args:
        task: Of `coding_task`.
        seed: Of parameters, order and dropout.
        head: ``hs``, a hierarchical softmax on the taxonomy, supervised at all levels; ``flat``, one over all codes.
        settings: None: `coding_settings`.
        learning_rate: None: `LEARNING_RATES`.
        on_epoch: Called after each pass.
    """
    settings = settings or coding_settings(task)
    made: Classifier = (
        CodingFlat(settings.features, task.taxonomy)
        if head == "flat"
        else CodingTree(settings.features, task.taxonomy, level_weight=1.0)
    )
    rate = LEARNING_RATES[head] if learning_rate is None else learning_rate
    trained = train_classifier(made, task, settings=settings, learning_rate=rate, seed=seed, on_epoch=on_epoch)
    trained.model.eval()
    with torch.no_grad():
        hidden_TD = trained.model(_ids(task.valid))
    return TrainedCoder(trained, calibrate(made, hidden_TD, torch.from_numpy(task.valid.labels).long()))


@torch.no_grad()
def calibrate(head: Classifier, hidden: Tensor, label: Tensor) -> float:
    """Divide the logits of a head by the temperature at which the labels' NLL is least (Guo et al. 2017); return it.

    Args:
        head: All of its parameters are weights and biases of logits; they are changed.
        hidden: [T, D] features that it has not learned from.
        label: int64 [T].
    """
    start = [parameter.clone() for parameter in head.parameters()]

    def mean_nll(log_temperature: float) -> float:
        for parameter, value in zip(head.parameters(), start, strict=True):
            parameter.copy_(value * float(np.exp(-log_temperature)))
        return float(head.nll(hidden, label).double().mean())

    bound = LARGEST_LOG_TEMPERATURE
    best = float(minimize_scalar(mean_nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-3}).x)
    mean_nll(best)
    return float(np.exp(best))


def _ids(split: Split) -> Tensor:
    return torch.from_numpy(split.inputs).long()
