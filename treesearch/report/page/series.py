"""Numbers over the course of a search: evaluations in order, best so far, rewards by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from treesearch.report.page.places import is_number
from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import EvaluationRow

T = TypeVar("T")
Points = tuple[list[float], list[float | None]]  # x and y; y is None where a line breaks


@dataclass(frozen=True)
class Evaluation:
    """One of the evaluations that the budget counts."""

    row: EvaluationRow
    number: int  # from 1
    minutes: float | None  # of search when it was recorded
    reward: float | None  # under the λ that the run reports, nats
    era: int  # how many encoders there were before: rewards of two eras cannot be compared


@dataclass(frozen=True)
class BatchRewards:
    """Rewards of the trees that an agent proposed in a batch, or in several one after another."""

    evaluations: int  # of the search up to the end
    mean: float
    best: float
    low: float  # first quartile
    high: float  # third quartile


def evaluations(view: RunView) -> list[Evaluation]:
    """The evaluations of the search in order."""
    found: list[Evaluation] = []
    era, encoder = 0, None
    for number, row in enumerate(view.frozen, start=1):
        if row.encoder is not None and row.encoder != encoder:
            era, encoder = era + (encoder is not None), row.encoder
        at, reward = view.finished_at(row), view.reward(row)
        minutes = None if at is None else view.elapsed(at) / 60
        found.append(Evaluation(row, number, minutes, reward if is_number(reward) else None, era))
    return found


def best_so_far(steps: Iterable[tuple[float, float | None, int]], *, end: float | None = None) -> Points:
    """Best reward so far, only where it changes; the line breaks where an era begins.

    Args:
        steps: x, reward and era of every evaluation, by rising x.
        end: x up to which the line goes; None ends it at the last step.
    """
    xs: list[float] = []
    ys: list[float | None] = []
    best: float | None = None
    last: tuple[float, int] | None = None
    for x, reward, era in steps:
        if last is not None and era != last[1]:
            if best is not None:
                xs += [last[0], x]
                ys += [best, None]
            best = None
        if reward is not None and (best is None or reward > best):
            best = reward
            xs.append(x)
            ys.append(best)
        last = (x, era)
    if best is not None and last is not None:
        xs.append(last[0] if end is None else end)
        ys.append(best)
    return xs, ys


def thinned(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` items, evenly spread over the order, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[position] for position in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def batch_rewards(view: RunView, agent: str, *, limit: int) -> list[BatchRewards]:
    """Rewards of an agent by batch under the latest encoder of each; consecutive batches are pooled above the limit."""
    ends: dict[int, int] = {}
    rewards: dict[int, list[float]] = {}
    for number, row in enumerate(view.frozen, start=1):
        ends[row.batch] = number
        reward = view.reward(row) if row.agent == agent else None
        if is_number(reward):
            rewards.setdefault(row.batch, []).append(reward)
    found = []
    for batches in _groups(sorted(rewards), limit):
        values = np.array([reward for batch in batches for reward in rewards[batch]])
        low, high = np.quantile(values, [0.25, 0.75]).tolist()
        found.append(BatchRewards(ends[batches[-1]], float(values.mean()), float(values.max()), low, high))
    return found


def agent_metrics(view: RunView, *, limit: int) -> dict[str, list[tuple[int, float]]]:
    """What the agent said of its updates: by name (evaluations so far, value); means of consecutive batches above it.

    Args:
        view: The run.
        limit: Points of each metric.
    """
    ends: dict[int, int] = {}
    for number, row in enumerate(view.frozen, start=1):
        ends[row.batch] = number
    known: dict[str, list[tuple[int, float]]] = {}
    for batch in view.batches:
        for name, value in batch.metrics.items():
            if batch.number in ends and isinstance(value, int | float) and is_number(value):
                known.setdefault(name, []).append((ends[batch.number], float(value)))
    return {
        name: [(group[-1][0], float(np.mean([value for _, value in group]))) for group in _groups(points, limit)]
        for name, points in known.items()
    }


def _groups(items: Sequence[T], limit: int) -> list[Sequence[T]]:
    """At most ``limit`` runs of equal length, the last may be shorter."""
    size = max(1, -(-len(items) // limit))
    return [items[start : start + size] for start in range(0, len(items), size)]
