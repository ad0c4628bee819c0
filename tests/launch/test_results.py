"""What a finished run says: its fronts and the tree to export."""

import numpy as np
import pytest

from treesearch import Tree
from treesearch.cost import CostModel
from treesearch.evaluation.front import Point
from treesearch.launch import pick_from_front
from treesearch.launch.results import best_tree, front
from treesearch.search.confirm import Confirmed, Finalist
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow
from treesearch.search.promotion import BASELINE, FOUND, Promoted

COUNTS = np.array([8.0, 4, 2, 1, 1])
MODEL = CostModel(6, 0.1)
TREES = {
    "huffman": Tree.from_nested([0, [1, [2, [3, 4]]]]),  # cost 1.875
    "flat": Tree.from_nested([0, 1, 2, 3, 4]),  # 1.25
    "found #3": Tree.from_nested([[0, 1], [2, 3, 4]]),  # 2.0375
}
ENTRIES = [
    ("h", "huffman", BASELINE, Point(8.0, 5.0)),
    ("c", "clustered", BASELINE, Point(4.0, 4.0)),
    ("f", "found #3", FOUND, Point(2.0, 4.5)),
    ("g", "found #4", FOUND, Point(4.0, 4.25)),  # beaten by clustered
]


def test_front_by_hand():
    result = front(ENTRIES, MODEL)
    assert result["points"] == [
        {"tree": "f", "name": "found #3", "kind": FOUND, "valid_nll": 4.5, "cost": 2.0},
        {"tree": "c", "name": "clustered", "kind": BASELINE, "valid_nll": 4.0, "cost": 4.0},
    ]
    assert result["cost_kind"] == "analytic"
    # Each kind's own front: clustered (4, 4.0); found (2, 4.5) and (4, 4.25). The worst of both: cost 4, NLL 4.5.
    assert result["hypervolume"] == {FOUND: 0.0, BASELINE: 0.0, "reference_cost": 4.0, "reference_nll": 4.5}


def test_hypervolumes_by_hand():
    entries = [*ENTRIES, ("d", "dear", BASELINE, Point(16.0, 3.0)), ("i", "found #5", FOUND, Point(1.0, 6.0))]
    volume = front(entries, MODEL)["hypervolume"]
    assert (volume["reference_cost"], volume["reference_nll"]) == (16.0, 6.0)
    log2 = np.log(2)
    assert volume[BASELINE] == pytest.approx(2 * log2 * (6 - 4))  # from 4 to 16 at NLL 4
    assert volume[FOUND] == pytest.approx(log2 * (6 - 4.5) + 2 * log2 * (6 - 4.25))


@pytest.mark.parametrize("kind", [FOUND, BASELINE])
def test_a_front_of_one_kind_alone(kind):
    result = front([entry for entry in ENTRIES if entry[2] == kind], MODEL)
    other = BASELINE if kind == FOUND else FOUND
    assert result["hypervolume"][other] == 0.0
    assert result["points"]


def test_a_front_of_nothing():
    assert front([], MODEL) == {"points": [], "hypervolume": {}, "cost_kind": "analytic"}


# -- picks

POINTS = [
    {"name": "a", "cost": 1.0, "valid_nll": 6.0},
    {"name": "b", "cost": 4.0, "valid_nll": 5.0},
    {"name": "c", "cost": 9.0, "valid_nll": 4.75},
]


@pytest.mark.parametrize(
    ("cost_weight", "max_cost", "name"),
    [
        (None, None, "c"),
        (0.0, None, "c"),
        (0.04, None, "c"),  # 5.11, 5.16, 6.04
        (0.06, None, "b"),  # 5.29, 5.24, 6.06
        (0.5, None, "a"),
        (None, 9.0, "c"),
        (None, 8.99, "b"),
        (None, 1.0, "a"),
        (0.04, 4.0, "b"),
        (None, 0.99, None),
        (0.06, 0.0, None),
    ],
)
def test_picks_from_a_front(cost_weight, max_cost, name):
    for fronts in (
        {"joint": {"points": POINTS}, "frozen": {"points": [{"name": "x", "cost": 0.1, "valid_nll": 0.1}]}},
        {"joint": {"points": []}, "frozen": {"points": POINTS}},
    ):
        picked = pick_from_front({"fronts": fronts}, cost_weight=cost_weight, max_cost=max_cost)
        assert (picked and picked["name"]) == name


def test_no_front_no_pick():
    assert pick_from_front({}) is None
    assert pick_from_front({"fronts": {"joint": {}, "frozen": {"points": []}}}) is None


# -- the tree to export


def promoted(name, nll):
    tree = TREES[name]
    row = EvaluationRow(
        id=1,
        rung=FROZEN,
        batch=0,
        agent="a",
        label=None,
        tree_hash=tree.hash,
        status=OK,
        cost_weight=99.0,
        reward=-99 * nll,
        valid_nll=nll,
    )
    return Promoted(name, FOUND, row, tree, MODEL.tree_cost(tree, COUNTS))


def test_the_best_tree_is_by_reward_under_the_runs_weight_on_validation_data():
    # Rewards -5.1875, -5.225 and -5.10375, and with twice the cost of time -5.375, -5.35, -5.3075.
    trees = [promoted("huffman", 5.0), promoted("flat", 5.1), promoted("found #3", 4.9)]
    assert best_tree(trees, [], MODEL).name == "found #3"
    assert best_tree(trees[:2], [], MODEL).name == "huffman"
    assert best_tree(trees[:2], [], CostModel(6, 1.0)).name == "flat"
    confirmed = [
        Confirmed(Finalist(trees[0], 0.1, 1.0), [4.0, 4.2], [9.0, 9.0]),
        Confirmed(Finalist(trees[2], 0.1, 9.0), [4.1, 4.2], [1.0, 1.0]),  # better on the test split only
    ]
    assert best_tree(trees, confirmed, MODEL).name == "huffman"
