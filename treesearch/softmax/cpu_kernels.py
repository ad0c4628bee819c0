"""Hierarchical softmax on the CPU, compiled by numba: grouped by node, nothing gathered that is not used once.

Shapes: **B** batch (rows of inputs), **D** features, **N** internal nodes, **R** logit rows, **S** scopes, **E** path
entries, **K** arity, **d** inputs of a node.

A *scope* is what one projection feeds: the node that carries it and everything below down to the next projection. The
raw inputs are no scope (-1). Kernels work on flat parameter arrays; `Layout` says where each node's begin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Layout(NamedTuple):
    """Where the tree's paths lead and where each node keeps its parameters."""

    path_ptr: NDArray[np.int64]  # [C+1]
    path_node: NDArray[np.int32]  # [P]
    path_branch: NDArray[np.int32]  # [P]
    arity: NDArray[np.int32]  # [N]
    input_dim: NDArray[np.int32]  # [N]
    row_ptr: NDArray[np.int64]  # [N] first entry in the flat biases
    num_rows: NDArray[np.int64]  # [N]
    weight_ptr: NDArray[np.int64]  # [N] first entry in the flat weights
    scope: NDArray[np.int32]  # [N] scope that feeds the node, -1 for the raw inputs
    opens_scope: NDArray[np.bool_]  # [N] the node carries a projection
    scope_parent: NDArray[np.int32]  # [S] scope that the projection reads, -1 for the raw inputs
    scope_dim: NDArray[np.int32]  # [S] output size
    source_dim: NDArray[np.int32]  # [S] input size
    projection_ptr: NDArray[np.int64]  # [S+1] into the flat projections
    projection_row_ptr: NDArray[np.int64]  # [S+1] rows before each projection


class Entries(NamedTuple):
    """The decisions of a batch, in the order of its rows."""

    node: NDArray[np.int64]  # [E]
    branch: NDArray[np.int64]  # [E] child taken
    owner: NDArray[np.int64]  # [E] row of the batch
    start: NDArray[np.int64]  # [E] where the decision's input begins: in the flat inputs, or in ``hidden`` if scoped


class Openings(NamedTuple):
    """Rows that enter scopes, grouped by scope; parents come before their children."""

    scope: NDArray[np.int64]  # [G] scopes of the batch
    ptr: NDArray[np.int64]  # [G+1] openings of each
    source: NDArray[np.int64]  # [O] where the projection's input begins: in the flat inputs, or in ``hidden``
    hidden_ptr: NDArray[np.int64]  # [G+1] where each scope's rows begin in ``hidden``


@njit(cache=True)
def group_by_key(keys, num, slot, group_ptr, order):
    """Group entries ``0 .. num-1`` by key, groups by first appearance; returns the number of groups.

    ``slot`` (one per possible key) holds -1 before and after; ``group_ptr`` (longer than the number of groups) and
    ``order`` are filled.
    """
    num_groups = 0
    for entry in range(num):
        if slot[keys[entry]] < 0:
            slot[keys[entry]] = num_groups
            num_groups += 1
            group_ptr[num_groups] = 0
        group_ptr[slot[keys[entry]] + 1] += 1
    group_ptr[0] = 0
    for group in range(num_groups):
        group_ptr[group + 1] += group_ptr[group]
    for entry in range(num):
        group = slot[keys[entry]]
        order[group_ptr[group]] = entry
        group_ptr[group] += 1
    for group in range(num_groups, 0, -1):
        group_ptr[group] = group_ptr[group - 1]
    group_ptr[0] = 0
    for entry in range(num):
        slot[keys[entry]] = -1
    return num_groups


