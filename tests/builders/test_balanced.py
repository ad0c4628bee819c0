"""Flat, balanced and random trees."""

from typing import Any

import numpy as np
import pytest

from treesearch import build_tree


def least_depth(num_classes: int, arity: int) -> int:
    """ceil(log_arity C) in integers."""
    depth, reach = 0, 1
    while reach < num_classes:
        depth, reach = depth + 1, reach * arity
    return depth


@pytest.mark.parametrize("name", ["balanced", "random"])
@pytest.mark.parametrize("arity", [2, 3, 4, 10, 64])
def test_least_depth(name: str, arity: int) -> None:
    for num_classes in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 27, 28, 63, 64, 65, 243, 244, 1000, 1001]:
        tree = build_tree(name, counts=np.ones(num_classes), arity=arity)
        assert tree.max_depth == least_depth(num_classes, arity)
        assert tree.depths.min() >= least_depth(num_classes, arity) - 1


@pytest.mark.parametrize(
    ("counts", "options", "nested"),
    [
        ([1, 1, 1, 1, 1], {}, [[[0, 1], 2], [3, 4]]),
        ([1, 2, 3, 4, 5], {"order": "frequency"}, [[0, 1], [2, [3, 4]]]),
        ([1, 2, 3, 4, 5], {"order": "given"}, [[[0, 1], 2], [3, 4]]),
        ([2, 3, 2, 3, 2], {}, [[0, [1, 3]], [2, 4]]),  # falling count, ties by smaller id: 1 3 0 2 4
        ([7, 6, 5, 4, 3, 2, 1, 0], {"arity": 3}, [[0, 1, 2], [3, 4, 5], [6, 7]]),
    ],
)
def test_literal_trees(counts: list[int], options: dict[str, Any], nested: Any) -> None:
    assert build_tree("balanced", counts=counts, **options).to_nested() == nested


def test_flat() -> None:
    assert build_tree("flat", counts=[1, 5, 3]).to_nested() == [0, 1, 2]
    assert build_tree("flat", counts=[4]).to_nested() == 0


def test_random_trees_have_uniform_leaves() -> None:
    """Class 0 sits at each of the three places of [[a, b], c] a third of the time; mean depth 5/3, sd 0.47."""
    depths = [build_tree("random", counts=[1, 1, 1], seed=seed).depths[0] for seed in range(400)]
    assert np.mean(depths) == pytest.approx(5 / 3, abs=4 * 0.47 / 20)
