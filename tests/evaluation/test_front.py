"""Fronts against brute force: who dominates whom, and areas counted on a grid."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treesearch.evaluation.front import Point, hypervolume, nadir, pareto_front

# Few values, so that points agree in one coordinate or both; powers of two, so that logarithms make a grid.
points = st.lists(
    st.builds(lambda cost, nll: Point(2.0**cost, nll / 4), st.integers(0, 5), st.integers(0, 8)), max_size=12
)


def beats(one: Point, other: Point) -> bool:
    return one.cost <= other.cost and one.nll <= other.nll and one != other


@given(points)
def test_the_front_against_brute_force(points: list[Point]) -> None:
    front = pareto_front(points)
    unbeaten = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points) and p not in points[:i]}
    assert set(front) == unbeaten
    assert len(front) == len(unbeaten)
    assert [points[i].cost for i in front] == sorted(points[i].cost for i in front)


@given(points, st.integers(0, 6), st.integers(0, 9))
def test_the_hypervolume_against_a_grid(points: list[Point], cost: int, nll: int) -> None:
    reference = Point(2.0**cost, nll / 4)
    cells = 0
    for column in range(cost):  # costs from 2**column to 2**(column + 1)
        for row in range(nll):  # NLLs from row / 4 to (row + 1) / 4
            cells += any(p.cost <= 2.0**column and p.nll <= row / 4 for p in points)
    assert hypervolume(points, reference) == pytest.approx(cells * math.log(2) / 4, abs=1e-12)


@given(points, points)
def test_more_points_never_dominate_less(points: list[Point], more: list[Point]) -> None:
    reference = Point(40.0, 3.0)
    assert hypervolume([*points, *more], reference) >= hypervolume(points, reference) - 1e-12


@given(points, points)
def test_the_nadir_is_the_worst_of_either_front(first: list[Point], second: list[Point]) -> None:
    if not first and not second:
        return
    on_fronts = [p for group in (first, second) for p in group if not any(beats(q, p) for q in group)]
    expected = Point(max(p.cost for p in on_fronts), max(p.nll for p in on_fronts))
    assert nadir(first, second) == expected
    assert all(p.cost <= expected.cost and p.nll <= expected.nll for p in on_fronts)


def test_literal_front() -> None:
    points = [Point(4, 3.0), Point(2, 5.0), Point(4, 3.0), Point(8, 3.0), Point(2, 6.0), Point(16, 1.0)]
    assert pareto_front(points) == [1, 0, 5]
    assert nadir(points) == Point(16, 5.0)
    # from 2 to 4 at 6 - 5, from 4 to 16 at 6 - 3, from 16 to 32 at 6 - 1
    assert hypervolume(points, Point(32, 6.0)) == pytest.approx(math.log(2) * (1 + 2 * 3 + 5))


def test_halving_a_cost_is_worth_as_much_everywhere() -> None:
    for cost in (1.0, 7.0, 400.0):
        gain = hypervolume([Point(cost / 2, 1.0)], Point(1000, 2.0)) - hypervolume([Point(cost, 1.0)], Point(1000, 2.0))
        assert gain == pytest.approx(math.log(2))


def test_nothing_dominates_nothing() -> None:
    assert pareto_front([]) == []
    assert hypervolume([], Point(1, 1)) == 0
    for edge in (Point(4, 1.0), Point(1, 3.0), Point(4, 3.0), Point(9, 9.0)):
        assert hypervolume([edge], Point(4, 3.0)) == 0


def test_many_points_are_fast() -> None:
    rng = np.random.default_rng(0)
    points = [Point(float(c), float(n)) for c, n in rng.uniform(1, 9, (100_000, 2))]
    front = pareto_front(points)
    assert 3 < len(front) < 60
    assert hypervolume(points, nadir(points)) > 0
