"""`NodeProbs` against naive sums over the classes below each node."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nested import Naive, nested_trees
from treesearch import HierarchicalSoftmax, Tree
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError


def classes_below(tree: Tree, node: int) -> list[int]:
    if node >= tree.num_internal:
        return [int(tree.leaf_class[node - tree.num_internal])]
    return [cls for child in tree.children(node) for cls in classes_below(tree, int(child))]


def random_log_prob(seed: int, num: int, num_classes: int, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)).log_softmax(1)


@given(nested=nested_trees(), seed=st.integers(0, 99), scale=st.sampled_from([3.0, 500.0]))
def test_probabilities_are_sums_over_classes(nested: Naive, seed: int, scale: float) -> None:
    tree = Tree.from_nested(nested)
    log_prob = random_log_prob(seed, 4, tree.num_classes, scale)
    found = NodeProbs.of_log_prob(tree, log_prob)
    for node in range(tree.num_nodes):
        own = log_prob[:, classes_below(tree, node)].logsumexp(1)
        torch.testing.assert_close(found.log_prob[:, node], own, rtol=1e-9, atol=1e-9)
        above = log_prob[:, classes_below(tree, max(int(tree.parent[node]), 0))].logsumexp(1)
        torch.testing.assert_close(found.log_conditional[:, node], own - above, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.class_log_prob, log_prob)
    again = NodeProbs.of_conditional(tree, found.log_conditional)
    assert torch.equal(again.log_prob, found.log_prob)


@given(nested=nested_trees(), seed=st.integers(0, 99))
def test_a_layer_gives_its_own_decisions(nested: Naive, seed: int) -> None:
    torch.manual_seed(seed)
    layer = HierarchicalSoftmax(5, Tree.from_nested(nested), dtype=torch.float64)
    hidden = torch.randn(3, 5, dtype=torch.float64)
    found = NodeProbs.of_layer(layer, hidden)
    torch.testing.assert_close(found.log_prob, layer.subtree_log_probs(hidden).detach())
    torch.testing.assert_close(found[1:].prob, found.prob[1:])
    assert len(found[torch.tensor([True, False, True])]) == 2


def test_what_is_impossible_shares_equally_below() -> None:
    tree = Tree.from_nested([[0, 1, 2], [3, 4]])
    log_prob = torch.tensor([[-np.inf, -np.inf, -np.inf, np.log(0.25), np.log(0.75)]])
    found = NodeProbs.of_log_prob(tree, log_prob)
    assert found.conditional[0].tolist() == pytest.approx([1, 0, 1, 1 / 3, 1 / 3, 1 / 3, 0.25, 0.75])
    assert found.prob[0].tolist() == pytest.approx([1, 0, 1, 0, 0, 0, 0.25, 0.75])


def test_one_class_and_no_example() -> None:
    found = NodeProbs.of_log_prob(Tree.from_nested(0), torch.zeros(2, 1))
    assert found.prob.tolist() == [[1.0], [1.0]]
    assert NodeProbs.of_log_prob(Tree.from_nested([0, 1]), torch.zeros(0, 2)).prob.shape == (0, 3)


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (torch.zeros(2, 3), "sum to 1, but those of row 0 sum to 3"),
        (torch.tensor([[0.0, -np.inf, torch.nan]]), "log-probabilities must be"),
        (torch.zeros(2, 4), "must have 3 classes"),
    ],
)
def test_what_holds_no_probabilities(log_prob: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        NodeProbs.of_log_prob(Tree.from_nested([0, [1, 2]]), log_prob)


@pytest.mark.parametrize(
    ("log_conditional", "message"),
    [
        (torch.zeros(5), "tensor"),
        (torch.zeros(2, 4), "one column per node, 5"),
        (torch.zeros(2, 5), "share 1"),
        (torch.full((2, 5), torch.nan), "share 1"),
    ],
)
def test_what_holds_no_decisions(log_conditional: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        NodeProbs.of_conditional(Tree.from_nested([0, [1, 2]]), log_conditional)
