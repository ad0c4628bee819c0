"""Hierarchical softmax of a batch on the CPU, compiled by numba: nothing is gathered that is not used at once.

Shapes: **B** batch (rows of inputs), **D** features, **N** internal nodes, **E** decisions, **K** arity, **Q** masses,
**m** rows at one node, **d** inputs of a node.

The forward pass is the longer one: the gradient of a row's NLL with respect to its input needs the weights that have
just been read, and is linear in the gradient that comes from above, so it is added up at once and scaled later. The
backward pass then reads the inputs alone. Sums may be reordered for speed (NaN and infinity keep their meaning).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.softmax.cpu_plan import (
    ARITY,
    DIM,
    OUTPUT_DIM,
    PARENT,
    ROW,
    SCOPE,
    WIDTH,
    Entries,
    Openings,
    gather_rows,
    group_by_key,
    node_matrix,
    node_vector,
    num_rows,
    plan_batch,
    plan_decisions,
    project_all,
    scatter_rows,
    scope_inputs,
    scope_matrix,
)
from treesearch.softmax.pointers import float32_at, int64_at, prefetch, prefetch_all
from treesearch.softmax.vector_math import REORDER, exp32, log1p32
from treesearch.softmax.wide_kernels import small_combinations, small_products, softmax_residuals

SMALL_PRODUCT = 8192  # m * K up to which written-out loops beat a call of BLAS
AHEAD = 8  # decisions between asking for a node's weights and using them


class Saved(NamedTuple):
    """What the backward pass needs."""

    entries: Entries
    openings: Openings
    group_ptr: NDArray[np.int64]  # decisions by node
    order: NDArray[np.int64]  # [E]
    num_groups: int
    residual: NDArray[np.float32]  # [E] of binary decisions: probability of child 0, times all mass, minus its mass
    wide_residual: NDArray[np.float32]  # the same of all children [m, K] of wide nodes, node after node
    hidden: NDArray[np.float32]  # outputs of the projections
    hidden_grad: NDArray[np.float32]  # gradient of each row's NLL there
    input_grad: NDArray[np.float32]  # [B * D] gradient of each row's NLL
    touched: NDArray[np.int64]  # [W] logit rows of the nodes on the paths


@njit(inline="always")
def _take(logit, branch):
    """NLL of one child of a binary node, and its derivative by the logit."""
    taken = logit if branch == 0 else -logit
    tail = exp32(-abs(taken))
    missed = (np.float32(1.0) if taken < np.float32(0.0) else tail) / (np.float32(1.0) + tail)  # 1 - P(taken)
    return max(-taken, np.float32(0.0)) + log1p32(tail), -missed if branch == 0 else missed


@njit(inline="always")
def _share(logit, first, second):
    """NLL of both children of a binary node by their masses, and its derivative by the logit.

    A child without mass adds nothing, whatever it has.
    """
    tail = exp32(-abs(logit))
    likelier, other = np.float32(1.0) / (np.float32(1.0) + tail), tail / (np.float32(1.0) + tail)
    negative = logit < np.float32(0.0)
    nll = (first + second) * log1p32(tail)
    missed = first if negative else second  # the mass that is not where the larger probability is
    if missed > np.float32(0.0):
        nll += missed * abs(logit)
    # P(child 0) * (first + second) - first, without a difference of large numbers
    return nll, second * (other if negative else likelier) - first * (likelier if negative else other)


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def _decide_binary(
    node_table, weight_address_W, bias_address_W, has_bias, entry_node, entry_branch, entry_owner, entry_start,
    input_address, hidden_address, input_grad_address, hidden_grad_address, nll_B, residual_E, keeps, wants_inputs,
    mass_ptr, mass_Q,
):  # fmt: skip
    """All decisions at binary nodes, in the order of the batch: a row's input and its gradient stay in cache."""
    for entry in range(entry_node.size):
        if entry + 2 * AHEAD < entry_node.size:
            prefetch(node_table.ctypes.data + 4 * node_table.shape[1] * np.int64(entry_node[entry + 2 * AHEAD]))
        if entry + AHEAD < entry_node.size:
            node = entry_node[entry + AHEAD]
            size = 4 * np.int64(node_table[node, DIM])
            prefetch_all(weight_address_W[node_table[node, WIDTH]] + node_table[node, ROW] * size, size)
        node = entry_node[entry]
        if node_table[node, ARITY] != 2:
            continue
        dim = np.uint64(node_table[node, DIM])
        width, row = node_table[node, WIDTH], np.int64(node_table[node, ROW])
        scoped = node_table[node, SCOPE] >= 0
        offset = 4 * entry_start[entry]
        weight = float32_at(weight_address_W[width] + 4 * row * np.int64(dim), np.int64(dim))
        values = float32_at((hidden_address if scoped else input_address) + offset, np.int64(dim))
        logit = np.float32(0.0)
        for d in range(dim):
            logit += weight[d] * values[d]
        if has_bias:
            logit += float32_at(bias_address_W[width] + 4 * row, 1)[0]
        if mass_Q is None:
            nll, gradient = _take(logit, entry_branch[entry])
        else:
            nll, gradient = _share(logit, mass_Q[mass_ptr[entry]], mass_Q[mass_ptr[entry] + 1])
        nll_B[entry_owner[entry]] += nll
        if not keeps:
            continue
        residual_E[entry] = gradient
        if scoped or wants_inputs:
            grad = float32_at((hidden_grad_address if scoped else input_grad_address) + offset, np.int64(dim))
            for d in range(dim):
                grad[d] += gradient * weight[d]


