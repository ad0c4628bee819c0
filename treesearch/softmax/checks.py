"""What the layers ask of their inputs and targets; the same errors everywhere."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from treesearch.errors import DataError

AUTOCAST = (torch.float32, torch.bfloat16, torch.float16)  # what it takes for `nn.Linear`


def flat_input(input: Tensor, in_features: int, dtype: torch.dtype) -> Tensor:
    """The input as a matrix [B, D] of the layer's type.

    Raises:
        DataError: The last dimension is not D, or the type is another one without autocast.
    """
    if input.dim() < 1 or input.shape[-1] != in_features:
        raise DataError(f"input must have {in_features} features, but got shape {tuple(input.shape)}")
    castable = input.dtype in AUTOCAST and torch.is_autocast_enabled(input.device.type)
    if input.dtype != dtype and not castable:
        raise DataError(
            f"input must have the type of the layer, {dtype}, but got {input.dtype};"
            " use input.to(...) or torch.autocast"
        )
    return input.reshape(-1, in_features).to(dtype)


def flat_target(target: Tensor, input: Tensor) -> Tensor:
    """The targets as int64 [B].

    Raises:
        DataError: There is not one for each input, or they are no integers.
    """
    if target.shape != input.shape[:-1]:
        raise DataError(f"target must have shape {tuple(input.shape[:-1])}, but got {tuple(target.shape)}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise DataError(f"target must hold integer class ids, but got {target.dtype}; use target.long()")
    return target.reshape(-1).long()


def check_linear(linear: nn.Linear) -> None:
    """Check that a flat layer is one, and holds weights.

    Raises:
        DataError: It is something else, or on the meta device.
    """
    if not isinstance(linear, nn.Linear) or linear.weight.is_meta:
        raise DataError(f"linear must be an nn.Linear that holds weights, but got {linear!r:.60}")


def check_place(counts: ArrayLike | None, *, bias: bool) -> None:
    """Check that a layer that is to predict counts has biases to hold them.

    Raises:
        DataError: It has none.
    """
    if counts is not None and not bias:
        raise DataError("counts need biases, but the layer has none; leave them out, or make it with bias=True")


def check_range(target: Tensor, num_classes: int) -> None:
    """Check that targets are classes, where that does not mean to wait for a device.

    Elsewhere an index out of range is the device's own error.

    Raises:
        DataError: A target lies outside [0, C).
    """
    if target.device.type == "cpu" and target.numel() and is_plain(target):
        low, high = (int(bound) for bound in torch.aminmax(target))
        if low < 0 or high >= num_classes:
            raise DataError(f"targets must lie in [0, {num_classes}), but range from {low} to {high}")


def is_plain(tensor: Tensor) -> bool:
    """Whether the numbers are really there: neither traced, nor fake, nor wrapped by a function transform."""
    if type(tensor) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return False
    # No public name says whether torch.jit.trace or torch.func is at work.
    return not (torch._C._get_tracing_state() or torch._C._are_functorch_transforms_active())
