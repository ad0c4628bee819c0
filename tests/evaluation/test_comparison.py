"""The statistics against scipy's own tests and numbers worked out by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from treesearch.evaluation.comparison import (
    Interval,
    adjusted_means,
    bootstrap_interval,
    paired_difference,
    pooled_deviation,
    rank_correlation,
    t_interval,
)


def test_literal_interval() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.30265: half the width is 4.30265 / sqrt(3)
    interval = t_interval([1, 2, 3])
    assert (interval.mean, interval.n) == (2, 3)
    assert [interval.low, interval.high] == pytest.approx([2 - 2.484138, 2 + 2.484138], abs=1e-6)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("num", [2, 5, 30])
def test_intervals_against_scipy(num: int, confidence: float) -> None:
    values = np.random.default_rng(num).normal(5, 2, num)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    interval = t_interval(values.tolist(), confidence)
    assert [interval.low, interval.high] == pytest.approx([expected.low, expected.high], rel=1e-12)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)


def test_intervals_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    intervals = [t_interval(rng.normal(1, 3, 4).tolist()) for _ in range(1000)]
    assert sum(i.low < 1 < i.high for i in intervals) == pytest.approx(950, abs=25)  # 3.6 standard errors


def test_one_value_has_no_width() -> None:
    assert t_interval([1.5]) == Interval(1.5, 1.5, 1.5, 1)


def test_equal_values_have_no_width() -> None:
    assert t_interval([2.0, 2.0, 2.0]) == Interval(2, 2, 2, 3)


def test_for_json() -> None:
    assert json.loads(json.dumps(t_interval([1.0]).as_dict())) == {"mean": 1, "low": 1, "high": 1, "n": 1}


def test_paired_difference_against_scipy() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 10, 6)
    values, baseline = seeds + rng.normal(0, 0.1, 6), seeds + rng.normal(1, 0.1, 6)
    expected = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    interval = paired_difference(values.tolist(), baseline.tolist())
    assert [interval.low, interval.high] == pytest.approx([expected.low, expected.high], rel=1e-9)
    assert interval.high < -0.5  # what the seeds share cancels


def test_adjusted_means_by_hand() -> None:
    # The second seed is 2 dearer than the first: what was measured with the first alone is 1 dearer on average.
    assert adjusted_means([{0: 1.0, 1: 3.0}, {0: 2.0}]) == pytest.approx([2.0, 3.0])
    assert adjusted_means([]) == []


def test_with_the_same_seeds_adjusted_means_are_plain_ones() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    plain = [float(np.mean(row)) for row in values]
    assert adjusted_means([dict(enumerate(row.tolist())) for row in values]) == pytest.approx(plain, rel=1e-14)
    assert adjusted_means([{3: 0.1}, {3: 0.7}]) == [0.1, 0.7], "to the last bit"


@pytest.mark.parametrize("seed", range(20))
def test_adjusted_means_against_the_whole_least_squares_problem(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num, num_seeds = int(rng.integers(2, 12)), int(rng.integers(2, 7))
    seen = rng.random((num, num_seeds)) < 0.5
    seen[:, 0] = seen[0] = True  # connected
    own, of_seed = rng.normal(size=num), rng.normal(size=num_seeds)
    for noise in (0.0, 1.0):
        value = own[:, None] + of_seed + noise * rng.normal(size=seen.shape)
        found = adjusted_means([{s: value[i, s] for s in np.flatnonzero(seen[i]).tolist()} for i in range(num)])
        rows, columns = np.nonzero(seen)
        design = np.zeros((len(rows), num + num_seeds))
        design[np.arange(len(rows)), rows] = design[np.arange(len(rows)), num + columns] = 1
        parts = np.linalg.lstsq(design, value[seen], rcond=None)[0]
        assert found == pytest.approx(parts[:num] + parts[num:].mean())
        if not noise:
            assert found == pytest.approx(own + of_seed.mean())
        assert found[0] == pytest.approx(value[0].mean()), "it has all seeds"


def test_pairs_must_be_complete() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1, 2], [1])


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], (5 - 1) / 6),  # one of six pairs is discordant
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / np.sqrt(5 * 6)),  # one pair is tied on one side
        ([1, 1, 2, 2], [1, 2, 2, 3], 3 / np.sqrt(4 * 5)),  # two and one; three of the others agree
    ],
)
def test_literal_rank_correlations(first: list[float], second: list[float], tau: float) -> None:
    assert rank_correlation(first, second) == pytest.approx(tau, rel=1e-12)
    assert rank_correlation(second, first) == pytest.approx(tau, rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1], [2]), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])]
)
def test_no_order_no_correlation(first: list[float], second: list[float]) -> None:
    assert rank_correlation(first, second) is None


# -- noise within groups


def test_literal_pooled_deviation() -> None:
    # squares about the means: 2 * 0.5**2 and 2 * 1**2 + 0; degrees of freedom 1 + 2; the single value adds nothing
    assert pooled_deviation([[1, 2], [5, 6, 7], [100]]) == pytest.approx(np.sqrt((0.5 + 2) / 3))


def test_pooled_deviation_of_one_group_is_its_own() -> None:
    values = np.random.default_rng(0).normal(size=9)
    assert pooled_deviation([values.tolist()]) == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert pooled_deviation([values.tolist(), (values + 50).tolist()]) == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_pooled_deviation_is_unbiased_in_the_variance() -> None:
    rng = np.random.default_rng(0)
    groups = [(rng.normal(rng.uniform(-9, 9), 0.3, 3)).tolist() for _ in range(4000)]
    assert pooled_deviation(groups) == pytest.approx(0.3, rel=0.03)  # 3.8 standard errors


@pytest.mark.parametrize("groups", [[], [[]], [[1.0]], [[1.0], [2.0], []]])
def test_no_deviation_without_two_values_in_any_group(groups: list[list[float]]) -> None:
    assert pooled_deviation(groups) is None


# -- over tokens


def test_bootstrap_against_the_normal_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.2, 2.0, 4000).astype(np.float32)
    interval = bootstrap_interval(values, np.random.default_rng(1), num_samples=2000)
    half = 1.959964 * values.std(ddof=1) / np.sqrt(values.size)
    assert interval.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert interval.n == 4000
    assert [interval.mean - interval.low, interval.high - interval.mean] == pytest.approx([half, half], rel=0.06)


def test_bootstrap_holds_what_it_promises() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        values = rng.exponential(1.0, 200).astype(np.float32) - 0.5  # skewed, as NLLs are
        interval = bootstrap_interval(values, rng, confidence=0.9, num_samples=300)
        covered.append(interval.low < 0.5 < interval.high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.055)  # 3.2 standard errors


def test_bootstrap_is_decided_by_its_generator() -> None:
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    first, again, other = (bootstrap_interval(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.mean == other.mean


def test_bootstrap_widens_with_confidence() -> None:
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        interval = bootstrap_interval(values, np.random.default_rng(1), confidence=confidence)
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    interval = bootstrap_interval(np.full(20, 0.5, np.float32), np.random.default_rng(0))
    assert interval == Interval(0.5, 0.5, 0.5, 20)


def test_blocks_keep_neighbours_together() -> None:
    """Values that come in runs of ten have the interval of their runs, wider than that of independent values."""
    runs = np.random.default_rng(0).normal(size=300).astype(np.float32)
    values = np.repeat(runs, 10)
    single, together = (bootstrap_interval(values, np.random.default_rng(1), block=block) for block in (1, 10))
    of_runs = bootstrap_interval(runs, np.random.default_rng(1))
    assert [together.low, together.high] == pytest.approx([of_runs.low, of_runs.high], rel=1e-6)
    assert together.high - together.low > 2.5 * (single.high - single.low)
    ragged = bootstrap_interval(values[:-3], np.random.default_rng(1), block=10)
    assert ragged.mean == pytest.approx(values[:-3].mean(), rel=1e-6)
