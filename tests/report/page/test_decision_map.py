"""Which actions are taken where, against counting by hand."""

import json
from collections import Counter

import numpy as np
import pytest

from tests.report.page.views import row, view_of
from treesearch.report.page.decision_map import (
    MAX_DEPTH,
    OTHER,
    SHARES,
    decisions,
    depth_bins,
    pooled,
    share_bins,
    use_by_bin,
)
from treesearch.report.page.figures.actions import actions_figure


def searched(folder, num=12, seed=0):
    """A view, and (evaluation, action, depth, share) of every decision."""
    rng = np.random.default_rng(seed)
    rows, every = [row(1, valid_nll=3.0, agent="builder", label="huffman")], []
    for number in range(2, num + 1):
        size = int(rng.integers(0, 6))
        names = [f"action {int(a)}" for a in rng.integers(0, 4, size)]
        places = [[int(rng.integers(0, 15)), round(float(rng.uniform() ** 4), 6)] for _ in range(size)]
        failed = number % 5 == 0
        values = {"valid_nll": None if failed else 2.0, "actions": json.dumps(names), "decisions": json.dumps(places)}
        rows.append(row(number, **values))
        every += [(number, name, *place) for name, place in zip(names, places, strict=True)]
    rows.append(row(num + 1, valid_nll=2.0, actions='["kept"]'))  # no one knows where
    return view_of(folder, rows), every


def test_every_decision_is_counted_where_it_was_made(tmp_path):
    view, every = searched(tmp_path / "run")
    made = decisions(view)
    assert made.num_trees == 11
    found = zip(
        (made.actions[a] for a in made.action), made.depth.tolist(), made.share.tolist(), made.third, strict=True
    )
    expected = [(name, depth, share, 3 * (number - 1) // 13) for number, name, depth, share in every]
    assert list(found) == expected
    uses = Counter(name for _, name, _, _ in every)
    assert list(made.actions) == sorted(uses, key=lambda name: (-uses[name], name))


def test_columns_of_the_map(tmp_path):
    view, every = searched(tmp_path / "run", num=40)
    made = decisions(view)
    by_depth = use_by_bin(made.action, depth_bins(made.depth), num_actions=4, num_bins=MAX_DEPTH + 1)
    by_share = use_by_bin(made.action, share_bins(made.share), num_actions=4, num_bins=len(SHARES))
    for place, name in enumerate(made.actions):
        for column in range(MAX_DEPTH + 1):
            want = sum(n == name and min(depth, MAX_DEPTH) == column for _, n, depth, _ in every)
            assert by_depth[place, column] == want
        for column, least in enumerate(SHARES):
            most = SHARES[column - 1] if column else 2.0
            assert by_share[place, column] == sum(n == name and least <= share < most for _, n, _, share in every)


def test_share_bins_begin_at_their_bound():
    assert share_bins(np.array(SHARES)).tolist() == list(range(len(SHARES)))
    assert share_bins(np.array([1.0, 0.49, 0.0005])).tolist() == [0, 1, len(SHARES) - 1]


def test_rare_actions_are_pooled():
    assert pooled(["a", "b"], limit=2) == (["a", "b"], pytest.approx([0, 1]))
    names, place = pooled(["a", "b", "c", "d"], limit=3)
    assert names == ["a", "b", OTHER]
    assert place.tolist() == [0, 1, 2, 2]


def test_columns_of_the_figure_sum_to_one(tmp_path):
    view, every = searched(tmp_path / "run", num=40)
    figure = actions_figure(view)
    assert [variant.name for variant in figure.variants] == [
        f"by {by}, {part}" for by in ("depth", "mass") for part in ("whole search", "first third", "last third")
    ]
    for variant in figure.variants:
        (trace,) = variant.data
        shares = np.array([[share or 0.0 for share in line] for line in trace["z"]])
        uses = np.array([[cell[2] for cell in line] for line in trace["customdata"]])
        totals = np.array([[cell[3] for cell in line] for line in trace["customdata"]])
        np.testing.assert_allclose(shares.sum(0)[totals[0] > 0], 1.0, atol=1e-3)
        assert (uses.sum(0) == totals[0]).all()
        assert (totals == totals[0]).all()
    assert sum(cell[2] for line in figure.variants[0].data[0]["customdata"] for cell in line) == len(every)


def test_a_run_from_before_decisions_were_kept(tmp_path):
    view = view_of(tmp_path / "run", [row(1, valid_nll=2.0, actions='["close"]')])
    figure = actions_figure(view)
    assert figure.variants == ()
    assert "before decisions were kept" in figure.summary