@njit(cache=True)
def _decide_wide(layout, entries, group_ptr, order, num_groups, weight_address_W, bias_address_W, has_bias, inputs,
                 hidden, input_grad, hidden_grad, nll_B, wide_residual, keeps, wants_inputs, mass_ptr,
                 mass_Q):  # fmt: skip
    """All decisions at wide nodes, node by node, as products of matrices."""
    done = 0
    for group in range(num_groups):
        low, high = group_ptr[group], group_ptr[group + 1]
        node = entries.node[order[low]]
        arity = np.int64(layout.node[node, ARITY])
        if arity == 2:
            continue
        num, dim = high - low, np.int64(layout.node[node, DIM])
        scoped = layout.node[node, SCOPE] >= 0
        start_m = entries.start[order[low:high]]
        rows_md = gather_rows(hidden if scoped else inputs, start_m, 0, num, dim)
        weight_Kd = node_matrix(layout, weight_address_W, node)
        if keeps:
            residual_mK = wide_residual[done : done + num * arity].reshape(num, arity)
        else:
            residual_mK = np.empty((num, arity), np.float32)
        done += num * arity
        small = num * arity <= SMALL_PRODUCT
        if small:
            small_products(rows_md, weight_Kd, residual_mK)
        else:
            np.dot(rows_md, weight_Kd.T, residual_mK)
        bias_K = node_vector(layout, bias_address_W, node) if has_bias else np.zeros(arity, np.float32)
        nll_m = np.empty(num, np.float32)
        if mass_Q is None:
            softmax_residuals(residual_mK, bias_K, entries.branch[order[low:high]], nll_m)
        else:
            softmax_residuals(residual_mK, bias_K, mass_ptr[order[low:high]], nll_m, mass_Q)
        for i in range(num):
            nll_B[entries.owner[order[low + i]]] += nll_m[i]
        if keeps and (scoped or wants_inputs):
            if small:
                rows_md[:] = np.float32(0.0)
                small_combinations(residual_mK, weight_Kd, rows_md)
            else:
                np.dot(residual_mK, weight_Kd, rows_md)
            scatter_rows(hidden_grad if scoped else input_grad, start_m, 0, num, rows_md)


@njit(cache=True)
def forward_pass(
    layout, weight_address_W, bias_address_W, has_bias, projection_address_S, inputs_BD, targets_B, keeps, wants_inputs
):
    """NLL of each row, float32 [B] in nats, and what the backward pass needs.

    Args:
        layout: The tree.
        weight_address_W: int64, where each width's float32 rows are.
        bias_address_W: int64, where its biases are.
        has_bias: Whether there are any.
        projection_address_S: int64, where each scope's matrix is.
        inputs_BD: float32, contiguous.
        targets_B: int64 class ids, all in range.
        keeps: Whether a backward pass follows.
        wants_inputs: Whether it wants the gradient of the inputs.
    """
    first_B, last_B = layout.path_ptr[targets_B], layout.path_ptr[targets_B + 1]
    entries, openings = plan_batch(layout, first_B, last_B, inputs_BD.shape[1])
    return _decide_all(
        layout, weight_address_W, bias_address_W, has_bias, projection_address_S, inputs_BD, entries, openings, keeps,
        wants_inputs, None, None,
    )  # fmt: skip


