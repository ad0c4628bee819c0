"""The frozen rung on torch: against the compiled evaluator, and without waiting for the device."""

from typing import Any

import numpy as np
import pytest

from tests.evaluation.oracle import class_vectors, planted
from tests.softmax.oracle import TREES, projected, random_tree
from tests.waiting import NoWaiting, cuda, no_waiting_on_cuda
from treesearch import Tree, build_tree
from treesearch.errors import DataError, TreeError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import NodeScores, evaluate_frozen
from treesearch.evaluation.frozen_kernels import CHUNK
from treesearch.evaluation.frozen_torch import evaluate_forest
from treesearch.paths import block_roots

NUM_CLASSES, NUM_FEATURES = 300, 16
PROBLEM = planted(NUM_CLASSES, 24_000, in_features=NUM_FEATURES, noise=0.7, seed=1)
COUNTS = PROBLEM[2]


def nested_projections(tree: Tree, seed: int, share: float) -> Tree:
    """Projections of several sizes, one in another, on half of the nodes that many tokens pass."""
    rng = np.random.default_rng(seed)
    chosen = (tree.pass_shares(COUNTS) > share) & (rng.random(tree.num_internal) < 0.5)
    dims = np.where(chosen, rng.choice([4, 8, NUM_FEATURES], tree.num_internal), 0)
    return Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)


FOREST: dict[str, Tree] = {
    "huffman": build_tree("huffman", counts=COUNTS),
    "huffman, 4-ary": build_tree("huffman", counts=COUNTS, arity=4),
    "huffman, 20-ary": build_tree("huffman", counts=COUNTS, arity=20),
    "balanced": build_tree("balanced", counts=COUNTS),
    "flat": build_tree("flat", counts=COUNTS),
    "adaptive": build_tree("adaptive", counts=COUNTS, cutoffs=[40, 120], div_value=2.0, in_features=NUM_FEATURES),
    "two-level": build_tree("two-level", counts=COUNTS),
    "binary, nested projections": nested_projections(build_tree("huffman", counts=COUNTS), 0, 0.02),
    "4-ary, nested projections": nested_projections(build_tree("huffman", counts=COUNTS, arity=4), 1, 0.0),
    "random, nested projections": random_tree(np.random.default_rng(2), NUM_CLASSES, NUM_FEATURES),
}


def wide_tree(seed: int, num_classes: int, *, projections: bool) -> Tree:
    """Three or five children everywhere, of an odd number of classes."""
    rng = np.random.default_rng(seed)
    parts: list[Any] = rng.permutation(num_classes).tolist()
    while len(parts) > 1:
        size = 3 if len(parts) < 5 else int(rng.choice([3, 5]))
        rng.shuffle(parts)
        parts = [*parts[size:], parts[:size]]
    num_internal = Tree.from_nested(parts[0]).num_internal
    chosen = rng.random(num_internal) < (0.5 if projections else 0.0)
    return projected(parts[0], (rng.integers(1, 7, num_internal) * chosen).tolist())


WIDE = {
    **{name: TREES[name] for name in ("three classes", "flat", "very wide", "adaptive")},
    "nested blocks": wide_tree(0, 41, projections=True),
    "other nested blocks": wide_tree(1, 201, projections=True),
    "a very wide block": projected([[*range(600)], 600, [601, 602, 603]], [0, 3, 0]),
    "no blocks": wide_tree(2, 41, projections=False),
}


def on_torch(trees: list[Tree], problem: Any = PROBLEM, device: str = "cpu", **settings: Any) -> list[NodeScores]:
    train, valid, counts = problem
    settings = {"vectors": class_vectors(len(counts), train.x.shape[1]), **settings}
    return evaluate_forest(trees, train=train, valid=valid, counts=counts, device=device, **settings)


def compiled(tree: Tree, problem: Any = PROBLEM, **settings: Any) -> NodeScores:
    train, valid, counts = problem
    settings = {"vectors": class_vectors(len(counts), train.x.shape[1]), **settings}
    return evaluate_frozen(tree, train=train, valid=valid, counts=counts, **settings)


@pytest.fixture(scope="module")
def forest_scores() -> dict[str, NodeScores]:
    return dict(zip(FOREST, on_torch(list(FOREST.values())), strict=True))


