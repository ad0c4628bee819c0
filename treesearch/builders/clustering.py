"""Trees by similarity: recursive 2-means, and the interpolation between 2-means and Shannon-Fano."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.builders.balanced import check_arity
from treesearch.builders.splits import (
    cut_at_fraction,
    frequency_order,
    interpolated_cut,
    range_sum,
    similarity_order,
    sort_range,
    take_split,
)
from treesearch.errors import ConfigError, DataError
from treesearch.tree import IntArray, Tree

ATTENTION_POWER = 0.5  # weight of a class in a mean is count ** power: rare classes have noisy vectors


def clustered(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    seed: int = 0,
    arity: int = 2,
    quantile: float = 0.5,
    balance: str = "mass",
    leaf_size: int = 1,
) -> Tree:
    """Recursive similarity clustering of the class vectors (after Mnih & Hinton 2008).

    A set is cut in two by 2-means with a quota: classes are ordered along the difference of the two means and cut where
    the first part holds ``quantile`` of the mass (or number). For ``arity`` > 2 the heaviest part is cut again until
    there are ``arity`` parts; a set of at most ``arity`` classes becomes a flat node.

    Args:
        counts: [C] class counts; the mass.
        vectors: [C, D] class vectors.
        seed: Starting direction of the power iteration.
        arity: Children per node, >= 2.
        quantile: Share of the first part in every cut, inside (0, 1).
        balance: ``mass`` (cut by count) or ``count`` (cut by number of classes).
        leaf_size: Sets of at most this size become one flat node; 1 goes down to single classes.

    Ties in the order go to the smaller class id, ties between cuts to the earlier one, ties between parts to the
    earlier one. O(C D depth log arity).

    Raises:
        DataError: No vectors.
        ConfigError: An option is out of range.
    """
    check_arity(arity)
    if not (isinstance(quantile, (int, float, np.number)) and 0 < quantile < 1):
        raise ConfigError(f"quantile must lie inside (0, 1), but got {quantile!r}")
    if balance not in ("mass", "count"):
        raise ConfigError(f"balance must be 'mass' or 'count', but got {balance!r}")
    if not isinstance(leaf_size, int) or leaf_size < 1:
        raise ConfigError(f"leaf_size must be an integer >= 1, but got {leaf_size!r}")
    points = require_vectors("clustered", vectors)
    weights = counts if balance == "mass" else np.ones_like(counts)
    internal_parent, leaf_parent, classes = _cluster(
        points, attention(counts), weights, start_direction(points, seed), arity, float(quantile), leaf_size
    )
    return Tree.from_parents(np.concatenate([internal_parent, leaf_parent]), classes)


def interpolated(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    seed: int = 0,
    weight: float = 0.5,
) -> Tree:
    """Binary trees between 2-means (accuracy) and Shannon-Fano (short paths), after Baharav et al. 2021.

    Every set is ordered along its 2-means direction and cut where ``(1 - weight) * share of the scatter between the
    parts + weight * entropy of the two masses`` is largest. ``weight=0`` is plain 2-means. At ``weight=1`` the order
    no longer matters to the objective; it is then by falling count, which is the code of Fano 1949.

    Args:
        counts: [C] class counts; the mass.
        vectors: [C, D] class vectors.
        seed: Starting direction of the power iteration.
        weight: Interpolation, inside [0, 1].

    Ties in the order go to the smaller class id, ties between cuts to the earlier one. O(C D depth); at ``weight=0``
    the depth is not bounded by log C.

    Raises:
        DataError: No vectors.
        ConfigError: The weight is outside [0, 1].
    """
    if not (isinstance(weight, (int, float, np.number)) and 0 <= weight <= 1):
        raise ConfigError(f"weight must lie inside [0, 1], but got {weight!r}")
    points = require_vectors("interpolated", vectors)
    internal_parent, leaf_parent, classes = _interpolate(
        points, attention(counts), counts, start_direction(points, seed), float(weight)
    )
    return Tree.from_parents(np.concatenate([internal_parent, leaf_parent]), classes)


def require_vectors(builder: str, vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The vectors, or a DataError that says who needs them."""
    if vectors is None:
        raise DataError(f"builder {builder!r} groups classes by similarity and needs vectors [C, D], but got none")
    return vectors


