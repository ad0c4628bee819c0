"""What a step of joint training takes with each of several trees, measured side by side.

Shapes: **B** batch, **C** classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from treesearch.config import EncoderConfig
from treesearch.data import InputSpec, Split
from treesearch.errors import DataError
from treesearch.evaluation.examples import Batch, Examples
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.threads import one_thread
from treesearch.evaluation.trainer import JointTrainer, make_model
from treesearch.tree import Tree

BLOCK = 4  # steps measured at a time, after one that finds the caches cold and is not measured
WARM_UP = 20  # steps of each tree before the first round


@dataclass(frozen=True)
class StepTime:
    """Microseconds per example: medians over rounds, and the distances between their quartiles."""

    head_us: float  # output layer alone: forward, backward to its input, update
    head_spread_us: float
    step_us: float  # whole step: encoder, output layer, all updates
    step_spread_us: float


def time_trees(
    trees: Sequence[Tree],
    train: Split,
    *,
    encoder: EncoderConfig,
    spec: InputSpec,
    learning_rate: float = 0.008,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
    rounds: int = 25,
    on_round: Callable[[int, int], None] | None = None,
) -> list[StepTime]:
    """Train with every tree for a while and take the time of the steps of `JointTrainer`; on a CPU one thread.

    In each round all trees take their turn with the same batches, so that what disturbs the machine disturbs all of
    them. The head sees the hidden states that its own encoder gives for these batches. Taking batches is not measured.

    Args:
        trees: Over the same C classes.
        train: What to learn from.
        encoder: Settings of the encoder.
        spec: Of its inputs.
        learning_rate: Stays as it is.
        batch_size: B, examples per step; a split of fewer gives smaller ones.
        seed: Of parameters and order.
        device: ``cpu``, ``cuda`` or ``auto``.
        rounds: Turns of each tree, `BLOCK` steps of either kind each; at least 1.
        on_round: Called with (rounds done, number of rounds), outside of what is measured.

    Returns:
        One for each tree, in their order.

    Raises:
        DataError: Trees of different numbers of classes, a label that is no class of theirs, no examples, or no round.
        ConfigError: Unknown encoder or device.
    """
    sizes = sorted({tree.num_classes for tree in trees})
    if len(sizes) > 1:
        raise DataError(f"trees must be over the same classes, but got {sizes} of them; time them apart")
    if rounds < 1 or not len(train.labels):
        raise DataError(f"rounds and examples must be >= 1, but got {rounds} and {len(train.labels)}; give more")
    if sizes and not 0 <= train.labels.min() <= train.labels.max() < sizes[0]:
        found = f"{train.labels.min()} to {train.labels.max()}"
        raise DataError(f"labels must be in [0, {sizes[0]}), but are {found}; use trees over this vocabulary")
    on = resolve_device(device)
    with one_thread():
        trainers = []
        for tree in trees:
            counts = np.bincount(train.labels, minlength=tree.num_classes)
            model = make_model(tree, encoder, spec, counts=counts, seed=seed, device=on)
            trainers.append(JointTrainer(*model, counts=counts, learning_rate=learning_rate))
        batches = _Batches(Examples.of(train, on), batch_size, seed)
        first = batches.take(WARM_UP)
        for trainer in trainers:
            _seconds(trainer.step, first, on)
        taken = []
        for number in range(1, rounds + 1):
            taken.append(_round(trainers, batches.take(1 + BLOCK), on))
            if on_round is not None:
                on_round(number, rounds)
    seconds = np.array(taken).reshape(rounds, len(trainers), 2)
    per_example = 1e6 * seconds / (BLOCK * min(batch_size, len(train.labels)))
    low, middle, high = np.quantile(per_example, [0.25, 0.5, 0.75], axis=0)
    columns = np.stack([middle, high - low], axis=-1).reshape(len(trainers), 4)
    return [StepTime(*row) for row in columns.tolist()]


class _Batches:
    """Full batches without end, an epoch after the other."""

    def __init__(self, examples: Examples, batch_size: int, seed: int) -> None:
        self._examples, self._size = examples, min(batch_size, len(examples))
        self._generator = torch.Generator().manual_seed(seed)
        self._epoch: Iterator[Batch] = iter(())

    def take(self, number: int) -> list[Batch]:
        taken: list[Batch] = []
        while len(taken) < number:
            batch = next(self._epoch, None)
            if batch is None:
                self._epoch = self._examples.shuffled(self._size, self._generator)
            elif len(batch[1]) == self._size:
                taken.append(batch)
        return taken


def _round(trainers: Sequence[JointTrainer], batches: Sequence[Batch], device: torch.device) -> list[list[float]]:
    """Seconds of a block of head steps and of one of whole steps, for each tree."""
    times = []
    for trainer in trainers:
        with torch.no_grad():
            hidden = [(trainer.encoder(inputs), target) for inputs, target in batches]
        leaves = [(hidden_BD.detach().clone().requires_grad_(), target) for hidden_BD, target in hidden]
        times.append([_block_seconds(trainer.head_step, leaves, device), _block_seconds(trainer.step, batches, device)])
    return times


def _block_seconds(step: Callable[[Tensor, Tensor], None], batches: Sequence[Batch], device: torch.device) -> float:
    _seconds(step, batches[:1], device)
    return _seconds(step, batches[1:], device)


def _seconds(step: Callable[[Tensor, Tensor], None], batches: Sequence[Batch], device: torch.device) -> float:
    _synchronize(device)
    begin = perf_counter()
    for batch in batches:
        step(*batch)
    _synchronize(device)
    return perf_counter() - begin


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
