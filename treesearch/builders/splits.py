"""Splitting a set of classes in two, by similarity or by frequency: the step that recursive builders and actions share.

All functions take ``ids`` sorted by rising class id and depend on that set alone, so a split can be memoised by it.
Shapes: **n** classes in the set, **D** features.
"""

from __future__ import annotations

import numpy as np
from numba import njit

POWER_ROUNDS = 4  # power iterations towards the first principal direction
LLOYD_ROUNDS = 4  # rounds of 2-means after that
SORT_RUN = 16
VANISHING = 1e-20  # a direction shorter than this carries no information


@njit(cache=True)
def stable_argsort(keys):
    """Stable argsort, int64 [n]: insertion sort on short runs, then merging (compiles far faster than np.argsort)."""
    num = keys.size
    order = np.arange(num)
    for low in range(0, num, SORT_RUN):
        high = min(low + SORT_RUN, num)
        for i in range(low + 1, high):
            item = order[i]
            j = i
            while j > low and keys[order[j - 1]] > keys[item]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = item
    spare = np.empty_like(order)
    width = SORT_RUN
    while width < num:
        for low in range(0, num, 2 * width):
            middle, high = min(low + width, num), min(low + 2 * width, num)
            left, right = low, middle
            for out in range(low, high):
                if left < middle and (right >= high or keys[order[left]] <= keys[order[right]]):
                    spare[out] = order[left]
                    left += 1
                else:
                    spare[out] = order[right]
                    right += 1
        order, spare = spare, order
        width *= 2
    return order


@njit(cache=True, fastmath=True)
def cut_at_fraction(weights, order, fraction):
    """Where to cut ``order`` so that the weight before the cut is nearest to ``fraction`` of all; both parts non-empty.

    Ties go to the earlier cut. Where all weights are zero the cut is by number.
    """
    num = order.size
    total = 0.0
    for i in range(num):
        total += weights[order[i]]
    if total <= 0.0:
        return min(max(round(fraction * num), 1), num - 1)
    target = fraction * total
    best, best_gap, before = 1, np.inf, 0.0
    for cut in range(1, num):
        before += weights[order[cut - 1]]
        gap = abs(before - target)
        if gap < best_gap:
            best, best_gap = cut, gap
    return best


@njit(cache=True, fastmath=True)
def _project(points, direction, scores):
    for i in range(points.shape[0]):
        total = np.float32(0.0)
        for d in range(points.shape[1]):
            total += points[i, d] * direction[d]
        scores[i] = total


@njit(cache=True, fastmath=True)
def _weighted_sum(points, weights, out):
    for d in range(out.size):
        out[d] = 0.0
    for i in range(points.shape[0]):
        weight = weights[i]
        for d in range(points.shape[1]):
            out[d] += weight * points[i, d]


@njit(cache=True, fastmath=True)
def _normalise(direction):
    """Scale to length 1 in place; return the length it had, leaving a vanishing vector alone."""
    norm = np.float32(0.0)
    for d in range(direction.size):
        norm += direction[d] * direction[d]
    norm = np.sqrt(norm)
    if norm > VANISHING:
        for d in range(direction.size):
            direction[d] /= norm
    return norm


@njit(cache=True, fastmath=True)
def similarity_order(vectors, attention, mass, ids, start, fraction):
    """Order classes along the direction that separates two means, cut at a mass fraction (2-means with a quota).

    The direction starts as the first principal one (power iteration from ``start``); then rounds of 2-means follow:
    project, cut at the fraction of the mass, take the two weighted means, make their difference the direction.

    Args:
        vectors: float32 [C, D].
        attention: float32 [C], weight of each class in the means.
        mass: float64 [C], weight of each class in the cut.
        ids: int64 [n], rising.
        start: float32 [D], starting direction.
        fraction: Share of the mass in the first part.

    Returns:
        int64 [n] positions into ``ids``, by rising projection, ties by smaller id.
    """
    num, dim = ids.size, vectors.shape[1]
    points = np.empty((num, dim), np.float32)
    weights = np.empty(num, np.float32)
    local_mass = np.empty(num, np.float64)
    total_weight = np.float32(0.0)
    for i in range(num):
        for d in range(dim):
            points[i, d] = vectors[ids[i], d]
        weights[i] = attention[ids[i]]
        local_mass[i] = mass[ids[i]]
        total_weight += weights[i]
    if total_weight <= 0.0:
        for i in range(num):
            weights[i] = 1.0
        total_weight = np.float32(num)
    mean = np.empty(dim, np.float32)
    _weighted_sum(points, weights, mean)
    for i in range(num):
        for d in range(dim):
            points[i, d] -= mean[d] / total_weight

    scores = np.empty(num, np.float32)
    direction = start.copy()
    for _ in range(POWER_ROUNDS):
        _project(points, direction, scores)
        for i in range(num):
            scores[i] *= weights[i]
        _weighted_sum(points, scores, direction)
        if _normalise(direction) <= VANISHING:  # all vectors are equal, or the start is orthogonal to them
            break

    _project(points, direction, scores)
    order = stable_argsort(scores)
    first = np.empty(num, np.float32)
    for _ in range(LLOYD_ROUNDS):
        cut = cut_at_fraction(local_mass, order, fraction)
        first_weight = np.float32(0.0)
        for position in range(num):
            i = order[position]
            first[i] = weights[i] if position < cut else 0.0
            first_weight += first[i]
        # Points are centred, so the second sum is minus the first: the difference of the means is parallel to it.
        _weighted_sum(points, first, mean)
        if first_weight <= 0.0 or _normalise(mean) <= VANISHING:
            break
        changed = np.float32(0.0)
        for d in range(dim):
            changed += abs(direction[d] + mean[d])
            direction[d] = -mean[d]
        if changed < 1e-5:
            break
        _project(points, direction, scores)
        order = stable_argsort(scores)
    return order


