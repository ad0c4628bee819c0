"""Trees of categories against all trees in which every category is a subtree, entropy, and literal ones."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nested import Naive, depths
from treesearch import Tree, build_tree
from treesearch.errors import ConfigError, DataError


def binary_trees(num_classes: int) -> Iterator[Naive]:
    """All of them: the last class beside any node of any tree over the others."""

    def beside(tree: Naive, leaf: int) -> Iterator[Naive]:
        yield [tree, leaf]
        if isinstance(tree, list):
            yield from ([new, tree[1]] for new in beside(tree[0], leaf))
            yield from ([tree[0], new] for new in beside(tree[1], leaf))

    if num_classes == 1:
        yield 0
        return
    for tree in binary_trees(num_classes - 1):
        yield from beside(tree, num_classes - 1)


def subtrees(tree: Naive, found: set[frozenset[int]]) -> frozenset[int]:
    """The classes of a tree; those of each of its subtrees are added to ``found``."""
    own = frozenset.union(*(subtrees(child, found) for child in tree)) if isinstance(tree, list) else frozenset([tree])
    found.add(own)
    return own


def groups(categories: np.ndarray) -> set[frozenset[int]]:
    """The classes of each category of each level."""
    rows = categories.tolist()
    paths = [row[:level] for level in range(1, categories.shape[1] + 1) for row in rows]
    return {frozenset(i for i, row in enumerate(rows) if row[: len(path)] == path) for path in paths}


def is_grouped(tree: Naive, categories: np.ndarray) -> bool:
    found: set[frozenset[int]] = set()
    subtrees(tree, found)
    return groups(categories) <= found


def test_no_tree_that_keeps_categories_together_is_better() -> None:
    trees = list(binary_trees(6))
    assert len(trees) == 945  # 9!!
    rng = np.random.default_rng(0)
    for levels in (1, 1, 1, 2, 2, 3):
        categories = rng.integers(0, 3, (6, levels))
        categories[:2, 0] = 0, 1
        counts = rng.integers(0, 20, 6) + 1.0
        tree = build_tree("categories", counts=counts, categories=categories)
        assert is_grouped(tree.to_nested(), categories)
        total = min(
            sum(counts[i] * depth for i, depth in depths(one).items()) for one in trees if is_grouped(one, categories)
        )
        assert tree.depths @ counts == total


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda levels: st.lists(
            st.tuples(st.integers(1, 1000), st.tuples(*[st.integers(0, 4)] * levels)), min_size=2, max_size=40
        )
    )
)
def test_expected_depth_is_within_one_bit_a_level_of_the_entropy(rows: list[tuple[int, tuple[int, ...]]]) -> None:
    counts = np.array([count for count, _ in rows], float)
    categories = np.array([category for _, category in rows])
    if len({row[0] for _, row in rows}) == 1:
        categories[0, 0] = 5
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    depth = build_tree("categories", counts=counts, categories=categories).expected_depth(counts)
    assert max(entropy, build_tree("huffman", counts=counts).expected_depth(counts)) - 1e-9 <= depth
    assert depth < entropy + categories.shape[1] + 1  # Huffman loses less than a bit on each level (Shannon 1948)


COUNTS = [5, 4, 3, 2, 1, 9]
LETTERS = ["a", "b", "a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("options", "nested"),
    [
        ({}, [[[0, 2], 5], [[1, 3], 4]]),
        ({"top": "flat"}, [[[0, 2], 5], [1, 3], 4]),
        ({"within": "flat"}, [[0, 2, 5], [[1, 3], 4]]),
        ({"within": "flat", "top": "flat"}, [[0, 2, 5], [1, 3], 4]),
        ({"arity": 3}, [[0, 2, 5], [1, 3], 4]),
        ({"top": "flat", "categories": [[0, 1], [1, 0], [0, 0], [1, 0], [2, 2], [0, 1]]}, [[[0, 5], 2], [1, 3], 4]),
        ({"top": "flat", "categories": [[0, 0], [1, 0], [0, 0], [1, 1], [1, 1], [0, 0]]}, [[[0, 2], 5], [1, [3, 4]]]),
    ],
)
def test_literal_trees(options: dict[str, Any], nested: Naive) -> None:
    tree = build_tree("categories", **({"counts": COUNTS, "categories": LETTERS} | options))
    assert tree == Tree.from_nested(nested)
    assert "categories" not in tree.metadata["options"], "as long as the vocabulary"


def test_what_categories_are_called_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    counts, categories = rng.integers(1, 4, 60), rng.integers(0, 9, 60)
    tree = build_tree("categories", counts=counts, categories=categories)
    assert build_tree("categories", counts=counts, categories=rng.permutation(100)[categories]) == tree
    assert build_tree("categories", counts=counts, categories=[f"c{9 - i}" for i in categories]) == tree


@pytest.mark.parametrize("within", ["similar-huffman", "clustered", "interpolated"])
def test_the_tree_within_a_category_is_that_of_its_builder(within: str) -> None:
    rng = np.random.default_rng(0)
    counts, vectors = rng.integers(1, 100, 40), rng.standard_normal((40, 5))
    categories = np.arange(40) % 2
    tree = build_tree("categories", counts=counts, vectors=vectors, categories=categories, within=within)
    for side, own in zip(tree.to_nested(), (range(0, 40, 2), range(1, 40, 2)), strict=True):
        rows = list(own)
        alone = build_tree(within, counts=counts[rows], vectors=vectors[rows])
        assert Tree.from_nested(relabelled(side, {cls: i for i, cls in enumerate(rows)})) == alone


def relabelled(tree: Naive, number: dict[int, int]) -> Naive:
    return [relabelled(child, number) for child in tree] if isinstance(tree, list) else number[tree]


def test_many_levels_and_many_classes() -> None:
    num_classes = 3000
    rank = np.arange(num_classes)
    chain = np.minimum(rank[:, None], np.arange(1, num_classes, 2))  # each level parts two classes from the rest
    tree = build_tree("categories", counts=np.ones(num_classes), categories=chain)
    assert tree.max_depth >= num_classes // 2
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 1000, 100_000)
    tree = build_tree("categories", counts=counts, categories=rng.integers(0, 100, 100_000))
    assert tree.expected_depth(counts) < build_tree("huffman", counts=counts).expected_depth(counts) + 2


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"categories": None}, DataError, "needs the category of each class, but got none"),
        ({"categories": "syntax"}, DataError, r"one per class \(3\), .* but got shape \(\)"),
        ({"categories": [0, 1]}, DataError, r"one per class \(3\), .* but got shape \(2,\)"),
        ({"categories": [[], [], []]}, DataError, r"but got shape \(3, 0\)"),
        ({"categories": [[0], [1, 2], [3]]}, DataError, "categories must be one per class"),
        ({"categories": [0.0, 1.0, 2.0]}, DataError, "integers or labels .strings., but got 0.0"),
        ({"categories": ["a", 1, "b"]}, DataError, "integers or labels .strings., but got 1"),
        ({"categories": ["a", np.nan, "b"]}, DataError, "integers or labels .strings., but got nan"),
        ({"categories": [0, -1, 2]}, DataError, "class 1 has none"),
        ({"categories": ["a", "b", None]}, DataError, "class 2 has none"),
        ({"categories": [["a", "b"], ["a", ""], ["b", "b"]]}, DataError, "class 1 has none"),
        ({"categories": [7, 7, 7]}, DataError, "two categories at least, but all 3 classes are of 7"),
        ({"within": "hufman"}, ConfigError, "within must be one of huffman, .*, but got 'hufman'"),
        ({"within": ["flat"]}, ConfigError, "within must be one of"),
        ({"top": "clustered"}, ConfigError, "top must be 'huffman' or 'flat', but got 'clustered'"),
        (
            {"within": "similar-huffman", "arity": 3},
            ConfigError,
            "with top: huffman, within: similar-huffman, .*, but got 3",
        ),
        (
            {"within": "flat", "top": "flat", "arity": 3},
            ConfigError,
            "with top: flat, within: flat, which has none",
        ),
        ({"arity": 1}, ConfigError, "arity must be an integer >= 2"),
        ({"within": "clustered", "categories": [0, 0, 1]}, DataError, "needs vectors"),
    ],
)
def test_errors_are_one_line(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        build_tree("categories", **({"counts": [3, 2, 1], "categories": ["a", "b", "a"]} | options))
    assert "\n" not in str(caught.value)
