"""The training loop of the applications' small models: the rate falls linearly to zero, one epoch is kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fit:
    """Which epoch's parameters a model has."""

    epoch: int  # from 1; 0: those that it began with
    valid_nll: float | None  # nats; None where there is nothing to validate on
    seconds: float  # of training, validation not counted


def fit(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    num_batches: int,
    epochs: int,
    learning_rate: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    valid_nll: Callable[[], float | None],
    first_nll: float | None = math.inf,
    keep_best: bool = True,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Fit:
    """Train a model in place.

    Args:
        model: Gets the parameters of the epoch that is kept: the one of the least validation NLL.
        optimizers: Of its parameters.
        batches: Inputs and targets of one epoch, shuffled anew at each call.
        num_batches: Of an epoch.
        epochs: At least 1.
        learning_rate: At the first step; it falls linearly to zero.
        loss: Of inputs and targets.
        valid_nll: Validates the model as it is, in nats; None: there is nothing to validate on.
        first_nll: Of the model as it begins, where its parameters may be kept.
        keep_best: Otherwise, and where there is nothing to validate on, the last epoch is kept.
        on_epoch: Told of each epoch that is done.
    """
    num_steps, step, seconds = epochs * num_batches, 0, 0.0
    best_epoch, best_nll, best_state = 0, first_nll, copy.deepcopy(model.state_dict())
    for epoch in range(1, epochs + 1):
        begin = time.perf_counter()
        for input_B, target_B in batches():
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * (1 - step / num_steps)
            loss(input_B, target_B).backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            step += 1
        seconds += time.perf_counter() - begin
        nll = valid_nll()
        if nll is None or best_nll is None or nll < best_nll or not keep_best:
            best_epoch, best_nll, best_state = epoch, nll, copy.deepcopy(model.state_dict())
        on_epoch(epoch)
    model.load_state_dict(best_state)
    return Fit(best_epoch, best_nll, seconds)
