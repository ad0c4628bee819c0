"""Rewards: every node's share adds up to the whole."""

import numpy as np
import pytest

from tests.evaluation.oracle import class_vectors, planted
from tests.softmax.oracle import TREES
from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.scores import score_tree

TRAINED = ["huffman", "flat", "mixed depths", "adaptive", "nested, growing again", "one class"]


def test_literal_score() -> None:
    # cost: root (3 ways) 1.15 for all, pair 1 for a quarter of the training tokens
    node_nll = np.array([1.5, 0.5])
    result = score_tree(
        Tree.from_nested([0, 1, [2, 3]]), node_nll, counts=np.array([4.0, 2, 1, 1]), cost_model=CostModel(8, 0.1)
    )
    assert result.valid_nll == 2.0
    assert result.cost.cost == pytest.approx(1.4)
    assert [result.reward(weight) for weight in (0.0, 0.1, 2.0)] == pytest.approx([-2.0, -2.14, -4.8])
    assert result.node_mass.tolist() == [1.0, 0.25]
    assert result.node_nll.tolist() == [1.5, 0.5]
    assert result.node_cost.tolist() == pytest.approx([1.15, 0.25])


@pytest.mark.parametrize("cost_weight", [0.0, 0.005, 2.0])
@pytest.mark.parametrize("name", TRAINED)
def test_the_reward_is_minus_the_sum_of_the_shares(name: str, cost_weight: float) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 500)
    vectors = class_vectors(tree.num_classes, 6)
    scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts, vectors=vectors)
    node_nll = scores.nll / scores.num_tokens
    # The weight of the cost model is the one that a run reports; a score holds for any.
    result = score_tree(tree, node_nll, counts=counts, cost_model=CostModel(6, 17.0))
    cost = tree_cost(tree, counts, in_features=6)
    assert result.cost == cost
    assert result.valid_nll == pytest.approx(scores.mean_nll, rel=1e-12)
    assert result.reward(cost_weight) == pytest.approx(-(scores.mean_nll + cost_weight * cost.cost), rel=1e-12)
    assert result.reward(cost_weight) == pytest.approx(
        -(result.node_nll + cost_weight * result.node_cost).sum(), rel=1e-12
    )
    assert result.node_mass.sum() == pytest.approx(tree.expected_depth(counts))


@pytest.mark.parametrize("name", ["huffman", "mixed depths", "adaptive"])
def test_the_reward_is_linear_in_the_weight(name: str) -> None:
    tree = TREES[name]
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, tree.num_classes).astype(float)
    result = score_tree(tree, rng.uniform(0, 3, tree.num_internal), counts=counts, cost_model=CostModel(6))
    low, high = result.reward(0.25), result.reward(4.0)
    for share in (0.0, 0.3, 1.0):
        assert result.reward(0.25 + share * 3.75) == pytest.approx(low + share * (high - low), rel=1e-12)
    assert low - high == pytest.approx(3.75 * result.cost.cost, rel=1e-12)
