"""How the CPU kernels find their way: where a tree keeps its parameters, and the decisions of a batch by node.

Shapes: **B** batch, **D** features, **C** classes, **N** internal nodes, **S** scopes, **E** decisions of a batch,
**G** groups of decisions at one node, **O** openings: rows of a batch that enter a scope, **P** path entries.

Parameters stay where their owner keeps them, in as many arrays as there are widths and projections: kernels get the
*addresses* of these arrays and read them in place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  numba's products call it; loaded now, thread limits set later hold for it
from numba import njit
from numpy.typing import NDArray

from treesearch.paths import class_paths, input_dims
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.pointers import float32_at, prefetch

# Columns of `Layout.node`: what a kernel wants to know of a node stands together, in half a cache line.
ARITY, DIM, WIDTH, ROW, SCOPE, OPENS = range(6)
# Columns of `Layout.scope`.
PARENT, OUTPUT_DIM, SOURCE_DIM, ROWS_BEFORE = range(4)

RADIX_BITS = 11
AHEAD = 8  # paths between asking for one and reading it


class Layout(NamedTuple):
    """A tree for the kernels."""

    path_ptr: NDArray[np.int64]  # [C+1]
    path_node: NDArray[np.int32]  # [P]
    path_branch: NDArray[np.int32]  # [P]
    node: NDArray[np.int32]  # [N, 8]: arity, size of its input, width, first row there, scope, whether it opens it
    scope: NDArray[np.int64]  # [S+1, 4]: scope above (-1: raw input), output and input size, rows of those before
    rows_per_width: NDArray[np.int64]  # [W]
    widths: NDArray[np.int64]  # [W]


class Entries(NamedTuple):
    """The decisions of a batch, in the order of its rows."""

    node: NDArray[np.int32]  # [E]
    branch: NDArray[np.int32]  # [E] child taken; empty where children have masses
    owner: NDArray[np.int32]  # [E] row of the batch
    start: NDArray[np.int64]  # [E] where the decision's input begins: in the flat inputs, or in ``hidden`` if scoped


class Openings(NamedTuple):
    """Rows that enter scopes, grouped by scope; parents come before their children."""

    scope: NDArray[np.int64]  # [G] scopes of the batch
    ptr: NDArray[np.int64]  # [G+1] openings of each
    source: NDArray[np.int64]  # [O] where the projection's input begins: in the flat inputs, or in ``hidden``
    owner: NDArray[np.int32]  # [O] row of the batch
    hidden_ptr: NDArray[np.int64]  # [G+1] where each scope's rows begin in ``hidden``


def kernel_layout(layout: SoftmaxLayout) -> Layout:
    """The layout of a layer's parameters for the kernels."""
    tree, paths = layout.tree, class_paths(layout.tree)
    node = np.zeros((tree.num_internal, 8), np.int32)
    node[:, ARITY] = tree.arities
    node[:, DIM] = input_dims(tree, layout.in_features)
    node[:, WIDTH] = layout.node_width
    node[:, ROW] = layout.node_row
    node[:, SCOPE] = layout.node_scope
    node[:, OPENS] = tree.projection_dim > 0
    scope = np.zeros((len(layout.scope_dim) + 1, 4), np.int64)
    scope[:-1, PARENT] = layout.scope_parent
    scope[:-1, OUTPUT_DIM] = layout.scope_dim
    scope[:-1, SOURCE_DIM] = layout.source_dim
    scope[1:, ROWS_BEFORE] = np.cumsum(layout.scope_dim)
    return Layout(
        path_ptr=paths.ptr,
        path_node=paths.node,
        path_branch=paths.branch,
        node=node,
        scope=scope,
        rows_per_width=np.array(layout.rows_per_width, np.int64),
        widths=np.array(layout.widths, np.int64),
    )


def restrict_layout(layout: Layout, wanted_N: NDArray[np.bool_]) -> Layout:
    """The same with paths that hold the decisions at wanted nodes alone; parameters keep their places."""
    kept_P = wanted_N[layout.path_node]
    before = np.concatenate([[0], np.cumsum(kept_P)])
    return layout._replace(
        path_ptr=before[layout.path_ptr],
        path_node=layout.path_node[kept_P],
        path_branch=layout.path_branch[kept_P],
    )


@njit(cache=True)
def num_rows(arity):
    """Logit rows of a node."""
    return 1 if arity == 2 else arity


@njit(cache=True)
def group_by_key(keys, num, num_keys):
    """Group entries ``0 .. num-1`` by key, groups by rising key and entries in their order: a radix sort.

    Returns:
        Number of groups, pointers into the order int64 [num + 1] (beyond the groups: unset), order int64 [num].
    """
    order = np.arange(num)
    other = np.empty(num, np.int64)
    count = np.empty((1 << RADIX_BITS) + 1, np.int64)
    mask = (1 << RADIX_BITS) - 1
    shift = 0
    while shift == 0 or num_keys >> shift > 0:
        count[:] = 0
        for i in range(num):
            count[((keys[order[i]] >> shift) & mask) + 1] += 1
        for digit in range(mask):
            count[digit + 1] += count[digit]
        for i in range(num):
            digit = (keys[order[i]] >> shift) & mask
            other[count[digit]] = order[i]
            count[digit] += 1
        order, other = other, order
        shift += RADIX_BITS
    group_ptr = np.empty(num + 1, np.int64)
    num_groups = 0
    for i in range(num):
        if i == 0 or keys[order[i]] != keys[order[i - 1]]:
            group_ptr[num_groups] = i
            num_groups += 1
    group_ptr[num_groups] = num
    return num_groups, group_ptr, order


