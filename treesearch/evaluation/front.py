"""Pareto fronts of trees: NLL against cost, both to be small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A tree as a front sees it."""

    cost: float  # units, > 0
    nll: float  # nats per token


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Positions of the points that no other one beats, by rising cost; of equal points the first stays.

    One beats another where it is no worse in both and better in one. O(n log n).
    """
    front: list[int] = []
    lowest = math.inf
    for position in sorted(range(len(points)), key=lambda i: (points[i].cost, points[i].nll, i)):
        if points[position].nll < lowest:
            lowest = points[position].nll
            front.append(position)
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """What the points dominate up to the reference, in nats times e-folds of cost (Zitzler & Thiele 1999); 0 for none.

    Costs count on a logarithmic scale: halving a cost is worth as much at 40 units as at 4. A point that is beyond the
    reference in either direction adds nothing.
    """
    inside = [point for point in points if point.cost < reference.cost and point.nll < reference.nll]
    front = [inside[position] for position in pareto_front(inside)]
    right = [*front[1:], reference]  # where what each point dominates alone ends; one more than there are points
    return sum(
        math.log(edge.cost / point.cost) * (reference.nll - point.nll)
        for point, edge in zip(front, right, strict=False)
    )


def nadir(*groups: Sequence[Point]) -> Point:
    """The reference of several groups: the largest cost and the largest NLL on any of their fronts.

    There must be at least one point.
    """
    fronts = [group[position] for group in groups for position in pareto_front(group)]
    return Point(max(point.cost for point in fronts), max(point.nll for point in fronts))
