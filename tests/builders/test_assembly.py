"""Assembling trees from nodes, leaves and whole subtrees."""

import numpy as np

from treesearch import Tree
from treesearch.builders.assembly import TreeAssembly


def ids(*classes: int) -> np.ndarray:
    return np.array(classes, np.int64)


def test_nodes_leaves_and_grafts() -> None:
    pair = Tree.from_nested([0, 1])
    shape = Tree.from_nested([[0, 1], 2])
    inner = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=[0, 3])
    assembly = TreeAssembly()
    root = assembly.open_node()
    assembly.add_leaves(root, ids(6))
    grafted = assembly.graft(root, inner, ids(5, 2, 4), projection_dim=8)
    node = assembly.open_node(root, projection_dim=16)
    assembly.add_leaves(node, ids(0))
    assert assembly.graft(node, pair, ids(1, 3)) == 4
    tree, new_id = assembly.finish()
    assert (root, grafted, node) == (0, 1, 3)
    assert tree.to_nested() == [[0, [1, 3]], [[2, 5], 4], 6]
    # canonical: root, {0 1 3}, {2 4 5}, {1 3}, {2 5}; provisional: root, {2 4 5}, {2 5}, {0 1 3}, {1 3}
    assert new_id.tolist() == [0, 2, 4, 1, 3]
    assert tree.projection_dim.tolist() == [0, 16, 8, 0, 3]


def test_a_graft_can_be_the_whole_tree() -> None:
    subtree = Tree.from_nested([[0, 2], 1])
    assembly = TreeAssembly()
    assert assembly.graft(Tree.NO_PARENT, subtree, ids(0, 1, 2)) == 0
    tree, new_id = assembly.finish()
    assert tree == subtree
    assert new_id.tolist() == [0, 1]


def test_a_single_leaf_can_be_grafted() -> None:
    assembly = TreeAssembly()
    root = assembly.open_node()
    assembly.add_leaves(root, ids(1))
    assert assembly.graft(root, Tree.from_nested(0), ids(0), projection_dim=8) == -1
    assert assembly.finish()[0].to_nested() == [0, 1]
    alone = TreeAssembly()
    assert alone.graft(Tree.NO_PARENT, Tree.from_nested(0), ids(0)) == -1
    assert alone.finish()[0] == Tree.from_nested(0)
