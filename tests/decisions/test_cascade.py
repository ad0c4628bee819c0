"""Cascades against a loop over examples, and their rules against brute force over actions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.decisions.probs import children, few, outcomes, random_probs, trees
from tests.decisions.test_costs import random_costs
from treesearch import Tree
from treesearch.decisions.cascade import cascade, flat_threshold
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError

SMALL = Tree.from_nested([[0, 1], [2, 3, 4]])
OTHER = NodeCosts.uniform(Tree.from_nested([0, 1]), false_positive=1, false_negative=1)


def naive_cascade(tree: Tree, score: list[float], threshold: list[float], level: int) -> int:
    node = depth = 0
    while safe := [child for child in children(tree, node) if score[child] > threshold[child]]:
        node, depth = max(safe, key=lambda child: (score[child], -child)), depth + 1
    return 0 if depth < level and children(tree, node) else node


@few
@given(
    tree=trees(),
    seed=st.integers(0, 99),
    probability=st.sampled_from(["conditional", "marginal"]),
    level=st.integers(0, 2),
    even=st.booleans(),
)
def test_a_cascade_is_a_walk(tree: Tree, seed: int, probability: str, level: int, even: bool) -> None:
    """With even probabilities many children are equally likely."""
    probs = random_probs(tree, 5, seed, scale=0.0 if even else 3.0)
    threshold = np.random.default_rng(seed).uniform(0, 0.2 if even else 1, tree.num_nodes)
    level = min(level, tree.max_depth)
    found = cascade(probs, torch.from_numpy(threshold), probability=probability, flag_below_level=level)  # type: ignore[arg-type]
    score = (probs.conditional if probability == "conditional" else probs.prob).tolist()
    assert found.tolist() == [naive_cascade(tree, row, threshold.tolist(), level) for row in score]
    assert found.dtype == torch.int64


@few
@given(tree=trees(max_leaves=6), seed=st.integers(0, 99))
def test_a_step_is_bayes_where_a_wrong_turn_is_paid_once(tree: Tree, seed: int) -> None:
    """Below any node, to enter a child is cheaper on average than to stay exactly where its share exceeds its
    threshold."""
    costs, probs = random_costs(tree, seed, "once"), random_probs(tree, 1, seed)
    matrix = costs.matrix()
    for node in range(tree.num_internal):
        lower, inside = tree.leaf_intervals[0][node], tree.leaf_intervals[1][node]
        below = [(y, p) for y, p in outcomes(probs, 0) if lower <= tree.leaf_intervals[0][y] < lower + inside]
        for child in children(tree, node):
            gain = sum(p * float(matrix[node, y] - matrix[child, y]) for y, p in below)
            share = float(probs.conditional[0, child]) - float(costs.thresholds[child])
            assert abs(share) < 1e-9 or (gain > 0) == (share > 0)


@few
@given(tree=trees(), seed=st.integers(0, 99), scale=st.sampled_from([1.0, 3.0, 6.0]))
def test_the_marginal_rule_is_optimal_where_every_wrong_node_is_paid(tree: Tree, seed: int, scale: float) -> None:
    """With thresholds that are >= 1/2 and do not fall on the way down."""
    rng, probs = np.random.default_rng(seed), random_probs(tree, 4, seed, scale)
    threshold = np.full(tree.num_nodes, 0.5)
    for node in range(1, tree.num_nodes):
        threshold[node] = rng.uniform(threshold[tree.parent[node]], 0.98)
    total = rng.uniform(0.5, 2, tree.num_nodes)
    positive, negative = torch.from_numpy(threshold * total), torch.from_numpy((1 - threshold) * total)
    costs = NodeCosts(tree, positive, negative, "every")
    answer = cascade(probs, costs, probability="marginal")
    matrix = costs.matrix()
    for row in range(4):
        risk = sum(p * matrix[:, y] for y, p in outcomes(probs, row))
        assert isinstance(risk, torch.Tensor)
        assert float(risk[answer[row]]) == pytest.approx(float(risk.min()), abs=1e-12)


@few
@given(tree=trees(), seed=st.integers(0, 99), threshold=st.floats(0, 1))
def test_flat_threshold(tree: Tree, seed: int, threshold: float) -> None:
    probs = random_probs(tree, 5, seed)
    wanted = []
    for row in range(5):
        leaf, prob = max(outcomes(probs, row), key=lambda one: one[1])
        wanted.append(leaf if prob > threshold else 0)
    assert flat_threshold(probs, threshold).tolist() == wanted
    assert flat_threshold(probs.class_log_prob, threshold, tree=tree).tolist() == wanted


def test_ends_of_the_range_of_thresholds() -> None:
    sure = NodeProbs.of_log_prob(SMALL, torch.tensor([[-np.inf, 0, -np.inf, -np.inf, -np.inf]]))
    leaf = int(SMALL.class_leaf[1])
    assert cascade(sure, 0.0).tolist() == cascade(sure, 0.99).tolist() == [leaf]
    assert cascade(sure, 1.0).tolist() == [0]
    assert cascade(random_probs(Tree.from_nested(0), 2, 0), 0.5).tolist() == [0, 0]
    assert cascade(random_probs(SMALL, 0, 0), 0.5).shape == (0,)


def test_flags_are_inner_nodes_that_are_too_shallow() -> None:
    tree = Tree.from_nested([[0, 1], 2])
    probs = NodeProbs.of_log_prob(tree, torch.tensor([[0.45, 0.45, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]).log())
    assert cascade(probs, 0.6).tolist() == [1, int(tree.class_leaf[2]), int(tree.class_leaf[0])]
    assert cascade(probs, 0.6, flag_below_level=2).tolist() == [0, int(tree.class_leaf[2]), int(tree.class_leaf[0])]


def test_a_chain_of_ten_thousand_nodes() -> None:
    size = 10_000
    tree = Tree.from_parents([-1, *range(size - 1), *range(size), size - 1], np.arange(size + 1))
    log_conditional = torch.full((1, tree.num_nodes), -torch.inf, dtype=torch.float64)
    log_conditional[:, :size] = 0
    log_conditional[:, -2:] = np.log(0.5)
    probs = NodeProbs.of_conditional(tree, log_conditional)
    assert cascade(probs, 0.5).tolist() == [size - 1]


@pytest.mark.parametrize(
    ("thresholds", "settings", "message"),
    [
        (1.5, {}, r"in \[0, 1\], but node 0 has 1.5"),
        (torch.tensor([0, 0, 0, 0, 0, 0, 0, -0.5]), {}, r"in \[0, 1\], but node 7 has -0.5"),
        (torch.full((8,), torch.nan), {}, "node 0 has nan"),
        (torch.zeros(7), {}, "one per node, 8, but got"),
        ("high", {}, "numbers or NodeCosts, but got str"),
        (OTHER, {}, "of the tree of the prob"),
        (0.5, {"probability": "joint"}, "'conditional' or 'marginal', but got 'joint'"),
        (0.5, {"flag_below_level": 3}, r"flag_below_level must be a whole number in \[0, 2\], but got 3"),
    ],
)  # fmt: skip
def test_bad_cascades(thresholds: object, settings: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cascade(random_probs(SMALL, 1, 0), thresholds, **settings)  # type: ignore[arg-type]


def test_bad_flat_thresholds() -> None:
    with pytest.raises(DataError, match="pass tree="):
        flat_threshold(torch.zeros(1, 1), 0.5)
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        flat_threshold(random_probs(SMALL, 1, 0), -0.1)
