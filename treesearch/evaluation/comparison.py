"""Statistics of a comparison: intervals over seeds, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b of two rungs on the same trees; None with fewer than three trees or without any order."""
    if len(first) < 3:
        return None
    tau = float(stats.kendalltau(first, second).statistic)
    return tau if np.isfinite(tau) else None
