"""Paths, logit rows and projection scopes against a naive walk."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests import nested as naive
from treesearch import Tree
from treesearch.paths import block_roots, class_paths, input_dims, projection_scopes, row_ptr


@settings(deadline=None)
@given(naive.nested_trees())
def test_paths_against_a_naive_walk(nested: naive.Naive) -> None:
    paths = class_paths(Tree.from_nested(nested))
    for _, entry, steps in naive.walk(nested):
        if not isinstance(entry, list):
            own = slice(paths.ptr[entry], paths.ptr[entry + 1])
            assert list(zip(paths.node[own], paths.branch[own], strict=True)) == steps
    assert paths.node.size == paths.branch.size == paths.ptr[-1] == sum(naive.depths(nested).values())


def test_literal_paths_and_rows() -> None:
    tree = Tree.from_nested([[0, 3], [1, 2, 4], 5])
    paths = class_paths(tree)
    assert paths.ptr.tolist() == [0, 2, 4, 6, 8, 10, 11]
    assert paths.node.tolist() == [0, 1, 0, 2, 0, 2, 0, 1, 0, 2, 0]
    assert paths.branch.tolist() == [0, 0, 1, 0, 1, 1, 0, 1, 1, 2, 2]
    assert row_ptr(tree).tolist() == [0, 3, 4, 7]
    assert [array.dtype.name for array in (paths.ptr, paths.node, row_ptr(tree))] == ["int64", "int32", "int64"]


@pytest.mark.parametrize("seed", range(5))
def test_projections_against_a_naive_walk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nested = naive.random_nested(rng, 60)
    plain = Tree.from_nested(nested)
    projection = rng.integers(0, 3, plain.num_internal) * rng.integers(1, 9, plain.num_internal)
    tree = Tree.from_parents(plain.parent, plain.leaf_class, projection_dim=projection)
    scopes, roots, dims = projection_scopes(tree), block_roots(tree), input_dims(tree, 16)
    for number, entry, steps in naive.walk(nested):
        if isinstance(entry, list):
            carriers = [node for node in [*(node for node, _ in steps), number] if projection[node]]
            assert scopes[number] == (carriers[-1] if carriers else -1)
            assert roots[number] == (carriers[0] if carriers else -1)
            assert dims[number] == (projection[carriers[-1]] if carriers else 16)


def test_one_class_has_an_empty_path() -> None:
    tree = Tree.from_nested(0)
    paths = class_paths(tree)
    assert (paths.ptr.tolist(), paths.node.size, paths.branch.size) == ([0, 0], 0, 0)
    assert row_ptr(tree).tolist() == [0]
    assert [f(tree).size for f in (projection_scopes, block_roots)] == [0, 0]
    assert input_dims(tree, 4).size == 0


def test_a_deep_chain() -> None:
    nested: naive.Naive = 0
    for cls in range(1, 3000):
        nested = [cls, nested]
    paths = class_paths(Tree.from_nested(nested))
    assert paths.node[: paths.ptr[1]].tolist() == list(range(2999))
    assert not paths.branch[: paths.ptr[1]].any()