@njit(cache=True)
def soft_forward_pass(
    layout, weight_address_W, bias_address_W, has_bias, projection_address_S, inputs_BD, row_E, node_E, mass_ptr,
    mass_Q, keeps, wants_inputs,
):  # fmt: skip
    """The same for decisions whose children have masses; a row's NLL is that of all children, times their masses.

    Args:
        layout: The tree.
        weight_address_W: As in `forward_pass`.
        bias_address_W: As there.
        has_bias: As there.
        projection_address_S: As there.
        inputs_BD: As there.
        row_E: int64 row of each decision, never falling; all in range.
        node_E: int64 internal nodes; all in range.
        mass_ptr: int64 [E+1], where the masses of each decision begin.
        mass_Q: float32, contiguous.
        keeps: Whether a backward pass follows.
        wants_inputs: Whether it wants the gradient of the inputs.
    """
    entries, openings = plan_decisions(layout, row_E, node_E, inputs_BD.shape[1])
    return _decide_all(
        layout, weight_address_W, bias_address_W, has_bias, projection_address_S, inputs_BD, entries, openings, keeps,
        wants_inputs, mass_ptr, mass_Q,
    )  # fmt: skip


@njit(cache=True)
def _decide_all(
    layout, weight_address_W, bias_address_W, has_bias, projection_address_S, inputs_BD, entries, openings, keeps,
    wants_inputs, mass_ptr, mass_Q,
):  # fmt: skip
    """The planned decisions, each for its branch, or for all children where there are masses."""
    inputs = inputs_BD.ravel()
    hidden = project_all(layout, openings, inputs, projection_address_S)
    hidden_grad = np.zeros(hidden.size if keeps else 0, np.float32)
    input_grad = np.zeros(inputs.size if keeps and wants_inputs else 0, np.float32)
    nll_B = np.zeros(inputs_BD.shape[0], np.float32)
    residual_E = np.empty(entries.node.size if keeps else 0, np.float32)
    _decide_binary(
        layout.node, weight_address_W, bias_address_W, has_bias, entries.node, entries.branch, entries.owner,
        entries.start, inputs.ctypes.data, hidden.ctypes.data, input_grad.ctypes.data, hidden_grad.ctypes.data, nll_B,
        residual_E, keeps, wants_inputs, mass_ptr, mass_Q,
    )  # fmt: skip

    num_groups, group_ptr, order = group_by_key(entries.node, entries.node.size, layout.node.shape[0])
    num_wide = 0
    touched = np.zeros(layout.widths.size, np.int64)
    for group in range(num_groups):
        node = entries.node[order[group_ptr[group]]]
        arity = np.int64(layout.node[node, ARITY])
        touched[layout.node[node, WIDTH]] += num_rows(arity)
        if arity > 2:
            num_wide += arity * (group_ptr[group + 1] - group_ptr[group])
    wide_residual = np.empty(num_wide if keeps else 0, np.float32)
    if num_wide:
        _decide_wide(
            layout, entries, group_ptr, order, num_groups, weight_address_W, bias_address_W, has_bias, inputs, hidden,
            input_grad, hidden_grad, nll_B, wide_residual, keeps, wants_inputs, mass_ptr, mass_Q,
        )  # fmt: skip
    if keeps:
        for group in range(openings.scope.size - 1, -1, -1):  # children before their parents
            scope = openings.scope[group]
            raw = layout.scope[scope, PARENT] < 0
            if raw and not wants_inputs:
                continue
            low, high = openings.ptr[group], openings.ptr[group + 1]
            own = hidden_grad[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]]
            own_md = own.reshape(high - low, layout.scope[scope, OUTPUT_DIM])
            above = np.dot(own_md, scope_matrix(layout, projection_address_S, scope))
            scatter_rows(input_grad if raw else hidden_grad, openings.source, low, high, above)
    return nll_B, Saved(
        entries, openings, group_ptr, order, num_groups, residual_E, wide_residual, hidden, hidden_grad, input_grad,
        touched,
    )  # fmt: skip


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def _binary_gradient(low, high, order, entry_owner, entry_start, residual_E, scale_B, address, grad_d):
    """Add the gradient of one binary node's weights to ``grad_d``; returns that of its bias. Four rows at a time."""
    dim = np.uint64(grad_d.size)
    size = np.int64(grad_d.size)
    total = np.float32(0.0)
    position = low
    while position + 4 <= high:
        p, q, r, s = order[position], order[position + 1], order[position + 2], order[position + 3]
        a, b = residual_E[p] * scale_B[entry_owner[p]], residual_E[q] * scale_B[entry_owner[q]]
        c, e = residual_E[r] * scale_B[entry_owner[r]], residual_E[s] * scale_B[entry_owner[s]]
        first = float32_at(address + 4 * entry_start[p], size)
        second = float32_at(address + 4 * entry_start[q], size)
        third = float32_at(address + 4 * entry_start[r], size)
        fourth = float32_at(address + 4 * entry_start[s], size)
        for d in range(dim):
            grad_d[d] += a * first[d] + b * second[d] + c * third[d] + e * fourth[d]
        total += a + b + c + e
        position += 4
    for rest in range(position, high):
        p = order[rest]
        a = residual_E[p] * scale_B[entry_owner[p]]
        first = float32_at(address + 4 * entry_start[p], size)
        for d in range(dim):
            grad_d[d] += a * first[d]
        total += a
    return total


