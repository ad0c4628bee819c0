"""Steps of the row-wise optimizers on the CPU, compiled by numba: each row is read and written once.

Shapes: **R** rows, **U** rows touched, **d** numbers of a row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from treesearch.softmax.pointers import prefetch_all
from treesearch.softmax.vector_math import REORDER

AHEAD = 4  # rows between asking for one and moving it


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def adagrad_rows(param_Rd, sum_R, factor_R, row_U, grad_Ud, rate, eps):
    """Move the rows ``row_U`` (each once, in range) of ``param_Rd`` along ``grad_Ud``; all float32, rows int64.

    ``factor_R`` multiplies the rate of each row; a single factor is that of all.
    """
    dim, last = np.uint64(grad_Ud.shape[1]), factor_R.size - 1
    for i in range(row_U.size):
        if i + AHEAD < row_U.size:
            num_bytes = 4 * param_Rd.shape[1]
            prefetch_all(param_Rd.ctypes.data + row_U[i + AHEAD] * num_bytes, num_bytes)
        row = row_U[i]
        own_d, grad_d = param_Rd[row], grad_Ud[i]
        square = np.float32(0.0)
        for d in range(dim):
            square += grad_d[d] * grad_d[d]
        total = sum_R[row] + square / np.float32(dim)
        sum_R[row] = total
        scale = factor_R[min(row, last)] * rate / (np.sqrt(total) + eps)
        for d in range(dim):
            own_d[d] -= scale * grad_d[d]


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def adam_rows(param_Rd, mean_Rd, square_R, factor_R, row_U, grad_Ud, rate, keep1, new1, keep2, new2, correction, eps):
    """Move the rows ``row_U`` (each once, in range) of ``param_Rd`` and their moments.

    All float32, but rows int64; ``rate`` (corrected already), ``correction`` of the second moment and ``eps`` float64.
    ``keep`` and ``new`` are the shares of the old moment and of the new gradient, beta and 1 - beta; ``factor_R`` is as
    in `adagrad_rows`.
    """
    dim, last = np.uint64(grad_Ud.shape[1]), factor_R.size - 1
    num_bytes = 4 * param_Rd.shape[1]
    for i in range(row_U.size):
        if i + AHEAD < row_U.size:
            prefetch_all(param_Rd.ctypes.data + row_U[i + AHEAD] * num_bytes, num_bytes)
            prefetch_all(mean_Rd.ctypes.data + row_U[i + AHEAD] * num_bytes, num_bytes)
        row = row_U[i]
        own_d, mean_d, grad_d = param_Rd[row], mean_Rd[row], grad_Ud[i]
        square = np.float32(0.0)
        for d in range(dim):
            square += grad_d[d] * grad_d[d]
        total = keep2 * square_R[row] + new2 * (square / np.float32(dim))
        square_R[row] = total
        scale = np.float32(factor_R[min(row, last)] * rate / (np.sqrt(total / correction) + eps))
        for d in range(dim):
            mean = keep1 * mean_d[d] + new1 * grad_d[d]
            mean_d[d] = mean
            own_d[d] -= scale * mean
