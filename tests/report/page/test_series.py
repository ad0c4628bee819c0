"""Numbers over the course of a search, against brute force."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.page.views import row, view_of
from treesearch.report.page.mean_lines import at, mean_line
from treesearch.report.page.places import front, frozen_places, joint_places, perplexity, warm_places
from treesearch.report.page.series import agent_metrics, batch_rewards, best_so_far, evaluations, thinned
from treesearch.search.evaluation_row import JOINT, WARM

REWARDS = st.one_of(st.none(), st.floats(-5, 0))


@given(st.lists(st.tuples(REWARDS, st.integers(0, 1)), max_size=20))
def test_best_so_far_is_the_running_maximum_of_each_era(found):
    era, steps = 0, []
    for number, (reward, new) in enumerate(found, start=1):
        era += new
        steps.append((float(number), reward, era))
    xs, ys = best_so_far(steps)
    assert xs == sorted(xs)
    line = at((xs, ys), np.array([number for number, _, _ in steps]))
    for (here, _, era), value in zip(steps, line.tolist(), strict=True):
        seen = [reward for x, reward, other in steps if other == era and x <= here and reward is not None]
        assert value == max(seen) if seen else math.isnan(value)


def test_a_line_of_best_goes_on_to_the_end():
    assert best_so_far([(1, -3.0, 0), (2, -4.0, 0)], end=9) == ([1, 9], [-3.0, -3.0])
    assert best_so_far([(1, -3.0, 0), (2, None, 0), (3, -4.0, 1)]) == ([1, 2, 3, 3, 3], [-3.0, -3.0, None, -4.0, -4.0])
    assert best_so_far([(1, None, 0)]) == ([], [])


def test_evaluations_are_numbered_timed_and_told_apart_by_encoder(tmp_path):
    rows = [
        row(1, valid_nll=2.0, cost=10.0),
        row(2),
        row(3, valid_nll=1.0, cost=20.0, encoder="e1", finished_at=1060.0),
        row(4, valid_nll=1.5, rung=JOINT),
    ]
    found = evaluations(view_of(tmp_path / "run", rows, config={"cost": {"weight": 0.01}}))
    assert [(one.number, one.era) for one in found] == [(1, 0), (2, 0), (3, 1)]
    assert [one.reward for one in found] == [pytest.approx(-2.1), None, pytest.approx(-1.2)]
    assert [one.minutes for one in found] == pytest.approx([1 / 60, 2 / 60, 1.0])


def test_rewards_of_batches(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row(n, batch=n // 5, valid_nll=float(rng.uniform(1, 3)), cost=0.0) for n in range(1, 20)]
    rows += [row(20, batch=3), row(21, batch=3, valid_nll=0.5, cost=0.0, agent="builder", label="huffman")]
    view = view_of(tmp_path / "run", rows)
    found = batch_rewards(view, "hybrid", limit=10)
    assert [one.evaluations for one in found] == [4, 9, 14, 21]
    for batch, one in enumerate(found):
        own = [-r.valid_nll for r in rows if r.batch == batch and r.agent == "hybrid" and r.valid_nll is not None]
        assert one.mean == pytest.approx(statistics.fmean(own))
        assert one.best == max(own)
        first, _, third = statistics.quantiles(own, n=4, method="inclusive")
        assert (one.low, one.high) == (pytest.approx(first), pytest.approx(third))
    pooled = batch_rewards(view, "hybrid", limit=2)
    assert [one.evaluations for one in pooled] == [9, 21]
    assert pooled[0].mean == pytest.approx(statistics.fmean(-r.valid_nll for r in rows if r.batch <= 1))


def test_metrics_of_an_agent(tmp_path):
    rows = [row(n, batch=(n - 1) // 2, valid_nll=1.0) for n in range(1, 9)]
    metrics = [{}, {"entropy": 2.0}, {"entropy": 1.0, "kl": math.nan}, {"entropy": 0.5, "kl": 7.0}, {"entropy": 9.0}]
    view = view_of(tmp_path / "run", rows, metrics=metrics)  # of a batch without rows nothing is shown
    assert agent_metrics(view, limit=10) == {"entropy": [(4, 2.0), (6, 1.0), (8, 0.5)], "kl": [(8, 7.0)]}
    assert agent_metrics(view, limit=2)["entropy"] == [(6, 1.5), (8, 0.5)]


@given(st.integers(0, 50), st.integers(2, 20))
def test_thinned_keeps_order_and_both_ends(size, limit):
    kept = thinned(range(size), limit)
    assert kept == sorted(set(kept))
    assert len(kept) == min(size, limit)
    assert not size or (kept[0], kept[-1]) == (0, size - 1)


def test_places_of_trees(tmp_path):
    rows = [
        row(1, valid_nll=9.0, encoder="old", agent="builder", label="huffman", tree_hash="h"),
        row(2, valid_nll=3.0, cost=10.0, agent="builder", label="huffman", tree_hash="h"),
        row(3, valid_nll=2.5, cost=10.0, agent="builder", label="balanced(arity=4)", tree_hash="b"),
        row(4, valid_nll=2.0, cost=20.0, tree_hash="f"),
        row(5, valid_nll=1.9, cost=20.0, tree_hash="f"),  # the same tree again
        row(6, valid_nll=2.5, cost=10.0, tree_hash="b"),  # a builder's own tree is never called found
        row(7, tree_hash="lost"),
        row(8, valid_nll=4.0, cost=30.0, tree_hash="worse"),
        row(9, valid_nll=math.inf, tree_hash="infinite"),
    ]
    view = view_of(tmp_path / "run", rows, config={"cost": {"weight": 0.01}})
    places = frozen_places(view)
    assert [(one.name, one.kind, one.cost, one.nll) for one in places] == [
        ("huffman", "huffman", 10.0, 3.0),
        ("balanced(arity=4)", "baseline", 10.0, 2.5),
        ("found #4", "found", 20.0, 2.0),
        ("found #8", "found", 30.0, 4.0),
    ]
    assert places[2].reward == pytest.approx(-2.2)
    assert [one.name for one in front(places)] == ["balanced(arity=4)", "found #4"]
    beaten = [
        any((q.cost <= p.cost and q.nll <= p.nll) and (q.cost < p.cost or q.nll < p.nll) for q in places)
        for p in places
    ]
    assert [p for p, lost in zip(places, beaten, strict=True) if not lost] == front(places)


def test_joint_places_take_the_best_rate_of_the_first_seed_and_the_mean_of_its_seeds(tmp_path):
    def joint(number, nll, rate, seed, tree="f", rung=JOINT):
        return row(number, rung=rung, valid_nll=nll, learning_rate=rate, seed=seed, tree_hash=tree, label="found #1")

    rows = [
        row(1, valid_nll=2.0, tree_hash="f"),
        joint(2, 3.0, 0.1, 0),
        joint(3, 2.0, 0.2, 0),  # the best rate
        joint(4, 1.0, 0.2, 1),
        joint(5, None, 0.2, 2),
        joint(6, None, 0.1, 0, tree="diverged"),
        joint(7, 2.7, 0.1, 0, rung=WARM),
    ]
    view = view_of(tmp_path / "run", rows)
    (place,) = joint_places(view)
    assert (place.name, place.kind, place.nll) == ("found #1", "found", 1.5)
    assert [one.nll for one in warm_places(view)] == [2.7]


def test_perplexity_of_a_terrible_tree_is_no_error():
    assert perplexity(1.0) == pytest.approx(math.e)
    assert perplexity(1e6) == math.inf


def test_measured_costs_are_scaled_to_huffmans_depth(tmp_path):
    rows = [
        row(1, valid_nll=3.0, agent="builder", label="huffman", cost_measured_us=4.0, expected_depth=8.0),
        row(2, valid_nll=2.0, cost_measured_us=1.0),
        row(3, valid_nll=2.0),  # without a measured cost
    ]
    view = view_of(tmp_path / "run", rows, config={"cost": {"kind": "measured"}})
    assert [(one.name, one.cost) for one in frozen_places(view)] == [("huffman", 8.0), ("found #2", 2.0)]


LINES = st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 0)), min_size=1, max_size=5)


@given(st.lists(LINES, min_size=1, max_size=3))
def test_the_mean_line_is_the_mean_at_every_place(found):
    lines = []
    for points in found:
        best = best_so_far((float(x), reward, 0) for x, reward in sorted(points))
        lines.append(best)
    line = mean_line(lines)
    begin, end = max(xs[0] for xs, _ in lines), min(xs[-1] for xs, _ in lines)
    if begin > end:
        assert line is None
        return
    assert line.num_runs == len(lines)
    assert line.x.tolist() == sorted({x for xs, _ in lines for x in xs if begin <= x <= end})
    for place, x in enumerate(line.x):
        values = [max(reward for at_x, reward in points if at_x <= x) for points in found]
        assert line.mean[place] == pytest.approx(statistics.fmean(values))
        assert (line.low[place], line.high[place]) == (min(values), max(values))