@njit(cache=True)
def plan_batch(layout, first_B, last_B, num_features):
    """Lay out the decisions of a batch whose rows take the path entries ``first_B .. last_B``.

    Args:
        layout: The tree.
        first_B: int64 [B].
        last_B: int64 [B].
        num_features: D.

    Returns:
        Entries and openings.
    """
    num_entries = 0
    for i in range(first_B.size):
        num_entries += last_B[i] - first_B[i]
    node_E = np.empty(num_entries, np.int32)
    branch_E = np.empty(num_entries, np.int32)
    owner_E = np.empty(num_entries, np.int32)
    start_E = np.empty(num_entries, np.int64)
    has_scopes = layout.scope.shape[0] > 1
    count, num_openings = 0, 0
    for i in range(first_B.size):
        if i + AHEAD < first_B.size:
            prefetch(layout.path_node.ctypes.data + 4 * first_B[i + AHEAD])
            prefetch(layout.path_branch.ctypes.data + 4 * first_B[i + AHEAD])
        for entry in range(first_B[i], last_B[i]):
            node = layout.path_node[entry]
            node_E[count] = node
            branch_E[count] = layout.path_branch[entry]
            owner_E[count] = i
            start_E[count] = i * num_features
            count += 1
            if has_scopes and layout.node[node, OPENS]:
                num_openings += 1
    entries = Entries(node_E, branch_E, owner_E, start_E)
    scope_O = np.empty(num_openings, np.int64)
    if not num_openings:
        return entries, Openings(scope_O, np.zeros(1, np.int64), scope_O, owner_E[:0].copy(), np.zeros(1, np.int64))

    opening = 0
    for entry in range(num_entries):
        if layout.node[node_E[entry], OPENS]:
            scope_O[opening] = layout.node[node_E[entry], SCOPE]
            opening += 1
    scope_G, ptr, hidden_ptr, hidden_start, place = _group_openings(layout, scope_O)
    source_O = np.empty(num_openings, np.int64)
    owner_O = np.empty(num_openings, np.int32)
    opening, start, owner = 0, 0, -1
    for entry in range(num_entries):
        if owner_E[entry] != owner:
            owner = owner_E[entry]
            start = start_E[entry]
        if layout.node[node_E[entry], OPENS]:
            source_O[place[opening]] = start
            owner_O[place[opening]] = owner
            start = hidden_start[opening]
            opening += 1
        start_E[entry] = start
    return entries, Openings(scope_G, ptr, source_O, owner_O, hidden_ptr)


@njit(cache=True)
def plan_decisions(layout, row_E, node_E, num_features):
    """Lay out decisions at any nodes; the scopes above them are opened, each once for a row.

    Args:
        layout: The tree.
        row_E: int64 row of the batch, never falling.
        node_E: int64.
        num_features: D.

    Returns:
        Entries without branches, and openings.
    """
    owner_E, start_E = row_E.astype(np.int32), row_E * num_features
    entries = Entries(node_E.astype(np.int32), owner_E[:0].copy(), owner_E, start_E)
    num_scopes = layout.scope.shape[0] - 1
    last_row = np.full(num_scopes, -1, np.int64)  # for which each scope was opened
    num_openings = 0
    for entry in range(node_E.size if num_scopes else 0):
        scope = np.int64(layout.node[node_E[entry], SCOPE])
        while scope >= 0 and last_row[scope] != row_E[entry]:
            last_row[scope] = row_E[entry]
            scope = layout.scope[scope, PARENT]
            num_openings += 1
    scope_O = np.empty(num_openings, np.int64)
    if not num_openings:
        return entries, Openings(scope_O, np.zeros(1, np.int64), scope_O, owner_E[:0].copy(), np.zeros(1, np.int64))

    row_O, above_O = np.empty(num_openings, np.int64), np.empty(num_openings, np.int64)
    opening_E = np.empty(node_E.size, np.int64)
    opening_S = np.empty(num_scopes, np.int64)
    last_row[:] = -1
    count = 0
    for entry in range(node_E.size):
        own = np.int64(layout.node[node_E[entry], SCOPE])
        scope, first = own, count
        while scope >= 0 and last_row[scope] != row_E[entry]:
            last_row[scope] = row_E[entry]
            opening_S[scope], scope_O[count], row_O[count] = count, scope, row_E[entry]
            above_O[count] = count + 1
            scope = layout.scope[scope, PARENT]
            count += 1
        if count > first:  # the last of these reads what was open already, or the raw input
            above_O[count - 1] = opening_S[scope] if scope >= 0 else -1
        opening_E[entry] = opening_S[own] if own >= 0 else -1
    scope_G, ptr, hidden_ptr, hidden_start, place = _group_openings(layout, scope_O)
    source_O = np.empty(num_openings, np.int64)
    owner_O = np.empty(num_openings, np.int32)
    for opening in range(num_openings):
        above = above_O[opening]
        source_O[place[opening]] = hidden_start[above] if above >= 0 else row_O[opening] * num_features
        owner_O[place[opening]] = row_O[opening]
    for entry in range(node_E.size):
        if opening_E[entry] >= 0:
            start_E[entry] = hidden_start[opening_E[entry]]
    return entries, Openings(scope_G, ptr, source_O, owner_O, hidden_ptr)


