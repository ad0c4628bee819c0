"""From the logits of all nodes to the log-probabilities of all classes and back, compiled by numba for the CPU.

Shapes: **B** batch, **C** classes, **N** internal nodes, **M** all nodes, **R** logit rows, **K** arity.

A block of examples goes down the tree together, one vector lane each: every step is the same arithmetic on
neighbouring numbers, and a block's numbers stay in cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.vector_math import exp32, log1p32

LANES = 32  # examples of a block
TERMS = 64  # of a sum in single precision


class FullTables(NamedTuple):
    """Where each node finds its logits and its children."""

    child_ptr: NDArray[np.int64]  # [N+1]
    child_idx: NDArray[np.int64]  # [M-1]
    logit_row: NDArray[np.int64]  # [N] first logit, widths one after another
    class_leaf: NDArray[np.int64]  # [C] node at which each class ends


def full_tables(layout: SoftmaxLayout) -> FullTables:
    """The tables of a layout."""
    tree = layout.tree
    child_ptr, child_idx, class_leaf = (
        array.astype(np.int64) for array in (tree.child_ptr, tree.child_idx, tree.class_leaf)
    )
    return FullTables(child_ptr, child_idx, layout.first_logit, class_leaf)


@njit(cache=True, error_model="numpy")
def tree_log_softmax(tables, logits_RB, log_prob_BC):
    """Fill ``log_prob_BC`` with the log-probability of every class in nats; both float32."""
    batch = logits_RB.shape[1]
    num_internal = tables.logit_row.size
    reached_ML = np.empty((num_internal + tables.class_leaf.size, LANES), np.float32)
    total_L = np.empty(LANES, np.float32)
    top_L = np.empty(LANES, np.float32)
    sum_L = np.empty(LANES, np.float64)
    for begin in range(0, batch, LANES):
        lanes = np.uint64(min(LANES, batch - begin))
        offset = np.uint64(begin)
        reached_ML[0] = np.float32(0.0)
        for node in range(num_internal):
            first, last = tables.child_ptr[node], tables.child_ptr[node + 1]
            row = tables.logit_row[node]
            own_L = reached_ML[node]
            if last - first == 2:
                left_L, right_L = reached_ML[tables.child_idx[first]], reached_ML[tables.child_idx[first + 1]]
                logit_L = logits_RB[row]
                for lane in range(lanes):
                    logit = logit_L[offset + lane]
                    rest = own_L[lane] - log1p32(exp32(-abs(logit)))
                    left_L[lane] = rest + (logit if logit < np.float32(0.0) else np.float32(0.0))
                    right_L[lane] = rest - (np.float32(0.0) if logit < np.float32(0.0) else logit)
                continue
            _normalise(logits_RB, row, row + last - first, offset, lanes, top_L, sum_L, total_L)
            for lane in range(lanes):
                total_L[lane] = own_L[lane] - total_L[lane]
            for k in range(last - first):
                child_L, logit_L = reached_ML[tables.child_idx[first + k]], logits_RB[row + k]
                for lane in range(lanes):
                    child_L[lane] = (logit_L[offset + lane] - top_L[lane]) + total_L[lane]
        for lane in range(lanes):
            scores_C = log_prob_BC[offset + lane]
            for cls in range(tables.class_leaf.size):
                scores_C[cls] = reached_ML[tables.class_leaf[cls], lane]


@njit(cache=True, error_model="numpy")
def _normalise(logits_RB, first, last, offset, lanes, top_L, sum_L, total_L):
    """Largest logit of a wide node per lane, and the logarithm of the sum of exp(logit - largest).

    There may be 100,000 terms, one of them 1 and the others too small to be added to it: sums of few terms are added in
    double precision.
    """
    for lane in range(lanes):
        top_L[lane] = logits_RB[first, offset + lane]
        sum_L[lane] = 0.0
    for row in range(first + 1, last):
        logit_L = logits_RB[row]
        for lane in range(lanes):
            top_L[lane] = logit_L[offset + lane] if logit_L[offset + lane] > top_L[lane] else top_L[lane]
    for begin in range(first, last, TERMS):
        for lane in range(lanes):
            total_L[lane] = np.float32(0.0)
        for row in range(begin, min(begin + TERMS, last)):
            logit_L = logits_RB[row]
            for lane in range(lanes):
                total_L[lane] += exp32(logit_L[offset + lane] - top_L[lane])
        for lane in range(lanes):
            sum_L[lane] += total_L[lane]
    for lane in range(lanes):
        total_L[lane] = np.log(np.float32(sum_L[lane]))


@njit(cache=True, error_model="numpy")
def tree_log_softmax_gradient(tables, logits_RB, grad_BC, grad_RB):
    """Fill ``grad_RB`` with the gradient of ``sum(grad_BC * log_prob_BC)`` with respect to the logits.

    With G(n) the sum of the gradients below node n, a binary node's logit gets ``G(child 0) - P(child 0) G(n)``, and
    that of a wide node's child k ``G(k) - P(k) G(n)``.
    """
    batch = logits_RB.shape[1]
    num_internal = tables.logit_row.size
    below_ML = np.empty((num_internal + tables.class_leaf.size, LANES), np.float32)
    total_L = np.empty(LANES, np.float32)
    top_L = np.empty(LANES, np.float32)
    sum_L = np.empty(LANES, np.float64)
    for begin in range(0, batch, LANES):
        lanes = np.uint64(min(LANES, batch - begin))
        offset = np.uint64(begin)
        for lane in range(lanes):
            grad_C = grad_BC[offset + lane]
            for cls in range(tables.class_leaf.size):
                below_ML[tables.class_leaf[cls], lane] = grad_C[cls]
        for node in range(num_internal - 1, -1, -1):
            first, last = tables.child_ptr[node], tables.child_ptr[node + 1]
            row = tables.logit_row[node]
            own_L = below_ML[node]
            own_L[:] = np.float32(0.0)
            for edge in range(first, last):
                child_L = below_ML[tables.child_idx[edge]]
                for lane in range(lanes):
                    own_L[lane] += child_L[lane]
            if last - first == 2:
                left_L, logit_L, grad_L = below_ML[tables.child_idx[first]], logits_RB[row], grad_RB[row]
                for lane in range(lanes):
                    logit = logit_L[offset + lane]
                    tail = exp32(-abs(logit))
                    share = (tail if logit < np.float32(0.0) else np.float32(1.0)) / (np.float32(1.0) + tail)
                    grad_L[offset + lane] = left_L[lane] - share * own_L[lane]
                continue
            _normalise(logits_RB, row, row + last - first, offset, lanes, top_L, sum_L, total_L)
            for k in range(last - first):
                child_L, logit_L, grad_L = below_ML[tables.child_idx[first + k]], logits_RB[row + k], grad_RB[row + k]
                for lane in range(lanes):
                    share = exp32(logit_L[offset + lane] - top_L[lane] - total_L[lane])
                    grad_L[offset + lane] = child_L[lane] - share * own_L[lane]
