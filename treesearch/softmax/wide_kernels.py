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
def softmax_residuals(logits_mK, bias_K, targets_m, nll_m, mass_Q=None):
    """From products to ``softmax - one-hot`` in place; the NLL of each target, in nats, goes to ``nll_m``.

    With float32 masses, ``targets_m`` says where those of each row begin; the residual is then ``total * softmax -
    mass``, and the NLL that of each child times its mass.

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
        if mass_Q is None:
            weight, below = np.float32(1.0), top - row_K[targets_m[i]]
        else:
            mass_K = mass_Q[targets_m[i] : targets_m[i] + row_K.size]
            weight, below = _weigh(row_K, top, mass_K, lanes_L)
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
        nll_m[i] = weight * np.log(normaliser) + below
        scale = weight / normaliser
        for k in range(arity):
            row_K[k] *= scale
        if mass_Q is None:
            row_K[targets_m[i]] -= np.float32(1.0)
        else:
            for k in range(arity):
                row_K[k] -= mass_K[k]


@njit(cache=True, error_model="numpy")
def _weigh(logits_K, top, mass_K, lanes_L):
    """Sum of the masses, and sum of masses times ``top - logit``; a child without mass adds nothing, whatever it has.

    Args:
        logits_K: Of one decision.
        top: The largest.
        mass_K: Of its children.
        lanes_L: Room for a vector's lanes.
    """
    arity, step, block = np.uint64(logits_K.size), np.uint64(LANES), np.uint64(SUMMED)
    whole = arity - arity % step
    more_L = np.empty(LANES, np.float32)
    weight, below = 0.0, 0.0
    for begin in range(np.uint64(0), whole, block):
        lanes_L[:] = np.float32(0.0)
        more_L[:] = np.float32(0.0)
        for k in range(begin, min(begin + block, whole), step):
            for lane in range(step):
                mass = mass_K[k + lane]
                lanes_L[lane] += mass
                more_L[lane] += mass * (top - logits_K[k + lane]) if mass > np.float32(0.0) else np.float32(0.0)
        for lane in range(step):
            weight += lanes_L[lane]
            below += more_L[lane]
    for k in range(whole, arity):
        mass = mass_K[k]
        weight += mass
        below += mass * (top - logits_K[k]) if mass > np.float32(0.0) else 0.0
    return np.float32(weight), np.float32(below)


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
