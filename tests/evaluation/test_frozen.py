"""The frozen evaluator: against a naive implementation, and the independence of nodes, to the bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests import nested as naive
from tests.evaluation import oracle
from tests.evaluation.oracle import class_sets, class_vectors, planted
from tests.softmax.oracle import TREES, projected, random_tree
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import NodeScores, evaluate_frozen, initial_state
from treesearch.paths import block_roots
from treesearch.softmax.cpu_plan import OUTPUT_DIM, SOURCE_DIM


def evaluated(tree: Tree, train: Features, valid: Features, counts: Any, **settings: Any) -> NodeScores:
    settings = {"vectors": class_vectors(tree.num_classes, train.x.shape[1]), **settings}
    return evaluate_frozen(tree, train=train, valid=valid, counts=counts, **settings)


# -- the algorithm -----------------------------------------------------------------------------------------------------


def assert_by_the_book(tree: Tree, num_tokens: int, **settings: Any) -> None:
    train, valid, counts = planted(tree.num_classes, num_tokens)
    settings = {"learning_rate": 0.3, "vectors": class_vectors(tree.num_classes, 6), **settings}
    scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts, **settings)
    expected = oracle.evaluate(tree, train=train, valid=valid, counts=counts, **settings)
    # Tight, since a minibatch of one row more or less moves the result by 1e-4 only.
    np.testing.assert_allclose(scores.nll, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TREES)
def test_against_the_book(name: str) -> None:
    assert_by_the_book(TREES[name], 400, epochs=2)


@pytest.mark.parametrize("seed", range(4))
def test_random_trees_against_the_book(seed: int) -> None:
    assert_by_the_book(random_tree(np.random.default_rng(seed), 25), 300)


@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again"])
def test_more_tokens_than_one_chunk(name: str) -> None:
    assert_by_the_book(TREES[name], 2 * oracle.CHUNK + 77)


# -- independence ------------------------------------------------------------------------------------------------------


def results_by_classes(tree: Tree, scores: NodeScores) -> dict[frozenset[int], tuple[float, int]]:
    """NLL and tokens of every node, keyed by the classes below it."""
    own = zip(class_sets(tree), scores.nll.tolist(), scores.tokens.tolist(), strict=False)
    return {classes: (nll, tokens) for classes, nll, tokens in own}


def classes_of(nested: naive.Naive) -> frozenset[int]:
    return frozenset(naive.depths(nested))


def replaced(nested: naive.Naive, part: frozenset[int], by: naive.Naive) -> naive.Naive:
    if not isinstance(nested, list):
        return nested
    return by if classes_of(nested) == part else [replaced(child, part, by) for child in nested]


def with_projections(nested: naive.Naive, dims: dict[frozenset[int], int]) -> Tree:
    entries = (entry for _, entry, _ in naive.walk(nested) if isinstance(entry, list))
    return projected(nested, [dims.get(classes_of(entry), 0) for entry in entries])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("projections", [False, True])
def test_a_node_does_not_see_the_rest_of_the_tree(seed: int, projections: bool) -> None:
    rng = np.random.default_rng(seed)
    nested = naive.canonical(naive.random_nested(rng, 40))
    internal = [classes_of(entry) for _, entry, _ in naive.walk(nested) if isinstance(entry, list)]
    part = next(classes for classes in internal[1:] if len(classes) >= 4)
    # Elsewhere are blocks as well, but none that contains the part: that would be one unit with it.
    elsewhere = {classes: int(rng.integers(1, 7)) for classes in internal if not classes >= part and rng.random() < 0.4}
    members = sorted(part)

    def relabel(entry: naive.Naive) -> naive.Naive:
        return [relabel(child) for child in entry] if isinstance(entry, list) else members[entry]

    train, valid, counts = planted(40, 1500, seed=seed)
    results = []
    for _ in range(3):
        other = relabel(naive.random_nested(rng, len(members)))
        inside = {
            classes_of(entry): int(rng.integers(1, 7)) for _, entry, _ in naive.walk(other) if isinstance(entry, list)
        }
        dims = {**elsewhere, **(inside if projections else {})}
        tree = with_projections(replaced(nested, part, other), dims)
        scores = evaluated(tree, train, valid, counts, epochs=2)
        results.append(results_by_classes(tree, scores))
    outside = [classes for classes in internal if not classes <= part]
    for result in results[1:]:
        assert [result[classes] for classes in outside] == [results[0][classes] for classes in outside]
        assert result != results[0]


@pytest.mark.parametrize("name", ["huffman", "very wide", "random", "nested, growing again"])
def test_same_bits_on_repetition_and_for_any_memory_layout(name: str) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 700)

    def run(x: Any, y: Any) -> NodeScores:
        return evaluated(tree, Features(x, y), valid, counts)

    first = run(train.x, train.y)
    shared = train.x.copy(), train.y.copy()
    for array in shared:
        array.flags.writeable = False
    strided = np.repeat(train.x, 2, axis=1)[:, ::2], np.repeat(train.y, 2)[::2]
    for x, y in ((train.x, train.y), shared, strided, (np.asfortranarray(train.x), train.y)):
        again = run(x, y)
        assert again.nll.tolist() == first.nll.tolist()
        assert again.tokens.tolist() == first.tokens.tolist()
    assert train.x.flags.writeable  # the caller's arrays stay as they are
    assert train.y.flags.writeable


@pytest.mark.parametrize("name", ["mixed depths", "square, nested", "nested, growing again", "projection below a gap"])
def test_other_class_vectors_move_nothing_but_shrinking_projections(name: str) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 500)
    vectors = class_vectors(tree.num_classes, 6)
    one, other = (evaluated(tree, train, valid, counts, vectors=each).nll for each in (vectors, vectors[::-1]))
    shrinks = name not in ("mixed depths", "square, nested")
    assert (one == other).tolist() == ((block_roots(tree) < 0) | (not shrinks)).tolist()


# -- the numbers' meaning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_an_untrained_tree_predicts_the_class_frequencies(name: str) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 300)
    smoothed = np.maximum(counts, 0.5)
    unigram = -np.log(smoothed / smoothed.sum())[valid.y].mean()
    scores = evaluated(tree, train, valid, counts, learning_rate=1e-12)
    assert scores.mean_nll == pytest.approx(unigram, rel=1e-5)
    nothing = Features(train.x[:0], train.y[:0])
    assert evaluated(tree, nothing, valid, counts).mean_nll == pytest.approx(unigram, rel=1e-5)


@pytest.mark.parametrize("name", TREES)
def test_tokens_are_the_true_passes(name: str) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 200)
    scores = evaluated(tree, train, valid, counts)
    passes = [sum(label in classes for label in valid.y.tolist()) for classes in class_sets(tree)[: tree.num_internal]]
    assert scores.tokens.tolist() == passes
    assert scores.num_tokens == 200
    assert scores.mean_nll == pytest.approx(scores.nll.sum() / 200)
    assert not scores.nll[scores.tokens == 0].any()


def test_a_node_that_no_token_passes() -> None:
    train, valid, _ = planted(3, 300)
    tree = Tree.from_nested([[0, 1, 2], [[3, 4], [5, 6, 7]]])
    counts = np.bincount(train.y, minlength=8).astype(np.float64)
    scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts)
    by_classes = results_by_classes(tree, scores)
    for classes in ({3, 4}, {5, 6, 7}, {3, 4, 5, 6, 7}):
        assert by_classes[frozenset(classes)] == (0.0, 0)
    assert np.isfinite(scores.nll).all()


def test_one_class_costs_nothing() -> None:
    train, valid, counts = planted(1, 50)
    scores = evaluate_frozen(Tree.from_nested(0), train=train, valid=valid, counts=counts)
    assert (scores.nll.size, scores.tokens.size, scores.mean_nll) == (0, 0, 0.0)


def test_no_validation_tokens() -> None:
    train, valid, counts = planted(9, 50)
    tree = TREES["nested, growing again"]
    scores = evaluated(tree, train, Features(valid.x[:0], valid.y[:0]), counts)
    assert scores.num_tokens == 0
    assert scores.nll.tolist() == scores.tokens.tolist() == [0] * tree.num_internal


# -- learning ----------------------------------------------------------------------------------------------------------

SEPARABLE = planted(40, 6000, in_features=16, noise=0.2, seed=5)


@pytest.mark.parametrize(
    "tree",
    [
        build_tree("huffman", counts=SEPARABLE[2]),
        build_tree("huffman", counts=SEPARABLE[2], arity=6),
        build_tree("flat", counts=SEPARABLE[2]),
        build_tree("adaptive", counts=SEPARABLE[2], cutoffs=[8, 20], div_value=1.5, in_features=16),
        random_tree(np.random.default_rng(0), 40, 16),
    ],
    ids=["binary", "6-ary", "flat", "adaptive", "nested projections"],
)
def test_separable_classes_are_learned(tree: Tree) -> None:
    train, valid, counts = SEPARABLE
    frequencies = counts / counts.sum()
    entropy = -(frequencies * np.log(np.maximum(frequencies, 1e-9))).sum()
    by_epochs = [evaluated(tree, train, valid, counts, learning_rate=0.1, epochs=epochs).mean_nll for epochs in (1, 4)]
    assert by_epochs[1] < by_epochs[0] < entropy / 2


def test_a_projection_moves_where_it_must() -> None:
    """All that tells the classes apart is invisible to the projection's start; without it there is nothing to learn."""
    tree = projected([0, 1], [1])
    rng = np.random.default_rng(0)
    start = initial_state(tree, 2, np.ones(2), class_vectors(2, 2))[1].projection
    labels = rng.integers(2, size=4000).astype(np.int32)
    noise = 0.3 * rng.standard_normal((4000, 1)) * start
    signal = (2 * labels - 1)[:, None] * np.array([-start[1], start[0]])

    def nll(x: Any) -> float:
        data = Features(x.astype(np.float32), labels)
        return evaluated(tree, data, data, np.ones(2), learning_rate=0.3).mean_nll

    assert nll(noise) > 0.68
    assert nll(noise + signal) < 0.05


