"""Training of a coder: encoder and head on texts, then one temperature.

Shapes: **T** examples, **D** features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from treesearch.applications.coding.heads import CodingFlat, CodingHead, CodingTree
from treesearch.applications.coding.task import CodingTask
from treesearch.applications.taxonomy.training import Trained, TrainingSettings, train_classifier
from treesearch.data import Split

Head = Literal["hs", "flat"]
LEARNING_RATES: dict[Head, float] = {"hs": 0.02, "flat": 0.02}  # chosen on validation splits: results/
LARGE = 20_000  # texts, from which on larger batches and fewer passes do
MIN_LABELS = 30  # for a temperature
LARGEST_LOG_TEMPERATURE = 1.5


@dataclass(frozen=True)
class TrainedCoder:
    """A trained model, calibrated on the validation split."""

    trained: Trained
    temperatures: list[float]  # that its logits have been divided by: one, or one for each depth of decisions


def coding_settings(task: CodingTask, *, epochs: int | None = None) -> TrainingSettings:
    """Settings that do for the size of a task: the first chapters in seconds, all codes in minutes.

    Args:
        task: Its texts are counted.
        epochs: Passes over them; None goes by their number.
    """
    large = len(task.train) >= LARGE
    return TrainingSettings(
        epochs=epochs or (8 if large else 20),
        batch_size=256 if large else 64,
        word_dropout=0.3 if large else 0.5,
        keep_best=False,  # logits grow beyond what the validation split bears out, which the temperatures take back
    )


def train_coder(
    task: CodingTask,
    *,
    seed: int,
    head: Head = "hs",
    settings: TrainingSettings | None = None,
    learning_rate: float | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> TrainedCoder:
    """Train on the texts of a task; the validation split chooses the temperatures.

    Args:
        task: Of `coding_task`.
        seed: Of parameters, order and dropout.
        head: ``hs``, a hierarchical softmax on the taxonomy, trained down to each label; ``flat``, one over all codes.
        settings: None: `coding_settings`.
        learning_rate: None: `LEARNING_RATES`.
        on_epoch: Called after each pass.
    """
    settings = settings or coding_settings(task)
    made: CodingHead = (
        CodingFlat(settings.features, task.taxonomy) if head == "flat" else CodingTree(settings.features, task.taxonomy)
    )
    rate = LEARNING_RATES[head] if learning_rate is None else learning_rate
    trained = train_classifier(made, task, settings=settings, learning_rate=rate, seed=seed, on_epoch=on_epoch)
    trained.model.eval()
    with torch.no_grad():
        hidden_TD = trained.model(_ids(task.valid))
    return TrainedCoder(trained, calibrate(made, hidden_TD, torch.from_numpy(task.valid.labels).long()))


@torch.no_grad()
def calibrate(head: CodingHead, hidden: Tensor, label: Tensor) -> list[float]:
    """Divide logits by the temperatures at which the labels' NLL is least (Guo et al. 2017); return these.

    The decisions of one depth of a hierarchical softmax have a temperature of their own: the NLL is a sum over depths,
    so each is found alone. A depth that fewer than 30 labels reach has that of the depth above.

    Args:
        head: Its weights and biases are changed.
        hidden: [T, D] features that it has not learned from.
        label: int64 [T].
    """
    temperatures: list[float] = []
    for parameters, row_R, num_labels in head.calibrated(label):
        if num_labels < MIN_LABELS and temperatures:
            temperatures.append(temperatures[-1])
        else:
            temperatures.append(_best_temperature(head, parameters, row_R, hidden, label))
        for parameter in parameters:
            parameter[row_R] /= temperatures[-1]
    return temperatures


def _best_temperature(
    head: CodingHead, parameters: Sequence[Tensor], row_R: Tensor, hidden: Tensor, label: Tensor
) -> float:
    start = [parameter[row_R] for parameter in parameters]

    def mean_nll(log_temperature: float) -> float:
        for parameter, value in zip(parameters, start, strict=True):
            parameter[row_R] = value * float(np.exp(-log_temperature))
        return float(head.nll(hidden, label).double().mean())

    bound = LARGEST_LOG_TEMPERATURE
    best = float(minimize_scalar(mean_nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-2}).x)
    for parameter, value in zip(parameters, start, strict=True):
        parameter[row_R] = value
    return float(np.exp(best))


def _ids(split: Split) -> Tensor:
    return torch.from_numpy(split.inputs).long()
