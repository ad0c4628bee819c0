"""Reassigning classes by trained directions: the rule, the balance, and that it finds what training knows."""

import numpy as np
import pytest

from tests.evaluation.oracle import planted
from treesearch import Tree, build_tree
from treesearch.builders.reassignment import reassign
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation.class_vectors import class_means
from treesearch.evaluation.directions import TrainedDirections
from treesearch.evaluation.frozen import evaluate_frozen


def test_classes_go_where_they_are_worth_most_and_masses_stay() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32) * 3
    group = np.repeat(np.arange(4), 25)
    vectors = centres[group] + rng.normal(0, 0.1, (100, 4)).astype(np.float32)
    shuffled = [np.sort(part) for part in np.array_split(rng.permutation(100), 4)]
    parts = reassign(shuffled, vectors @ centres.T, counts=np.ones(100))
    assert [part.tolist() for part in parts] == [np.flatnonzero(group == g).tolist() for g in range(4)]


@pytest.mark.parametrize("seed", range(5))
def test_parts_partition_the_classes_and_keep_their_masses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = 1 / np.arange(1, 301)
    parts = [np.sort(part) for part in np.array_split(rng.permutation(300), 6)]
    moved = reassign(parts, 2 * rng.standard_normal((300, 6)), counts=counts)
    assert sorted(np.concatenate(moved).tolist()) == list(range(300))
    assert all((np.diff(part) > 0).all() for part in moved)
    if len(moved) == len(parts):
        before, after = (np.array([counts[part].sum() for part in group]) for group in (parts, moved))
        assert np.abs(after - before).max() < 0.25 * counts.sum()


def test_two_parts_are_left_at_least() -> None:
    parts = [np.array([0]), np.array([1])]
    same = reassign(parts, np.zeros((2, 2)), counts=np.ones(2))
    assert [part.tolist() for part in same] == [[0], [1]]


@pytest.mark.parametrize("num_parts", [2, 3, 7])
def test_trained_directions_tell_the_parts_apart(num_parts: int) -> None:
    train, _, counts = planted(40, 8000)
    directions = TrainedDirections(train, counts, learning_rate=0.3)
    parts = [np.sort(part) for part in np.array_split(np.random.default_rng(0).permutation(30), num_parts)]
    worth = directions(parts)
    assert (worth.shape, worth.dtype) == ((30, num_parts), np.float64)
    part_of = np.zeros(30, int)
    for index, part in enumerate(parts):
        part_of[part] = index
    assert (worth.argmax(1) == part_of).mean() > np.bincount(part_of).max() / 30 + 0.1


def test_reassigning_lowers_the_nll_of_the_node_that_was_trained() -> None:
    train, valid, counts = planted(60, 12000)
    directions = TrainedDirections(train, counts, learning_rate=0.3)
    parts = [np.sort(part) for part in np.array_split(np.random.default_rng(0).permutation(60), 4)]
    nll = []
    for _ in range(4):
        tree = Tree.from_nested([part.tolist() for part in parts])
        scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts, learning_rate=0.3)
        nll.append(scores.nll[0] / scores.num_tokens)
        parts = reassign(parts, directions(parts), counts=counts)
    assert nll[3] < nll[1] < nll[0] - 0.05


def test_no_rounds_is_plain_clustering() -> None:
    train, _, counts = planted(60, 2000)
    vectors = class_means(train, 60)
    directions = TrainedDirections(train, counts, learning_rate=0.3)
    tree = build_tree("reassigned", counts=counts, vectors=vectors, arity=4, rounds=0, directions=directions)
    assert tree == build_tree("clustered", counts=counts, vectors=vectors, arity=4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arity": 1}, ConfigError, "arity"),
        ({"rounds": -1}, ConfigError, "rounds must be an integer >= 0"),
        ({"min_share": 0}, ConfigError, r"min_share must lie inside \(0, 1\]"),
        ({"directions": None}, DataError, "needs directions"),
        ({"vectors": None}, DataError, "needs vectors"),
    ],
)
def test_what_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    inputs = {"counts": np.ones(5), "vectors": np.eye(5), "directions": lambda parts: None}
    with pytest.raises(error, match=message):
        build_tree("reassigned", **{**inputs, **options})  # type: ignore[arg-type]
