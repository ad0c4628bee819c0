"""Training and scoring of node classifiers on fixed features, compiled by numba.

Shapes: **T** tokens, **D** features, **N** internal nodes, **R** logit rows, **S** scopes, **m** rows of a minibatch,
**K** arity, **d** inputs of a node.

A *scope* is what one projection feeds: the node that carries it and everything below down to the next projection. The
raw features are no scope (-1). Tokens are read in chunks, in order. Binary nodes without projection learn token by
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

CHUNK = 4096  # tokens read at a time; their features stay in the second-level cache
MINIBATCH = 32  # rows of a wide node's or block's update
WIDE_MINIBATCH = 256  # the same where one pass over the node's weights is expensive
VERY_WIDE = 512  # arity from which that is so


class Layout(NamedTuple):
    """Where the tree's paths lead and where each node keeps its parameters."""

    path_ptr: NDArray[np.int64]  # [C+1]
    path_node: NDArray[np.int32]  # [P]
    path_branch: NDArray[np.int32]  # [P]
    arity: NDArray[np.int32]  # [N]
    input_dim: NDArray[np.int32]  # [N]
    row_ptr: NDArray[np.int64]  # [N+1] into bias and squares
    weight_ptr: NDArray[np.int64]  # [N+1] into the flat weights
    scope: NDArray[np.int32]  # [N] scope that feeds the node, -1 for the raw features
    opens_scope: NDArray[np.bool_]  # [N] the node carries a projection
    scope_parent: NDArray[np.int32]  # [S] scope that the projection reads, -1 for the raw features
    scope_dim: NDArray[np.int32]  # [S] output size
    source_dim: NDArray[np.int32]  # [S] input size
    projection_ptr: NDArray[np.int64]  # [S+1] into the flat projections
    projection_row_ptr: NDArray[np.int64]  # [S+1] into their squares


class Parameters(NamedTuple):
    """Everything that is learned, and the Adagrad accumulators."""

    weight: NDArray[np.float32]  # [sum of rows x d]
    bias: NDArray[np.float32]  # [R]
    square: NDArray[np.float32]  # [R]
    projection: NDArray[np.float32]  # [sum of d x source d]
    projection_square: NDArray[np.float32]  # [sum of d]


@njit(cache=True, fastmath=True)
def _decide_binary(weight, bias, square, row, offset, dim, inputs, start, norm, target, rate, update, grad, learns_inputs):
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


@njit(cache=True, fastmath=True)
def _decide_wide(weight_Kd, bias_K, square_K, inputs_md, targets_m, rate, update, input_grad_md):
    """One minibatch at one wide node: returns the summed NLL, learns, overwrites ``input_grad_md`` if it has rows."""
    num, dim = inputs_md.shape
    arity = bias_K.size
    logits_mK = np.dot(inputs_md, weight_Kd.T)
    nll = 0.0
    for i in range(num):
        top = np.float32(-np.inf)
        for k in range(arity):
            logits_mK[i, k] += bias_K[k]
            top = max(top, logits_mK[i, k])
        at_target = logits_mK[i, targets_m[i]]
        normaliser = np.float32(0.0)
        for k in range(arity):
            logits_mK[i, k] = np.exp(logits_mK[i, k] - top)
            normaliser += logits_mK[i, k]
        nll += np.log(normaliser) + top - at_target
        if update:
            for k in range(arity):
                logits_mK[i, k] /= normaliser
            logits_mK[i, targets_m[i]] -= np.float32(1.0)
    if not update:
        return nll
    if input_grad_md.shape[0] == num:
        np.dot(logits_mK, weight_Kd, input_grad_md)
    gathered_K = np.zeros(arity, np.float32)
    for i in range(num):
        norm = np.float32(1.0)
        for d in range(dim):
            norm += inputs_md[i, d] * inputs_md[i, d]
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


@njit(cache=True, fastmath=True)
def _group(keys, num, slot, group_ptr, order):
    """Group entries ``0 .. num-1`` by key, groups by first appearance; returns the number of groups.

    ``slot`` (one per possible key) holds -1 before and after; ``group_ptr`` and ``order`` are filled.
    """
    num_groups = 0
    for entry in range(num):
        if slot[keys[entry]] < 0:
            slot[keys[entry]] = num_groups
            group_ptr[num_groups + 1] = 0
            num_groups += 1
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


