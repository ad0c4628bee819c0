"""Rewards: exact sums over nodes, and evaluators whose answer does not fit."""

import numpy as np
import pytest

from envs import ConstructionTask, EvaluatedReward, Evaluation, StructuralReward, zipf_task
from treesearch import Tree, build_tree
from treesearch.cost import tree_cost
from treesearch.errors import ConfigError, DataError, ExecutionError

TASK = zipf_task(120, in_features=8)
TREES = {
    "huffman": build_tree("huffman", counts=TASK.counts),
    "clustered": build_tree("clustered", counts=TASK.counts, vectors=TASK.vectors, arity=8),
    "adaptive": build_tree("adaptive", counts=TASK.counts, cutoffs=[20, 60], div_value=2.0, in_features=8),
}


@pytest.mark.parametrize("name", TREES)
def test_depth_is_the_expected_number_of_decisions(name: str) -> None:
    evaluation = StructuralReward(TASK, cost="depth")(TREES[name])
    assert evaluation.reward == pytest.approx(-TREES[name].expected_depth(TASK.counts), rel=1e-12)
    assert evaluation.node_mass[0] == pytest.approx(1)


@pytest.mark.parametrize("name", TREES)
def test_analytic_is_lambda_times_the_tree_cost(name: str) -> None:
    evaluation = StructuralReward(TASK)(TREES[name])
    cost = tree_cost(TREES[name], TASK.counts, in_features=8).cost
    assert evaluation.reward == pytest.approx(-TASK.cost_weight * cost, rel=1e-12)
    assert evaluation.reward == -evaluation.node_loss.sum()


def test_literal_node_losses() -> None:
    task = ConstructionTask(np.array([2.0, 1.0, 1.0]), in_features=4)
    evaluation = StructuralReward(task, cost="depth")(Tree.from_nested([0, [1, 2]]))
    assert (evaluation.reward, evaluation.node_loss.tolist()) == (-1.5, [1.0, 0.5])


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="'depth' or 'analytic'"):
        StructuralReward(TASK, cost="time")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="120 for 3 classes"):
        StructuralReward(TASK)(Tree.from_nested([0, 1, 2]))


def test_an_evaluator_is_handed_in() -> None:
    tree = Tree.from_nested([0, [1, 2]])
    verdict = Evaluation.of_nodes(np.array([0.5, 0.25]), np.array([1.0, 0.5]))
    assert verdict.reward == -0.75
    assert EvaluatedReward(lambda _: verdict)(tree) is verdict


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Evaluation.of_nodes(np.ones(3), np.ones(3)), "each of the 2 internal nodes, but got 3 and 3"),
        (Evaluation(-1.0, np.ones(2), np.ones(2)), "minus the sum of the node losses"),
        (Evaluation.of_nodes(np.array([np.nan, 1.0]), np.ones(2)), "must be finite"),
    ],
)
def test_answers_that_do_not_fit(verdict: Evaluation, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        EvaluatedReward(lambda _: verdict)(Tree.from_nested([0, [1, 2]]))