@pytest.mark.parametrize("nested", [[0, 1, 2, 3], [[0, 1, 2], 3, 4]], ids=str)
def test_a_square_projection_starts_as_the_identity(nested: naive.Naive) -> None:
    """To the first order of the learning rate it changes nothing."""
    plain = Tree.from_nested(nested)
    train, valid, counts = planted(plain.num_classes, 500)
    # All nodes are wide, so that without a projection they learn in the same minibatches.
    square = projected(nested, [0] * (plain.num_internal - 1) + [6])
    untrained, one, other = (
        evaluate_frozen(tree, train=train, valid=valid, counts=counts, learning_rate=rate).nll
        for tree, rate in ((plain, 0.0), (plain, 1e-4), (square, 1e-4))
    )
    assert (untrained - one).min() > 0.1
    np.testing.assert_allclose(untrained - other, untrained - one, rtol=5e-4)


def starts(tree: Tree, in_features: int, counts: Any, vectors: Any) -> dict[frozenset[int], Any]:
    """What each projection starts from, keyed by the classes below it."""
    layout, parameters = initial_state(tree, in_features, counts, vectors)
    sizes = layout.scope[:-1, [OUTPUT_DIM, SOURCE_DIM]]
    parts = np.split(parameters.projection, np.cumsum(sizes.prod(1))[:-1])
    classes = [class_sets(tree)[node] for node in np.flatnonzero(tree.projection_dim)]
    return {own: part.reshape(size) for own, part, size in zip(classes, parts, sizes, strict=True)}


