"""Parent links in any order, against nested lists."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.nested import nested_trees
from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.exchange.links import GrowingTree
from treesearch.tree_links import tree_from_links


def links(nested, single, order):
    """Parent links of nested lists in the numbering ``order``, with chains of single children as ``single`` says."""
    parents, leaves = [], {}
    stack = [(nested, -1)]
    while stack:
        entry, above = stack.pop()
        for _ in range(next(single)):
            parents.append(above)
            above = len(parents) - 1
        parents.append(above)
        if isinstance(entry, list):
            number = len(parents) - 1
            stack.extend((child, number) for child in entry)
        else:
            leaves[entry] = len(parents) - 1
    rank = order(len(parents))
    parent = np.empty(len(parents), np.int64)
    for node, above in enumerate(parents):
        parent[rank[node]] = -1 if above < 0 else rank[above]
    return parent, [rank[leaves[cls]] for cls in sorted(leaves)]


@settings(max_examples=200, deadline=None)
@given(nested=nested_trees(), seed=st.integers(0, 10**6), most=st.integers(0, 3))
def test_single_children_are_collapsed(nested, seed, most):
    rng = np.random.default_rng(seed)
    parent, leaves = links(nested, iter(lambda: int(rng.integers(0, most + 1)), None), rng.permutation)
    assert tree_from_links(parent, leaves, range(len(leaves))) == Tree.from_nested(nested)


def test_a_long_chain_above_and_below():
    n = 20_000
    parent = np.arange(-1, 2 * n)
    parent = np.append(parent, n)  # a second leaf in the middle
    tree = tree_from_links(parent, [2 * n, 2 * n + 1], [1, 0])
    assert tree.to_nested() == [0, 1]
    assert tree_from_links(np.arange(-1, n), [n], [0]) == Tree.from_nested(0)


@pytest.mark.parametrize(
    ("parent", "leaf", "says"),
    [
        ([-1, -1], [0, 1], "exactly one node must have no parent.* 2 of 2"),
        ([1, 0], [0], "but 0 of 2"),
        ([], [], "but 0 of 0"),
        ([-1, 0, 0, 4, 3], [1, 2], "cycle"),  # two that point at each other
        ([-1, 0, 0, 5, 3, 4], [1, 2], "cycle"),  # three
        ([-1, 0, 0, 4, 3, 3], [1, 2, 5], "cycle"),  # one with a leaf
        ([-1, 0, 0], [1], "children or be a class, but 1 are neither"),
        ([-1, 0, 0], [0, 1, 2], "1 classes have nodes below"),
        ([-1], [], "children or be a class"),
    ],
)
def test_what_is_no_tree(parent, leaf, says):
    with pytest.raises(TreeError, match=says):
        tree_from_links(parent, leaf, range(len(leaf)))


def test_projections_follow_their_nodes():
    tree = tree_from_links([2, 2, -1, 2, 3, 3], [0, 1, 4, 5], [3, 2, 1, 0], projection_dim=[0, 0, 9, 4, 0, 0])
    assert tree.projection_dim.tolist() == [9, 4]
    with pytest.raises(TreeError, match="projection must have >= 2 children"):
        tree_from_links([-1, 0, 1, 1], [2, 3], [0, 1], projection_dim=[8, 0, 0, 0])


def test_growing():
    grown = GrowingTree()
    root = grown.add_node(Tree.NO_PARENT)
    grown.add_leaf(root, "b")
    grown.add_leaf(grown.add_node(root), "a")
    assert len(grown) == 4
    assert (grown.tree().to_nested(), grown.tree().class_names) == ([0, 1], ("b", "a"))
