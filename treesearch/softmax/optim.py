"""Optimizers for large tables of which a step touches few rows: one learning rate per row.

Shapes: **R** rows (first dimension of a parameter), **U** rows touched, **d** numbers of a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from treesearch.errors import DataError
from treesearch.softmax.optim_kernels import adagrad_rows, adam_rows
from treesearch.softmax.row_gradients import by_row, first_of_equals, row_mean_square
from treesearch.softmax.rowwise import RowwiseOptimizer, check_at_least_zero, check_positive, factors, rates


class RowwiseAdagrad(RowwiseOptimizer):
    """Adagrad (Duchi, Hazan and Singer 2011) with one accumulator per row instead of one per number.

    A row's accumulator holds the sum over steps of the mean square of the row's gradient; the row moves by
    ``-lr * gradient / (sqrt(accumulator) + eps)``. This is the form of DLRM (Naumov et al. 2019) and of FBGEMM's
    "rowwise adagrad": it needs 1/D of Adagrad's memory. Of a 1-D parameter every entry is a row.

    Gradients may be dense or row-sparse (``HierarchicalSoftmax(sparse=True)``, ``nn.Embedding(sparse=True)``). A
    row-sparse step reads and writes the rows in the gradient alone, after an allocation of [R] at the first step; rows
    that stand in it twice are added up. Nothing waits for the device.

    There is no weight decay: it would touch every row.

    Args:
        params: Parameters or groups of them: float16, bfloat16, float32 or float64, with at least one dimension. A
            group may set ``row_rates``, float32 [R]: factors of the learning rate of each row, the same for all
            parameters of the group (`HierarchicalSoftmax.parameter_groups`).
        lr: Learning rate, >= 0.
        eps: Added to the root, > 0.
        initial_accumulator_value: Where accumulators begin, >= 0.

    Attributes:
        state: ``sum`` of each parameter: its accumulators [R], float64 for float64 parameters, else float32.

    Raises:
        DataError: A setting is out of range, a group asks for weight decay, or a parameter is complex, not of floating
            point, or has no dimension.
    """

    _state_of_row: ClassVar[dict[str, bool]] = {"sum": True}

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 0.01,
        *,
        eps: float = 1e-10,
        initial_accumulator_value: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "initial_accumulator_value": initial_accumulator_value})

    def _start(self, group: dict[str, Any]) -> float:
        return float(group["initial_accumulator_value"])

    def _check_settings(self, group: dict[str, Any]) -> None:
        check_positive("eps", group["eps"])
        check_at_least_zero("initial_accumulator_value", group["initial_accumulator_value"])

    def _move_all(self, param: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        sum_R = state["sum"].add_(row_mean_square(gradient))
        param.add_(self._change(gradient, sum_R, rates(group), group["eps"]))

    def _move_rows(
        self, param: Tensor, row_U: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        sum_R = state["sum"].index_add_(0, row_U, row_mean_square(gradient))
        change = self._change(gradient, sum_R.index_select(0, row_U), rates(group, row_U), group["eps"])
        param.index_add_(0, row_U, change.to(param.dtype))

    def _move_rows_compiled(
        self, param_Rd: Tensor, row_U: Tensor, grad_Ud: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        adagrad_rows(
            param_Rd.numpy(),
            state["sum"].numpy(),
            factors(group),
            row_U.numpy(),
            grad_Ud.numpy(),
            np.float32(group["lr"]),
            np.float32(group["eps"]),
        )

    @staticmethod
    def _change(gradient: Tensor, row_sum: Tensor, rate: float | Tensor, eps: float) -> Tensor:
        return gradient * by_row(-rate / (row_sum.sqrt() + eps), gradient)


class RowwiseAdam(RowwiseOptimizer):
    """Lazy Adam (Kingma and Ba 2015) with one second moment per row instead of one per number.

    At step t the rows of a gradient g, and no others, change: ``m = beta1 * m + (1 - beta1) * g``,
    ``v = beta2 * v + (1 - beta2) * mean(g^2)``, and the row moves by
    ``-lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``. The moments of other rows rest, as in
    `torch.optim.SparseAdam`; t counts the optimizer's steps, not those of a row. A dense gradient holds every row. Of a
    1-D parameter every entry is a row, so that with dense gradients this is Adam.

    Gradients, and what a step costs, are as in `RowwiseAdagrad`; the first step allocates [R, d] and [R].

    There is no weight decay: it would touch every row.

    Args:
        params: As for `RowwiseAdagrad`.
        lr: Learning rate, >= 0.
        betas: How much of the first and of the second moment a step keeps, in [0, 1).
        eps: Added to the root, > 0.

    Attributes:
        state: ``mean`` of each parameter: its first moments, of its shape; ``mean_square``: its second moments [R].
            float64 for float64 parameters, else float32. The step count stands in the groups as ``step``.

    Raises:
        DataError: As for `RowwiseAdagrad`.
    """

    _state_of_row: ClassVar[dict[str, bool]] = {"mean": False, "mean_square": True}

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "step": 0})

    def _check_settings(self, group: dict[str, Any]) -> None:
        check_positive("eps", group["eps"])
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise DataError(f"betas must be two numbers in [0, 1), but got {group['betas']}; (0.9, 0.99) is usual")

    def _begin_step(self, group: dict[str, Any]) -> None:
        group["step"] += 1

    def _move_all(self, param: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        mean = state["mean"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        square_R = state["mean_square"].mul_(beta2).add_(row_mean_square(gradient), alpha=1 - beta2)
        param.add_(mean * by_row(self._scale(square_R, rates(group), group), mean))

    def _move_rows(
        self, param: Tensor, row_U: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        # In the places that merging left over the last row stands again: it is written again, with the same numbers.
        gradient = gradient.index_select(0, first_of_equals(row_U).cumsum(0) - 1)
        mean = state["mean"].index_select(0, row_U).mul_(beta1).add_(gradient, alpha=1 - beta1)
        square_U = state["mean_square"].index_select(0, row_U).mul_(beta2)
        square_U.add_(row_mean_square(gradient), alpha=1 - beta2)
        state["mean"].index_copy_(0, row_U, mean)
        state["mean_square"].index_copy_(0, row_U, square_U)
        moved = param.index_select(0, row_U) + mean * by_row(self._scale(square_U, rates(group, row_U), group), mean)
        param.index_copy_(0, row_U, moved.to(param.dtype))

    def _move_rows_compiled(
        self, param_Rd: Tensor, row_U: Tensor, grad_Ud: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        (beta1, beta2), (share1, share2) = group["betas"], self._shares(group)
        adam_rows(
            param_Rd.numpy(),
            state["mean"].view(param_Rd.shape).numpy(),
            state["mean_square"].numpy(),
            factors(group),
            row_U.numpy(),
            grad_Ud.numpy(),
            float(group["lr"]) / share1,
            np.float32(beta1),
            np.float32(1 - beta1),
            np.float32(beta2),
            np.float32(1 - beta2),
            share2,
            float(group["eps"]),
        )

    def _scale(self, row_square: Tensor, rate: float | Tensor, group: dict[str, Any]) -> Tensor:
        share1, share2 = self._shares(group)
        return -rate / share1 / ((row_square / share2).sqrt() + group["eps"])

    @staticmethod
    def _shares(group: dict[str, Any]) -> tuple[float, float]:
        """How much of the two moments is of real gradients by now, not of the zeros they began with."""
        share1, share2 = (1 - float(beta) ** group["step"] for beta in group["betas"])
        return share1, share2
