"""Statistics of a comparison: intervals over seeds, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


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
    half = float(stats.t.ppf(0.5 + confidence / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, mean - half, mean + half, array.size)


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
    tau = float(stats.kendalltau(first, second).statistic)
    return tau if np.isfinite(tau) else None
