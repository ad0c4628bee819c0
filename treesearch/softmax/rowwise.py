"""What optimizers for large tables share: steps that touch the rows in a gradient alone, and a state by row.

Shapes: **R** rows (first dimension of a parameter), **U** rows touched, **d** numbers of a row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, ClassVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from treesearch.errors import DataError
from treesearch.softmax.row_gradients import merged_gradient

NO_FACTORS = np.ones(1, np.float32)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class RowwiseOptimizer(Optimizer, ABC):
    """An optimizer that takes dense and row-sparse gradients; see `treesearch.softmax.optim` for those there are.

    A parameter's state is made at its first gradient: tensors of its own type, but of single precision at least.
    """

    _state_of_row: ClassVar[dict[str, bool]]  # tensors of the state: [R] where true, else of the parameter's shape

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        defaults: dict[str, Any],
    ) -> None:
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own.

        Raises:
            DataError: As for the class; the group is then not added.
        """
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
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
                self._begin_step(group)
                for param in group["params"]:
                    if param.grad is not None:
                        self._update(param, param.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where another optimizer of the same kind and the same parameters stood, on whatever device.

        Raises:
            DataError: State or settings do not fit this optimizer; nothing is changed.
            ValueError: The groups do not fit (from torch).
        """
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        states = {}
        for index, param in zip(ids, params, strict=False):  # torch refuses other numbers of them
            if index in state_dict["state"]:
                states[param] = self._fitting(state_dict["state"][index], param)
        for group in state_dict["param_groups"]:
            missing = self.defaults.keys() - group.keys()
            if missing:
                raise DataError(
                    f"a group must have the settings {', '.join(self.defaults)}, but one lacks"
                    f" {', '.join(sorted(missing))}; load the state of a {type(self).__name__}"
                )
        factors_here = [
            _beside(group.get("row_rates"), own_group["params"])
            for group, own_group in zip(state_dict["param_groups"], self.param_groups, strict=False)
        ]
        for factor_R, own_group in zip(factors_here, self.param_groups, strict=False):
            _check_factors(factor_R, own_group["params"])
        super().load_state_dict(state_dict)
        for factor_R, own_group in zip(factors_here, self.param_groups, strict=True):
            if factor_R is not None:
                own_group["row_rates"] = factor_R
        # torch gives state the type of its parameter, which would round that of half precision.
        for param, state in states.items():
            for name, own in state.items():
                kept = own.to(param.device, state_dtype(param), copy=True)
                self.state[param][name] = kept.contiguous()

    # -- what an optimizer defines -------------------------------------------------------------------------------------

    def _begin_step(self, group: dict[str, Any]) -> None:
        """Called for each group, before its parameters move."""

    def _start(self, group: dict[str, Any]) -> float:
        """What a new state holds."""
        return 0.0

    @abstractmethod
    def _check_settings(self, group: dict[str, Any]) -> None:
        """Raise `DataError` where a setting is out of range."""

    @abstractmethod
    def _move_all(self, param: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """A step along a dense gradient, of the state's type."""

    @abstractmethod
    def _move_rows(
        self, param: Tensor, row_U: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """A step of rows in plain torch; rows and gradients [U, ...] are those of `merged_gradient`."""

    @abstractmethod
    def _move_rows_compiled(
        self, param_Rd: Tensor, row_U: Tensor, grad_Ud: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """The same by a kernel: float32 on the CPU, contiguous, each row once."""

    # -- inside --------------------------------------------------------------------------------------------------------

    def _update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, dtype = self.state[param], state_dtype(param)
        if not state:
            for name in self._state_of_row:
                shape, start = self._shape(name, param), self._start(group)
                state[name] = torch.full(shape, start, dtype=dtype, device=param.device)
        if grad.layout == torch.strided:
            self._move_all(param, grad.to(dtype), state, group)
            return
        row_U, gradient = merged_gradient(grad, dtype)
        if not (param.numel() and row_U.numel()):  # an empty matrix cannot be cut into rows
            return
        if not _fits_kernel(param, gradient):
            self._move_rows(param, row_U, gradient, state, group)
            return
        grad_Ud = gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]
        self._move_rows_compiled(param.view(param.shape[0], -1), row_U, grad_Ud.contiguous(), state, group)
        torch.autograd.graph.increment_version(param)

    def _shape(self, name: str, param: Tensor) -> torch.Size:
        return param.shape[:1] if self._state_of_row[name] else param.shape

    def _fitting(self, state: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """The tensors of a loaded state, checked."""
        for name, of_row in self._state_of_row.items():
            own, shape = state.get(name), self._shape(name, param)
            if not isinstance(own, Tensor) or own.shape != shape:
                found = tuple(own.shape) if isinstance(own, Tensor) else own
                raise DataError(
                    f"the state must hold one '{name}' per {'row' if of_row else 'entry'}, {tuple(shape)}, but got"
                    f" {found}; load the state of a {type(self).__name__} on these parameters"
                )
        return {name: state[name] for name in self._state_of_row}

    def _check_group(self, group: dict[str, Any]) -> None:
        check_at_least_zero("lr", group["lr"])
        self._check_settings(group)
        if group.get("weight_decay"):
            raise DataError(
                f"{type(self).__name__} has no weight decay, but got weight_decay={group['weight_decay']};"
                " it would touch every row: leave it out, or add a penalty to the loss"
            )
        for param in group["params"]:
            if param.dtype not in DTYPES:
                names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                raise DataError(
                    f"parameters must be of {names}, but one is {param.dtype}; use a real floating-point type"
                )
            if param.dim() == 0:
                raise DataError(
                    "parameters must have rows, but one is a scalar; give it shape (1,) or another optimizer"
                )
        _check_factors(group.get("row_rates"), group["params"])


def state_dtype(param: Tensor) -> torch.dtype:
    """Type of a parameter's state: single precision where the parameter has less."""
    return torch.promote_types(param.dtype, torch.float32)


def rates(group: dict[str, Any], row_U: Tensor | None = None) -> float | Tensor:
    """Learning rate of all rows, or of some: one number where they share it, else one a row."""
    rate = float(group["lr"])
    factor_R: Tensor | None = group.get("row_rates")
    if factor_R is None:
        return rate
    return rate * (factor_R if row_U is None else factor_R.index_select(0, row_U))


def factors(group: dict[str, Any]) -> NDArray[np.float32]:
    """What the compiled steps multiply the learning rate with: [R], or [1] where all rows share it."""
    factor_R: Tensor | None = group.get("row_rates")
    return NO_FACTORS if factor_R is None else factor_R.numpy()


def _beside(factor_R: Any, params: list[Tensor]) -> Any:
    """A copy of loaded factors on the device of their parameters; torch leaves them where they were saved."""
    return factor_R.to(params[0].device, copy=True) if isinstance(factor_R, Tensor) and params else factor_R


def _check_factors(factor_R: Any, params: Iterable[Tensor]) -> None:
    """Raise `DataError` unless these factors, if there are any, fit all parameters of a group."""
    if factor_R is None:
        return
    for param in params:
        if not isinstance(factor_R, Tensor) or factor_R.dtype != torch.float32 or factor_R.shape != param.shape[:1]:
            found = f"{factor_R.dtype} {tuple(factor_R.shape)}" if isinstance(factor_R, Tensor) else repr(factor_R)
            raise DataError(
                f"row_rates must be float32, one for each of the {param.shape[0]} rows, but got {found:.80};"
                " parameters with other rows need a group of their own"
            )
        if factor_R.device != param.device:
            raise DataError(f"row_rates must be on {param.device} like their parameters, but are on {factor_R.device}")
    if not bool(((factor_R >= 0) & factor_R.isfinite()).all()):
        raise DataError("row_rates must be finite and >= 0; leave them out for one learning rate")


def check_at_least_zero(name: str, value: float) -> None:
    """Raise `DataError` unless ``value`` is finite and >= 0."""
    if not 0 <= value < math.inf:
        raise DataError(f"{name} must be finite and >= 0, but got {value}")


def check_positive(name: str, value: float) -> None:
    """Raise `DataError` unless ``value`` is finite and > 0."""
    if not 0 < value < math.inf:
        raise DataError(f"{name} must be finite and > 0, but got {value}")


def _fits_kernel(param: Tensor, gradient: Tensor) -> bool:
    """Whether the compiled step can take these: float32 numbers that are really on the CPU, each row in one piece."""
    plain = type(param) in (Tensor, torch.nn.Parameter) and type(gradient) is Tensor
    return plain and param.device.type == "cpu" and param.dtype == torch.float32 and param.is_contiguous()
