"""Weighted sums up and down a tree as differentiable operations: linear time and memory, chains included.

Shapes: **C** classes, **M** nodes in all, **d** any number of columns.

Up, a node gets its own value and its children's, each times the child's share; down, its own and its parent's times its
own share. The two are each other's transpose, so each is the other's gradient.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from treesearch.tree import IntArray, Tree

FloatArray = NDArray[np.float64]


@njit(cache=True)
def accumulate_up(parent: IntArray, share: FloatArray, values: FloatArray) -> None:
    """Add to each row of ``values`` [M, d] the rows of its children times their ``share`` [M], in place.

    Args:
        parent: int32 [M], canonical: parents come before their children.
        share: float64 [M]; that of the root is not read.
        values: float64 [M, d].
    """
    for node in range(parent.size - 1, 0, -1):
        for column in range(values.shape[1]):
            values[parent[node], column] += share[node] * values[node, column]


@njit(cache=True)
def accumulate_down(parent: IntArray, share: FloatArray, values: FloatArray) -> None:
    """Add to each row of ``values`` [M, d] its parent's times its own ``share`` [M], in place; arguments as above."""
    for node in range(1, parent.size):
        for column in range(values.shape[1]):
            values[node, column] += share[node] * values[parent[node], column]


@njit(cache=True)
def log_sums_up(parent: IntArray, num_internal: int, values: FloatArray) -> None:
    """Fill the rows of the internal nodes with the logarithm of the sum of exp(row) over the leaves below, in place.

    Args:
        parent: int32 [M], canonical: parents come before their children.
        num_internal: N.
        values: float64 [M, d]; rows of internal nodes are not read.
    """
    values[:num_internal] = -np.inf
    for node in range(parent.size - 1, 0, -1):
        for column in range(values.shape[1]):
            low, high = values[parent[node], column], values[node, column]
            if low > high:
                low, high = high, low
            if high > -np.inf:
                values[parent[node], column] = high + np.log1p(np.exp(low - high))


def sums_up(tree: Tree, share_M: FloatArray, values_Md: Tensor) -> Tensor:
    """Each node's own value and those of its children times their shares, [M, d].

    With ``share`` the part of its parent's mass that a node has, and zeros at the internal nodes, these are the
    weighted means of the leaves below each node.

    Computed in float64 on the CPU, through which values on another device go; torch's compilers do not trace it.

    Args:
        tree: Over M nodes.
        share_M: float64 [M].
        values_Md: [M, d] of any floating type and device.
    """
    return cast(Tensor, _accumulate(values_Md, tree.parent, share_M, True))


def sums_down(tree: Tree, share_M: FloatArray, values_Md: Tensor) -> Tensor:
    """Each node's own value and its parent's sum times the node's share, [M, d]: sums over paths; as `sums_up`."""
    return cast(Tensor, _accumulate(values_Md, tree.parent, share_M, False))


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, parent: IntArray, share: FloatArray, up: bool) -> Tensor:
        host = values.detach().to("cpu", torch.float64, copy=True, memory_format=torch.contiguous_format)
        (accumulate_up if up else accumulate_down)(parent, share, host.numpy())
        return host.to(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.parent, ctx.share, ctx.up = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _accumulate(grads[0], ctx.parent, ctx.share, not ctx.up), None, None, None


_accumulate: Any = cast(Any, _Accumulate).apply
