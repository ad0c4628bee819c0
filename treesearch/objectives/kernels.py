"""Loops over paths and subtrees behind the objectives, compiled by numba. Callers check their arguments.

Shapes: **B** batch, **C** classes, **E** decisions of a batch, **Q** their children, **M** nodes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def accumulate(parent, lengths):
    """Sum of the lengths from the root down to each node, float64 [M]."""
    total = lengths.copy()
    for node in range(1, parent.size):
        total[node] += total[parent[node]]
    return total


@njit(cache=True)
def decayed_sums(parent, from_root, beta, num_internal):
    """For each node, the sum over the classes below of exp(-beta * way from its parent), float64 [M]."""
    below = np.zeros(parent.size)
    below[num_internal:] = 1.0
    for node in range(parent.size - 1, 0, -1):
        below[node] *= np.exp(-beta * (from_root[node] - from_root[parent[node]]))
        below[parent[node]] += below[node]
    return below


@njit(cache=True)
def sums_of_siblings(child_ptr, child_idx, values):
    """Sums without each child in turn: taking it off the whole would lose what is small beside it."""
    others = np.zeros(values.size)
    for node in range(child_ptr.size - 1):
        first, last = child_ptr[node], child_ptr[node + 1]
        total = 0.0
        for edge in range(first, last):
            others[child_idx[edge]] = total
            total += values[child_idx[edge]]
        total = 0.0
        for edge in range(last - 1, first - 1, -1):
            others[child_idx[edge]] += total
            total += values[child_idx[edge]]
    return others


@njit(cache=True)
def running_maximum(parent, values):
    """The largest value from the root down to each node, float64 [M]."""
    largest = values.copy()
    for node in range(1, parent.size):
        largest[node] = max(largest[node], largest[parent[node]])
    return largest


@njit(cache=True)
def _log_weight(leaf, above, from_root, at_node, beta):
    """Logarithm of the factor that all classes that part from a leaf at a node have in common."""
    return -beta * (from_root[leaf] - from_root[above] + at_node[above])


@njit(cache=True)
def _log_total(leaf, parent, from_root, at_node, others, beta):
    """Logarithm of Z: the sum over all other classes, scaled by its largest term."""
    top, total = -math.inf, 0.0
    node = leaf
    while parent[node] >= 0:
        above = parent[node]
        if others[node] > 0:
            term = _log_weight(leaf, above, from_root, at_node, beta) + math.log(others[node])
            if term > top:
                total, top = total * math.exp(top - term) + 1.0, term
            else:
                total += math.exp(term - top)
        node = above
    return top + math.log(total) if total > 0 else top


@njit(cache=True)
def distributions(
    target_B, class_leaf, parent, first, count, class_at, from_root, at_node, others, beta, smoothing, target_BC
):
    """Fill ``target_BC`` with the smoothed targets over all classes; see `HierarchicalSmoothing.distribution`."""
    for row in range(target_B.size):
        own_C = target_BC[row]
        leaf = class_leaf[target_B[row]]
        log_total = _log_total(leaf, parent, from_root, at_node, others, beta)
        own_C[target_B[row]] = 1.0 - smoothing
        node = leaf
        while parent[node] >= 0:
            above = parent[node]
            shift = _log_weight(leaf, above, from_root, at_node, beta) - log_total + beta * from_root[above]
            for side in range(2):  # the classes below ``above`` that stand before those below ``node``, and after
                begin = first[above] if side == 0 else first[node] + count[node]
                end = first[node] if side == 0 else first[above] + count[above]
                for place in range(begin, end):
                    other = class_at[place]
                    own_C[other] = smoothing * math.exp(shift - beta * from_root[class_leaf[other]])
            node = above


@njit(cache=True)
def path_masses(
    target_B, path_ptr, path_node, path_branch, class_leaf, parent, child_ptr, child_idx, from_root, at_node, below,
    others, beta, smoothing,
):  # fmt: skip
    """Decisions of the targets' paths and the masses of their children; see `HierarchicalSmoothing.node_targets`."""
    num_entries, num_masses = 0, 0
    for row in range(target_B.size):
        for step in range(path_ptr[target_B[row]], path_ptr[target_B[row] + 1]):
            num_entries += 1
            num_masses += child_ptr[path_node[step] + 1] - child_ptr[path_node[step]]
    row_E, node_E = np.empty(num_entries, np.int64), np.empty(num_entries, np.int64)
    ptr, mass_Q = np.zeros(num_entries + 1, np.int64), np.empty(num_masses, np.float32)
    entry, filled = 0, 0
    for row in range(target_B.size):
        target = target_B[row]
        leaf = class_leaf[target]
        start, end = path_ptr[target], path_ptr[target + 1]
        log_total = _log_total(leaf, parent, from_root, at_node, others, beta)
        staying = 1.0  # mass that has not left the path
        for step in range(start, end):
            node, branch = path_node[step], path_branch[step]
            low, high = child_ptr[node], child_ptr[node + 1]
            row_E[entry], node_E[entry] = row, node
            share = 0.0
            if others[child_idx[low + branch]] > 0:  # else too small to be written
                share = smoothing * math.exp(_log_weight(leaf, node, from_root, at_node, beta) - log_total)
            for edge in range(low, high):
                mass_Q[filled + edge - low] = share * below[child_idx[edge]]
            staying -= share * others[child_idx[low + branch]]
            mass_Q[filled + branch] = max(staying, 1.0 - smoothing)
            filled += high - low
            entry += 1
            ptr[entry] = filled
    return row_E, node_E, ptr, mass_Q


