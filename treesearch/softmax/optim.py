"""Row-wise Adagrad: one learning rate per row, for large tables of which a step touches few rows.

Shapes: **R** rows (first dimension of a parameter), **U** rows touched, **Z** rows of an uncoalesced gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from treesearch.errors import DataError
from treesearch.softmax.optim_kernels import adagrad_rows

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class RowwiseAdagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011) with one accumulator per row instead of one per number.

    A row's accumulator holds the sum over steps of the mean square of the row's gradient; the row moves by
    ``-lr * gradient / (sqrt(accumulator) + eps)``. This is the form of DLRM (Naumov et al. 2019) and of FBGEMM's
    "rowwise adagrad": it needs 1/D of Adagrad's memory. Of a 1-D parameter every entry is a row.

    Gradients may be dense or row-sparse (``HierarchicalSoftmax(sparse=True)``, ``nn.Embedding(sparse=True)``). A
    row-sparse step reads and writes the rows in the gradient alone, after an allocation of [R] at the first step; rows
    that stand in it twice are added up. Nothing waits for the device.

    There is no weight decay: it would touch every row.

    Args:
        params: Parameters or groups of them: float16, bfloat16, float32 or float64, with at least one dimension.
        lr: Learning rate, >= 0.
        eps: Added to the root, > 0.
        initial_accumulator_value: Where accumulators begin, >= 0.

    Attributes:
        state: ``sum`` of each parameter: its accumulators [R], float64 for float64 parameters, else float32.

    Raises:
        DataError: A setting is out of range, a group asks for weight decay, or a parameter is complex, not of floating
            point, or has no dimension.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 0.01,
        *,
        eps: float = 1e-10,
        initial_accumulator_value: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "initial_accumulator_value": initial_accumulator_value})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own.

        Raises:
            DataError: As for the class; the group is then not added.
        """
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except DataError:
            del self.param_groups[-1]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all parameters that have a gradient.

        Args:
            closure: Computes gradients and returns the loss.

        Returns:
            What ``closure`` returned.

        Raises:
            DataError: A gradient is sparse in another way than by rows.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self._update(param, param.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where another optimizer of the same parameters stood.

        Raises:
            DataError: The accumulators do not fit the parameters; nothing is changed.
            ValueError: The groups do not fit (from torch).
        """
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        sums = {}
        for index, param in zip(ids, params, strict=False):  # torch refuses other numbers of them
            if index in state_dict["state"]:
                own = state_dict["state"][index].get("sum")
                if not isinstance(own, Tensor) or own.shape != param.shape[:1]:
                    found = tuple(own.shape) if isinstance(own, Tensor) else own
                    raise DataError(
                        f"the state must hold one 'sum' per row, {tuple(param.shape[:1])}, but got {found};"
                        " load the state of a RowwiseAdagrad on these parameters"
                    )
                sums[param] = own
        super().load_state_dict(state_dict)
        # torch gives state the type of its parameter, which would round accumulators of half precision.
        for param, own in sums.items():
            self.state[param]["sum"] = own.to(param.device, _accumulator_dtype(param), copy=True)

    def _update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if "sum" not in state:
            state["sum"] = torch.full(
                param.shape[:1],
                group["initial_accumulator_value"],
                dtype=_accumulator_dtype(param),
                device=param.device,
            )
        sum_R = state["sum"]
        if grad.layout == torch.strided:
            gradient = grad.to(sum_R.dtype)
            sum_R.add_(_row_mean_square(gradient))
            param.add_(_change(gradient, sum_R, group))
            return
        if grad.layout != torch.sparse_coo or grad.sparse_dim() != 1:
            raise DataError(
                f"a gradient must be dense or sparse by rows, but got {grad.layout} of shape {tuple(grad.shape)};"
                " use to_dense()"
            )
        if not (param.numel() and grad._nnz()):  # an empty matrix cannot be cut into rows
            return
        row_U, gradient = _merged(grad, sum_R.dtype)
        if _fits_kernel(param, gradient):
            flat_Ud = gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]
            adagrad_rows(
                param.view(param.shape[0], -1).numpy(),
                sum_R.numpy(),
                row_U.numpy(),
                flat_Ud.contiguous().numpy(),
                np.float32(group["lr"]),
                np.float32(group["eps"]),
            )
            torch.autograd.graph.increment_version(param)
            return
        sum_R.index_add_(0, row_U, _row_mean_square(gradient))
        change = _change(gradient, sum_R.index_select(0, row_U), group)
        param.index_add_(0, row_U, change.to(param.dtype))


def _fits_kernel(param: Tensor, gradient: Tensor) -> bool:
    """Whether the compiled step can take these: float32 numbers that are really on the CPU, each row in one piece."""
    plain = type(param) in (Tensor, torch.nn.Parameter) and type(gradient) is Tensor
    return plain and param.device.type == "cpu" and param.dtype == torch.float32 and param.is_contiguous()


def _row_mean_square(gradient: Tensor) -> Tensor:
    square = gradient.square()
    return square if square.dim() == 1 else square.flatten(1).mean(1)


def _change(gradient: Tensor, row_sum: Tensor, group: dict[str, Any]) -> Tensor:
    scale = -group["lr"] / (row_sum.sqrt() + group["eps"])
    return gradient * scale.view(-1, *[1] * (gradient.dim() - 1))


def _merged(grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows of a row-sparse gradient, [U], and their gradients, [U, ...]; rows that stand twice are added up."""
    if not grad.is_coalesced():
        if grad.device.type != "cpu":
            return merge_rows(grad._indices()[0], grad._values().to(dtype))
        # torch drops the mark of a coalesced gradient on its way to the parameter; ours are.
        rows = grad._indices()[0]
        if bool((rows[1:] > rows[:-1]).all()):
            return rows, grad._values().to(dtype)
        # In single precision already: a row met a thousand times must not be rounded a thousand times.
        grad = grad.to(dtype).coalesce()
    return grad.indices()[0], grad.values().to(dtype)


def merge_rows(row_Z: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the values of equal rows without learning how many differ, which would wait for the device.

    Args:
        row_Z: int64 [Z].
        values: [Z, ...].

    Returns:
        Rows [Z] and values [Z, ...]: each distinct row once with its sum; the places left over hold the largest row
        again, and zeros.
    """
    sorted_Z, order_Z = row_Z.sort(stable=True)
    is_first_Z = torch.ones_like(sorted_Z, dtype=torch.bool)
    is_first_Z[1:] = sorted_Z[1:] != sorted_Z[:-1]
    place_Z = is_first_Z.cumsum(0) - 1
    merged_row = sorted_Z[-1:].expand_as(sorted_Z).clone().index_copy_(0, place_Z, sorted_Z)
    merged = torch.zeros_like(values).index_add_(0, place_Z, values.index_select(0, order_Z))
    return merged_row, merged


def _accumulator_dtype(param: Tensor) -> torch.dtype:
    return torch.promote_types(param.dtype, torch.float32)


def _check_group(group: dict[str, Any]) -> None:
    for name in ("lr", "eps", "initial_accumulator_value"):
        value, rule = group[name], "> 0" if name == "eps" else ">= 0"
        if not (value > 0 if name == "eps" else value >= 0) or value == float("inf"):
            raise DataError(f"{name} must be finite and {rule}, but got {value}")
    if group.get("weight_decay"):
        raise DataError(
            f"RowwiseAdagrad has no weight decay, but got weight_decay={group['weight_decay']};"
            " it would touch every row: leave it out, or add a penalty to the loss"
        )
    for param in group["params"]:
        if param.dtype not in DTYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise DataError(f"parameters must be of {names}, but one is {param.dtype}; use a real floating-point type")
        if param.dim() == 0:
            raise DataError("parameters must have rows, but one is a scalar; give it shape (1,) or another optimizer")
