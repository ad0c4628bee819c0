"""Statistics of a comparison: intervals over seeds, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; without width where there is one value only."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and Student's t interval of independent values; (mean, mean) for a single value."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, mean, mean, array.size)
    half = float(stdtrit(array.size - 1, 0.5 + confidence / 2) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, mean - half, mean + half, array.size)


def adjusted_means(values: Sequence[Mapping[int, float]]) -> list[float]:
    """Means over all seeds of things that were measured with some of the seeds each.

    A value is taken as the thing's own part plus the seed's, without interaction; the parts are fitted by least squares
    to all values together. For a thing with all seeds this is its plain mean. Sometimes called least-squares
    means (Searle, Speed and Milliken 1980).

    Args:
        values: Of each thing by seed, at least one. Things that share no seed with the others, not even through
            third ones, cannot be compared with them.
    """
    seeds = sorted({seed for own in values for seed in own})
    mean = [math.fsum(own.values()) / len(own) for own in values]
    # The equations of the seeds' parts, out of which those of the things have been eliminated.
    left, right = np.zeros((len(seeds), len(seeds))), np.zeros(len(seeds))
    places = [[seeds.index(seed) for seed in own] for own in values]
    for own, place, own_mean in zip(values, places, mean, strict=True):
        left[place, place] += 1
        left[np.ix_(place, place)] -= 1 / len(place)
        right[place] += np.array(list(own.values())) - own_mean
    of_seed = np.linalg.lstsq(left, right, rcond=None)[0]  # up to a constant, which falls out
    return [
        own_mean + float(of_seed.mean() - of_seed[sorted(place)].mean())
        for place, own_mean in zip(places, mean, strict=True)
    ]


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Interval of ``values - baseline``, paired by position (the seed)."""
    return t_interval([a - b for a, b in zip(values, baseline, strict=True)])


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation within groups, such as over the seeds of each tree; None without two values in any."""
    arrays = [np.asarray(group, np.float64) for group in groups if len(group) > 1]
    freedom = sum(array.size - 1 for array in arrays)
    if not freedom:
        return None
    return float(np.sqrt(sum(((array - array.mean()) ** 2).sum() for array in arrays) / freedom))


def bootstrap_interval(
    differences: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    block: int = 1,
    confidence: float = 0.95,
    num_samples: int = 1000,
) -> Interval:
    """Percentile bootstrap of a mean over tokens (Efron 1979), for two models on the same tokens.

    It tells how far the result holds for other text, not for other seeds: over so few seeds a bootstrap is too narrow.

    Args:
        differences: [T] NLL of one model minus that of the other, token by token.
        rng: Draws the samples.
        block: Consecutive tokens that are drawn together, since neighbours depend on each other (Carlstein 1986); what
            is left at the end is a shorter block.
        confidence: Of the interval.
        num_samples: Bootstrap samples.
    """
    values = differences.astype(np.float64)
    starts = np.arange(0, values.size, block)
    sums, sizes = np.add.reduceat(values, starts), np.diff(np.append(starts, values.size))
    means = np.empty(num_samples)
    for sample in range(num_samples):
        drawn = rng.integers(0, starts.size, starts.size)
        means[sample] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high), values.size)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b of two rungs on the same trees; None with fewer than three trees or without any order."""
    if len(first) < 3:
        return None
    from scipy import stats  # takes a second to import

    tau = float(stats.kendalltau(first, second).statistic)
    return tau if np.isfinite(tau) else None