@njit(cache=True)
def plan_batch(layout, first_B, last_B, num_features, slot):
    """Lay out the decisions of a batch whose rows take the path entries ``first_B .. last_B``.

    Args:
        layout: The tree.
        first_B: int64 [B].
        last_B: int64 [B].
        num_features: D.
        slot: int64, at least max(N, S) entries, all -1; scratch.

    Returns:
        Entries, openings, and the largest number of entries that a group can have.
    """
    num_entries, num_openings = 0, 0
    for i in range(first_B.size):
        num_entries += last_B[i] - first_B[i]
        for entry in range(first_B[i], last_B[i]):
            if layout.opens_scope[layout.path_node[entry]]:
                num_openings += 1
    scope_of = np.empty(num_openings, np.int64)
    opening = 0
    for i in range(first_B.size):
        for entry in range(first_B[i], last_B[i]):
            node = layout.path_node[entry]
            if layout.opens_scope[node]:
                scope_of[opening] = layout.scope[node]
                opening += 1
    order = np.empty(num_openings, np.int64)
    ptr = np.zeros(num_openings + 1, np.int64)
    num_scopes = group_by_key(scope_of, num_openings, slot, ptr, order)
    ptr = ptr[: num_scopes + 1].copy()
    scope = np.empty(num_scopes, np.int64)
    hidden_ptr = np.zeros(num_scopes + 1, np.int64)
    hidden_start = np.empty(num_openings, np.int64)
    place = np.empty(num_openings, np.int64)
    for group in range(num_scopes):
        scope[group] = scope_of[order[ptr[group]]]
        dim = layout.scope_dim[scope[group]]
        for position in range(ptr[group], ptr[group + 1]):
            hidden_start[order[position]] = hidden_ptr[group] + (position - ptr[group]) * dim
            place[order[position]] = position
        hidden_ptr[group + 1] = hidden_ptr[group] + (ptr[group + 1] - ptr[group]) * dim

    source = np.empty(num_openings, np.int64)
    entry_node = np.empty(num_entries, np.int64)
    entry_branch = np.empty(num_entries, np.int64)
    entry_owner = np.empty(num_entries, np.int64)
    entry_start = np.empty(num_entries, np.int64)
    count, opening = 0, 0
    for i in range(first_B.size):
        start = i * num_features
        for entry in range(first_B[i], last_B[i]):
            node = layout.path_node[entry]
            if layout.opens_scope[node]:
                source[place[opening]] = start
                start = hidden_start[opening]
                opening += 1
            entry_node[count] = node
            entry_branch[count] = layout.path_branch[entry]
            entry_owner[count] = i
            entry_start[count] = start
            count += 1
    return Entries(entry_node, entry_branch, entry_owner, entry_start), Openings(scope, ptr, source, hidden_ptr)


@njit(cache=True)
def group_by_node(entries, slot):
    """Decisions of a batch by node, see `group_by_key`: number of nodes, pointers into the order, order [E]."""
    order = np.empty(entries.node.size, np.int64)
    group_ptr = np.zeros(entries.node.size + 1, np.int64)
    num_groups = group_by_key(entries.node, entries.node.size, slot, group_ptr, order)
    return num_groups, group_ptr, order


@njit(cache=True)
def gather_rows(values, start, low, high, dim):
    """Rows ``values[start[i] : start[i] + dim]`` for i in ``low .. high-1``, float32 [high - low, dim]."""
    rows = np.empty((high - low, dim), np.float32)
    for i in range(low, high):
        for d in range(dim):
            rows[i - low, d] = values[start[i] + d]
    return rows


@njit(cache=True)
def scatter_rows(values, start, low, high, rows):
    """Add ``rows`` to where `gather_rows` took them."""
    for i in range(low, high):
        for d in range(rows.shape[1]):
            values[start[i] + d] += rows[i - low, d]


@njit(cache=True)
def scope_matrix(layout, projection, scope):
    """The projection of a scope as a matrix [d, source d]; a view."""
    flat = projection[layout.projection_ptr[scope] : layout.projection_ptr[scope + 1]]
    return flat.reshape(layout.scope_dim[scope], layout.source_dim[scope])


