"""Huffman against an exhaustive search of all trees, entropy, and literal tie-breaks."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from treesearch import build_tree

Items = tuple[tuple[int, float], ...]  # (class, weight); the class keeps equal weights apart


def partitions(items: Items, num_blocks: int) -> Iterator[list[Items]]:
    """All ways to cut ``items`` into exactly ``num_blocks`` sets."""
    if num_blocks == 1 or len(items) == num_blocks:
        yield [items] if num_blocks == 1 else [(item,) for item in items]
        return
    first, rest = items[0], items[1:]
    if len(rest) >= num_blocks:
        for blocks in partitions(rest, num_blocks):
            for i, block in enumerate(blocks):
                yield [*blocks[:i], (first, *block), *blocks[i + 1 :]]
    for blocks in partitions(rest, num_blocks - 1):
        yield [(first,), *blocks]


@cache
def best_tree(items: Items, arity: int) -> tuple[float, int]:
    """(total depth weighted by count, maximum depth) of the best tree: least cost first, then least depth."""
    if len(items) == 1:
        return 0.0, 0
    own = sum(weight for _, weight in items)
    best = (float("inf"), 0)
    for num_blocks in range(2, min(arity, len(items)) + 1):
        for blocks in partitions(items, num_blocks):
            below = [best_tree(block, arity) for block in blocks]
            best = min(best, (own + sum(cost for cost, _ in below), 1 + max(depth for _, depth in below)))
    return best


def test_the_oracle_sees_all_partitions() -> None:
    items: Items = tuple((i, 1.0) for i in range(6))
    assert [len(list(partitions(items, k))) for k in range(1, 7)] == [1, 31, 90, 65, 15, 1]  # Stirling numbers S(6, k)


@pytest.mark.parametrize(("arity", "max_classes"), [(2, 7), (3, 6), (4, 6)])
@pytest.mark.parametrize("seed", range(8))
def test_no_tree_is_better_and_no_best_tree_is_shallower(arity: int, max_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for num_classes in range(2, max_classes + 1):
        counts = rng.integers(0, [3, 10, 100][seed % 3], num_classes) + (np.arange(num_classes) == 0)
        tree = build_tree("huffman", counts=counts, arity=arity)
        items: Items = tuple(enumerate(counts.tolist()))
        assert (tree.depths @ counts, tree.max_depth) == best_tree(items, arity)
        assert tree.arities.max() <= arity


@pytest.mark.parametrize("arity", [2, 3, 4])
def test_dyadic_counts_give_the_entropy_exactly(arity: int) -> None:
    # probabilities k^-1 (k-1 times), k^-2 (k-1 times), ..., the last one twice over
    counts = np.concatenate([[arity**level] * (arity - 1) for level in range(6, -1, -1)] + [[1]]).astype(float)
    share = counts / counts.sum()
    entropy = -(share * np.log(share)).sum() / np.log(arity)
    assert build_tree("huffman", counts=counts, arity=arity).expected_depth(counts) == pytest.approx(entropy, rel=1e-14)


@pytest.mark.parametrize(
    ("counts", "arity", "nested"),
    [
        ([1, 1], 2, [0, 1]),
        ([1, 1, 1], 2, [[0, 1], 2]),
        ([1, 1, 1, 1], 2, [[0, 1], [2, 3]]),
        ([2, 1, 1], 2, [0, [1, 2]]),
        ([2, 2, 1, 1], 2, [[0, 1], [2, 3]]),  # single classes before the merged pair of equal weight
        ([1, 1, 1, 1, 1], 2, [[[0, 1], 4], [2, 3]]),  # earlier merges first
        ([0, 0, 0, 1], 2, [[[0, 1], 2], 3]),
        ([1, 1, 1, 1], 3, [[0, 1], 2, 3]),  # the first merge takes two
        ([1, 1, 1, 1, 1], 3, [[0, 1, 2], 3, 4]),
        ([1, 2, 3], 9, [0, 1, 2]),
        ([5], 2, 0),
    ],
)
def test_ties(counts: list[int], arity: int, nested: Any) -> None:
    assert build_tree("huffman", counts=counts, arity=arity).to_nested() == nested


@pytest.mark.parametrize("arity", [2, 3, 7])
@pytest.mark.parametrize("num_classes", [2, 10, 100, 1001])
def test_all_nodes_but_one_are_full(arity: int, num_classes: int) -> None:
    counts = np.random.default_rng(0).permutation(10_000 // np.arange(1, num_classes + 1))
    arities = build_tree("huffman", counts=counts, arity=arity).arities
    assert np.count_nonzero(arities != min(arity, num_classes)) <= 1


def test_expected_depth_lies_within_one_bit_of_the_entropy() -> None:
    counts = 1 / np.arange(1, 5001)
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    assert entropy <= build_tree("huffman", counts=counts).expected_depth(counts) < entropy + 1
