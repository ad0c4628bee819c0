"""Two-level trees and the shape of adaptive softmax."""

import math
from typing import Any

import numpy as np
import pytest
from torch.nn import AdaptiveLogSoftmaxWithLoss

from treesearch import build_tree
from treesearch.paths import row_ptr

# -- two-level ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["frequency", "similarity"])
@pytest.mark.parametrize("num_classes", [4, 10, 100, 101, 300])
def test_two_levels_of_about_the_square_root(by: str, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    tree = build_tree(
        "two-level", counts=rng.integers(1, 99, num_classes), vectors=rng.standard_normal((num_classes, 4)), by=by
    )
    num_groups = math.ceil(math.sqrt(num_classes))
    assert tree.arities[0] == num_groups
    assert tree.max_depth == 2
    assert tree.arities[1:].max() <= math.ceil(num_classes / num_groups) * (1 if by == "frequency" else 2)


def test_two_level_groups_by_falling_count_ties_by_smaller_id() -> None:
    # order 5 | 1 3 | 0 2 4 6 -> groups of 3, 2, 2
    tree = build_tree("two-level", counts=[1, 2, 1, 2, 1, 9, 1])
    assert tree.to_nested() == [[0, 2], [1, 3, 5], [4, 6]]


def test_a_group_of_one_class_is_a_leaf() -> None:
    assert build_tree("two-level", counts=[3, 2, 1]).to_nested() == [[0, 1], 2]


# -- adaptive ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("div_value", "projections"), [(4.0, [0, 4, 1]), (1.0, [0, 16, 16]), (2, [0, 8, 4])])
def test_adaptive_literal(div_value: float, projections: list[int]) -> None:
    counts = np.arange(20, 0, -1)
    tree = build_tree("adaptive", counts=counts, cutoffs=[4, 10], in_features=16, div_value=div_value)
    assert tree.to_nested() == [0, 1, 2, 3, list(range(4, 10)), list(range(10, 20))]
    assert tree.projection_dim.tolist() == projections


def test_adaptive_ranks_by_count() -> None:
    tree = build_tree("adaptive", counts=[1, 5, 1, 9, 1, 1], cutoffs=[1, 3], in_features=32)
    # order 3 | 1 0 | 2 4 5
    assert tree.to_nested() == [[0, 1], [2, 4, 5], 3]
    assert tree.projection_dim.tolist() == [0, 8, 2]


def test_a_tail_of_one_class_is_a_leaf_and_keeps_the_size_of_the_others() -> None:
    tree = build_tree("adaptive", counts=[9, 8, 7, 6, 5], cutoffs=[2, 3], in_features=64)
    assert tree.to_nested() == [0, 1, 2, [3, 4]]
    assert tree.projection_dim.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("num_classes", "cutoffs"), [(2, [1]), (3, [1]), (10, [1, 2]), (100, [5, 25]), (1001, [50, 250])]
)
def test_default_cutoffs(num_classes: int, cutoffs: list[int]) -> None:
    given: dict[str, Any] = {"counts": np.ones(num_classes), "in_features": 64}
    assert build_tree("adaptive", **given) == build_tree("adaptive", **given, cutoffs=cutoffs)


@pytest.mark.parametrize("div_value", [1.0, 2.5, 4.0])
def test_same_shapes_as_torch(div_value: float) -> None:
    cutoffs, in_features = [8, 20, 45], 128
    layer = AdaptiveLogSoftmaxWithLoss(in_features, 100, cutoffs, div_value=div_value)
    tree = build_tree(
        "adaptive", counts=np.arange(100, 0, -1), cutoffs=cutoffs, in_features=in_features, div_value=div_value
    )
    tails = [(tail[0].weight.shape[0], tail[1].weight.shape[0]) for tail in layer.tail]  # type: ignore[index]
    assert list(zip(tree.projection_dim[1:], tree.arities[1:], strict=True)) == tails
    assert np.diff(row_ptr(tree))[0] == layer.head.weight.shape[0]


def test_width_from_the_vectors() -> None:
    given: dict[str, Any] = {"counts": [3, 2, 1, 1], "cutoffs": [2]}
    assert build_tree("adaptive", **given, vectors=np.zeros((4, 24))) == build_tree("adaptive", **given, in_features=24)
