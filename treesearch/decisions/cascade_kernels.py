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
