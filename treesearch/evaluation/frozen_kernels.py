"""Training and scoring of node classifiers on fixed features, compiled by numba.

Shapes: **T** tokens, **D** features, **N** internal nodes, **R** logit rows, **S** scopes, **m** rows of a minibatch,
**K** arity, **d** inputs of a node. Scopes and the flat layout are those of `treesearch.softmax.cpu_plan`.

Tokens are read in chunks, in order. Binary nodes without projection learn token by
token; wide nodes and blocks (all below a topmost projection) learn in minibatches of the chunk's tokens that pass
them. Which tokens these are depends on the classes below the node alone, so a node's result does not depend on the
rest of the tree.

All parameters are updated by row-wise Adagrad: one accumulator a row, fed with the mean square of the row's gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.evaluation.features import CHUNK  # their features stay in the second-level cache
from treesearch.softmax.cpu_plan import (
    ARITY,
    DIM,
    OUTPUT_DIM,
    PARENT,
    ROW,
    ROWS_BEFORE,
    SCOPE,
    gather_rows,
    group_by_key,
    node_matrix,
    node_vector,
    plan_batch,
    project_all,
    scatter_rows,
    scope_inputs,
    scope_matrix,
)
from treesearch.softmax.wide_kernels import softmax_residuals

MINIBATCH = 32  # rows of a wide node's or block's update
WIDE_MINIBATCH = 256  # the same where one pass over the node's weights is expensive
# Share of the learning rate that projections get: their gradient passes through weights that are still moving. Best of
# 1, 0.1, 0.03, 0.01 on King James Bible features, for three trees with projections.
PROJECTION_RATE = np.float32(0.03)
VERY_WIDE = 512  # arity from which that is so


class Parameters(NamedTuple):
    """Everything that is learned, and the Adagrad accumulators; widths and scopes one after another."""

    weight: NDArray[np.float32]  # [sum of rows x d]
    bias: NDArray[np.float32]  # [R]
    square: NDArray[np.float32]  # [R]
    projection: NDArray[np.float32]  # [sum of d x source d]
    projection_square: NDArray[np.float32]  # [sum of d]
    weight_address: NDArray[np.int64]  # [W] where each width begins
    bias_address: NDArray[np.int64]  # [W]
    square_address: NDArray[np.int64]  # [W]
    projection_address: NDArray[np.int64]  # [S] where each scope begins


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


@njit(cache=True, fastmath=True, error_model="numpy")
def _decide_binary(
    weight, bias, square, row, offset, dim, inputs, start, norm, target, rate, update, grad, learns_inputs
):
    """One token at one binary node: returns its NLL (0.0 when updating), learns, adds to ``grad`` if asked to.

    Flat arrays with unsigned offsets: a view would cost as much as the dot product, and signed indices, which may
    count from the end, keep the compiler from vectorising.

    Args:
        weight: Flat weights, changed in place when updating, as are ``bias`` and ``square``.
        bias: [R].
        square: [R], Adagrad accumulators.
        row: The node's logit row.
        offset: Where its weights begin.
        dim: d.
        inputs: Flat; the token's inputs are ``inputs[start : start + dim]``, their gradient has the same place.
        start: See ``inputs``.
        norm: (|x|^2 + 1) / (d + 1), counting the bias as an input of one.
        target: 1.0 for child 0, 0.0 for child 1.
        rate: Learning rate.
        update: Learn, or only score.
        grad: Flat, like ``inputs``.
        learns_inputs: Whether ``grad`` is wanted.
    """
    offset, start, size = np.uint64(offset), np.uint64(start), np.uint64(dim)
    logit = np.float32(0.0)
    for d in range(size):
        logit += weight[offset + d] * inputs[start + d]
    logit += bias[row]
    nll = 0.0
    if update:
        gradient = np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)) - target
        total = square[row] + gradient * gradient * norm
        square[row] = total
        if learns_inputs:
            for d in range(size):
                grad[start + d] += gradient * weight[offset + d]
        step = rate * gradient / np.sqrt(total)
        for d in range(size):
            weight[offset + d] -= step * inputs[start + d]
        bias[row] -= step
    else:
        signed = logit if target > np.float32(0.5) else -logit
        nll = max(-signed, 0.0) + np.log1p(np.exp(-abs(signed)))
    return nll


@njit(cache=True)
def _decide_wide(weight_Kd, bias_K, square_K, inputs_md, targets_m, rate, update, input_grad_md):
    """One minibatch at one wide node: returns the summed NLL, learns, overwrites ``input_grad_md`` if it has rows."""
    num, dim = inputs_md.shape
    arity = bias_K.size
    logits_mK = np.dot(inputs_md, weight_Kd.T)
    nll_m = np.empty(num, np.float32)
    softmax_residuals(logits_mK, bias_K, targets_m, nll_m)
    nll = 0.0
    for i in range(num):
        nll += nll_m[i]
    if not update:
        return nll
    if input_grad_md.shape[0] == num:
        np.dot(logits_mK, weight_Kd, input_grad_md)
    gathered_K = np.zeros(arity, np.float32)
    for i in range(num):
        norm = np.float32(1.0) + squared_norm(inputs_md[i])
        for k in range(arity):
            gathered_K[k] += logits_mK[i, k] * logits_mK[i, k] * norm
    for k in range(arity):
        square_K[k] += gathered_K[k] / np.float32(dim + 1)
        gathered_K[k] = rate / np.sqrt(square_K[k])
    for i in range(num):
        for k in range(arity):
            logits_mK[i, k] *= gathered_K[k]
            bias_K[k] -= logits_mK[i, k]
    if num == 1:
        for k in range(arity):
            for d in range(dim):
                weight_Kd[k, d] -= logits_mK[0, k] * inputs_md[0, d]
    else:
        change_Kd = np.dot(logits_mK.T, inputs_md)
        for k in range(arity):
            for d in range(dim):
                weight_Kd[k, d] -= change_Kd[k, d]
    return nll


@njit(cache=True)
def _learn_projection(projection_dD, square_d, source_mD, grad_md, rate):
    num, source_dim = source_mD.shape
    dim = square_d.size
    for i in range(num):
        norm = squared_norm(source_mD[i])
        for row in range(dim):
            square_d[row] += grad_md[i, row] * grad_md[i, row] * norm / np.float32(source_dim)
    change_dD = np.dot(grad_md.T, source_mD)
    for row in range(dim):
        step = PROJECTION_RATE * rate / np.sqrt(square_d[row])
        for d in range(source_dim):
            projection_dD[row, d] -= step * change_dD[row, d]


@njit(cache=True)
def _block_step(layout, parameters, inputs_mD, first_entry_m, last_entry_m, rate, update, node_nll):
    """One minibatch through one block: all scopes forward, all decisions, all scopes backward.

    Args:
        layout: The tree.
        parameters: Changed in place when updating.
        inputs_mD: Raw features of the tokens.
        first_entry_m: First path entry of each token inside the block.
        last_entry_m: End of its path.
        rate: Learning rate.
        update: Learn, or only score.
        node_nll: float64 [N], added to.
    """
    inputs = inputs_mD.ravel()
    entries, openings = plan_batch(layout, first_entry_m, last_entry_m, inputs_mD.shape[1])
    hidden = project_all(layout, openings, inputs, parameters.projection_address)
    hidden_grad = np.zeros(hidden.size if update else 0, np.float32)
    num_groups, group_ptr, order = group_by_key(entries.node, entries.node.size, layout.node.shape[0])
    start_of = entries.start[order]
    for group in range(num_groups):
        low, high = group_ptr[group], group_ptr[group + 1]
        node = entries.node[order[low]]
        dim = np.int64(layout.node[node, DIM])
        weight_Kd = node_matrix(layout, parameters.weight_address, node)
        bias_K = node_vector(layout, parameters.bias_address, node)
        square_K = node_vector(layout, parameters.square_address, node)
        if layout.node[node, ARITY] == 2:
            for position in range(low, high):
                start = start_of[position]
                norm = np.float32(1.0) + squared_norm(hidden[start : start + dim])
                node_nll[node] += _decide_binary(
                    weight_Kd.ravel(), bias_K, square_K, 0, 0, dim, hidden, start, norm / np.float32(dim + 1),
                    np.float32(1.0 - entries.branch[order[position]]), rate, update, hidden_grad, True,
                )  # fmt: skip
            continue
        taken_md = gather_rows(hidden, start_of, low, high, dim)
        taken_grad_md = np.empty((high - low if update else 0, dim), np.float32)
        node_nll[node] += _decide_wide(
            weight_Kd, bias_K, square_K, taken_md, entries.branch[order[low:high]], rate, update, taken_grad_md
        )
        if update:
            scatter_rows(hidden_grad, start_of, low, high, taken_grad_md)
    if not update:
        return

    for group in range(openings.scope.size - 1, -1, -1):
        scope = openings.scope[group]
        rows_ms = scope_inputs(layout, openings, group, inputs, hidden)
        grad_md = hidden_grad[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]].reshape(
            rows_ms.shape[0], layout.scope[scope, OUTPUT_DIM]
        )
        matrix = scope_matrix(layout, parameters.projection_address, scope)
        if layout.scope[scope, PARENT] >= 0:
            above = np.dot(grad_md, matrix)
            scatter_rows(hidden_grad, openings.source, openings.ptr[group], openings.ptr[group + 1], above)
        before = layout.scope[scope, ROWS_BEFORE]
        squares = parameters.projection_square[before : before + matrix.shape[0]]
        _learn_projection(matrix, squares, rows_ms, grad_md, rate)


@njit(cache=True, fastmath=True, error_model="numpy")
def _walk_chunk(
    path_ptr, path_node, path_branch, node_table, weight, bias, square, features, num_features, labels_T, begin, end,
    rate, update, node_nll, entry_node, entry_token, entry_path,
):  # fmt: skip
    """Take the tokens ``begin .. end-1`` down their paths: binary nodes decide at once, others are noted as entries.

    A function of its own on plain arrays: this is the hot loop, and the compiler keeps it free of reference counts.

    Returns:
        The number of entries; the first node of a block is noted, the rest of its path is not.
    """
    num_entries = 0
    size = np.uint64(num_features)
    for token in range(begin, end):
        if path_ptr[labels_T[token]] == path_ptr[labels_T[token] + 1]:
            continue
        start = np.uint64(token) * size
        norm = np.float32(1.0)
        for d in range(size):
            norm += features[start + d] * features[start + d]
        norm /= np.float32(num_features + 1)
        label = labels_T[token]
        for entry in range(path_ptr[label], path_ptr[label + 1]):
            node = path_node[entry]
            if node_table[node, ARITY] == 2 and node_table[node, SCOPE] < 0:
                row = np.uint64(node_table[node, ROW])  # the raw inputs' width stands first in the flat arrays
                offset = row * size
                target = np.float32(1.0 - path_branch[entry])
                if not update:
                    node_nll[node] += _decide_binary(
                        weight, bias, square, row, offset, num_features, features, start, norm, target, rate, False,
                        weight, False,
                    )  # fmt: skip
                    continue
                # `_decide_binary` written out: the call's reference counts would double the time of this loop.
                logit = np.float32(0.0)
                for d in range(size):
                    logit += weight[offset + d] * features[start + d]
                gradient = np.float32(1.0) / (np.float32(1.0) + np.exp(-logit - bias[row])) - target
                total = square[row] + gradient * gradient * norm
                square[row] = total
                step = rate * gradient / np.sqrt(total)
                for d in range(size):
                    weight[offset + d] -= step * features[start + d]
                bias[row] -= step
                continue
            entry_node[num_entries] = node
            entry_token[num_entries] = token
            entry_path[num_entries] = entry
            num_entries += 1
            if node_table[node, SCOPE] >= 0:
                break
    return num_entries


@njit(cache=True)
def run_epoch(layout, parameters, features_TD, labels_T, rate, update, node_nll):
    """Read all tokens once, in order: learn (``update``) or add each node's NLL in nats to ``node_nll`` [N]."""
    num_tokens, num_features = features_TD.shape
    num_internal = layout.node.shape[0]
    longest = 0
    for cls in range(layout.path_ptr.size - 1):
        longest = max(longest, layout.path_ptr[cls + 1] - layout.path_ptr[cls])
    features = features_TD.ravel()
    chunk = max(1, min(CHUNK, num_tokens))  # a split may be empty
    entry_node = np.empty(chunk * longest, np.int64)
    entry_token = np.empty(chunk * longest, np.int64)
    entry_path = np.empty(chunk * longest, np.int64)
    no_grad_md = np.empty((0, num_features), np.float32)
    targets = np.empty(WIDE_MINIBATCH, np.int64)
    last_entry = np.empty(WIDE_MINIBATCH, np.int64)
    inputs_mD = np.empty((WIDE_MINIBATCH, num_features), np.float32)

    for begin in range(0, num_tokens, chunk):
        num_entries = _walk_chunk(
            layout.path_ptr, layout.path_node, layout.path_branch, layout.node, parameters.weight, parameters.bias,
            parameters.square, features, num_features, labels_T, begin, min(begin + chunk, num_tokens), rate, update,
            node_nll, entry_node, entry_token, entry_path,
        )  # fmt: skip
        num_groups, group_ptr, order = group_by_key(entry_node, num_entries, num_internal)
        for group in range(num_groups):
            node = entry_node[order[group_ptr[group]]]
            size = WIDE_MINIBATCH if layout.node[node, ARITY] >= VERY_WIDE else MINIBATCH
            for low in range(group_ptr[group], group_ptr[group + 1], size):
                num = min(size, group_ptr[group + 1] - low)
                for i in range(num):
                    entry = order[low + i]
                    token = entry_token[entry]
                    for d in range(num_features):
                        inputs_mD[i, d] = features_TD[token, d]
                    targets[i] = entry_path[entry]
                    last_entry[i] = layout.path_ptr[labels_T[token] + 1]
                if layout.node[node, SCOPE] >= 0:
                    _block_step(
                        layout, parameters, inputs_mD[:num], targets[:num], last_entry[:num], rate, update, node_nll
                    )
                    continue
                for i in range(num):
                    targets[i] = layout.path_branch[targets[i]]
                node_nll[node] += _decide_wide(
                    node_matrix(layout, parameters.weight_address, node),
                    node_vector(layout, parameters.bias_address, node),
                    node_vector(layout, parameters.square_address, node), inputs_mD[:num], targets[:num], rate, update,
                    no_grad_md,
                )  # fmt: skip
