"""Labels of a file, and names that are given for them."""

import numpy as np
import pytest

from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.exchange.labels import class_labels, ids_of_labels, relabel


@pytest.mark.parametrize(
    ("labels", "ids", "names"),
    [
        (["1", "0", "2"], [1, 0, 2], None),
        (["0"], [0], None),
        (["1", "2"], [0, 1], ("1", "2")),
        (["0", "01"], [0, 1], ("0", "01")),
        (["0", "+1"], [0, 1], ("0", "+1")),
        (["0", "١"], [0, 1], ("0", "١")),  # a digit to int(), but no id
        (["b", "a"], [0, 1], ("b", "a")),
        ([""], [0], ("",)),
    ],
)
def test_ids_of_labels(labels, ids, names):
    found, found_names = ids_of_labels(labels)
    assert (found.tolist(), found_names) == (ids, names)


def test_a_label_stands_once():
    with pytest.raises(TreeError, match="'b' stands twice"):
        ids_of_labels(["a", "b", "c", "b"])


def test_labels_of_a_tree():
    tree = Tree.from_nested([2, [0, 1]])
    assert class_labels(tree) == ["0", "1", "2"]
    assert class_labels(tree.annotate(class_names=["x", "y", "z"])) == ["x", "y", "z"]


def test_relabel_by_name():
    tree = Tree.from_nested([0, [1, 2]], class_names=["c", "a", "b"])
    again = relabel(tree, ["a", "b", "c"])
    assert again.to_nested() == [[0, 1], 2]
    assert again.class_names == ("a", "b", "c")


def test_relabel_keeps_projections_and_metadata():
    tree = Tree.from_parents(
        [-1, 0, 0, 1, 1], [0, 1, 2], projection_dim=[0, 5], class_names=["c", "a", "b"], metadata={"x": 1}
    )
    again = relabel(tree, ["a", "b", "c"])
    assert (again.projection_dim.tolist(), again.metadata) == ([0, 5], {"x": 1})


def test_names_are_put_to_ids():
    assert relabel(Tree.from_nested([0, [1, 2]]), ["a", "b", "c"]).class_names == ("a", "b", "c")
    # Names that are integers decide as names: the leaf "0" is the class whose name that is.
    again = relabel(Tree.from_nested([0, [1, 2]]), ["2", "1", "0"])
    assert (again.to_nested(), again.class_names) == ([[0, 1], 2], ("2", "1", "0"))


@pytest.mark.parametrize(
    ("tree_names", "names", "says"),
    [
        (("a", "b", "x"), ["a", "b", "c"], "one of the 3 class names, but 1 are not, such as 'x'"),
        (("a", "b", "c"), ["a", "b", "c", "d"], "must have a leaf, but 1 have none, such as 'd'"),
        (("a", "b", "c"), ["a", "b", "b"], "'b' stands twice"),
        (("a", "a", "c"), ["a", "b", "c"], "'a' stands twice"),
        (None, ["a", "b"], "got 2 names for 3 classes"),
    ],
)
def test_relabel_refuses(tree_names, names, says):
    with pytest.raises(TreeError, match=says):
        relabel(Tree.from_nested([0, [1, 2]], class_names=tree_names), names)


def test_relabel_of_a_random_order():
    rng = np.random.default_rng(0)
    tree = Tree.from_nested([[5, 3], [0, [1, 4]], 2])
    order = rng.permutation(6)
    names = [f"w{cls}" for cls in range(6)]
    shuffled = Tree.from_parents(tree.parent, order[tree.leaf_class], class_names=[names[i] for i in np.argsort(order)])
    assert relabel(shuffled, names) == tree
