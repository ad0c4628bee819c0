"""Linear-time loops over tree arrays, compiled by numba.

One pass over the nodes is the natural form of everything here (breadth-first numbering, subtree sums, root-to-leaf
paths), and it stays linear on a chain of a million nodes, where level-by-level NumPy would not. Callers check their
arguments; nothing here raises.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def children_csr(parent, order, num_internal):
    """Group nodes by parent, each group in the sequence of ``order``.

    Args:
        parent: int32 [M], the parent of each node, -1 at the root.
        order: int32 [M], a permutation of the nodes.
        num_internal: N; all parents are below it.

    Returns:
        ``child_ptr`` int32 [N+1] and ``child_idx`` int32 [M-1].
    """
    child_ptr = np.zeros(num_internal + 1, np.int32)
    for node in range(parent.size):
        if parent[node] >= 0:
            child_ptr[parent[node] + 1] += 1
    for node in range(num_internal):
        child_ptr[node + 1] += child_ptr[node]
    cursor = child_ptr[:-1].copy()
    child_idx = np.empty(parent.size - 1, np.int32)
    for position in range(order.size):
        node = order[position]
        if parent[node] >= 0:
            child_idx[cursor[parent[node]]] = node
            cursor[parent[node]] += 1
    return child_ptr, child_idx


@njit(cache=True)
def breadth_first(child_ptr, child_idx, root, num_nodes):
    """Nodes in breadth-first order; fewer than ``num_nodes`` where a cycle keeps some unreachable."""
    num_internal = child_ptr.size - 1
    order = np.empty(num_nodes, np.int32)
    order[0] = root
    head, tail = 0, 1
    while head < tail:
        node = order[head]
        head += 1
        if node < num_internal:
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                order[tail] = child_idx[edge]
                tail += 1
    return order[:tail]


@njit(cache=True)
def smallest_class(parent, leaf_class, order):
    """The smallest class id below each node; ``order`` lists parents before children."""
    num_internal = parent.size - leaf_class.size
    smallest = np.full(parent.size, np.iinfo(np.int32).max, np.int32)
    for leaf in range(leaf_class.size):
        smallest[num_internal + leaf] = leaf_class[leaf]
    for position in range(order.size - 1, 0, -1):
        node = order[position]
        smallest[parent[node]] = min(smallest[parent[node]], smallest[node])
    return smallest


@njit(cache=True)
def counting_argsort(keys, num_keys):
    """Stable argsort of integers in ``[0, num_keys)``, in linear time."""
    start = np.zeros(num_keys + 1, np.int64)
    for i in range(keys.size):
        start[keys[i] + 1] += 1
    for key in range(num_keys):
        start[key + 1] += start[key]
    order = np.empty(keys.size, np.int32)
    for i in range(keys.size):
        order[start[keys[i]]] = i
        start[keys[i]] += 1
    return order


@njit(cache=True)
def node_depths(parent, num_internal):
    """Edges from the root to each node, int32 [M]; canonical numbering puts internal parents first."""
    depth = np.zeros(parent.size, np.int32)
    for node in range(1, parent.size):
        depth[node] = depth[parent[node]] + 1
    return depth


@njit(cache=True)
def subtree_sums(parent, own, num_internal):
    """Sum of ``own`` over each internal node's subtree.

    Args:
        parent: int32 [M], canonical.
        own: float64 [M], a value for each node and leaf.
        num_internal: N.

    Returns:
        float64 [N].
    """
    total = own.copy()
    for node in range(parent.size - 1, 0, -1):
        total[parent[node]] += total[node]
    return total[:num_internal]


@njit(cache=True)
def path_sums(parent, value, num_internal):
    """Sum of ``value`` (float64 [N], per internal node) over the internal nodes above each leaf: float64 [M-N]."""
    total = value.copy()
    for node in range(1, num_internal):
        total[node] += total[parent[node]]
    leaves = np.empty(parent.size - num_internal, np.float64)
    for leaf in range(leaves.size):
        above = parent[num_internal + leaf]
        leaves[leaf] = total[above] if above >= 0 else 0.0
    return leaves


@njit(cache=True)
def branch_index(child_ptr, child_idx):
    """The position of each node among its parent's children, int32 [M]; 0 at the root."""
    branch = np.zeros(child_idx.size + 1, np.int32)
    for node in range(child_ptr.size - 1):
        for edge in range(child_ptr[node], child_ptr[node + 1]):
            branch[child_idx[edge]] = edge - child_ptr[node]
    return branch


