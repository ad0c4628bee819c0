"""Trees of Huffman's expected depth with similar classes together."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import ConstructionTask, SplitAction, make_action
from treesearch.builders import build_tree
from treesearch.builders.clustering import attention, start_direction
from treesearch.builders.similar_huffman import code_lengths, equal_halves, similar_huffman_parts
from treesearch.errors import DataError


def sets_below(nested: Any) -> set[frozenset[int]]:
    """The classes below every internal node."""
    if isinstance(nested, int):
        return set()
    found = set().union(*map(sets_below, nested))
    singles = frozenset(child for child in nested if isinstance(child, int))
    return found | {singles.union(*(max(sets_below(child), key=len) for child in nested if not isinstance(child, int)))}


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(any),
    seed=st.integers(0, 5),
)
def test_the_expected_depth_is_huffmans(counts: list[int], seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(counts), 3))
    tree = build_tree("similar-huffman", counts=counts, vectors=vectors, seed=seed)
    assert set(tree.arities.tolist()) == {2}
    assert tree.expected_depth(counts) == pytest.approx(build_tree("huffman", counts=counts).expected_depth(counts))


def test_classes_of_equal_length_are_parted_by_similarity() -> None:
    """Eight classes of equal count: two clouds of four, each of two pairs."""
    vectors = np.array([[x + a, y] for x in (-9, 9) for y in (-2, 2) for a in (0, 0.1)])
    shuffled = np.random.default_rng(0).permutation(8)
    tree = build_tree("similar-huffman", counts=np.ones(8), vectors=vectors[shuffled])
    below = sets_below(tree.to_nested())
    of = {old: new for new, old in enumerate(shuffled.tolist())}
    clouds = [frozenset(of[i] for i in range(4)), frozenset(of[i] for i in range(4, 8))]
    pairs = [frozenset({of[i], of[i + 1]}) for i in (0, 2, 4, 6)]
    assert below == {frozenset(range(8)), *clouds, *pairs}


def test_code_lengths_by_hand() -> None:
    assert code_lengths(np.array([1.0, 8.0, 1.0, 2.0, 4.0])).tolist() == [4, 1, 4, 3, 2]


@pytest.mark.parametrize(
    ("lengths", "cut", "first"),
    [
        ([1, 1], 1, [0]),
        ([2, 2, 2, 2], 2, [0, 1]),
        ([2, 2, 2, 2], 1, [0, 1]),  # the other part has no more room
        ([2, 2, 2, 2], 4, [0, 1]),
        ([3, 3, 1, 2], 2, [0, 1, 3]),  # the short code fills the second part
        ([3, 3, 1, 2], 3, [2]),  # or the first
        ([3, 2, 3, 2, 3, 3], 3, [0, 1, 2]),
        ([3, 2, 3, 2, 3, 3], 2, [0, 1, 2]),
    ],
)
def test_each_part_holds_half(lengths: list[int], cut: int, first: list[int]) -> None:
    chosen = equal_halves(np.array(lengths), cut)
    assert np.flatnonzero(chosen).tolist() == first
    assert sum(2.0 ** -lengths[i] for i in first) == 0.5


def test_the_split_is_the_first_step_of_the_builder() -> None:
    rng = np.random.default_rng(3)
    counts, vectors = np.floor(100 / (1 + np.arange(30.0))), rng.standard_normal((30, 4)).astype(np.float32)
    tree = build_tree("similar-huffman", counts=counts, vectors=vectors, seed=2)
    parts = similar_huffman_parts(vectors, attention(counts), counts, np.arange(30), start_direction(vectors, 2))
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    task = ConstructionTask(counts, vectors, in_features=4, seed=2)
    action = make_action("similar-huffman")
    assert isinstance(action, SplitAction)
    own = {frozenset(part.tolist()) for part in action.parts(task, np.arange(30)).parts}
    assert own == {frozenset(part.tolist()) for part in parts}
    assert own <= sets_below(tree.to_nested())


def test_it_needs_vectors() -> None:
    with pytest.raises(DataError, match="'similar-huffman' groups classes by similarity and needs vectors"):
        build_tree("similar-huffman", counts=[1, 2])
