"""Node-wise returns against a naive recursion."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import decision_returns, make_agent
from envs import ConstructionTask, Evaluation, StructuralReward
from treesearch import Tree


def naive_loss(tree: Tree, node: int, loss: np.ndarray) -> float:
    if node >= tree.num_internal:
        return 0.0
    return float(loss[node]) + sum(naive_loss(tree, int(child), loss) for child in tree.children(node))


@settings(max_examples=60, deadline=None)
@given(num_classes=st.integers(3, 80), seed=st.integers(0, 2**32), zeros=st.booleans())
def test_returns_are_the_loss_below_for_each_example_that_passes(num_classes: int, seed: int, zeros: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.exponential(size=num_classes)
    if zeros:
        counts[1:] *= rng.random(num_classes - 1) < 0.3
    task = ConstructionTask(counts, rng.standard_normal((num_classes, 4)).astype(np.float32))
    agent = make_agent(
        "random_search",
        task=task,
        actions=["frequency-0.3", "kway-3", "close-flat", "shortlist-2"],
        max_decisions=20,
        closer=None,
        seed=seed,
    )
    (proposal,) = agent.ask(1)
    tree = proposal.tree
    mass = tree.node_mass(task.probability)[: tree.num_internal]
    evaluation = Evaluation.of_nodes(rng.exponential(size=tree.num_internal) * mass, mass)
    returns = decision_returns(proposal, evaluation)
    assert returns.shape == (len(proposal.actions),)
    for node, earned in zip(proposal.decision_nodes, returns, strict=True):
        expected = -naive_loss(tree, int(node), evaluation.node_loss) / mass[node] if mass[node] > 0 else 0.0
        np.testing.assert_allclose(earned, expected, rtol=1e-9)
    np.testing.assert_allclose(returns[0], evaluation.reward)  # the first decision is the root's


def test_depth_return_is_the_expected_depth_below() -> None:
    task = ConstructionTask(np.array([2.0, 1.0, 1.0, 4.0]), in_features=4)
    agent = make_agent("random_search", task=task, actions=["frequency-0.5"], max_decisions=9, closer=None, seed=0)
    (proposal,) = agent.ask(1)
    assert proposal.tree.to_nested() == [[0, [1, 2]], 3]
    returns = decision_returns(proposal, StructuralReward(task, cost="depth")(proposal.tree))
    assert returns.tolist() == [-1.75, -1.5]
