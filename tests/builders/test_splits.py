"""The numeric steps of a split against NumPy and exhaustive search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treesearch.builders.splits import (
    cut_at_fraction,
    frequency_order,
    interpolated_cut,
    similarity_order,
    stable_argsort,
)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=200))
def test_stable_argsort(keys: list[int]) -> None:
    keys_n = np.array(keys, np.float64)
    np.testing.assert_array_equal(stable_argsort(keys_n), np.argsort(keys_n, kind="stable"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.sampled_from([0.125, 0.25, 0.5, 0.75]))
def test_cut_at_fraction_is_the_nearest_earliest_cut(weights: list[int], fraction: float) -> None:
    weights_n = np.array(weights, np.float64)
    order = np.random.default_rng(0).permutation(weights_n.size)
    cut = cut_at_fraction(weights_n, order, fraction)
    assert 1 <= cut < weights_n.size
    if weights_n.any():
        gaps = np.abs(np.cumsum(weights_n[order])[:-1] - fraction * weights_n.sum())
        assert gaps[cut - 1] == gaps.min()


def test_cut_of_zero_weights_is_by_number() -> None:
    zeros = np.zeros(8)
    assert [cut_at_fraction(zeros, np.arange(8), fraction) for fraction in (0.01, 0.25, 0.5, 0.99)] == [1, 2, 4, 7]


def test_frequency_order_breaks_ties_by_id() -> None:
    assert frequency_order(np.array([1.0, 3.0, 9.0, 3.0, 1.0]), np.array([0, 1, 3, 4])).tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("seed", range(5))
def test_similarity_order_follows_the_separating_direction(seed: int) -> None:
    """Points on a line, a little noise around it: the order is the order on the line, one way or the other."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(50) * 10.0
    axis = rng.standard_normal(8)
    vectors = (np.outer(place, axis / np.linalg.norm(axis)) + 0.01 * rng.standard_normal((50, 8))).astype(np.float32)
    ones = np.ones(50)
    start = rng.standard_normal(8).astype(np.float32)
    order = similarity_order(vectors, ones.astype(np.float32), ones, np.arange(50), start, 0.5)
    assert order.tolist() in (np.argsort(place).tolist(), np.argsort(-place).tolist())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_interpolated_cut_against_every_cut(weight: float) -> None:
    rng = np.random.default_rng(0)
    num = 30
    vectors, share = rng.standard_normal((num, 5)).astype(np.float32), rng.random(num).astype(np.float32)
    mass, order = rng.random(num), rng.permutation(num)

    def scatter(ids: np.ndarray) -> float:
        mean = np.average(vectors[ids], axis=0, weights=share[ids])
        return float(share[ids] @ ((vectors[ids] - mean) ** 2).sum(axis=1))

    def value(cut: int) -> float:
        left, right = order[:cut], order[cut:]
        p = mass[left].sum() / mass.sum()
        between = 1 - (scatter(left) + scatter(right)) / scatter(order)
        return float((1 - weight) * between + weight * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)))

    best = max(range(1, num), key=value)
    assert interpolated_cut(vectors, share, mass, np.arange(num), order, weight) == best