# -- the numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_within_a_two_hundredth_of_a_nat_and_in_the_same_order(forest_scores: dict[str, NodeScores]) -> None:
    expected = {name: compiled(tree).mean_nll for name, tree in FOREST.items()}
    found = {name: score.mean_nll for name, score in forest_scores.items()}
    assert found == pytest.approx(expected, abs=0.005)
    names = list(FOREST)
    apart = [
        (one, other) for one in names for other in names if expected[one] + 0.01 < expected[other]
    ]  # all others are ties
    assert len(apart) > 30
    assert all(found[one] < found[other] for one, other in apart)


@pytest.mark.slow
@pytest.mark.parametrize("tree", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("num_tokens", [1, 100, 2 * CHUNK + 77])
def test_without_binary_nodes_it_is_the_same_algorithm(tree: Tree, num_tokens: int) -> None:
    assert tree.arities.min() > 2
    problem = planted(tree.num_classes, num_tokens)
    settings: dict[str, Any] = {"learning_rate": 0.1, "epochs": 2}
    (found,) = on_torch([tree], problem, **settings)
    expected = compiled(tree, problem, **settings)
    np.testing.assert_allclose(found.nll, expected.nll, rtol=1e-4, atol=1e-3)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.num_tokens == expected.num_tokens


@pytest.mark.parametrize("name", ["huffman", "chain", "two classes"])
def test_with_batches_of_one_binary_nodes_learn_token_by_token(name: str) -> None:
    problem = planted(TREES[name].num_classes, 200)
    (found,) = on_torch([TREES[name]], problem, batch_size=1)
    np.testing.assert_allclose(found.nll, compiled(TREES[name], problem).nll, rtol=1e-4, atol=1e-4)


def test_an_untrained_tree_predicts_the_class_frequencies() -> None:
    for tree in TREES.values():
        train, valid, counts = planted(tree.num_classes, 300)
        smoothed = np.maximum(counts, 0.5)
        unigram = -np.log(smoothed / smoothed.sum())[valid.y].mean()
        nothing = Features(train.x[:0], train.y[:0])
        for split, epochs in ((train, 0), (nothing, 1)):
            (score,) = on_torch([tree], (split, valid, counts), epochs=epochs)
            assert score.mean_nll == pytest.approx(unigram, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_trees_do_not_influence_each_other() -> None:
    problem = planted(NUM_CLASSES, 1500, in_features=NUM_FEATURES, noise=0.7, seed=1)
    for tree, beside_others in zip(FOREST.values(), on_torch(list(FOREST.values()), problem), strict=True):
        (alone,) = on_torch([tree], problem)
        np.testing.assert_allclose(alone.nll, beside_others.nll, rtol=1e-4, atol=1e-2)
        assert alone.tokens.tolist() == beside_others.tokens.tolist()


@pytest.mark.slow
def test_other_class_vectors_move_nothing_but_shrinking_projections() -> None:
    trees = [
        FOREST["huffman"],
        projected([[*range(100)], [*range(100, NUM_CLASSES)]], [NUM_FEATURES] * 3),
        FOREST["adaptive"],
    ]
    vectors = class_vectors(NUM_CLASSES, NUM_FEATURES)
    problem = planted(NUM_CLASSES, 3000, in_features=NUM_FEATURES)
    one, other = (on_torch(trees, problem, vectors=each) for each in (vectors, vectors[::-1]))
    same = [first.nll == second.nll for first, second in zip(one, other, strict=True)]
    assert [nodes.all() for nodes in same[:2]] == [True, True]
    assert same[2].tolist() == (block_roots(trees[2]) < 0).tolist()


# -- edge cases --------------------------------------------------------------------------------------------------------


def test_one_class_costs_nothing() -> None:
    scores = on_torch([Tree.from_nested(0)] * 2, planted(1, 50))
    assert [(score.nll.size, score.tokens.size, score.mean_nll) for score in scores] == [(0, 0, 0.0)] * 2


def test_classes_that_are_never_seen() -> None:
    train, valid, _ = planted(3, 300)
    counts = np.bincount(train.y, minlength=8).astype(np.float64)
    trees = [
        Tree.from_nested([[0, 1, 2], [[3, 4], [5, 6, 7]]]),
        projected([0, 1, 2, [[3, 4], [5, 6, 7]]], [0, 3, 0, 2]),
    ]
    for tree, score in zip(trees, on_torch(trees, (train, valid, counts)), strict=True):
        expected = compiled(tree, (train, valid, counts))
        assert score.mean_nll == pytest.approx(expected.mean_nll, abs=0.03)
        assert score.tokens.tolist() == expected.tokens.tolist()
        assert (score.tokens == 0).sum() >= 3
        assert not score.nll[score.tokens == 0].any()


def test_no_validation_tokens() -> None:
    train, valid, counts = planted(9, 50)
    names = ["nested, growing again"]
    (score,) = on_torch([TREES[name] for name in names], (train, Features(valid.x[:0], valid.y[:0]), counts))
    assert score.num_tokens == 0
    assert score.nll.tolist() == score.tokens.tolist() == [0] * TREES[names[0]].num_internal


def test_features_that_are_not_finite_show_in_the_score() -> None:
    train, valid, counts = planted(40, 100)
    train.x[50] = np.nan
    for score in on_torch([TREES["huffman"], TREES["flat"], TREES["adaptive"]], (train, valid, counts)):
        assert np.isnan(score.mean_nll)


def test_read_only_and_strided_features() -> None:
    train, valid, counts = planted(40, 100)
    strided = Features(np.repeat(train.x, 2, axis=1)[:, ::2], np.repeat(train.y, 2)[::2])
    strided.x.flags.writeable = strided.y.flags.writeable = False
    (one,), (two,) = (on_torch([TREES["huffman"]], (split, valid, counts)) for split in (train, strided))
    assert one.nll.tolist() == two.nll.tolist()


def test_refusals() -> None:
    train, valid, counts = planted(5, 30)
    tree = Tree.from_nested([[0, 1], [2, 3, 4]])
    with pytest.raises(DataError, match=r"trees over the same classes, but got sizes \[5, 6\]"):
        on_torch([tree, Tree.from_nested([0, 1, 2, 3, 4, 5])], (train, valid, counts))
    with pytest.raises(DataError, match=r"one or more trees over the same classes, but got sizes \[\]"):
        on_torch([], (train, valid, counts))
    with pytest.raises(DataError, match="batch_size must be >= 1, but got 0"):
        on_torch([tree], (train, valid, counts), batch_size=0)
    with pytest.raises(DataError, match="got 4 for 5 classes"):
        on_torch([tree], (train, valid, counts[:4]))
    with pytest.raises(DataError, match=r"labels must lie in \[0, 5\), but got 0 to 5"):
        on_torch([tree], (Features(train.x[:2], np.array([0, 5], np.int32)), valid, counts))
    with pytest.raises(DataError, match=r"features must have shape \(30, 6\), one row per label, but got \(30, 4\)"):
        on_torch([tree], (train, Features(valid.x[:, :4], valid.y), counts))
    with pytest.raises(TreeError, match="projections must be at most in_features = 6, but one is 7"):
        on_torch([projected([0, 1, 2, 3, 4], [7])], (train, valid, counts))
    with pytest.raises(DataError, match=r"^projections from 6 to 2 need class vectors$"):
        on_torch([tree, projected([0, 1, 2, 3, 4], [2])], (train, valid, counts), vectors=None)


# -- devices -----------------------------------------------------------------------------------------------------------


# A small forest with every kind of family.
SOME_TREES = [
    *(TREES[name] for name in ("huffman", "flat", "adaptive", "huffman 5-ary")),
    projected([[0, 1], [2, [3, 4, [5, 6]]], [*range(7, 40)]], [4, 0, 2, 0, 3, 0]),
    Tree.from_nested([0, [1, [2, 3], [*range(4, 40)]]]),
]
SOME_DATA = planted(40, 300)


def test_nothing_waits_for_the_device() -> None:
    with NoWaiting():
        on_torch(SOME_TREES, SOME_DATA)


class TestCuda:
    pytestmark = cuda

    def test_equals_the_host(self, forest_scores: dict[str, NodeScores]) -> None:
        for score, (name, expected) in zip(
            on_torch(list(FOREST.values()), device="cuda"), forest_scores.items(), strict=True
        ):
            np.testing.assert_allclose(score.nll, expected.nll, rtol=1e-3, atol=0.1, err_msg=name)
            assert score.tokens.tolist() == expected.tokens.tolist()

    def test_training_does_not_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from treesearch.evaluation import frozen_torch

        read = frozen_torch._Learner.read

        def guarded(*args: Any) -> None:
            with no_waiting_on_cuda():
                read(*args)

        monkeypatch.setattr(frozen_torch._Learner, "read", guarded)
        on_torch(SOME_TREES, SOME_DATA, device="cuda")
