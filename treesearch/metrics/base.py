"""`Metric`: sums that grow with `update`, and what its arguments must be.

Shapes: **B** batch (any leading shape will do), **C** classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from treesearch.errors import DataError

ROUNDING = 1e-3  # a log-probability may be so much above zero


class Metric(ABC):
    """A mean over all examples of all updates; predictions are not kept.

    ``update`` adds a batch, `compute` gives the value over all batches since the last `reset`, and `merge` adds what
    another metric of the same kind has seen, on another worker say. That is the convention of torchmetrics, but values
    are Python numbers. The state is a few sums, float64 on the CPU, whatever device the batches are on. A mean over no
    example is NaN.

    Args:
        settings: What two metrics must have in common to be merged.
        shapes: The sums and their shapes.
    """

    def __init__(self, settings: tuple[Any, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._settings = settings
        self._sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}

    @abstractmethod
    def compute(self) -> Any:
        """The value over all examples since the last reset; see the class."""

    def reset(self) -> None:
        """Forget all examples."""
        for value in self._sums.values():
            value.zero_()

    def merge(self, other: Self) -> None:
        """Add the examples that another metric has seen; it stays as it is.

        Raises:
            DataError: It is of another kind, or has other settings or another hierarchy.
        """
        self.check_alike(other)
        for name, value in other._sums.items():
            self._sums[name] = self._sums[name] + value

    def check_alike(self, other: Metric) -> None:
        """Check that another metric can be merged into this one.

        Raises:
            DataError: As in `merge`.
        """
        if type(other) is not type(self) or other._settings != self._settings:
            raise DataError(
                "merge needs a metric of the same kind, settings and hierarchy, but got another"
                f" {type(other).__name__} for {type(self).__name__}; make both alike"
            )

    def _add(self, **values: Tensor | int) -> None:
        for name, value in values.items():
            self._sums[name] += torch.as_tensor(value).detach().cpu().to(torch.float64)


def ratio(numerator: Tensor, denominator: Tensor) -> Any:
    """Quotients of sums as a number or a list of numbers; NaN for 0 / 0."""
    return (numerator / denominator).tolist()


def check_classes(classes: Tensor, num_classes: int, what: str = "target", *, low: int = 0) -> Tensor:
    """Ids of classes (or nodes) as int64, of their own shape.

    Raises:
        DataError: They are no integers, or lie outside [``low``, C).
    """
    if (
        not isinstance(classes, Tensor)
        or classes.is_floating_point()
        or classes.is_complex()
        or classes.dtype == torch.bool
    ):
        raise DataError(f"{what} must be a tensor of integer ids, but got {_kind(classes)}; use torch.as_tensor")
    classes = classes.long()
    if classes.numel():
        lowest, highest = (int(bound) for bound in torch.aminmax(classes))
        if lowest < low or highest >= num_classes:
            raise DataError(
                f"{what} must lie in [{low}, {num_classes}), but ranges from {lowest} to {highest}; give ids of this"
                " hierarchy"
            )
    return classes


def check_scores(log_prob: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, C], float32 or wider and without gradients, and targets int64 [B].

    Raises:
        DataError: Shapes do not fit, values are no log-probabilities, or a target is no class.
    """
    target_B = check_classes(target, num_classes)
    log_prob_BC = check_log_prob(log_prob, num_classes)
    if log_prob.shape[:-1] != target.shape:
        raise DataError(
            f"target must have shape {tuple(log_prob.shape[:-1])}, one for each row of log_prob, but got"
            f" {tuple(target.shape)}"
        )
    return log_prob_BC, target_B.reshape(-1).to(log_prob.device)


def check_log_prob(log_prob: Tensor, num_classes: int) -> Tensor:
    """Log-probabilities as [B, C], float32 or wider and without gradients.

    Raises:
        DataError: The last dimension is not C, or values are no log-probabilities.
    """
    if not isinstance(log_prob, Tensor) or not log_prob.is_floating_point():
        raise DataError(f"log_prob must be a tensor of log-probabilities, but got {_kind(log_prob)}")
    if log_prob.dim() < 1 or log_prob.shape[-1] != num_classes:
        raise DataError(f"log_prob must have {num_classes} classes in a row, but got shape {tuple(log_prob.shape)}")
    log_prob_BC = log_prob.detach().reshape(-1, num_classes)
    if log_prob_BC.numel() and not (highest := float(log_prob_BC.max())) <= ROUNDING:
        raise DataError(f"log-probabilities must be <= 0, but the highest is {highest:g}; use log_softmax on logits")
    return log_prob_BC.to(torch.promote_types(log_prob.dtype, torch.float32))


def top_classes(log_prob_BC: Tensor, k: int) -> Tensor:
    """The k most probable classes, best first, int64 [B, k].

    The first is the smallest class id of equals. Among equals at the end of the list, which are in it is open.
    """
    best_B = log_prob_BC.argmax(1)
    if k == 1:
        return best_B[:, None]
    top_Bk = log_prob_BC.topk(k, dim=1).indices
    top_Bk = torch.where(top_Bk == best_B[:, None], top_Bk[:, :1], top_Bk)
    top_Bk[:, 0] = best_B
    return top_Bk


def check_whole(name: str, value: int, low: int, high: int | None = None) -> int:
    """A whole number in a range.

    Raises:
        DataError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        limits = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise DataError(f"{name} must be a whole number {limits}, but got {value!r:.40}")
    return value


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