@njit(cache=True)
def sparse_masses(class_Bm, mass_Bm, parent, child_ptr, child_idx, class_leaf, prior_M, prior_C):
    """Decisions on the paths of each row's classes and the masses of their children; see `SparseTeacher`.

    Returns:
        Rows, nodes, pointers and masses of `NodeTargets`, and the entropy of each row's targets, float32 [B].
    """
    num_nodes = parent.size
    given_M, taken_M = np.zeros(num_nodes), np.zeros(num_nodes)  # of this row's classes: mass and prior below
    seen_M = np.full(num_nodes, -1, np.int64)  # last row that came by
    num_entries, num_masses = 0, 0
    for row in range(class_Bm.shape[0]):
        for place in range(class_Bm.shape[1]):
            node = parent[class_leaf[class_Bm[row, place]]]
            while node >= 0 and seen_M[node] != row:
                seen_M[node] = row
                num_entries += 1
                num_masses += child_ptr[node + 1] - child_ptr[node]
                node = parent[node]
    row_E, node_E = np.empty(num_entries, np.int64), np.empty(num_entries, np.int64)
    ptr, mass_Q = np.zeros(num_entries + 1, np.int64), np.empty(num_masses, np.float32)
    entropy_B = np.zeros(class_Bm.shape[0], np.float32)
    seen_M[:] = -1
    entry, filled = 0, 0
    for row in range(class_Bm.shape[0]):
        begin, given, taken = entry, 0.0, 0.0
        for place in range(class_Bm.shape[1]):
            target = class_Bm[row, place]
            node = class_leaf[target]
            prior = prior_C[target] if seen_M[node] != row else 0.0  # a class that stands twice has it once
            given += mass_Bm[row, place]
            taken += prior
            while node >= 0:
                if seen_M[node] != row:
                    seen_M[node] = row
                    given_M[node], taken_M[node] = 0.0, 0.0
                    if child_ptr.size - 1 > node:
                        row_E[entry], node_E[entry] = row, node
                        entry += 1
                given_M[node] += mass_Bm[row, place]
                taken_M[node] += prior
                node = parent[node]
        node_E[begin:entry].sort()
        left = prior_M[0] - taken
        rate = max(1.0 - given, 0.0) / left if left > 0 else 0.0
        entropy = 0.0
        for own in range(begin, entry):
            node = node_E[own]
            total, logs = 0.0, 0.0
            for edge in range(child_ptr[node], child_ptr[node + 1]):
                child = child_idx[edge]
                mass = rate * prior_M[child]
                if seen_M[child] == row:
                    mass = given_M[child] + rate * max(prior_M[child] - taken_M[child], 0.0)
                mass_Q[filled] = mass
                filled += 1
                if mass > 0:
                    total += mass
                    logs += mass * math.log(mass)
            ptr[own + 1] = filled
            if total > 0:
                entropy += total * math.log(total) - logs
        entropy_B[row] = entropy
    return row_E, node_E, ptr, mass_Q, entropy_B