@njit(cache=True)
def _scaled_copy(address, coefficient, out_d):
    dim = np.uint64(out_d.size)
    values = float32_at(address, np.int64(out_d.size))
    for d in range(dim):
        out_d[d] = coefficient * values[d]


@njit(cache=True)
def backward_pass(
    layout, saved, inputs_BD, scale_B, compact, index_address_W, weight_address_W, bias_address_W, has_bias,
    projection_address_S,
):  # fmt: skip
    """Gradients of ``scale_B . nll_B`` with respect to all parameters.

    Args:
        layout: The tree.
        saved: By the forward pass; not changed.
        inputs_BD: float32, contiguous, as in the forward pass.
        scale_B: float32, weight of each row's NLL.
        compact: Whether gradients hold the rows of the nodes on the paths alone, by rising row; else they have the
            layout of the parameters.
        index_address_W: Where to write which rows these are (int64), if compact.
        weight_address_W: Where to write the gradient of each width's rows; zeros, unless compact.
        bias_address_W: The same for biases.
        has_bias: Whether there are any.
        projection_address_S: Where to write the gradients of the projections; 0 for those that the batch does not pass.
    """
    entries, openings, order = saved.entries, saved.openings, saved.order
    inputs = inputs_BD.ravel()
    filled = np.zeros(layout.widths.size, np.int64)  # rows written so far
    done = 0
    for group in range(saved.num_groups):
        low, high = saved.group_ptr[group], saved.group_ptr[group + 1]
        node = entries.node[order[low]]
        arity, width = np.int64(layout.node[node, ARITY]), layout.node[node, WIDTH]
        num, dim, rows = high - low, np.int64(layout.node[node, DIM]), np.int64(num_rows(arity))
        values = saved.hidden if layout.node[node, SCOPE] >= 0 else inputs
        first = np.int64(layout.node[node, ROW])
        if compact:
            index = int64_at(index_address_W[width] + 8 * filled[width], rows)
            for k in range(rows):
                index[k] = first + k
            first = filled[width]
            filled[width] += rows
        weight_grad = float32_at(weight_address_W[width] + 4 * first * dim, rows * dim)
        bias_address = bias_address_W[width] + 4 * first if has_bias else weight_address_W[width]
        bias_grad_K = float32_at(bias_address, rows if has_bias else 0)
        if arity == 2 and num == 1:  # most nodes of a batch
            only = order[low]
            coefficient = saved.residual[only] * scale_B[entries.owner[only]]
            _scaled_copy(values.ctypes.data + 4 * entries.start[only], coefficient, weight_grad)
            if has_bias:
                bias_grad_K[0] = coefficient
            continue
        small = num * arity <= SMALL_PRODUCT
        if compact:
            if small or arity == 2:  # what follows adds; a product overwrites
                weight_grad[:] = np.float32(0.0)
            bias_grad_K[:] = np.float32(0.0)
        if arity == 2:
            total = _binary_gradient(
                low, high, order, entries.owner, entries.start, saved.residual, scale_B, values.ctypes.data, weight_grad
            )
            if has_bias:
                bias_grad_K[0] = total
            continue
        residual_mK = saved.wide_residual[done : done + num * arity].reshape(num, arity)
        done += num * arity
        rows_md = gather_rows(values, entries.start[order[low:high]], 0, num, dim)
        scale_m = scale_B[entries.owner[order[low:high]]]
        for i in range(num):  # the inputs: there are fewer of them than of residuals
            own_d = rows_md[i]
            for d in range(dim):
                own_d[d] *= scale_m[i]
        if has_bias:
            bias_grad_K += np.dot(scale_m, residual_mK)
        if small:
            small_combinations(residual_mK.T, rows_md, weight_grad.reshape(arity, dim))
        else:
            np.dot(residual_mK.T, rows_md, weight_grad.reshape(arity, dim))

    for group in range(openings.scope.size):
        scope = openings.scope[group]
        low, high = openings.ptr[group], openings.ptr[group + 1]
        rows_ms = scope_inputs(layout, openings, group, inputs, saved.hidden)
        own = saved.hidden_grad[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]]
        own_md = own.reshape(high - low, layout.scope[scope, OUTPUT_DIM])
        scaled_md = np.empty_like(own_md)
        for i in range(high - low):
            scale = scale_B[openings.owner[low + i]]
            for d in range(own_md.shape[1]):
                scaled_md[i, d] = own_md[i, d] * scale
        np.dot(scaled_md.T, rows_ms, scope_matrix(layout, projection_address_S, scope))
