"""Loops over the children of decisions for calibration, compiled by numba.

Shapes: **B** batch, **E** decisions of examples, **G** groups of decisions, **M** nodes in all, **N** internal nodes.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def slopes(log_conditional, row, taken, group, inverse, parent, child_ptr, child_idx, lowest):
    """Derivative of each group's negative log-likelihood by its inverse temperature, float64 [G].

    That of one decision is log Σ exp(β l) - β l(taken), with the derivative E[l] - l(taken): it rises with β.

    Args:
        log_conditional: float64 [B, M], nats.
        row: int64 [E], the example.
        taken: int64 [E], the child that is right.
        group: int64 [E].
        inverse: float64 [G], β = 1 / temperature.
        parent: int32 [M].
        child_ptr: int32 [N+1].
        child_idx: int32 [M-1].
        lowest: Logarithms below this count as this.
    """
    slope = np.zeros(inverse.size)
    for e in range(row.size):
        beta, node = inverse[group[e]], parent[taken[e]]
        highest = -np.inf
        for edge in range(child_ptr[node], child_ptr[node + 1]):
            highest = max(highest, log_conditional[row[e], child_idx[edge]])
        highest = max(highest, lowest)
        total = mean = 0.0
        for edge in range(child_ptr[node], child_ptr[node + 1]):
            value = max(log_conditional[row[e], child_idx[edge]], lowest)
            weight = np.exp(beta * (value - highest))
            total += weight
            mean += weight * value
        slope[group[e]] += mean / total - max(log_conditional[row[e], taken[e]], lowest)
    return slope


@njit(cache=True)
def normalise_children(values, child_ptr, child_idx):
    """Subtract from the values of each node's children the logarithm of their sum of exp, in place; 0 at the root.

    Args:
        values: float64 [B, M]; one child of each node at least is above -inf.
        child_ptr: int32 [N+1].
        child_idx: int32 [M-1].
    """
    for row in range(values.shape[0]):
        values[row, 0] = 0.0
        for node in range(child_ptr.size - 1):
            highest = -np.inf
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                highest = max(highest, values[row, child_idx[edge]])
            total = 0.0
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                total += np.exp(values[row, child_idx[edge]] - highest)
            shift = highest + np.log(total)
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                values[row, child_idx[edge]] -= shift
