"""What frozen scores owe to choosing, learned from warm ones."""

import json
import math

import numpy as np
import pytest

from treesearch.search.correction import FEWEST_TREES, Correction
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow


def frozen(number: int, actions: list[str] | None, nll: float) -> EvaluationRow:
    return EvaluationRow(
        id=number,
        rung=FROZEN,
        batch=0,
        agent="agent",
        label=None,
        tree_hash=f"tree {number}",
        status=OK,
        cost_weight=0.0,
        valid_nll=nll,
        cost=1.0,
        expected_depth=1.0,
        actions=None if actions is None else json.dumps(actions),
    )


def rungs(num: int, slope: float, *, noise: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    rows, warm = {}, {}
    for number in range(num):
        different = number % 12 + 1
        names = [f"kway-{i + 2}" for i in range(different)]
        row = frozen(number, [*names, *names], 4 + rng.normal(0, 0.1))  # twice the same decisions count once
        rows[row.tree_hash] = row
        warm[row.tree_hash] = row.valid_nll - 0.15 + slope * math.log(different) + rng.normal(0, noise)
    return rows, warm


def test_the_slope_of_the_gap_is_found():
    rows, warm = rungs(40, 0.01)
    correction = Correction.learn(rows, warm)
    assert (correction.slope, correction.num_trees) == (pytest.approx(0.01), 40)
    one, many = rows["tree 0"], rows["tree 11"]
    assert correction.nats(one) == 0
    assert correction.nats(many) == pytest.approx(0.01 * math.log(12))
    assert correction.nats(frozen(99, None, 4.0)) == 0  # a builder


def test_builders_do_not_count():
    rows, warm = rungs(40, 0.01)
    for number in range(100, 160):
        rows[f"tree {number}"] = frozen(number, None, 4.0)
        warm[f"tree {number}"] = 3.0
    assert Correction.learn(rows, warm) == Correction(pytest.approx(0.01), 40)


def test_many_actions_are_never_paid_for():
    assert Correction.learn(*rungs(40, -0.01)) == Correction(0.0, 40)


def test_a_few_trees_that_behave_otherwise_hardly_matter():
    rows, warm = rungs(40, 0.01, noise=0.002)
    for tree_hash in list(warm)[:4]:
        warm[tree_hash] -= 0.5
    assert Correction.learn(rows, warm).slope == pytest.approx(0.01, abs=0.003)


def test_trees_that_are_on_one_rung_alone_do_not_count():
    rows, warm = rungs(30, 0.01)
    warm |= {"elsewhere": 3.0}
    del warm["tree 3"]
    assert Correction.learn(rows, warm) == Correction(pytest.approx(0.01), 29)


@pytest.mark.parametrize("num", [0, 1, FEWEST_TREES - 1])
def test_nothing_is_learned_from_a_few(num):
    assert Correction.learn(*rungs(num, 0.5)) == Correction()


def test_nothing_is_learned_where_all_are_alike():
    rows = {f"tree {i}": frozen(i, ["kway-4"], 4.0) for i in range(20)}
    assert Correction.learn(rows, dict.fromkeys(rows, 3.9)) == Correction()
