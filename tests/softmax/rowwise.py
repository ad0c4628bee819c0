"""Parameters and row-sparse gradients for the tests of the row-wise optimizers."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Made = TypeVar("Made", bound=torch.optim.Optimizer)


def parameter(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype))


def gradients(shape: tuple[int, ...], num: int = 5, seed: int = 1) -> list[Tensor]:
    """Gradients with zeros at a third of their rows."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(num):
        gradient = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 3, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
        gradient[rng.random(shape[0]) < 1 / 3] = 0
        result.append(torch.from_numpy(gradient))
    return result


def row_sparse(gradient: Tensor, rng: np.random.Generator, *, pieces: int = 1) -> Tensor:
    """The non-zero rows in random order; with more pieces, each as so many uncoalesced parts of its sum."""
    rows = np.unique(gradient.nonzero()[:, 0])
    order = rng.permutation(np.repeat(np.arange(rows.size), pieces))
    values = gradient[torch.from_numpy(rows[order])] / pieces
    return torch.sparse_coo_tensor(torch.from_numpy(rows[order])[None], values, gradient.shape, check_invariants=True)


def steps_of(make: Callable[..., Made], param: nn.Parameter, steps: list[Tensor], **options: Any) -> Made:
    """The optimizer after a step for each gradient."""
    optimizer = make([param], **options)
    for gradient in steps:
        param.grad = gradient
        optimizer.step()
    return optimizer


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
