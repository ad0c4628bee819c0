"""What the CPU kernels do at wide nodes: products too small for BLAS, and from logits to residuals.

Shapes: **m** rows at one node, **K** arity, **d** inputs of a node.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from treesearch.softmax.vector_math import REORDER, exp32

LANES = 16  # float32 numbers of the widest vector instructions
SUMMED = 1024  # numbers summed in single precision, before the sum goes into one in double


@njit(cache=True, error_model="numpy")
def softmax_residuals(logits_mK, bias_K, targets_m, nll_m):
    """From products to ``softmax - one-hot`` in place; the NLL of each target, in nats, goes to ``nll_m``.

    Sums in a fixed order, a vector's lanes apart: in another one they would differ in the last digit from one
    compilation to the next.
    """
    arity, step, block = np.uint64(bias_K.size), np.uint64(LANES), np.uint64(SUMMED)
    whole = arity - arity % step
    lanes_L = np.empty(LANES, np.float32)
    for i in range(logits_mK.shape[0]):
        row_K = logits_mK[i]
        top = np.float32(-np.inf)
        if whole:
            lanes_L[:] = top
            for k in range(np.uint64(0), whole, step):
                for lane in range(step):
                    logit = row_K[k + lane] + bias_K[k + lane]
                    row_K[k + lane] = logit
                    lanes_L[lane] = logit if logit > lanes_L[lane] else lanes_L[lane]
            for lane in range(step):
                top = max(top, lanes_L[lane])
        for k in range(whole, arity):
            row_K[k] += bias_K[k]
            top = row_K[k] if row_K[k] > top else top
        below = top - row_K[targets_m[i]]
        total = 0.0  # in double: there may be 100,000 terms, one of them 1 and the others tiny
        for begin in range(np.uint64(0), whole, block):
            lanes_L[:] = np.float32(0.0)
            for k in range(begin, min(begin + block, whole), step):
                for lane in range(step):
                    odds = exp32(row_K[k + lane] - top)
                    row_K[k + lane] = odds
                    lanes_L[lane] += odds
            for lane in range(step):
                total += lanes_L[lane]
        for k in range(whole, arity):
            row_K[k] = exp32(row_K[k] - top)
            total += row_K[k]
        normaliser = np.float32(total)
        nll_m[i] = np.log(normaliser) + below
        scale = np.float32(1.0) / normaliser
        for k in range(arity):
            row_K[k] *= scale
        row_K[targets_m[i]] -= np.float32(1.0)


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def small_products(rows_md, weight_Kd, out_mK):
    """``rows @ weight.T`` without a call of BLAS, four products at a time."""
    num, dim, arity = np.uint64(rows_md.shape[0]), np.uint64(rows_md.shape[1]), np.uint64(weight_Kd.shape[0])
    four = np.uint64(4)
    whole = arity - arity % four
    for i in range(num):
        for k in range(np.uint64(0), whole, four):
            a, b, c, e = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for d in range(dim):
                value = rows_md[i, d]
                a += weight_Kd[k, d] * value
                b += weight_Kd[k + np.uint64(1), d] * value
                c += weight_Kd[k + np.uint64(2), d] * value
                e += weight_Kd[k + np.uint64(3), d] * value
            out_mK[i, k] = a
            out_mK[i, k + np.uint64(1)] = b
            out_mK[i, k + np.uint64(2)] = c
            out_mK[i, k + np.uint64(3)] = e
        for k in range(whole, arity):
            a = np.float32(0.0)
            for d in range(dim):
                a += weight_Kd[k, d] * rows_md[i, d]
            out_mK[i, k] = a


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def small_combinations(coefficients_mK, rows_Kd, out_md):
    """Add ``coefficients @ rows`` to ``out`` without a call of BLAS, four rows at a time."""
    num, arity, dim = np.uint64(out_md.shape[0]), np.uint64(rows_Kd.shape[0]), np.uint64(rows_Kd.shape[1])
    four = np.uint64(4)
    whole = arity - arity % four
    for i in range(num):
        for k in range(np.uint64(0), whole, four):
            a, b = coefficients_mK[i, k], coefficients_mK[i, k + np.uint64(1)]
            c, e = coefficients_mK[i, k + np.uint64(2)], coefficients_mK[i, k + np.uint64(3)]
            for d in range(dim):
                out_md[i, d] += (
                    a * rows_Kd[k, d]
                    + b * rows_Kd[k + np.uint64(1), d]
                    + c * rows_Kd[k + np.uint64(2), d]
                    + e * rows_Kd[k + np.uint64(3), d]
                )
        for k in range(whole, arity):
            a = coefficients_mK[i, k]
            for d in range(dim):
                out_md[i, d] += a * rows_Kd[k, d]
