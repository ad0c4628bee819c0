"""Runs that differ in their seed alone as one line: mean, least and greatest of their best rewards so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.report.page.series import Points


@dataclass(frozen=True, eq=False)
class MeanLine:
    """A step line of several runs; G places where one of them changes."""

    x: NDArray[np.float64]  # [G] rising
    mean: NDArray[np.float64]  # [G]
    low: NDArray[np.float64]  # [G]
    high: NDArray[np.float64]  # [G]
    num_runs: int


def at(line: Points, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A step line at some places; NaN before it begins, where it breaks and after its end."""
    xs = np.array(line[0], np.float64)
    ys = np.array([np.nan if y is None else y for y in line[1]], np.float64)
    if not xs.size:
        return np.full(x.size, np.nan)
    place = np.searchsorted(xs, x, side="right") - 1
    values = np.where(place >= 0, ys[np.maximum(place, 0)], np.nan)
    return np.where(x > xs[-1], np.nan, values)


def mean_line(lines: Sequence[Points]) -> MeanLine | None:
    """The mean where every one of the lines has a value; None where they have nothing in common."""
    x = np.unique(np.array([one for line in lines for one in line[0]], np.float64))
    if not x.size:
        return None
    values = np.stack([at(line, x) for line in lines])  # [lines, G]
    known = np.isfinite(values).all(0)
    if not known.any():
        return None
    x, values = x[known], values[:, known]
    return MeanLine(x, values.mean(0), values.min(0), values.max(0), len(lines))