@njit(cache=True)
def fill_paths(parent, branch, leaf_of_class, path_ptr):
    """Root-to-leaf paths of all classes: ``node`` and ``branch`` taken there, int32 [path_ptr[-1]]."""
    path_node = np.empty(path_ptr[-1], np.int32)
    path_branch = np.empty(path_ptr[-1], np.int32)
    for cls in range(leaf_of_class.size):
        node = leaf_of_class[cls]
        for step in range(path_ptr[cls + 1] - 1, path_ptr[cls] - 1, -1):
            path_node[step] = parent[node]
            path_branch[step] = branch[node]
            node = parent[node]
    return path_node, path_branch


@njit(cache=True)
def nearest_marked(parent, marked, num_internal, topmost):
    """The nearest (or topmost) marked ancestor-or-self of each internal node, int32 [N]; -1 where there is none."""
    found = np.full(num_internal, -1, np.int32)
    for node in range(num_internal):
        above = parent[node]
        if above >= 0:
            found[node] = found[above]
        if marked[node] and (found[node] < 0 or not topmost):
            found[node] = node
    return found


@njit(cache=True)
def leaf_intervals(parent, child_ptr, child_idx):
    """The leaves below each node as an interval of the depth-first sequence of all leaves.

    Args:
        parent: int32 [M], canonical.
        child_ptr: int32 [N+1].
        child_idx: int32 [M-1].

    Returns:
        ``first`` and ``count``, int32 [M]: node n has the leaves ``first[n] .. first[n] + count[n] - 1``.
    """
    num_internal = child_ptr.size - 1
    count = np.zeros(parent.size, np.int32)
    count[num_internal:] = 1
    for node in range(parent.size - 1, 0, -1):
        count[parent[node]] += count[node]
    first = np.zeros(parent.size, np.int32)
    for node in range(num_internal):
        start = first[node]
        for edge in range(child_ptr[node], child_ptr[node + 1]):
            first[child_idx[edge]] = start
            start += count[child_idx[edge]]
    return first, count


@njit(cache=True)
def lowest_common_ancestors(parent, depth, first, second):
    """The deepest node that is above both nodes of a pair, or one of them, int32 [P]; O(depth) a pair.

    Args:
        parent: int32, parent of each node, -1 at the root.
        depth: int32, edges from the root.
        first: int32 [P].
        second: int32 [P].
    """
    found = np.empty(first.size, np.int32)
    for pair in range(first.size):
        a, b = first[pair], second[pair]
        while a != b:
            if depth[a] >= depth[b]:
                a = parent[a]
            else:
                b = parent[b]
        found[pair] = a
    return found


@njit(cache=True)
def node_heights(parent):
    """Edges from each node down to the deepest below it, int32; parents come before their children."""
    height = np.zeros(parent.size, np.int32)
    for node in range(parent.size - 1, 0, -1):
        height[parent[node]] = max(height[parent[node]], height[node] + 1)
    return height


@njit(cache=True)
def spread_up(parent, low, high):
    """Give every node the smallest ``low`` and the largest ``high`` at or below it, in place; parents come first."""
    for node in range(parent.size - 1, 0, -1):
        low[parent[node]] = min(low[parent[node]], low[node])
        high[parent[node]] = max(high[parent[node]], high[node])


@njit(cache=True)
def ancestors_at(parent, depth, node, wanted):
    """The ancestor-or-self at a depth of each of some nodes, int32 [P]; the node itself where it lies above that depth.

    Args:
        parent: int32, parent of each node, -1 at the root.
        depth: int32, edges from the root.
        node: int32 [P].
        wanted: int32 [P], depths >= 0.
    """
    found = np.empty(node.size, np.int32)
    for place in range(node.size):
        a = node[place]
        while depth[a] > wanted[place]:
            a = parent[a]
        found[place] = a
    return found