@njit(cache=True)
def scope_inputs(layout, openings, group, inputs, hidden):
    """What the projection of a scope reads, [rows, source d]."""
    scope = openings.scope[group]
    values = inputs if layout.scope_parent[scope] < 0 else hidden
    return gather_rows(values, openings.source, openings.ptr[group], openings.ptr[group + 1], layout.source_dim[scope])


@njit(cache=True)
def project_all(layout, openings, inputs, projection):
    """Outputs of all projections, flat: scope after scope, row after row."""
    hidden = np.empty(openings.hidden_ptr[-1], np.float32)
    for group in range(openings.scope.size):
        rows = scope_inputs(layout, openings, group, inputs, hidden)
        matrix = scope_matrix(layout, projection, openings.scope[group])
        hidden[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]] = np.dot(rows, matrix.T).ravel()
    return hidden


@njit(cache=True)
def node_matrix(layout, values, node):
    """The rows of a node in a flat array as a matrix [rows, d]; a view."""
    size = layout.num_rows[node] * layout.input_dim[node]
    return values[layout.weight_ptr[node] : layout.weight_ptr[node] + size].reshape(
        layout.num_rows[node], layout.input_dim[node]
    )


@njit(cache=True)
def squared_norm(values):
    """Sum of squares in a fixed order: four partial sums, so that it is fast without reordering."""
    a, b, c, d = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    whole = values.size - values.size % 4
    for i in range(0, whole, 4):
        a += values[i] * values[i]
        b += values[i + 1] * values[i + 1]
        c += values[i + 2] * values[i + 2]
        d += values[i + 3] * values[i + 3]
    for i in range(whole, values.size):
        a += values[i] * values[i]
    return (a + b) + (c + d)


@njit(cache=True)
def softmax_residuals(logits_mK, bias_K, targets_m, nll_m):
    """From products to ``softmax - one-hot`` in place; the NLL of each target, in nats, goes to ``nll_m``.

    Without fastmath: sums in another order would differ in the last digit from one compilation to the next.
    """
    for i in range(logits_mK.shape[0]):
        top = logits_mK[i, 0] + bias_K[0]
        for k in range(bias_K.size):
            logits_mK[i, k] += bias_K[k]
            top = max(top, logits_mK[i, k])
        at_target = logits_mK[i, targets_m[i]]
        normaliser = np.float32(0.0)
        for k in range(bias_K.size):
            logits_mK[i, k] = np.exp(logits_mK[i, k] - top)
            normaliser += logits_mK[i, k]
        nll_m[i] = np.log(normaliser) + top - at_target
        scale = np.float32(1.0) / normaliser
        for k in range(bias_K.size):
            logits_mK[i, k] *= scale
        logits_mK[i, targets_m[i]] -= np.float32(1.0)


@njit(cache=True, fastmath=True, error_model="numpy")
def binary_pass(
    low, high, order, start, branch, owner, values, values_grad, dim, weight, bias, grad_weight, grad_bias, offset, row,
    scale_B, learn, nll_B,
):  # fmt: skip
    """All decisions of one binary node: adds to ``nll_B``, or (``learn``) to the gradients of ``scale . nll``."""
    size, base = np.uint64(dim), np.uint64(offset)
    for position in range(low, high):
        entry = order[position]
        begin = np.uint64(start[entry])
        logit = np.float32(0.0)
        for d in range(size):
            logit += weight[base + d] * values[begin + d]
        logit += bias[row]
        if not learn:
            signed = logit if branch[entry] == 0 else -logit
            nll_B[owner[entry]] += max(-signed, np.float32(0.0)) + np.log1p(np.exp(-abs(signed)))
            continue
        target = np.float32(1.0 - branch[entry])
        gradient = (np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)) - target) * scale_B[owner[entry]]
        for d in range(size):
            values_grad[begin + d] += gradient * weight[base + d]
        for d in range(size):
            grad_weight[base + d] += gradient * values[begin + d]
        grad_bias[row] += gradient


