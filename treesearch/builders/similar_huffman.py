"""Huffman code lengths with similar classes side by side: the expected depth of a Huffman tree, better decisions."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.builders.clustering import attention, require_vectors, start_direction
from treesearch.builders.huffman import merge
from treesearch.builders.splits import cut_at_fraction, similarity_order, sort_range, stable_argsort, take_split
from treesearch.tree import IntArray, Tree


def similar_huffman(*, counts: NDArray[np.float64], vectors: NDArray[np.float32] | None = None, seed: int = 0) -> Tree:
    """A binary tree of least expected depth whose nodes part dissimilar classes.

    The Huffman tree is one of many of the same expected depth: which classes share a subtree is free as long as code
    lengths are kept. Every set is ordered along its 2-means direction; by rising code length l, classes go to the part
    on whose side of the cut they are, as long as it has room: each part must come to half of the sum of ``2 ** -l``.

    Args:
        counts: [C] class counts.
        vectors: [C, D] class vectors.
        seed: Starting direction of the power iteration.

    Ties in the order go to the smaller class id; code lengths are those of `huffman` on the classes of the set.
    O(C D depth).

    Raises:
        DataError: No vectors.
    """
    points = require_vectors("similar-huffman", vectors)
    internal_parent, leaf_parent, classes = _build(points, attention(counts), counts, start_direction(points, seed))
    return Tree.from_parents(np.concatenate([internal_parent, leaf_parent]), classes)


def similar_huffman_parts(
    vectors: NDArray[np.float32],
    attention_C: NDArray[np.float32],
    mass: NDArray[np.float64],
    ids: NDArray[np.int64],
    start: NDArray[np.float32],
) -> list[NDArray[np.int64]]:
    """Cut ``ids`` (rising, two at least) in two as `similar_huffman` does; both parts of rising ids."""
    classes = ids.copy()
    middle = _split(vectors, attention_C, mass, start, classes, 0, ids.size)
    return [np.sort(classes[:middle]), np.sort(classes[middle:])]


@njit(cache=True)
def code_lengths(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Depth of each class in the Huffman tree of these weights (two at least), int64 [n]."""
    rising = stable_argsort(weights)
    internal_parent, leaf_parent = merge(weights[rising], 2)
    depth = np.zeros(internal_parent.size, np.int64)  # parents come after their children, the root is last
    for node in range(internal_parent.size - 2, -1, -1):
        depth[node] = depth[internal_parent[node]] + 1
    lengths = np.empty(weights.size, np.int64)
    for i in range(weights.size):
        lengths[rising[i]] = depth[leaf_parent[i]] + 1
    return lengths


@njit(cache=True)
def equal_halves(lengths: NDArray[np.int64], cut: int) -> NDArray[np.bool_]:
    """Which of ``n`` ordered classes go to the first part, bool [n]: those before ``cut``, as far as there is room.

    Each part holds half of the sum of ``2 ** -length``, which must be 1 over all. Short codes choose first; all of one
    length that go to the first part come before those that do not.
    """
    first = np.zeros(lengths.size, np.bool_)
    by_length = stable_argsort(lengths)
    room_first, room_second, level, i = 1, 1, 1, 0  # room in units of 2 ** -level
    while i < lengths.size:
        length = lengths[by_length[i]]
        while level < length:
            room_first, room_second, level = 2 * room_first, 2 * room_second, level + 1
        end, wanted = i, 0
        while end < lengths.size and lengths[by_length[end]] == length:
            wanted += by_length[end] < cut
            end += 1
        taken = min(max(wanted, end - i - room_second), room_first)
        for place in range(i, i + taken):
            first[by_length[place]] = True
        room_first, room_second, i = room_first - taken, room_second - (end - i - taken), end
    return first


@njit(cache=True)
def _split(
    vectors: NDArray[np.float32],
    attention: NDArray[np.float32],
    mass: NDArray[np.float64],
    start: NDArray[np.float32],
    classes: NDArray[np.int64],
    low: int,
    high: int,
) -> int:
    """Reorder ``classes[low:high]`` and return where the second part begins."""
    ids = sort_range(classes, low, high)
    take_split(classes, low, high, similarity_order(vectors, attention, mass, ids, start, 0.5))
    weights = np.empty(high - low, np.float64)
    for i in range(high - low):
        weights[i] = mass[classes[low + i]]
    first = equal_halves(code_lengths(weights), cut_at_fraction(weights, np.arange(high - low), 0.5))
    order, middle = np.empty(high - low, np.int64), 0
    for wanted in (True, False):
        for i in range(high - low):
            if first[i] == wanted:
                order[middle] = i
                middle += 1
    take_split(classes, low, high, order)
    return low + first.sum()


@njit(cache=True)
def _build(
    vectors: NDArray[np.float32],
    attention: NDArray[np.float32],
    mass: NDArray[np.float64],
    start: NDArray[np.float32],
) -> tuple[IntArray, IntArray, NDArray[np.int64]]:
    num_classes = mass.size
    classes = np.arange(num_classes)
    internal_parent = np.empty(num_classes, np.int32)
    leaf_parent = np.full(num_classes, -1, np.int32)
    num_internal = 0
    stack = [(0, num_classes, -1)]
    while len(stack) > 0:
        low, high, above = stack.pop()
        if high - low == 1:
            leaf_parent[low] = above
            continue
        internal_parent[num_internal] = above
        middle = _split(vectors, attention, mass, start, classes, low, high)
        stack.append((low, middle, num_internal))
        stack.append((middle, high, num_internal))
        num_internal += 1
    return internal_parent[:num_internal], leaf_parent, classes
