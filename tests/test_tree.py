"""The tree struct against nested lists and recursion, and every way in which arrays can fail to be a tree."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import nested as naive
from treesearch import Tree
from treesearch.errors import DataError, TreeError

ARRAYS = ("parent", "child_ptr", "child_idx", "leaf_class", "projection_dim")
PAIR: dict[str, Any] = {"parent": [-1, 0, 0], "leaf_class": [0, 1]}
PROJECTED: dict[str, Any] = {
    "parent": [-1, 0, 0, 1, 1],
    "leaf_class": [0, 1, 2],
    "projection_dim": [0, 8],
}  # [0, [1, 2]]


def random_tree(seed: int, num_classes: int = 40) -> tuple[naive.Naive, Tree]:
    nested = naive.random_nested(np.random.default_rng(seed), num_classes)
    return nested, Tree.from_nested(nested)


def assert_same_arrays(left: Tree, right: Tree) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


# -- canonical form and identity ---------------------------------------------------------------------------------------


def test_literal_canonical_arrays() -> None:
    tree = Tree.from_nested([[4, 2], [[3, 1], 5, 0]])
    assert tree.parent.tolist() == [-1, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert tree.child_ptr.tolist() == [0, 2, 5, 7, 9]
    assert tree.child_idx.tolist() == [1, 2, 4, 3, 5, 6, 7, 8, 9]
    assert tree.leaf_class.tolist() == [0, 5, 2, 4, 1, 3]
    assert tree.arities.tolist() == [2, 3, 2, 2]
    assert tree.depths.tolist() == [2, 3, 2, 3, 2, 2]
    assert tree.class_leaf.tolist() == [4, 8, 6, 9, 7, 5]
    assert (tree.num_classes, tree.num_internal, tree.num_nodes, tree.max_depth) == (6, 4, 10, 3)
    assert all(
        getattr(tree, name).dtype == np.int32 for name in (*ARRAYS, "depths", "node_depths", "arities", "class_leaf")
    )


@settings(deadline=None)
@given(naive.nested_trees())
def test_nested_round_trip_and_numbering(nested: naive.Naive) -> None:
    tree = Tree.from_nested(nested)
    assert tree.to_nested() == naive.canonical(nested)
    assert Tree.from_nested(tree.to_nested()) == tree
    for number, entry, steps in naive.walk(nested):
        node = number if isinstance(entry, list) else tree.num_internal + number
        assert tree.parent[node] == (steps[-1][0] if steps else Tree.NO_PARENT)
        if isinstance(entry, list):
            assert tree.arities[node] == len(entry) == len(tree.children(node))
        else:
            assert tree.leaf_class[number] == entry
            assert tree.depths[entry] == tree.node_depths[node] == len(steps)
            assert tree.class_leaf[entry] == node


@settings(deadline=None)
@given(naive.nested_trees(), st.integers(0, 2**32 - 1))
def test_numbering_and_child_order_are_not_identity(nested: naive.Naive, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = Tree.from_nested(nested)
    tree = Tree.from_parents(
        plain.parent, plain.leaf_class, projection_dim=rng.integers(0, 4, plain.num_internal, dtype=np.int32)
    )
    given_arrays, new_id = naive.scrambled(tree, rng)
    again, canonical_id = Tree.from_parents_with_ids(**given_arrays)
    assert_same_arrays(again, tree)
    assert again.hash == tree.hash
    assert canonical_id[new_id].tolist() == list(range(tree.num_nodes))


def test_hash_covers_structure_and_projections_only() -> None:
    tree = Tree.from_parents(**PROJECTED)
    named = tree.annotate(class_names=["a", "b", "c"], metadata={"builder": "hand"})
    assert named.hash == tree.hash
    assert named == tree
    assert len({named, tree}) == 1
    others = [
        Tree.from_parents(**PROJECTED | {"projection_dim": [0, 9]}),
        Tree.from_parents(**PROJECTED | {"projection_dim": [8, 0]}),
        Tree.from_parents(**PROJECTED | {"projection_dim": None}),
        Tree.from_parents(**PROJECTED | {"leaf_class": [1, 0, 2]}),
        Tree.from_nested([0, 1, 2]),
        Tree.from_nested(0),
    ]
    assert len({tree.hash, *(other.hash for other in others)}) == 7
    assert tree != "a tree"


def test_annotate_keeps_what_it_is_not_given() -> None:
    tree = Tree.from_nested([0, 1], class_names=["a", "b"], metadata={"n": 1})
    assert tree.annotate(metadata={"n": 2}).class_names == ("a", "b")
    assert tree.annotate(class_names=["x", "y"]).metadata == {"n": 1}
    assert tree.metadata == {"n": 1}


def test_arrays_are_frozen_and_inputs_are_not_aliased() -> None:
    parent, leaf_class = np.array([-1, 0, 0], np.int32), np.array([0, 1], np.int32)
    tree = Tree.from_parents(parent, leaf_class)
    parent[:], leaf_class[:] = 7, 7
    assert tree.to_nested() == [0, 1]
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(tree, name)[...] = 0


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_copies_between_processes_are_equal_and_frozen(clone: Callable[[Tree], Tree]) -> None:
    tree = Tree.from_parents(**PROJECTED, class_names=["a", "b", "c"], metadata={"n": 1})
    again = clone(tree)
    assert (again, again.class_names, again.metadata) == (tree, tree.class_names, tree.metadata)
    assert not any(getattr(again, name).flags.writeable for name in ARRAYS)


def test_repr_is_short() -> None:
    tree = Tree.from_nested([0, 1, 2])
    assert repr(tree) == f"Tree(num_classes=3, num_internal=1, hash='{tree.hash[:12]}')"


# -- sums and depths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_depths_masses_and_sums_against_recursion(seed: int) -> None:
    nested, tree = random_tree(seed)
    rng = np.random.default_rng(seed + 100)
    counts = rng.integers(0, 50, tree.num_classes).astype(float)
    values = rng.standard_normal(tree.num_internal)
    by_class = naive.depths(nested)
    assert tree.expected_depth(counts) == pytest.approx(sum(counts[c] * d for c, d in by_class.items()) / counts.sum())
    assert tree.max_depth == max(by_class.values())
    mass, sums, along = tree.node_mass(counts), tree.subtree_sums(values), tree.path_sums(values)
    below = np.zeros(tree.num_internal)
    for number, entry, steps in naive.walk(nested):
        above = [node for node, _ in steps]
        if isinstance(entry, list):
            assert mass[number] == sum(counts[c] for c in naive.depths(entry))
            below[[*above, number]] += values[number]
        else:
            assert mass[tree.num_internal + number] == counts[entry]
            assert along[entry] == pytest.approx(values[above].sum())
    np.testing.assert_allclose(sums, below)


def test_one_class() -> None:
    tree = Tree.from_nested(0)
    assert (tree.num_classes, tree.num_internal, tree.num_nodes, tree.max_depth) == (1, 0, 1, 0)
    assert tree.to_nested() == 0
    assert tree.expected_depth([3]) == 0.0
    assert tree.node_mass([3]).tolist() == [3.0]
    assert tree.subtree_sums([]).tolist() == []
    assert tree.path_sums([]).tolist() == [0.0]
    assert tree == Tree.from_parents([-1], [0])


def test_a_chain_of_5000_classes_needs_no_recursion() -> None:
    nested: naive.Naive = 0
    for cls in range(1, 5000):
        nested = [cls, nested]
    tree = Tree.from_nested(nested)
    assert tree.depths.tolist() == [4999, *range(4999, 0, -1)]
    assert tree.expected_depth(np.ones(5000)) == pytest.approx((4999 + 5000 * 4999 / 2) / 5000)
    entry: naive.Naive = tree.to_nested()
    for cls in range(4999, 0, -1):  # comparing the lists themselves would recurse
        entry, leaf = entry
        assert leaf == cls
    assert entry == 0


# -- errors: one line, rule and value ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_arrays", "message"),
    [
        ({"parent": [-1, 0, 0, 1], "leaf_class": [0, 1]}, "internal node must have >= 2 children, but node 1 has 1"),
        ({"parent": [-1, 0, 0], "leaf_class": [0]}, "internal node must have >= 2 children, but node 1 has 0"),
        ({"parent": [-1, 2, 1, 0, 0, 1, 2], "leaf_class": range(4)}, "only 3 of 7 are; look for a cycle"),
        ({"parent": [-1, 1, 0, 0, 1], "leaf_class": range(3)}, "only 3 of 5 are; look for a cycle"),
        ({"parent": [-1, -1, 0, 0, 1, 1], "leaf_class": range(4)}, r"exactly one node .* root\), but 2 have"),
        (PAIR | {"parent": [0, 0, 0]}, r"exactly one node .* root\), but 0 have"),
        (PAIR | {"leaf_class": [0, 0]}, "exactly one leaf, but class 0 sits at 2"),
        (PAIR | {"leaf_class": [0, 2]}, r"class ids must be 0 .. 1 .* range from 0 to 2"),
        (PAIR | {"leaf_class": [-1, 0]}, r"class ids must be 0 .. 1 .* range from -1 to 0"),
        (PAIR | {"parent": [-1, 0, 1]}, r"internal nodes in \[0, 1\), but range from -1 to 1"),
        (PAIR | {"parent": [-1, 0, 9]}, r"internal nodes in \[0, 1\), but range from -1 to 9"),
        (PAIR | {"parent": [-1, 0, -2]}, r"internal nodes in \[0, 1\), but range from -2 to 0"),
        (PAIR | {"projection_dim": [4, 4]}, "one entry per internal node, but got 2 for 1"),
        (PAIR | {"projection_dim": []}, "one entry per internal node, but got 0 for 1"),
        (PAIR | {"projection_dim": [-1]}, "projection_dim must be >= 0 .* but got -1"),
        (PAIR | {"projection_dim": [1.5]}, "projection_dim must be a flat array of integers, but got float64"),
        (PAIR | {"parent": [-1.0, 0.0, 0.0]}, "parent must be a flat array of integers, but got float64"),
        (PAIR | {"parent": [True, False, False]}, "parent must be a flat array of integers, but got bool"),
        (PAIR | {"parent": [[-1, 0, 0]]}, r"parent must be a flat .* shape \(1, 3\)"),
        (PAIR | {"parent": [-1, [0], 0]}, "parent must be a flat array of integers"),
        (PAIR | {"leaf_class": ["a", "b"]}, "leaf_class must be a flat array of integers"),
        (PAIR | {"leaf_class": None}, "leaf_class must be a flat array of integers"),
        (PAIR | {"leaf_class": [0, 2**40]}, "leaf_class must fit 32 bits, but ranges from 0 to 1099511627776"),
        (PAIR | {"leaf_class": [0, 2**90]}, "leaf_class must be a flat array of integers"),
        ({"parent": [], "leaf_class": []}, "at least one leaf"),
        ({"parent": [-1], "leaf_class": [0, 1]}, "at most as many leaves as nodes"),
        (PAIR | {"class_names": ["a"]}, "one name per class must be given, but got 1 names for 2 classes"),
        (PAIR | {"class_names": "ab"}, "class_names must be strings"),
        (PAIR | {"class_names": [1, 2]}, "class_names must be strings"),
    ],
)
def test_bad_arrays(given_arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(TreeError, match=message) as caught:
        Tree.from_parents(**given_arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ([], "at least one leaf"),
        ([0, [1, [2]]], ">= 2 children"),
        ([0, []], ">= 2 children"),
        ([0, True], "class ids and lists only, but got True"),
        ([0.0, 1], "class ids and lists only, but got 0.0"),
        ([0, None], "class ids and lists only, but got None"),
        ("01", "class ids and lists only, but got '01'"),
        ([0, np.zeros((2, 2))], "class ids and lists only, but got array"),
        ([0, 2], "range from 0 to 2"),
        ([0, 1, 1], "class 1 sits at 2"),
        ([0, -1], "range from -1 to 0"),
        (1, "range from 1 to 1"),
        ([0, 10**30], "leaf_class must"),
    ],
)
def test_bad_nested(nested: Any, message: str) -> None:
    with pytest.raises(TreeError, match=message) as caught:
        Tree.from_nested(nested)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2, 3], "one number per class, but got 3 for 2"),
        ([[1, 2]], r"got shape \(1, 2\)"),
        ([], r"got shape \(0,\)"),
        ([1, -1], "finite and >= 0, but class 1 has -1.0"),
        ([np.nan, 1], "finite and >= 0, but class 0 has nan"),
        ([1, np.inf], "finite and >= 0, but class 1 has inf"),
        ([0, 0], "all are 0"),
        (np.array([["a"], ["b"]]), "counts must be numbers"),
        ([[1], [1, 2]], "counts must be numbers"),
    ],
)
def test_bad_counts(counts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Tree.from_nested([0, 1]).expected_depth(counts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["subtree_sums", "path_sums"])
def test_sums_need_a_value_per_internal_node(method: str) -> None:
    with pytest.raises(DataError, match="values must be one per internal node, but got 2 for 1"):
        getattr(Tree.from_nested([0, 1]), method)([1.0, 2.0])


def test_shares_of_examples_that_pass_a_node() -> None:
    tree = Tree.from_nested([[0, 1], [2, [3, 4]]])
    np.testing.assert_allclose(tree.pass_shares([1, 2, 3, 4, 0]), [1, 0.3, 0.7, 0.4])
    assert tree.pass_shares([1, 2, 3, 4, 0]).shape == (tree.num_internal,)
    assert Tree.from_nested(0).pass_shares([7]).size == 0
    with pytest.raises(DataError, match="one number per class"):
        tree.pass_shares([1, 2])


def test_names_of_inner_nodes_follow_their_nodes() -> None:
    # Given in another numbering than the canonical one: the root last, and its children the other way round.
    tree = Tree.from_parents([2, 2, -1, 0, 0, 1, 1], [2, 3, 0, 1], node_names=["late", "early", "root"])
    assert tree.node_names == ("root", "early", "late")
    assert pickle.loads(pickle.dumps(tree)).node_names == tree.node_names
    assert tree.annotate(metadata={"a": 1}).node_names == tree.node_names
    assert tree == tree.annotate(node_names=["x", "y", "z"])  # outside the identity
    for names, message in ((["a"], "one name per internal node must be given, but got 1"), ([1, 2, 3], "strings")):
        with pytest.raises(TreeError, match=message):
            tree.annotate(node_names=names)  # type: ignore[arg-type]


@settings(deadline=None)
@given(naive.nested_trees())
def test_the_classes_below_a_node_stand_together_in_depth_first_order(nested: Any) -> None:
    tree = Tree.from_nested(nested)
    below: list[list[int]] = [[] for _ in range(tree.num_nodes)]
    for leaf, cls in enumerate(tree.leaf_class.tolist(), start=tree.num_internal):
        while leaf >= 0:
            below[leaf].append(cls)
            leaf = tree.parent[leaf]
    first, count = tree.leaf_intervals
    found = [tree.class_order[first[node] : first[node] + count[node]] for node in range(tree.num_nodes)]
    assert [sorted(one.tolist()) for one in found] == [sorted(one) for one in below]
