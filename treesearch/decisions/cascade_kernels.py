"""Walks down trees for a batch of examples, compiled by numba: O(nodes visited) an example, on any depth and arity.

Shapes: **B** batch, **M** nodes in all, **N** internal nodes.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def descend(score, threshold, child_ptr, child_idx):
    """Go down from the root to the best child above its threshold while there is one; of equals the smaller id.

    Args:
        score: float64 [B, M].
        threshold: float64 [M].
        child_ptr: int32 [N+1].
        child_idx: int32 [M-1].

    Returns:
        The last node of each example, int64 [B].
    """
    num_internal = child_ptr.size - 1
    found = np.zeros(score.shape[0], np.int64)
    for row in range(score.shape[0]):
        node = 0
        while node < num_internal:
            best, highest = -1, -np.inf
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                child = child_idx[edge]
                value = score[row, child]
                if value > threshold[child] and (value > highest or (value == highest and child < best)):
                    best, highest = child, value
            if best < 0:
                break
            node = best
        found[row] = node
    return found


@njit(cache=True)
def count_answers(score, grid, wanted, is_answer, child_ptr, child_idx):
    """Of walks to the best child while its score is at least a threshold: how many answer, and how many are right.

    Args:
        score: float64 [B, M].
        grid: float64 [G], thresholds, falling.
        wanted: (first, count, truth): places of leaves below each node, int32 [M] each, and true nodes, int64 [B].
        is_answer: bool [M]; whether to end at a node is to answer.
        child_ptr: int32 [N+1].
        child_idx: int32 [M-1].

    Returns:
        int64 [G] and [G].
    """
    num_internal = child_ptr.size - 1
    first, count, truth = wanted
    answered = np.zeros(grid.size, np.int64)
    correct = np.zeros(grid.size, np.int64)
    for row in range(score.shape[0]):
        start = first[truth[row]]
        end = start + count[truth[row]]
        node, place = 0, 0  # the walk comes to this node at all thresholds from this place of the grid
        while place < grid.size:
            best, until = -1, grid.size
            if node < num_internal:
                for edge in range(child_ptr[node], child_ptr[node + 1]):
                    child = child_idx[edge]
                    value = score[row, child]
                    if best < 0 or value > score[row, best] or (value == score[row, best] and child < best):
                        best = child
                until = place
                while until < grid.size and grid[until] > score[row, best]:
                    until += 1
            if is_answer[node]:
                holds = first[node] <= start and end <= first[node] + count[node]
                for at in range(place, until):
                    answered[at] += 1
                    correct[at] += holds
            node, place = best, until
    return answered, correct