OUTER, INNER, OTHER = (frozenset(range(*span)) for span in ((0, 14), (6, 14), (14, 22)))
BLOCKS: naive.Naive = [[*range(6), [*range(6, 14)]], [*range(14, 22)], 22, 23]


@pytest.mark.parametrize("seed", range(4))
def test_shrinking_projections_start_at_the_principal_axes_of_the_classes_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, 24).astype(np.float64)
    counts[rng.permutation(24)[:8]] = 0
    vectors = rng.standard_normal((24, 6)).astype(np.float32)
    found = starts(with_projections(BLOCKS, {OUTER: 4, INNER: 2, OTHER: 3}), 6, counts, vectors)

    def expected(classes: frozenset[int], dim: int, above: Any) -> Any:
        """The projector onto the principal axes, of what the projection above leaves."""
        own = sorted(classes)
        weight = np.where(counts > 0, counts, 0.5)[own]
        deviation = vectors[own] - np.average(vectors[own], axis=0, weights=weight)
        axes = np.linalg.svd(np.sqrt(weight)[:, None] * (deviation @ above.T))[2][:dim]
        return axes.T @ axes

    for classes, dim, above in ((OUTER, 4, np.eye(6)), (INNER, 2, found[OUTER]), (OTHER, 3, np.eye(6))):
        start = found[classes]
        assert start.dtype == np.float32
        np.testing.assert_allclose(start @ start.T, np.eye(dim), atol=1e-6)
        np.testing.assert_allclose(start.T @ start, expected(classes, dim, above), atol=1e-4)


