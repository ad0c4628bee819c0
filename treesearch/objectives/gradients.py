"""Several losses on shared parameters: how far their gradients agree, and one update from all of them.

Shapes: **n** losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from treesearch.errors import DataError

Handling = Literal["sum", "pcgrad", "normalised"]
Gradient = list[Tensor | None]  # by parameter; None where the loss does not reach it


@dataclass(frozen=True)
class GradientReport:
    """How the gradients of n losses stood to each other at one step, before handling; plain numbers, for a log."""

    losses: tuple[float, ...]  # [n]
    norms: tuple[float, ...]  # [n] Euclidean, over all parameters
    cosines: tuple[tuple[float, ...], ...]  # [n, n] over what both reach; 0 where that is nothing or a gradient is zero

    @property
    def num_conflicts(self) -> int:
        """Pairs of losses whose gradients point apart: cosine < 0."""
        return sum(cosine < 0 for i, row in enumerate(self.cosines) for cosine in row[:i])


def combine_gradients(
    losses: Sequence[Tensor],
    parameters: Iterable[Tensor],
    *,
    handling: Handling = "sum",
    weights: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> GradientReport:
    """Add one gradient from several losses to ``.grad`` of the parameters, in place of ``backward``.

    ``sum`` is the weighted sum, what ``backward`` of the summed losses gives. ``normalised`` first scales each gradient
    to the norm of the first loss's, over what both reach. ``pcgrad`` (Yu et al. 2020) takes from each gradient, for
    each other one that it conflicts with, its part along that one, and sums: with two losses a small step against the
    result raises neither. Inner products are over parameters that both losses reach, so that what belongs to one loss
    alone does not dilute a conflict.

    Memory: n gradients, and the losses' graphs until the losses are gone. Each loss goes backward once.

    Args:
        losses: n scalars.
        parameters: Distinct, with dense gradients; those that require none, or that no loss reaches, are left alone.
        handling: How conflicts are met.
        weights: [n], >= 0, of the gradients, after ``normalised`` and before ``pcgrad``; None: ones.
        generator: Order of the projections of ``pcgrad``, on the CPU; needed for more than two losses.

    Raises:
        DataError: Settings do not fit, a loss is no scalar or reaches no parameter, or a gradient is row-sparse.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    weights = [1.0] * len(losses) if weights is None else list(weights)
    _check(losses, parameters, handling, weights, generator)
    gradients = [_gradient(losses, index, parameters) for index in range(len(losses))]
    products = [[_inner(one, other) for other in gradients] for one in gradients]
    # shared[i][j]: squared norm of gradient i over what j reaches too.
    shared = [[_inner(one, one, among=other) for other in gradients] for one in gradients]
    report = GradientReport(
        losses=tuple(float(loss.detach()) for loss in losses),
        norms=tuple(math.sqrt(shared[i][i]) for i in range(len(losses))),
        cosines=tuple(
            tuple(_ratio(products[i][j], math.sqrt(shared[i][j] * shared[j][i])) for j in range(len(losses)))
            for i in range(len(losses))
        ),
    )
    if handling == "normalised":
        scales = [math.sqrt(_ratio(shared[0][i], shared[i][0])) if shared[i][0] else 1.0 for i in range(len(losses))]
        weights = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
    gradients = [[_scaled(part, weight) for part in own] for own, weight in zip(gradients, weights, strict=True)]
    if handling == "pcgrad":
        gradients = _without_conflicts(gradients, generator)
    for parameter, *parts in zip(parameters, *gradients, strict=True):
        given = [part for part in parts if part is not None]
        if given:
            total = torch.stack(given).sum(0)  # of its own memory, which autograd's need not be
            parameter.grad = total if parameter.grad is None else parameter.grad + total
    return report


def _gradient(losses: Sequence[Tensor], index: int, parameters: list[Tensor]) -> Gradient:
    gradient: Gradient = list(
        torch.autograd.grad(losses[index], parameters, retain_graph=index < len(losses) - 1, allow_unused=True)
    )
    if all(part is None for part in gradient):
        raise DataError(f"every loss must depend on a parameter, but loss {index} reaches none of {len(parameters)}")
    if any(part is not None and part.layout != torch.strided for part in gradient):
        raise DataError(f"gradients must be dense, but loss {index} has row-sparse ones; use sparse=False")
    return gradient


def _inner(one: Gradient, other: Gradient, among: Gradient | None = None) -> float:
    """Inner product over parameters that both, and ``among``, reach."""
    total = 0.0
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        if left is not None and right is not None and (among is None or among[index] is not None):
            total += float(torch.dot(left.flatten().double(), right.flatten().double()))
    return total


def _without_conflicts(gradients: list[Gradient], generator: torch.Generator | None) -> list[Gradient]:
    """Each gradient without its parts along those it conflicts with, one after another in random order."""
    projected = []
    for index, own in enumerate(gradients):
        current = own
        order = torch.randperm(len(gradients), generator=generator).tolist() if generator else range(len(gradients))
        for other in (gradients[j] for j in order if j != index):
            product, norm = _inner(current, other), _inner(other, other, among=own)
            if product < 0 < norm:
                factor = product / norm
                current = [
                    left if left is None or right is None else left - factor * right
                    for left, right in zip(current, other, strict=True)
                ]
        projected.append(current)
    return projected


def _scaled(part: Tensor | None, weight: float) -> Tensor | None:
    return part if part is None or weight == 1 else weight * part


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _check(
    losses: Sequence[Tensor],
    parameters: list[Tensor],
    handling: str,
    weights: Sequence[float],
    generator: torch.Generator | None,
) -> None:
    if handling not in get_args(Handling):
        raise DataError(f"handling must be one of {', '.join(map(repr, get_args(Handling)))}, but got {handling!r}")
    if not losses or not parameters:
        raise DataError(
            f"there must be losses and parameters that require gradients, but got {len(losses)} and {len(parameters)}"
        )
    if len({id(parameter) for parameter in parameters}) != len(parameters):
        raise DataError("parameters must be distinct, but one is given twice; pass model.parameters()")
    for index, loss in enumerate(losses):
        if loss.numel() != 1 or not loss.requires_grad:
            raise DataError(f"a loss must be a scalar with a gradient, but loss {index} is not; reduce or attach it")
    if len(weights) != len(losses) or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise DataError(f"weights must be finite and >= 0, one for each of {len(losses)} losses, but got {weights}")
    if handling == "pcgrad" and len(losses) > 2 and generator is None:
        raise DataError(
            f"'pcgrad' projects in random order, which more than two losses need a generator for, but {len(losses)}"
            " losses came without; pass a torch.Generator"
        )