@njit(cache=True, fastmath=True)
def _learn_projection(projection_dD, square_d, source_mD, grad_md, rate):
    num, source_dim = source_mD.shape
    dim = square_d.size
    for i in range(num):
        norm = np.float32(0.0)
        for d in range(source_dim):
            norm += source_mD[i, d] * source_mD[i, d]
        for row in range(dim):
            square_d[row] += grad_md[i, row] * grad_md[i, row] * norm / np.float32(source_dim)
    change_dD = np.dot(grad_md.T, source_mD)
    for row in range(dim):
        step = rate / np.sqrt(square_d[row])
        for d in range(source_dim):
            projection_dD[row, d] -= step * change_dD[row, d]


@njit(cache=True, fastmath=True)
def _block_step(layout, parameters, inputs_mD, first_entry_m, last_entry_m, rate, update, work, slot, node_nll):
    """One minibatch through one block: all scopes forward, all decisions, all scopes backward.

    Args:
        layout: The tree.
        parameters: Changed in place when updating.
        inputs_mD: Raw features of the tokens.
        first_entry_m: First path entry of each token inside the block.
        last_entry_m: End of its path.
        rate: Learning rate.
        update: Learn, or only score.
        work: int64 [6, entries of the minibatch], scratch.
        slot: int64 [N], all -1, scratch.
        node_nll: float64 [N], added to.
    """
    num = inputs_mD.shape[0]
    entry_node, entry_row, entry_branch, order, group_ptr, scope_keys = work[0], work[1], work[2], work[3], work[4], work[5]

    # Which row of which scope each decision reads. A token enters scopes in path order, parents before children.
    scope_token = np.empty(entry_node.size, np.int64)
    scope_source = np.empty(entry_node.size, np.int64)
    num_openings = 0
    for i in range(num):
        row = i
        for entry in range(first_entry_m[i], last_entry_m[i]):
            node = layout.path_node[entry]
            if layout.opens_scope[node]:
                scope_keys[num_openings] = layout.scope[node]
                scope_token[num_openings] = i
                scope_source[num_openings] = -1
                num_openings += 1
    num_scopes = _group(scope_keys, num_openings, slot, group_ptr, order)
    row_of_opening = np.empty(num_openings, np.int64)
    scopes = np.empty(num_scopes, np.int64)
    scope_size = np.empty(num_scopes, np.int64)
    offset = np.zeros(num_scopes + 1, np.int64)
    source_offset = np.zeros(num_scopes + 1, np.int64)
    for group in range(num_scopes):
        scopes[group] = scope_keys[order[group_ptr[group]]]
        scope_size[group] = group_ptr[group + 1] - group_ptr[group]
        slot[scopes[group]] = group
        for position in range(group_ptr[group], group_ptr[group + 1]):
            row_of_opening[order[position]] = position - group_ptr[group]
        offset[group + 1] = offset[group] + scope_size[group] * layout.scope_dim[scopes[group]]
        source_offset[group + 1] = source_offset[group] + scope_size[group] * layout.source_dim[scopes[group]]
    hidden = np.empty(offset[num_scopes], np.float32)
    hidden_grad = np.zeros(offset[num_scopes] if update else 0, np.float32)
    source = np.empty(source_offset[num_scopes], np.float32)

    num_entries, opening = 0, 0
    for i in range(num):
        row = -1
        for entry in range(first_entry_m[i], last_entry_m[i]):
            node = layout.path_node[entry]
            if layout.opens_scope[node]:
                scope_source[opening] = row
                row = row_of_opening[opening]
                opening += 1
            entry_node[num_entries] = node
            entry_row[num_entries] = row
            entry_branch[num_entries] = layout.path_branch[entry]
            num_entries += 1

    for group in range(num_scopes):
        scope = scopes[group]
        size, dim, source_dim = scope_size[group], layout.scope_dim[scope], layout.source_dim[scope]
        rows = source[source_offset[group] : source_offset[group + 1]].reshape(size, source_dim)
        parent = layout.scope_parent[scope]
        for position in range(size):
            opened = order[group_ptr[group] + position]
            if parent < 0:
                for d in range(source_dim):
                    rows[position, d] = inputs_mD[scope_token[opened], d]
            else:
                start = offset[slot[parent]] + scope_source[opened] * source_dim
                for d in range(source_dim):
                    rows[position, d] = hidden[start + d]
        matrix = parameters.projection[layout.projection_ptr[scope] : layout.projection_ptr[scope + 1]].reshape(
            dim, source_dim
        )
        hidden[offset[group] : offset[group + 1]] = np.dot(rows, matrix.T).ravel()
    # The scopes' groups are needed again on the way back.
    scope_ptr = group_ptr[: num_scopes + 1].copy()
    scope_order = order[:num_openings].copy()
    scope_group = np.full(num_entries, -1, np.int64)
    for entry in range(num_entries):
        scope_group[entry] = slot[layout.scope[entry_node[entry]]]
    for group in range(num_scopes):
        slot[scopes[group]] = -1

    num_groups = _group(entry_node, num_entries, slot, group_ptr, order)
    for group in range(num_groups):
        low, high = group_ptr[group], group_ptr[group + 1]
        node = entry_node[order[low]]
        dim = layout.input_dim[node]
        base = offset[scope_group[order[low]]]
        row_low, row_high = layout.row_ptr[node], layout.row_ptr[node + 1]
        if layout.arity[node] == 2:
            for position in range(low, high):
                entry = order[position]
                start = base + entry_row[entry] * dim
                norm = np.float32(1.0)
                for d in range(dim):
                    norm += hidden[start + d] * hidden[start + d]
                norm /= np.float32(dim + 1)
                node_nll[node] += _decide_binary(
                    parameters.weight, parameters.bias, parameters.square, row_low, layout.weight_ptr[node], dim, hidden, start, norm,
                    np.float32(1.0 - entry_branch[entry]), rate, update, hidden_grad, True,
                )  # fmt: skip
            continue
        taken = np.empty((high - low, dim), np.float32)
        targets = np.empty(high - low, np.int64)
        for position in range(low, high):
            entry = order[position]
            start = base + entry_row[entry] * dim
            for d in range(dim):
                taken[position - low, d] = hidden[start + d]
            targets[position - low] = entry_branch[entry]
        taken_grad = np.empty((high - low if update else 0, dim), np.float32)
        weight_Kd = parameters.weight[layout.weight_ptr[node] : layout.weight_ptr[node + 1]].reshape(
            row_high - row_low, dim
        )
        node_nll[node] += _decide_wide(
            weight_Kd, parameters.bias[row_low:row_high], parameters.square[row_low:row_high], taken, targets, rate,
            update, taken_grad,
        )
        if update:
            for position in range(low, high):
                start = base + entry_row[order[position]] * dim
                for d in range(dim):
                    hidden_grad[start + d] += taken_grad[position - low, d]
    if not update:
        return

    for group in range(num_scopes):
        slot[scopes[group]] = group
    for group in range(num_scopes - 1, -1, -1):
        scope = scopes[group]
        size, dim, source_dim = scope_size[group], layout.scope_dim[scope], layout.source_dim[scope]
        rows = source[source_offset[group] : source_offset[group + 1]].reshape(size, source_dim)
        grad = hidden_grad[offset[group] : offset[group + 1]].reshape(size, dim)
        matrix = parameters.projection[layout.projection_ptr[scope] : layout.projection_ptr[scope + 1]].reshape(
            dim, source_dim
        )
        parent = layout.scope_parent[scope]
        if parent >= 0:
            above = np.dot(grad, matrix)
            for position in range(size):
                start = offset[slot[parent]] + scope_source[scope_order[scope_ptr[group] + position]] * source_dim
                for d in range(source_dim):
                    hidden_grad[start + d] += above[position, d]
        _learn_projection(
            matrix,
            parameters.projection_square[layout.projection_row_ptr[scope] : layout.projection_row_ptr[scope + 1]],
            rows,
            grad,
            rate,
        )
    for group in range(num_scopes):
        slot[scopes[group]] = -1


