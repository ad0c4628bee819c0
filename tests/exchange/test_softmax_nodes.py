"""SoftmaxNode, against the package hierarchicalsoftmax."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.exchange.samples import chain, projected
from tests.nested import nested_trees, random_nested, walk
from treesearch import Tree, build_tree
from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.softmax_nodes import from_softmax_node, to_softmax_node

hierarchicalsoftmax = pytest.importorskip("hierarchicalsoftmax")


def nested_of(node):
    return [nested_of(child) for child in node.children] if node.children else node.class_id


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_the_same_tree(nested):
    tree = Tree.from_nested(nested)
    if tree.num_classes == 1:
        return
    root = to_softmax_node(tree)
    assert nested_of(root) == tree.to_nested()
    assert len(root.node_list) == root.layer_size == tree.num_nodes - 1
    assert from_softmax_node(root) == tree
    assert from_softmax_node(root).class_names is None


def test_the_loss_is_that_of_the_paths():
    """Sum over the path of log-softmax, by nested lists, from the same outputs."""
    nested = random_nested(np.random.default_rng(0), 12, max_arity=3)
    tree = Tree.from_nested(nested)
    root = to_softmax_node(tree)
    by_class = {leaf.class_id: leaf for leaf in root.leaves}
    outputs = torch.randn(12, root.layer_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = root.get_node_ids_tensor([by_class[cls] for cls in range(12)])
    loss = hierarchicalsoftmax.HierarchicalSoftmaxLoss(root)(outputs, targets)
    steps = {entry: path for _, entry, path in walk(nested) if not isinstance(entry, list)}
    # Its outputs of a node start where it says; the nodes are found by following the branches down.
    expected = 0.0
    for cls in range(12):
        node = root
        for _, branch in steps[cls]:
            scores = outputs[cls, node.softmax_start_index : node.softmax_end_index]
            expected -= torch.log_softmax(scores, 0)[branch].item()
            node = node.children[branch]
        assert node is by_class[cls]
    assert loss.item() == pytest.approx(expected / 12, rel=1e-12)


def test_its_inference_finds_a_class():
    tree = Tree.from_nested([[0, [1, 2]], 3], class_names=["cat", "dog", "wolf", "fish"])
    root = to_softmax_node(tree)
    outputs = torch.zeros(1, root.layer_size)
    (wolf,) = (leaf for leaf in root.leaves if leaf.name == "wolf")
    for node in wolf.path[1:]:
        outputs[0, node.index_in_softmax_layer] = 9.0
    assert hierarchicalsoftmax.greedy_predictions(outputs, root=root) == [wolf]


def test_names():
    tree = Tree.from_nested([[2, 0], 1], class_names=["a", "0", ""])
    again = from_softmax_node(to_softmax_node(tree))
    assert (again, again.class_names) == (tree, tree.class_names)


def test_trees_of_others():
    node = hierarchicalsoftmax.SoftmaxNode
    root = node("root")
    cats, dogs = node("cats", parent=root), node("dogs", parent=root)
    for name in ("lion", "tiger"):
        node(name, parent=cats)
    node("wolf", parent=dogs)  # a single child
    tree = from_softmax_node(root)
    assert (tree.class_names, tree.to_nested()) == (("lion", "tiger", "wolf"), [[0, 1], 2])
    assert from_softmax_node(cats).class_names == ("lion", "tiger")
    twice = node("twice")
    for _ in range(2):
        node("same", parent=twice)
    with pytest.raises(TreeError, match="'same' stands twice"):
        from_softmax_node(twice)
    wrong = node("wrong")
    for cls in (1, 2):
        node("x", parent=wrong, class_id=cls)
    with pytest.raises(TreeError, match=r"class_id must be 0 \.\. 1, one a leaf"):
        from_softmax_node(wrong)
    with pytest.raises(TreeError, match="a SoftmaxNode must be given, but got dict"):
        from_softmax_node({})


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (projected(), "has no projections"),
        (Tree.from_nested(0), "a single class"),
        (chain(10_000), "at most 300 levels and 20000 children a node, but the tree has 9999 and 2"),
        (build_tree("flat", counts=np.ones(30_000)), "but the tree has 1 and 30000"),
        (Tree.from_nested([0, 1], class_names=["a", "a"]), "'a' stands twice"),
    ],
)
def test_refuses(tree, says):
    with pytest.raises(TreeError, match=says):
        to_softmax_node(tree)


def test_the_deepest_and_a_wide_one():
    for tree in (chain(301), build_tree("flat", counts=np.ones(2000))):
        assert from_softmax_node(to_softmax_node(tree)) == tree


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "hierarchicalsoftmax", None)
    with pytest.raises(MissingExtraError, match="hierarchicalsoftmax"):
        to_softmax_node(Tree.from_nested([0, 1]))
