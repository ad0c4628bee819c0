"""Huffman trees of any arity."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.builders.balanced import check_arity
from treesearch.tree import IntArray, Tree


def huffman(*, counts: NDArray[np.float64], arity: int = 2) -> Tree:
    """The k-ary tree of least expected depth (Huffman 1952).

    Args:
        counts: [C] class counts, >= 0.
        arity: Children per node, >= 2. The first merge takes ``2 + (C - 2) mod (arity - 1)`` nodes, so that all
            later ones, the root included, are full.

    Ties: among equal weights single classes come before merged nodes, smaller class ids before larger, earlier merges
    before later; of all optimal trees this gives the smallest maximum depth (Schwartz 1964). O(C log C) for the sort,
    then O(C) with two queues (van Leeuwen 1976).

    Raises:
        ConfigError: arity < 2.
    """
    check_arity(arity)
    if counts.size == 1:
        return Tree.from_nested(0)
    rising = np.argsort(counts, kind="stable")
    internal_parent, leaf_parent = merge(counts[rising], min(arity, counts.size))
    return Tree.from_parents(np.concatenate([internal_parent, leaf_parent]), rising)


@njit(cache=True)
def merge(weights: NDArray[np.float64], arity: int) -> tuple[IntArray, IntArray]:
    """Parents of internal nodes (the root, -1, is last) and of leaves for rising weights; two at least."""
    num_leaves = weights.size
    num_internal = -((1 - num_leaves) // (arity - 1))
    merged = np.empty(num_internal, np.float64)
    internal_parent = np.full(num_internal, -1, np.int32)
    leaf_parent = np.empty(num_leaves, np.int32)
    next_leaf, next_merged = 0, 0
    take = 2 + (num_leaves - 2) % (arity - 1)
    for node in range(num_internal):
        total = 0.0
        for _ in range(take):
            if next_leaf < num_leaves and (next_merged == node or weights[next_leaf] <= merged[next_merged]):
                total += weights[next_leaf]
                leaf_parent[next_leaf] = node
                next_leaf += 1
            else:
                total += merged[next_merged]
                internal_parent[next_merged] = node
                next_merged += 1
        merged[node] = total
        take = arity
    return internal_parent, leaf_parent
