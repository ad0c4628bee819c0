"""The least expected cost against brute force over actions and truths."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.decisions.probs import few, outcomes, random_probs, trees
from tests.decisions.test_costs import CHARGES, naive_cost, random_costs
from treesearch import Tree
from treesearch.decisions.cascade import cascade
from treesearch.decisions.costs import Charge, NodeCosts
from treesearch.decisions.expected_cost import expected_costs, minimise_expected_cost
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError

SMALL = Tree.from_nested([[0, 1], [2, 3, 4]])
OTHER = NodeCosts.uniform(Tree.from_nested([0, 1]), false_positive=1, false_negative=1)


@few
@given(tree=trees(), seed=st.integers(0, 99), charge=st.sampled_from(CHARGES), outside=st.booleans())
def test_expected_costs_are_means_over_truths(tree: Tree, seed: int, charge: Charge, outside: bool) -> None:
    costs, probs = random_costs(tree, seed, charge), random_probs(tree, 3, seed)
    share = torch.from_numpy(np.random.default_rng(seed).uniform(size=3)) if outside else None
    nodes = torch.arange(tree.num_nodes)
    found = expected_costs(probs, costs, actions=nodes, root_probability=share)
    for row in range(3):
        rest = 1 - float(share[row]) if share is not None else 1.0
        for action in range(tree.num_nodes):
            mean = (1 - rest) * naive_cost(costs, action, 0)
            mean += sum(rest * p * naive_cost(costs, action, y) for y, p in outcomes(probs, row))
            assert float(found[row, action]) == pytest.approx(mean, abs=1e-9)
    # The same through the matrix.
    truths = torch.from_numpy(np.append(tree.class_leaf, 0).astype(np.int64))
    dense = expected_costs(probs, costs.matrix(truths=truths), actions=nodes, root_probability=share)
    torch.testing.assert_close(dense, found)
    best, least = minimise_expected_cost(probs, costs, root_probability=share)
    torch.testing.assert_close(least, dense.min(1).values)
    assert torch.equal(found.gather(1, best[:, None])[:, 0], least)


@few
@given(tree=trees(), seed=st.integers(0, 99), charge=st.sampled_from(CHARGES))
def test_no_policy_is_cheaper_than_the_minimum(tree: Tree, seed: int, charge: Charge) -> None:
    costs, probs = random_costs(tree, seed, charge), random_probs(tree, 5, seed)
    every = expected_costs(probs, costs, actions=torch.arange(tree.num_nodes))
    _, least = minimise_expected_cost(probs, costs)
    for probability in ("conditional", "marginal"):
        answer = cascade(probs, costs, probability=probability)  # type: ignore[arg-type]
        assert bool((every.gather(1, answer[:, None])[:, 0] >= least - 1e-12).all())


def test_costs_of_classes_alone_and_some_actions() -> None:
    """As in the paper: classes for actions, with heights of common ancestors; answering between two is the best."""
    prob = torch.tensor([[0.4, 0.0, 0.25, 0.2, 0.15]], dtype=torch.float64)
    probs = NodeProbs.of_log_prob(SMALL, prob.log())
    height = torch.tensor([[0, 1, 2, 2, 2], [1, 0, 2, 2, 2], [2, 2, 0, 1, 1], [2, 2, 1, 0, 1], [2, 2, 1, 1, 0]])
    leaves = torch.from_numpy(SMALL.class_leaf.astype(np.int64))
    best, cost = minimise_expected_cost(probs, height, actions=leaves)
    assert best.tolist() == [int(SMALL.class_leaf[2])]  # not class 0, the most probable
    assert cost.tolist() == pytest.approx([0.8 + 0.2 + 0.15])
    costs = NodeCosts.uniform(SMALL, false_positive=1, false_negative=1)
    assert minimise_expected_cost(probs, costs, actions=torch.tensor([1, 0]))[0].tolist() == [0]


def test_out_of_scope() -> None:
    probs = random_probs(SMALL, 4, 0)
    costs = NodeCosts.uniform(SMALL, false_positive=1, false_negative=1)
    assert minimise_expected_cost(probs, costs, root_probability=torch.ones(4))[0].tolist() == [0, 0, 0, 0]
    node, cost = minimise_expected_cost(probs[:0], costs)
    assert node.shape == cost.shape == (0,)


COSTS = NodeCosts.uniform(SMALL, false_positive=1, false_negative=1)


@pytest.mark.parametrize(
    ("costs", "settings", "message"),
    [
        (torch.ones(7, 5), {}, "one row per action, 8"),
        (torch.ones(8, 4), {}, "a column per class"),
        (torch.ones(8, 5), {"root_probability": torch.zeros(2)}, r"one more, 5 \+ 1, but have 5"),
        (torch.full((8, 5), torch.inf), {}, "must be finite"),
        (COSTS, {"root_probability": torch.zeros(3)}, "one number per example, 2"),
        (COSTS, {"root_probability": torch.tensor([0.5, 1.5])}, r"in \[0, 1\]"),
        (COSTS, {"root_probability": torch.tensor([0.5, torch.nan])}, r"in \[0, 1\]"),
        (COSTS, {"actions": torch.tensor([8])}, r"actions must lie in \[0, 8\)"),
        (COSTS, {"actions": torch.zeros(0).long()}, "at least one node"),
        (OTHER, {}, "of the tree of the costs"),
    ],
)  # fmt: skip
def test_bad_costs(costs: object, settings: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        minimise_expected_cost(random_probs(SMALL, 2, 0), costs, **settings)  # type: ignore[arg-type]