@njit(cache=True)
def _group_openings(layout, scope_O):
    """Give openings their places by scope.

    Returns:
        ``scope``, ``ptr`` and ``hidden_ptr`` of `Openings`; where the outputs of each opening begin in ``hidden``, and
        its place among the grouped, both int64 [O].
    """
    num_groups, ptr, order = group_by_key(scope_O, scope_O.size, layout.scope.shape[0])
    scope_G = np.empty(num_groups, np.int64)
    hidden_ptr = np.zeros(num_groups + 1, np.int64)
    hidden_start = np.empty(scope_O.size, np.int64)
    place = np.empty(scope_O.size, np.int64)
    for group in range(num_groups):
        scope_G[group] = scope_O[order[ptr[group]]]
        dim = layout.scope[scope_G[group], OUTPUT_DIM]
        for position in range(ptr[group], ptr[group + 1]):
            hidden_start[order[position]] = hidden_ptr[group] + (position - ptr[group]) * dim
            place[order[position]] = position
        hidden_ptr[group + 1] = hidden_ptr[group] + (ptr[group + 1] - ptr[group]) * dim
    return scope_G, ptr[: num_groups + 1].copy(), hidden_ptr, hidden_start, place


@njit(cache=True)
def node_matrix(layout, weight_address_W, node):
    """The rows of a node where the weights are kept, [rows, d]; a view."""
    dim, width = layout.node[node, DIM], layout.node[node, WIDTH]
    rows = num_rows(layout.node[node, ARITY])
    address = weight_address_W[width] + 4 * np.int64(layout.node[node, ROW]) * dim
    return float32_at(address, rows * dim).reshape(rows, dim)


@njit(cache=True)
def node_vector(layout, address_W, node):
    """What is kept one number a row (biases, accumulators) for the rows of a node, [rows]; a view."""
    address = address_W[layout.node[node, WIDTH]] + 4 * np.int64(layout.node[node, ROW])
    return float32_at(address, np.int64(num_rows(layout.node[node, ARITY])))


@njit(cache=True)
def scope_matrix(layout, projection_address_S, scope):
    """The projection of a scope, [d, source d]; a view."""
    dim, source_dim = layout.scope[scope, OUTPUT_DIM], layout.scope[scope, SOURCE_DIM]
    return float32_at(projection_address_S[scope], dim * source_dim).reshape(dim, source_dim)


@njit(cache=True)
def gather_rows(values, start, low, high, dim):
    """Rows ``values[start[i] : start[i] + dim]`` for i in ``low .. high-1``, float32 [high - low, dim]."""
    rows = np.empty((high - low, dim), np.float32)
    size = np.uint64(dim)  # unsigned: a signed index may count from the end, which keeps loops from being vectorised
    for i in range(high - low):
        begin, own = np.uint64(start[low + i]), rows[i]
        for d in range(size):
            own[d] = values[begin + d]
    return rows


@njit(cache=True)
def scatter_rows(values, start, low, high, rows):
    """Add ``rows`` to where `gather_rows` took them."""
    size = np.uint64(rows.shape[1])
    for i in range(high - low):
        begin, own = np.uint64(start[low + i]), rows[i]
        for d in range(size):
            values[begin + d] += own[d]


@njit(cache=True)
def scope_inputs(layout, openings, group, inputs, hidden):
    """What the projection of a scope reads, [rows, source d]."""
    scope = openings.scope[group]
    values = inputs if layout.scope[scope, PARENT] < 0 else hidden
    low, high = openings.ptr[group], openings.ptr[group + 1]
    return gather_rows(values, openings.source, low, high, layout.scope[scope, SOURCE_DIM])


@njit(cache=True)
def project_all(layout, openings, inputs, projection_address_S):
    """Outputs of all projections, flat: scope after scope, row after row."""
    hidden = np.empty(openings.hidden_ptr[-1], np.float32)
    for group in range(openings.scope.size):
        rows = scope_inputs(layout, openings, group, inputs, hidden)
        matrix = scope_matrix(layout, projection_address_S, openings.scope[group])
        hidden[openings.hidden_ptr[group] : openings.hidden_ptr[group + 1]] = np.dot(rows, matrix.T).ravel()
    return hidden