@njit(cache=True, fastmath=True)
def _walk_chunk(
    path_ptr, path_node, path_branch, arity, scope, row_ptr, weight_ptr, weight, bias, square, features, num_features,
    labels_T, begin, end, rate, update, node_nll, entry_node, entry_token, entry_path,
):  # fmt: skip
    """Take the tokens ``begin .. end-1`` down their paths: binary nodes decide at once, the others are noted as entries.

    A function of its own on plain arrays: this is the hot loop, and the compiler keeps it free of reference counts.

    Returns:
        The number of entries; the first node of a block is noted, the rest of its path is not.
    """
    num_entries = 0
    size = np.uint64(num_features)
    for token in range(begin, end):
        start = np.uint64(token) * size
        norm = np.float32(1.0)
        for d in range(size):
            norm += features[start + d] * features[start + d]
        norm /= np.float32(num_features + 1)
        label = labels_T[token]
        for entry in range(path_ptr[label], path_ptr[label + 1]):
            node = path_node[entry]
            if arity[node] == 2 and scope[node] < 0:
                row = np.uint64(row_ptr[node])
                offset = np.uint64(weight_ptr[node])
                target = np.float32(1.0 - path_branch[entry])
                if not update:
                    node_nll[node] += _decide_binary(
                        weight, bias, square, row, offset, num_features, features, start, norm, target, rate, False,
                        features, False,
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
            if scope[node] >= 0:
                break
    return num_entries


@njit(cache=True, fastmath=True)
def run_epoch(layout, parameters, features_TD, labels_T, rate, update, node_nll):
    """Read all tokens once, in order: learn (``update``) or add each node's NLL in nats to ``node_nll`` [N]."""
    num_tokens, num_features = features_TD.shape
    num_internal = layout.arity.size
    longest = 0
    for cls in range(layout.path_ptr.size - 1):
        longest = max(longest, layout.path_ptr[cls + 1] - layout.path_ptr[cls])
    features = features_TD.ravel()
    chunk = min(CHUNK, num_tokens)
    entry_node = np.empty(chunk * longest, np.int64)
    entry_token = np.empty(chunk * longest, np.int64)
    entry_path = np.empty(chunk * longest, np.int64)
    order = np.empty(chunk * longest, np.int64)
    group_ptr = np.empty(chunk * longest + 1, np.int64)
    slot = np.full(max(num_internal, layout.scope_dim.size, 1), -1, np.int64)
    work = np.empty((6, WIDE_MINIBATCH * longest + 1), np.int64)
    no_grad_md = np.empty((0, num_features), np.float32)
    targets = np.empty(WIDE_MINIBATCH, np.int64)
    last_entry = np.empty(WIDE_MINIBATCH, np.int64)
    inputs_mD = np.empty((WIDE_MINIBATCH, num_features), np.float32)

    for begin in range(0, num_tokens, chunk):
        num_entries = _walk_chunk(
            layout.path_ptr, layout.path_node, layout.path_branch, layout.arity, layout.scope, layout.row_ptr,
            layout.weight_ptr, parameters.weight, parameters.bias, parameters.square, features, num_features,
            labels_T, begin, min(begin + chunk, num_tokens), rate, update, node_nll, entry_node, entry_token, entry_path,
        )  # fmt: skip
        num_groups = _group(entry_node, num_entries, slot, group_ptr, order)
        for group in range(num_groups):
            node = entry_node[order[group_ptr[group]]]
            size = WIDE_MINIBATCH if layout.arity[node] >= VERY_WIDE else MINIBATCH
            for low in range(group_ptr[group], group_ptr[group + 1], size):
                num = min(size, group_ptr[group + 1] - low)
                for i in range(num):
                    entry = order[low + i]
                    token = entry_token[entry]
                    for d in range(num_features):
                        inputs_mD[i, d] = features_TD[token, d]
                    targets[i] = entry_path[entry]
                    last_entry[i] = layout.path_ptr[labels_T[token] + 1]
                if layout.scope[node] >= 0:
                    _block_step(
                        layout, parameters, inputs_mD[:num], targets[:num], last_entry[:num], rate, update, work, slot,
                        node_nll,
                    )
                    continue
                for i in range(num):
                    targets[i] = layout.path_branch[targets[i]]
                row_low, row_high = layout.row_ptr[node], layout.row_ptr[node + 1]
                weight_Kd = parameters.weight[layout.weight_ptr[node] : layout.weight_ptr[node + 1]].reshape(
                    row_high - row_low, num_features
                )
                node_nll[node] += _decide_wide(
                    weight_Kd, parameters.bias[row_low:row_high], parameters.square[row_low:row_high],
                    inputs_mD[:num], targets[:num], rate, update, no_grad_md,
                )