@njit(cache=True)
def frequency_order(mass, ids):
    """Positions into ``ids`` (rising) by falling mass, ties by smaller id."""
    negative = np.empty(ids.size, np.float64)
    for i in range(ids.size):
        negative[i] = -mass[ids[i]]
    return stable_argsort(negative)


@njit(cache=True, fastmath=True)
def interpolated_cut(vectors, attention, mass, ids, order, weight):
    """The cut of ``order`` that maximises ``(1 - weight) * between-scatter share + weight * entropy of the split``.

    The share is the part of the weighted squared distances that lies between the two parts (what 2-means maximises);
    the entropy is that of the two masses in bits (what Shannon and Fano maximise). Ties go to the earlier cut.
    """
    num, dim = order.size, vectors.shape[1]
    mean = np.zeros(dim, np.float64)
    total_weight, total_mass, scatter = 0.0, 0.0, 0.0
    for i in range(num):
        cls = ids[i]
        total_weight += attention[cls]
        total_mass += mass[cls]
        for d in range(dim):
            mean[d] += attention[cls] * vectors[cls, d]
    if total_weight > 0.0:
        for d in range(dim):
            mean[d] /= total_weight
    for i in range(num):
        cls = ids[i]
        for d in range(dim):
            gap = vectors[cls, d] - mean[d]
            scatter += attention[cls] * gap * gap
    left = np.zeros(dim, np.float64)
    left_weight, left_mass = 0.0, 0.0
    best, best_value = 1, -np.inf
    for cut in range(1, num):
        cls = ids[order[cut - 1]]
        left_weight += attention[cls]
        left_mass += mass[cls]
        norm = 0.0
        for d in range(dim):
            left[d] += attention[cls] * (vectors[cls, d] - mean[d])
            norm += left[d] * left[d]
        right_weight = total_weight - left_weight
        share = 0.0
        if scatter > 0.0 and left_weight > 0.0 and right_weight > 1e-9 * total_weight:
            share = norm * total_weight / (left_weight * right_weight) / scatter
        p = left_mass / total_mass if total_mass > 0.0 else cut / num
        entropy = 0.0
        if 0.0 < p < 1.0:
            entropy = -p * np.log2(p) - (1.0 - p) * np.log2(1.0 - p)
        value = (1.0 - weight) * share + weight * entropy
        if value > best_value:
            best, best_value = cut, value
    return best


@njit(cache=True, fastmath=True)
def take_split(classes, low, high, order):
    """Apply ``order`` (positions relative to ``low``) to ``classes[low:high]`` in place."""
    taken = np.empty(high - low, np.int64)
    for i in range(high - low):
        taken[i] = classes[low + order[i]]
    for i in range(high - low):
        classes[low + i] = taken[i]


@njit(cache=True)
def sort_range(classes, low, high):
    """Sort ``classes[low:high]`` in place, so that a split depends on the set alone; return a copy of the range."""
    take_split(classes, low, high, stable_argsort(classes[low:high]))
    ids = np.empty(high - low, np.int64)
    for i in range(high - low):
        ids[i] = classes[low + i]
    return ids


@njit(cache=True)
def range_sum(mass, classes, low, high):
    """Sum of ``mass`` over ``classes[low:high]``."""
    total = 0.0
    for i in range(low, high):
        total += mass[classes[i]]
    return total
