"""Rewards: every node's share adds up to the whole."""

import numpy as np
import pytest

from tests.evaluation.oracle import planted
from tests.softmax.oracle import TREES
from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.evaluation.frozen import NodeScores, evaluate_frozen
from treesearch.evaluation.scores import score_tree

TRAINED = ["huffman", "flat", "mixed depths", "adaptive", "nested, growing again", "one class"]


def test_literal_score() -> None:
    # cost: root (3 ways) 1.15 for all, pair 1 for a quarter of the training tokens
    scores = NodeScores(np.array([30.0, 10.0]), np.array([20, 8]), 20)
    result = score_tree(
        Tree.from_nested([0, 1, [2, 3]]), scores, counts=np.array([4.0, 2, 1, 1]), cost_model=CostModel(8, 0.1)
    )
    assert result.valid_nll == 2.0
    assert result.cost.cost == pytest.approx(1.4)
    assert result.reward == pytest.approx(-(2.0 + 0.1 * 1.4))
    assert result.node_mass.tolist() == [1.0, 0.25]
    assert result.node_loss.tolist() == pytest.approx([1.5 + 0.115, 0.5 + 0.025])


@pytest.mark.parametrize("cost_weight", [0.0, 0.005, 2.0])
@pytest.mark.parametrize("name", TRAINED)
def test_the_reward_is_minus_the_sum_of_the_shares(name: str, cost_weight: float) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 500)
    scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts)
    result = score_tree(tree, scores, counts=counts, cost_model=CostModel(6, cost_weight))
    cost = tree_cost(tree, counts, in_features=6)
    assert result.cost == cost
    assert result.valid_nll == scores.mean_nll
    assert result.reward == pytest.approx(-(scores.mean_nll + cost_weight * cost.cost), rel=1e-12)
    assert result.reward == pytest.approx(-result.node_loss.sum(), rel=1e-12)
    assert result.node_mass.sum() == pytest.approx(tree.expected_depth(counts))
