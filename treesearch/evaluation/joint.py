"""The joint rung: encoder and hierarchical softmax trained together.

Shapes: **B** batch, **T** examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from treesearch.data import Split
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation.encoders import Encoder
from treesearch.evaluation.examples import Examples
from treesearch.evaluation.trainer import JointTrainer, OutputLayer

SCORE_BATCH = 2048


@dataclass(frozen=True)
class JointFit:
    """How a training ended."""

    valid_nll: float | None  # nats per token, of the best epoch; NaN: training diverged; None: nothing to validate on
    epochs: int  # trained
    best_epoch: int  # from 1, whose parameters are kept


def train_joint(
    encoder: Encoder,
    layer: OutputLayer,
    train: Split,
    *,
    valid: Split | None = None,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> JointFit:
    """Train in place with `JointTrainer`; the learning rate falls linearly, to zero at the end of the last epoch.

    The order of the examples depends on ``seed`` and the size of the split alone, so that every tree sees the same
    batches.

    With ``valid``, training stops after the first epoch that is worse on it than the best so far, and the parameters of
    the best epoch are kept. An epoch whose validation NLL is not finite ends training as well; its parameters stay.
    Without, training that diverges leaves parameters that are not finite; the caller sees it in the score.

    Args:
        encoder: Trained together with ``layer``.
        layer: Over the classes of the labels.
        train: What to learn from.
        valid: Scored after each epoch; None: train all epochs and keep the last.
        learning_rate: At the first step.
        epochs: Passes over ``train``, at most; the learning rate is planned for all of them.
        batch_size: Examples per step.
        seed: Of the order.
        on_step: Called with (step, number of steps).

    Raises:
        DataError: ``epochs`` is less than 1.
    """
    if epochs < 1:
        raise DataError(f"epochs must be >= 1, but got {epochs}; one pass is the least")
    examples = Examples.of(train, next(layer.parameters()).device)
    num_steps = epochs * math.ceil(len(examples) / batch_size)
    counts = np.bincount(train.labels, minlength=layer.num_classes)
    trainer = JointTrainer(encoder, layer, counts=counts, learning_rate=learning_rate, num_steps=num_steps)
    generator = torch.Generator().manual_seed(seed)
    best = _Best(encoder, layer)
    for epoch in range(1, epochs + 1):
        for inputs_B, target_B in examples.shuffled(batch_size, generator):
            trainer.step(inputs_B, target_B)
            if on_step is not None:
                on_step(trainer.steps_done, num_steps)
        if valid is None:
            continue
        nll = score(encoder, layer, valid)
        if not math.isfinite(nll):
            return JointFit(math.nan, epoch, epoch)
        if nll > best.nll:
            best.restore()
            return JointFit(best.nll, epoch, best.epoch)
        best.keep(nll, epoch, copy=epoch < epochs)
    return JointFit(None, epochs, epochs) if valid is None else JointFit(best.nll, epochs, best.epoch)


class _Best:
    """The best epoch so far and its parameters."""

    def __init__(self, *modules: nn.Module) -> None:
        self.nll, self.epoch = math.inf, 0
        self._modules = modules
        self._states: list[dict[str, torch.Tensor]] = []

    def keep(self, nll: float, epoch: int, *, copy: bool) -> None:
        """This epoch is the best; without ``copy``, the last one as well, and nothing will be restored."""
        self.nll, self.epoch = nll, epoch
        if copy:
            states = [module.state_dict() for module in self._modules]
            self._states = [{name: value.clone() for name, value in state.items()} for state in states]

    def restore(self) -> None:
        for module, state in zip(self._modules, self._states, strict=True):
            module.load_state_dict(state)


@torch.no_grad()
def token_nll(encoder: Encoder, layer: OutputLayer, split: Split) -> NDArray[np.float32]:
    """NLL of each example of a split in nats, float32 [T]; NaN where the model has diverged."""
    examples = Examples.of(split, next(layer.parameters()).device)
    parts = [-layer(encoder(inputs_B), target_B).output for inputs_B, target_B in examples.in_order(SCORE_BATCH)]
    nll: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
    return nll


def score(encoder: Encoder, layer: OutputLayer, split: Split) -> float:
    """Mean NLL of a split in nats per token; NaN where the model has diverged."""
    return float(token_nll(encoder, layer, split).mean(dtype=np.float64))


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return device
