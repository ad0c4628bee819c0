"""Rivals of the best-first search for completions, for counts alone: the k largest numbers of a range.

A scan keeps the best in a sorted list, a partial sort is NumPy's, and a binary tree of range maxima gives one after the
other. They return the same completions in the same order. None serves a model whose probabilities change with every
query: scan and sort would need the scores of all matches first, the tree of maxima would have to be built anew.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def by_scan(value: NDArray[np.float64], low: int, high: int, k: int) -> NDArray[np.int64]:
    """The k largest of a range, of equals the first, by insertion into a sorted list."""
    size = min(k, high - low)
    best = np.full(size, -1, np.int64)
    if size == 0:
        return best
    found = 0
    for place in range(low, high):
        if found == size and value[place] <= value[best[size - 1]]:
            continue
        at = min(found, size - 1)
        while at > 0 and value[best[at - 1]] < value[place]:
            best[at] = best[at - 1]
            at -= 1
        best[at] = place
        found = min(found + 1, size)
    return best


def by_partition(value: NDArray[np.float64], low: int, high: int, k: int) -> NDArray[np.int64]:
    """The same with `numpy.partition`."""
    own = value[low:high]
    if own.size <= k:
        return low + np.argsort(-own, kind="stable")
    threshold = np.partition(own, own.size - k)[own.size - k]
    larger = np.flatnonzero(own > threshold)
    equal = np.flatnonzero(own == threshold)[: k - larger.size]
    best = np.sort(np.concatenate([larger, equal]))
    return low + best[np.argsort(-own[best], kind="stable")]


class RangeMaxima:
    """The first of the largest values of any range in O(log C): a binary tree of maxima in one array."""

    def __init__(self, value: NDArray[np.float64]) -> None:
        self._value = value
        self._best = _maxima(value)

    def top(self, low: int, high: int, k: int) -> NDArray[np.int64]:
        """The k largest of a range, of equals the first."""
        return _top_of_maxima(self._value, self._best, low, high, min(k, high - low))


@njit(cache=True)
def _maxima(value: NDArray[np.float64]) -> NDArray[np.int32]:
    size = value.size
    best = np.empty(2 * size, np.int32)
    best[size:] = np.arange(size)
    for node in range(size - 1, 0, -1):
        best[node] = _better(value, best[2 * node], best[2 * node + 1])
    return best


@njit(cache=True)
def _better(value: NDArray[np.float64], one: int, other: int) -> int:
    if one < 0 or (other >= 0 and (value[other] > value[one] or (value[other] == value[one] and other < one))):
        return other
    return one


@njit(cache=True)
def _largest(value: NDArray[np.float64], best: NDArray[np.int32], low: int, high: int) -> int:
    found = -1
    low, high = low + value.size, high + value.size
    while low < high:
        if low & 1:
            found = _better(value, found, best[low])
            low += 1
        if high & 1:
            high -= 1
            found = _better(value, found, best[high])
        low >>= 1
        high >>= 1
    return found


@njit(cache=True)
def _top_of_maxima(
    value: NDArray[np.float64], best: NDArray[np.int32], low: int, high: int, k: int
) -> NDArray[np.int64]:
    result = np.empty(k, np.int64)
    part_low, part_high, part_best = np.empty(k + 1, np.int64), np.empty(k + 1, np.int64), np.empty(k + 1, np.int64)
    part_low[0], part_high[0], part_best[0] = low, high, _largest(value, best, low, high)
    num_parts = 1
    for i in range(k):
        top = 0
        for part in range(1, num_parts):
            if part_best[part] != part_best[top] and _better(value, part_best[top], part_best[part]) == part_best[part]:
                top = part
        place, end = part_best[top], part_high[top]
        result[i] = place
        part_high[top], part_best[top] = place, _largest(value, best, part_low[top], place)
        part_low[num_parts], part_high[num_parts] = place + 1, end
        part_best[num_parts] = _largest(value, best, place + 1, end)
        num_parts += 1
    return result