@njit(cache=True)
def batch_pass(
    layout, weight, bias, projection, inputs_BD, targets_B, scale_B, learn, nll_B, grad_weight, grad_bias,
    grad_projection, grad_inputs,
):  # fmt: skip
    """NLL of a batch, or (``learn``) the gradients of ``scale_B . nll_B``; gradients are added to zeros given.

    Args:
        layout: The tree.
        weight: float32, flat.
        bias: float32, flat.
        projection: float32, flat.
        inputs_BD: float32.
        targets_B: int64 class ids.
        scale_B: float32, weight of each row's NLL; used when learning.
        learn: Which of the two.
        nll_B: float32, filled when not learning.
        grad_weight: Like ``weight``, filled when learning.
        grad_bias: Like ``bias``.
        grad_projection: Like ``projection``.
        grad_inputs: float32 [B * D], flat.
    """
    num_features = inputs_BD.shape[1]
    inputs = inputs_BD.ravel()
    slot = np.full(max(layout.arity.size, layout.scope_dim.size, 1), -1, np.int64)
    first_B, last_B = layout.path_ptr[targets_B], layout.path_ptr[targets_B + 1]
    entries, openings = plan_batch(layout, first_B, last_B, num_features, slot)
    hidden = project_all(layout, openings, inputs, projection)
    hidden_grad = np.zeros(hidden.size if learn else 0, np.float32)

    num_groups, group_ptr, order = group_by_node(entries, slot)
    start_of = entries.start[order]
    for group in range(num_groups):
        low, high = group_ptr[group], group_ptr[group + 1]
        node = entries.node[order[low]]
        dim = layout.input_dim[node]
        scoped = layout.scope[node] >= 0
        values = hidden if scoped else inputs
        values_grad = hidden_grad if scoped else grad_inputs
        row = layout.row_ptr[node]
        if layout.arity[node] == 2:
            binary_pass(
                low, high, order, entries.start, entries.branch, entries.owner, values, values_grad, dim, weight, bias,
                grad_weight, grad_bias, layout.weight_ptr[node], row, scale_B, learn, nll_B,
            )  # fmt: skip
            continue
        arity = layout.arity[node]
        rows_md = gather_rows(values, start_of, low, high, dim)
        weight_Kd = node_matrix(layout, weight, node)
        residual_mK = np.dot(rows_md, weight_Kd.T)
        nll_m = np.empty(high - low, np.float32)
        softmax_residuals(residual_mK, bias[row : row + arity], entries.branch[order[low:high]], nll_m)
        if not learn:
            for i in range(high - low):
                nll_B[entries.owner[order[low + i]]] += nll_m[i]
            continue
        for i in range(high - low):
            scale = scale_B[entries.owner[order[low + i]]]
            for k in range(arity):
                residual_mK[i, k] *= scale
                grad_bias[row + k] += residual_mK[i, k]
        scatter_rows(values_grad, start_of, low, high, np.dot(residual_mK, weight_Kd))
        grad_Kd = node_matrix(layout, grad_weight, node)
        np.dot(residual_mK.T, rows_md, grad_Kd)
    if not learn:
        return

    for group in range(openings.scope.size - 1, -1, -1):
        scope = openings.scope[group]
        rows = scope_inputs(layout, openings, group, inputs, hidden)
        grad = hidden_grad[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]].reshape(
            rows.shape[0], layout.scope_dim[scope]
        )
        np.dot(grad.T, rows, scope_matrix(layout, grad_projection, scope))
        source_grad = grad_inputs if layout.scope_parent[scope] < 0 else hidden_grad
        above = np.dot(grad, scope_matrix(layout, projection, scope))
        scatter_rows(source_grad, openings.source, openings.ptr[group], openings.ptr[group + 1], above)
