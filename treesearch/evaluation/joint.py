"""The joint rung: encoder and hierarchical softmax trained together.

Shapes: **B** batch, **D** features, **T** tokens, **n** context size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from treesearch.errors import ConfigError
from treesearch.evaluation.encoder import Encoder
from treesearch.softmax import HierarchicalSoftmax

SCORE_BATCH = 2048


@dataclass(frozen=True)
class TextSplit:
    """Contexts and next words of one split."""

    windows: NDArray[np.int32]  # [T, n]
    labels: NDArray[np.int32]  # [T]


def train_joint(
    encoder: Encoder,
    layer: HierarchicalSoftmax,
    train: TextSplit,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Train in place with Adam; the learning rate falls linearly to zero.

    The order of the examples depends on ``seed`` and the size of the split alone, so that every tree sees the same
    batches. Training that diverges leaves parameters that are not finite; the caller sees it in the score.

    Args:
        encoder: Trained together with ``layer``.
        layer: Over the classes of the labels.
        train: What to learn from.
        learning_rate: At the first step.
        epochs: Passes over ``train``.
        batch_size: Examples per step.
        seed: Of the order.
        on_step: Called with (step, number of steps).
    """
    device = next(encoder.parameters()).device
    parameters = [*encoder.parameters(), *layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    order_generator = torch.Generator().manual_seed(seed)
    num_tokens = len(train.labels)
    steps_per_epoch = math.ceil(num_tokens / batch_size)
    num_steps = epochs * steps_per_epoch
    step = 0
    for _ in range(epochs):
        order = torch.randperm(num_tokens, generator=order_generator).numpy()
        for begin in range(0, num_tokens, batch_size):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - step / num_steps)
            context, target = _batch(train, order[begin : begin + batch_size], device)
            optimizer.zero_grad(set_to_none=True)
            layer(encoder(context), target).loss.backward()
            optimizer.step()
            step += 1
            if on_step is not None:
                on_step(step, num_steps)


@torch.no_grad()
def score(encoder: Encoder, layer: HierarchicalSoftmax, split: TextSplit) -> float:
    """Mean NLL of a split in nats per token; NaN where the model has diverged."""
    device = next(encoder.parameters()).device
    total = 0.0
    for begin in range(0, len(split.labels), SCORE_BATCH):
        rows = np.arange(begin, min(begin + SCORE_BATCH, len(split.labels)))
        context, target = _batch(split, rows, device)
        total -= float(layer(encoder(context), target).output.double().sum())
    return total / len(split.labels)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch and BLAS on one thread, so that sums do not depend on the machine's cores; restores both."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _batch(split: TextSplit, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    context = torch.from_numpy(split.windows[rows].astype(np.int64))
    target = torch.from_numpy(split.labels[rows].astype(np.int64))
    return context.to(device, non_blocking=True), target.to(device, non_blocking=True)
