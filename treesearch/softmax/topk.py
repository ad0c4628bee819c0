"""The k most probable classes, exactly: best-first down the tree on the CPU, or from the scores of all classes.

Shapes: **B** batch, **D** features, **C** classes, **N** internal nodes, **M** all nodes; here **k** counts classes.

An edge of the tree never raises the log-probability. So when the most probable node of the frontier is less probable
than k classes that have been found, so is everything below it, and the search is over; a node less probable than the
k-th class is never visited, and with the nodes of a level sharing a mass of one, no level has more than 1 / p_(k)
visited nodes (branch and bound; as in best-first decoding of label trees).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.paths import input_dims
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.topk_kernels import TopKTables, search


class TopK(NamedTuple):
    """The k most probable classes of each example, best first; of equals the smaller class id first.

    What is not a number counts as larger than any number, as in `torch.topk`; the search on the CPU finds it only
    where it goes, and keeps the first k such classes that it meets.
    """

    log_prob: Tensor  # [..., k] nats, falling; -inf where fewer than k classes were found (only with ``max_nodes``)
    indices: Tensor  # int64 [..., k] class ids; -1 where none was found
    num_nodes: Tensor  # int64 [...] internal nodes whose decision was evaluated
    exact: Tensor  # bool [...] these are certainly the k most probable classes; false if one is not a number


def check_arguments(k: int, num_classes: int, max_nodes: int | None) -> None:
    """Check what the user asks for.

    Raises:
        DataError: ``k`` is not an integer in [1, C], or ``max_nodes`` neither None nor an integer >= 1.
    """
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= num_classes:
        raise DataError(f"k must lie in [1, {num_classes}], but got {k}")
    if max_nodes is not None and (not isinstance(max_nodes, (int, np.integer)) or max_nodes < 1):
        raise DataError(f"max_nodes must be an integer >= 1, or None for no limit, but got {max_nodes}")


def topk_tables(layout: SoftmaxLayout) -> TopKTables:
    """The tables of a layout for `best_first`, in O(M)."""
    tree = layout.tree
    scope_dim = np.array(layout.scope_dim, np.int64)
    is_leaf = tree.child_idx >= tree.num_internal
    child = tree.child_idx.astype(np.int32)
    child[is_leaf] = ~tree.leaf_class[child[is_leaf] - tree.num_internal]
    columns = (
        tree.child_ptr[:-1],
        tree.arities,
        input_dims(tree, layout.in_features),
        layout.node_width,
        layout.node_row,
        layout.node_scope,
        tree.projection_dim > 0,
        tree.node_depths[: tree.num_internal],
    )
    scopes = (layout.scope_parent, scope_dim, layout.source_dim, np.cumsum(scope_dim) - scope_dim)
    return TopKTables(
        node=np.stack(columns, axis=1).astype(np.int32),
        child=child,
        scope=np.stack([np.array(column, np.int64) for column in scopes], axis=1),
        in_features=layout.in_features,
        num_widths=len(layout.widths),
        hidden_size=int(scope_dim.sum()),
    )


def best_first(
    tables: TopKTables,
    input_BD: Tensor,
    k: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    max_nodes: int | None = None,
) -> TopK:
    """The k most probable classes by best-first search: exact, unless ``max_nodes`` cuts it short.

    Args:
        tables: Of the tree.
        input_BD: float32 or float64, on the CPU.
        k: Number of classes, 1 to C.
        weights: One matrix of rows per width, of the type of the input like all parameters.
        biases: One vector per width, or empty.
        projections: One matrix [d, source d] per scope.
        max_nodes: Visit at most so many nodes of one depth, the most probable ones that are reached (a beam); None
            for no limit.

    Returns:
        Shapes [B, k] and [B]; without gradients.

    Raises:
        DataError: ``k`` or ``max_nodes`` is out of range, the input does not fit the tree, or a tensor has another type
            or is not on the CPU.
    """
    check_arguments(k, tables.child.size - tables.node.shape[0] + 1, max_nodes)
    if input_BD.dim() != 2 or input_BD.shape[1] != tables.in_features:
        raise DataError(f"input must have shape [B, {tables.in_features}], but got {tuple(input_BD.shape)}")
    parameters = [*weights, *biases, *projections]
    dtype = input_BD.dtype
    for tensor in (input_BD, *parameters):
        if tensor.dtype != dtype or not tensor.is_cpu or dtype not in (torch.float32, torch.float64):
            raise DataError(
                "best-first search needs inputs and parameters of one type, float32 or float64, on the CPU,"
                f" but got {dtype} and {tensor.dtype} on {tensor.device}; score all classes instead"
            )
    parameters = [tensor.contiguous() for tensor in parameters]  # as a rule no copies; kept until the search is over
    inputs_BD = input_BD.detach().contiguous().numpy()
    batch = inputs_BD.shape[0]
    log_prob_Bk = np.empty((batch, k), inputs_BD.dtype)
    class_Bk = np.empty((batch, k), np.int64)
    num_nodes_B = np.empty(batch, np.int64)
    exact_B = np.empty(batch, np.bool_)
    search(
        tables,
        np.array([tensor.data_ptr() for tensor in parameters], np.int64),
        len(biases) > 0,
        inputs_BD,
        max_nodes or 0,
        log_prob_Bk,
        class_Bk,
        num_nodes_B,
        exact_B,
    )
    return TopK(*map(torch.from_numpy, (log_prob_Bk, class_Bk, num_nodes_B, exact_B)))


def from_full(log_prob_BC: Tensor, k: int, *, num_nodes: int) -> TopK:
    """The k most probable classes where all have been scored; any device and type, nothing waits for the device.

    Args:
        log_prob_BC: [..., C].
        k: Number of classes, 1 to C.
        num_nodes: Internal nodes of the tree: all have been evaluated.

    Returns:
        Shapes [..., k] and [...].

    Raises:
        DataError: ``k`` is out of range.
    """
    num_classes = log_prob_BC.shape[-1]
    check_arguments(k, num_classes, None)
    # A log-probability is never positive: infinity is free to stand for what is not a number.
    key_BC = torch.where(log_prob_BC.isnan(), torch.inf, log_prob_BC)
    # torch.topk takes any of equals: of those that equal the k-th take the smallest ids, then order by value and id.
    top = key_BC.topk(k, sorted=True)
    last_B1 = top.values[..., -1:]
    ids_C = torch.arange(num_classes, device=key_BC.device)
    equal_Bk = torch.where(key_BC == last_B1, ids_C, num_classes).topk(k, largest=False, sorted=True).values
    larger_Bk = top.values > last_B1
    rank_Bk = torch.arange(k, device=key_BC.device) - larger_Bk.sum(-1, keepdim=True)
    index_Bk = torch.where(larger_Bk, top.indices, equal_Bk.gather(-1, rank_Bk.clamp(min=0)))
    index_Bk = index_Bk.sort(-1).values
    order_Bk = key_BC.gather(-1, index_Bk).sort(dim=-1, descending=True, stable=True).indices
    index_Bk = index_Bk.gather(-1, order_Bk)
    values_Bk = log_prob_BC.gather(-1, index_Bk)
    lead = log_prob_BC.shape[:-1]
    return TopK(
        log_prob=values_Bk,
        indices=index_Bk,
        num_nodes=torch.full(lead, num_nodes, device=log_prob_BC.device),
        exact=~values_Bk[..., 0].isnan(),
    )
