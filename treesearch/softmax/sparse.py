"""Fetching rows of a parameter, with a gradient that is one matrix or, on request, row-sparse (`sparse=True`).

A row-sparse gradient is a COO tensor with one sparse dimension, what `torch.nn.Embedding(sparse=True)` gives and
`torch.optim.SparseAdam`, `SGD` and `Adagrad` take. That of the ``cpu`` kernel has its rows in rising order, each once;
in those made here a row fetched twice stands twice. ``is_coalesced`` does not tell: torch drops that mark on the way to
the parameter. They are for eager execution: torch's compilers do not trace sparse tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


class _Rows(torch.autograd.Function):
    """Several fetches from one parameter: their gradients go into one matrix, not into one each.

    Torch's compilers see through it and fuse the fetches with what uses the rows, which one fetch of all would prevent.
    """

    @staticmethod
    def forward(values: Tensor, sparse: bool, *rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(values.index_select(0, own) for own in rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        values, ctx.sparse, *rows = inputs
        ctx.save_for_backward(*rows)
        ctx.shape = values.shape

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.saved_tensors
        unused = (None,) * (1 + len(rows))
        if ctx.sparse:
            return row_sparse(torch.cat(rows), torch.cat(grads), ctx.shape), *unused
        total = grads[0].new_zeros(ctx.shape)
        for own, grad in zip(rows, grads, strict=True):
            total = total.index_add_(0, own, grad)
        return total, *unused


class _SparseIdentity(torch.autograd.Function):
    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        return matrix.view_as(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return row_sparse(torch.arange(grads[0].shape[0], device=grads[0].device), grads[0], grads[0].shape)


_rows: Any = cast(Any, _Rows).apply
_sparse_identity: Any = cast(Any, _SparseIdentity).apply


def gather_rows(values: Tensor, rows: Tensor, sparse: bool) -> Tensor:
    """``values[rows]``.

    Args:
        values: [R, d] or [R].
        rows: int32 or int64 [...], in [0, R).
        sparse: Whether the gradient of ``values`` is row-sparse.

    Returns:
        [..., d] or [...].

    Raises:
        IndexError, RuntimeError: On the CPU, a row outside [0, R); a negative row does not wrap.
    """
    if sparse:
        return gather_many(values, [rows], True)[0]
    return values.index_select(0, rows.reshape(-1)).view(*rows.shape, *values.shape[1:])


def gather_many(values: Tensor, rows: Sequence[Tensor], sparse: bool) -> list[Tensor]:
    """``values[rows]`` for several index tensors; the gradient fills one matrix (or row-sparse tensor) for all.

    Arguments and errors are those of `gather_rows`.
    """
    if len(rows) == 1 and not sparse:
        return [gather_rows(values, rows[0], False)]
    taken = _rows(values, sparse, *(own.reshape(-1) for own in rows))
    return [part.view(*own.shape, *values.shape[1:]) for own, part in zip(rows, taken, strict=True)]


def all_rows(matrix: Tensor, sparse: bool) -> Tensor:
    """``matrix`` itself; with ``sparse`` its gradient is row-sparse and holds every row."""
    return _sparse_identity(matrix) if sparse else matrix


def row_sparse(rows: Tensor, grad: Tensor, shape: torch.Size, *, coalesced: bool = False) -> Tensor:
    """A gradient of this shape that holds these rows; ``coalesced`` promises that they rise, each once."""
    # torch misreads values whose first dimension has one entry and any stride but the usual one; this restores it.
    values = grad.flatten().view(grad.shape)
    # The checks of the invariants would wait for the device.
    return torch.sparse_coo_tensor(
        rows.long()[None], values, shape, check_invariants=False, is_coalesced=coalesced or None
    )
