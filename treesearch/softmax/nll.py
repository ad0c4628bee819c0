"""Negative log-likelihoods with the arguments of `torch.nn.functional.nll_loss`, from log-probabilities of targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.softmax.checks import is_plain

Reduction = Literal["mean", "sum", "none"]


def check_settings(reduction: Reduction, weight: Tensor | None, num_classes: int) -> None:
    """Check what does not depend on the batch.

    Raises:
        DataError: Unknown reduction, or not one weight per class.
    """
    if reduction not in ("mean", "sum", "none"):
        raise DataError(f"reduction must be 'mean', 'sum' or 'none', but got {reduction!r}")
    if weight is not None and weight.shape != (num_classes,):
        raise DataError(f"weight must have shape ({num_classes},), but got {tuple(weight.shape)}")


def reduced_nll(
    log_prob: Callable[[Tensor, Tensor], Tensor],
    input_BD: Tensor,
    target_B: Tensor,
    *,
    reduction: Reduction,
    ignore_index: int,
    weight_C: Tensor | None,
) -> Tensor:
    """The loss, in nats: a scalar, or [B] without reduction.

    Args:
        log_prob: From inputs and targets to the log-probability of each target, [B].
        input_BD: Inputs.
        target_B: int64.
        reduction: As in `HierarchicalSoftmax.nll`, like the rest.
        ignore_index: Targets of this value have loss zero and do not count.
        weight_C: Weight of each class.
    """
    ignored = target_B == ignore_index
    counted = torch.where(ignored, 0, target_B)
    if target_B.device.type == "cpu" and is_plain(target_B):
        kept = (~ignored).nonzero().squeeze(1)
        part = -log_prob(input_BD[kept], target_B[kept])
        loss = part.new_zeros(ignored.shape).index_copy(0, kept, part)
    else:  # without waiting for the device: class 0 stands in
        loss = torch.where(ignored, 0.0, -log_prob(input_BD, counted))
    share = (~ignored).to(loss.dtype)
    if weight_C is not None:
        share = share * weight_C.to(loss.dtype)[counted]
        loss = loss * share
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / share.sum()