def attention(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weight of each class in a mean, float32 [C]."""
    weights: NDArray[np.float32] = np.asarray(np.power(counts, ATTENTION_POWER), np.float32)
    return weights


def start_direction(vectors: NDArray[np.float32], seed: int | Sequence[int]) -> NDArray[np.float32]:
    """A seeded random direction, float32 [D]."""
    drawn = np.random.default_rng(seed).standard_normal(vectors.shape[1])
    return np.asarray(drawn, np.float32)


def similarity_parts(
    vectors: NDArray[np.float32],
    attention_C: NDArray[np.float32],
    mass: NDArray[np.float64],
    ids: NDArray[np.int64],
    start: NDArray[np.float32],
    num_parts: int,
    fraction: float = 0.5,
) -> list[NDArray[np.int64]]:
    """Cut ``ids`` (rising) into at most ``num_parts`` similar groups of rising ids; see `split_into_parts`."""
    classes = ids.copy()
    num_parts = min(num_parts, ids.size)
    lows, highs = split_into_parts(vectors, attention_C, mass, start, fraction, classes, 0, ids.size, num_parts)
    return [np.sort(classes[low:high]) for low, high in zip(lows, highs, strict=True)]


def interpolated_parts(
    vectors: NDArray[np.float32],
    attention_C: NDArray[np.float32],
    mass: NDArray[np.float64],
    ids: NDArray[np.int64],
    start: NDArray[np.float32],
    weight: float,
) -> list[NDArray[np.int64]]:
    """Cut ``ids`` (rising) in two as `interpolated` does; both parts of rising ids."""
    classes = ids.copy()
    middle = _interpolated_split(vectors, attention_C, mass, start, weight, classes, 0, ids.size)
    return [np.sort(classes[:middle]), np.sort(classes[middle:])]


@njit(cache=True)
def _interpolated_split(vectors, attention, mass, start, weight, classes, low, high):  # type: ignore[no-untyped-def]
    """Reorder ``classes[low:high]`` and return where the second part begins."""
    ids = sort_range(classes, low, high)
    by_count = weight >= 1.0
    order = frequency_order(mass, ids) if by_count else similarity_order(vectors, attention, mass, ids, start, 0.5)
    middle = low + interpolated_cut(vectors, attention, mass, ids, order, weight)
    take_split(classes, low, high, order)
    return middle


@njit(cache=True)
def split_into_parts(
    vectors: NDArray[np.float32],
    attention: NDArray[np.float32],
    mass: NDArray[np.float64],
    start: NDArray[np.float32],
    fraction: float,
    classes: NDArray[np.int64],
    low: int,
    high: int,
    num_parts: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut ``classes[low:high]`` into similar runs, the heaviest run that has two classes first, in place.

    Args:
        vectors: float32 [C, D].
        attention: float32 [C], weight of each class in a mean.
        mass: float64 [C], what the cuts balance.
        start: float32 [D], starting direction.
        fraction: Share of the first part in every cut.
        classes: int64 [C], reordered in place within the range.
        low: Start of the range.
        high: End of the range.
        num_parts: Number of runs wanted, at most ``high - low``.

    Returns:
        Starts and ends of the runs, int64 [num_parts] each; ties between runs go to the earlier one.
    """
    part_low = np.empty(num_parts, np.int64)
    part_high = np.empty(num_parts, np.int64)
    part_mass = np.empty(num_parts, np.float64)
    part_low[0], part_high[0] = low, high
    part_mass[0] = range_sum(mass, classes, low, high)
    for new in range(1, num_parts):
        heaviest = -1
        for part in range(new):
            if part_high[part] - part_low[part] > 1 and (heaviest < 0 or part_mass[part] > part_mass[heaviest]):
                heaviest = part
        a, b = part_low[heaviest], part_high[heaviest]
        ids = sort_range(classes, a, b)
        order = similarity_order(vectors, attention, mass, ids, start, fraction)
        take_split(classes, a, b, order)
        middle = a + cut_at_fraction(mass, classes[a:b], fraction)
        part_high[heaviest] = middle
        part_mass[heaviest] = range_sum(mass, classes, a, middle)
        part_low[new], part_high[new] = middle, b
        part_mass[new] = range_sum(mass, classes, middle, b)
    return part_low, part_high


@njit(cache=True)
def _cluster(
    vectors: NDArray[np.float32],
    attention: NDArray[np.float32],
    mass: NDArray[np.float64],
    start: NDArray[np.float32],
    arity: int,
    quantile: float,
    leaf_size: int,
) -> tuple[IntArray, IntArray, NDArray[np.int64]]:
    num_classes = mass.size
    classes = np.arange(num_classes)
    internal_parent = np.empty(num_classes, np.int32)
    leaf_parent = np.full(num_classes, -1, np.int32)
    num_internal = 0
    stack = [(0, num_classes, -1)]
    while len(stack) > 0:
        low, high, above = stack.pop()
        if high - low == 1:
            leaf_parent[low] = above
            continue
        internal_parent[num_internal] = above
        if high - low <= max(arity, leaf_size):
            for i in range(low, high):
                leaf_parent[i] = num_internal
        else:
            part_low, part_high = split_into_parts(vectors, attention, mass, start, quantile, classes, low, high, arity)
            for part in range(arity):
                stack.append((part_low[part], part_high[part], num_internal))
        num_internal += 1
    return internal_parent[:num_internal], leaf_parent, classes


@njit(cache=True)
def _interpolate(
    vectors: NDArray[np.float32],
    attention: NDArray[np.float32],
    mass: NDArray[np.float64],
    start: NDArray[np.float32],
    weight: float,
) -> tuple[IntArray, IntArray, NDArray[np.int64]]:
    num_classes = mass.size
    classes = np.arange(num_classes)
    internal_parent = np.empty(num_classes, np.int32)
    leaf_parent = np.full(num_classes, -1, np.int32)
    num_internal = 0
    stack = [(0, num_classes, -1)]
    while len(stack) > 0:
        low, high, above = stack.pop()
        if high - low == 1:
            leaf_parent[low] = above
            continue
        internal_parent[num_internal] = above
        middle = _interpolated_split(vectors, attention, mass, start, weight, classes, low, high)
        stack.append((low, middle, num_internal))
        stack.append((middle, high, num_internal))
        num_internal += 1
    return internal_parent[:num_internal], leaf_parent, classes
