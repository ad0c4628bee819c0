"""The gradient of a large table as the rows it holds, each once.

Shapes: **R** rows of the table, **U** rows touched, **Z** rows of an uncoalesced gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treesearch.errors import DataError


def merged_gradient(grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows of a row-sparse gradient and their values; rows that stand in it twice are added up, in ``dtype``.

    Returns:
        Rows, int64 [U], rising, and values [U, ...]. On the CPU each row is there once; on other devices the places
        that merging left over hold the last row again, and zeros: see `merge_rows`.

    Raises:
        DataError: The gradient is sparse in another way than by rows.
    """
    if grad.layout != torch.sparse_coo or grad.sparse_dim() != 1:
        raise DataError(
            f"a gradient must be dense or sparse by rows, but got {grad.layout} of shape {tuple(grad.shape)};"
            " use to_dense()"
        )
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
    is_first_Z = first_of_equals(sorted_Z)
    place_Z = is_first_Z.cumsum(0) - 1
    merged_row = sorted_Z[-1:].expand_as(sorted_Z).clone().index_copy_(0, place_Z, sorted_Z)
    merged = torch.zeros_like(values).index_add_(0, place_Z, values.index_select(0, order_Z))
    return merged_row, merged


def first_of_equals(sorted_Z: Tensor) -> Tensor:
    """Which numbers differ from the one before them, bool [Z]."""
    is_first_Z = torch.ones_like(sorted_Z, dtype=torch.bool)
    is_first_Z[1:] = sorted_Z[1:] != sorted_Z[:-1]
    return is_first_Z


def row_mean_square(gradient: Tensor) -> Tensor:
    """Mean square of each row of [U, ...], [U]; of a vector every entry is a row."""
    square = gradient.square()
    return square if square.dim() == 1 else square.flatten(1).mean(1)


def by_row(scale_U: Tensor, like: Tensor) -> Tensor:
    """One number a row, [U, 1, ...], to be multiplied with ``like`` [U, ...]."""
    return scale_U.view(-1, *[1] * (like.dim() - 1))