def test_a_class_without_counts_weighs_half_a_count_in_the_principal_axes() -> None:
    counts = np.array([4.0, 0, 2, 1, 0, 3])
    vectors = class_vectors(6, 6)
    one, half, other = (
        starts(projected([*range(6)], [2]), 6, np.where(counts > 0, counts, unseen), vectors)[frozenset(range(6))]
        for unseen in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(one, half)
    assert np.abs(one.T @ one - other.T @ other).max() > 0.01


def test_projections_that_do_not_shrink_start_at_the_identity() -> None:
    tree = projected([0, [1, [2, [3, 4]]]], [8, 3, 5, 5])
    square, narrow, wide, again = starts(tree, 8, np.ones(5), class_vectors(5, 8)).values()
    np.testing.assert_array_equal(square, np.eye(8))
    assert narrow.shape == (3, 8)
    np.testing.assert_array_equal(wide, np.eye(5, 3))
    np.testing.assert_array_equal(again, np.eye(5))
    (alone,) = starts(projected([0, [1, 2]], [6, 0]), 6, np.ones(3), None).values()
    np.testing.assert_array_equal(alone, np.eye(6))


@pytest.mark.parametrize("seed", range(8))
def test_the_start_of_a_block_depends_on_its_content_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = np.sort(rng.permutation(40)[:15]).tolist()
    others = [c for c in range(40) if c not in members]
    counts = rng.integers(0, 9, 40).astype(np.float64)

    def relabel(entry: naive.Naive, names: Sequence[naive.Naive]) -> naive.Naive:
        return [relabel(child, names) for child in entry] if isinstance(entry, list) else names[entry]

    block = relabel(naive.random_nested(rng, len(members)), members)
    inside = {
        classes_of(entry): int(rng.integers(1, 7)) for _, entry, _ in naive.walk(block) if isinstance(entry, list)
    }
    results = []
    for _ in range(3):
        vectors = rng.standard_normal((40, 6)).astype(np.float32)
        vectors[members] = class_vectors(len(members), 6)
        nested = relabel(naive.random_nested(rng, len(others) + 1), [*others, block])
        elsewhere = {
            classes_of(entry): int(rng.integers(1, 7))
            for _, entry, _ in naive.walk(nested)
            if isinstance(entry, list) and not classes_of(entry) & set(members) and rng.random() < 0.4
        }
        found = starts(with_projections(nested, {**elsewhere, **inside}), 6, counts, vectors)
        results.append({classes: found[classes].tolist() for classes in inside})
    assert results[1] == results[0]
    assert results[2] == results[0]
    vectors[members[-1]] += 1
    moved = starts(with_projections(nested, inside), 6, counts, vectors)
    assert {classes: moved[classes].tolist() for classes in inside} != results[0]


@pytest.mark.parametrize("name", ["huffman", "flat", "nested, growing again"])
def test_features_that_are_not_finite_show_in_the_score(name: str) -> None:
    tree = TREES[name]
    train, valid, counts = planted(tree.num_classes, 100)
    train.x[50] = np.nan
    assert np.isnan(evaluated(tree, train, valid, counts).mean_nll)


# -- refusals ----------------------------------------------------------------------------------------------------------

GOOD = planted(5, 30)


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (GOOD[0].x[:3], [0, 5, 1], r"labels must lie in \[0, 5\), but got 0 to 5"),
        (GOOD[0].x[:3], [0, -1, 1], r"labels must lie in \[0, 5\), but got -1 to 1"),
        (GOOD[0].x[:3], [0, 1], r"features must have shape \(2, 6\), one row per label, but got \(3, 6\)"),
        (GOOD[0].x[:2], [0, 1, 2], r"features must have shape \(3, 6\), one row per label, but got \(2, 6\)"),
    ],
)
def test_data_that_does_not_fit(split: str, x: Any, y: list[int], message: str) -> None:
    data = {"train": GOOD[0], "valid": GOOD[1], split: Features(x, np.array(y, np.int32))}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_frozen(Tree.from_nested([[0, 1], [2, 3, 4]]), train=data["train"], valid=data["valid"], counts=GOOD[2])
    assert "\n" not in str(caught.value)


def test_splits_and_counts_that_do_not_fit_each_other() -> None:
    tree = Tree.from_nested([[0, 1], [2, 3, 4]])
    narrow = Features(np.ascontiguousarray(GOOD[1].x[:, :4]), GOOD[1].y)
    with pytest.raises(DataError, match=r"shape \(30, 6\), one row per label, but got \(30, 4\)"):
        evaluate_frozen(tree, train=GOOD[0], valid=narrow, counts=GOOD[2])
    with pytest.raises(DataError, match="got 4 for 5 classes"):
        evaluate_frozen(tree, train=GOOD[0], valid=GOOD[1], counts=GOOD[2][:4])


def test_a_shrinking_projection_needs_class_vectors_that_fit() -> None:
    tree = projected([[0, 1], [2, 3, 4]], [0, 2, 0])
    with pytest.raises(DataError, match=r"^projections from 6 to 2 need class vectors$"):
        evaluated(tree, *GOOD, vectors=None)
    with pytest.raises(DataError, match=r"class vectors must have shape \(5, 6\)") as caught:
        evaluated(tree, *GOOD, vectors=class_vectors(5, 4))
    assert "\n" not in str(caught.value)
