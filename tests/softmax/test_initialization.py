"""A hierarchical softmax that starts from a flat one: against the flat layer and against the definition."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from tests import nested as naive
from tests.softmax.oracle import TREES, D, projected, random_tree
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.initialization import LinearStart, rows_from_linear
from treesearch.softmax.layout import SoftmaxLayout

Array = NDArray[np.float64]
MIXED = TREES["mixed depths"]


def start_of(tree: Tree, weight: Array, bias: Array | None, counts: Any = None) -> LinearStart:
    return rows_from_linear(SoftmaxLayout.of(tree, weight.shape[1]), weight, bias, counts)


def layer_of(tree: Tree, weight: Array, bias: Array | None, counts: Any = None) -> HierarchicalSoftmax:
    """The layer with these rows."""
    layer = HierarchicalSoftmax(weight.shape[1], tree, dtype=torch.float64, kernel="reference")
    start = start_of(tree, weight, bias, counts)
    with torch.no_grad():
        for parameters, values in zip((layer.weights, layer.biases, layer.projections), start, strict=True):
            for parameter, value in zip(parameters, values, strict=True):
                assert value.dtype == np.float64
                assert parameter.shape == value.shape
                parameter.copy_(torch.from_numpy(value))
    return layer


def flat_layer(tree: Tree, seed: int = 0, scale: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(tree.num_classes, D)), scale * rng.normal(size=tree.num_classes)


def flat_log_prob(inputs: torch.Tensor, weight: Array, bias: Array) -> torch.Tensor:
    return functional.linear(inputs, torch.from_numpy(weight), torch.from_numpy(bias)).log_softmax(-1)


def some_inputs(num: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(num, D)))


def with_projections(tree: Tree, dims: Any) -> Tree:
    return Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)


def without_projections(tree: Tree) -> Tree:
    return Tree.from_parents(tree.parent, tree.leaf_class)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


# -- where the start is the flat layer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["three classes", "flat", "very wide"])
@pytest.mark.parametrize("counted", [False, True])
def test_a_flat_tree_takes_the_flat_layer_as_it_is(name: str, counted: bool) -> None:
    tree = TREES[name]
    weight, bias = flat_layer(tree)
    start = start_of(tree, weight, bias, np.arange(tree.num_classes) if counted else None)
    np.testing.assert_array_equal(start.weights[0], weight)
    np.testing.assert_array_equal(start.biases[0], bias)
    assert (len(start.weights), len(start.biases), start.projections) == (1, 1, [])
    linear = torch.nn.Linear(D, tree.num_classes, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    assert_same(layer_of(tree, weight, bias).log_prob(some_inputs()), linear(some_inputs()).log_softmax(-1))


def test_two_classes_become_their_difference() -> None:
    weight, bias = flat_layer(TREES["two classes"])
    start = start_of(TREES["two classes"], weight, bias)
    np.testing.assert_array_equal(start.weights[0], weight[:1] - weight[1:])
    np.testing.assert_array_equal(start.biases[0], bias[:1] - bias[1:])


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6).filter(lambda sizes: sum(sizes) > len(sizes)),
    seed=st.integers(0, 1000),
)
def test_classes_that_differ_only_in_frequency(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    group_C = np.repeat(np.arange(len(sizes)), sizes)
    class_of = rng.permutation(group_C.size)
    groups = [class_of[group_C == g].tolist() for g in range(len(sizes))]
    tree = Tree.from_nested([group[0] if len(group) == 1 else group for group in groups])
    weight, bias = np.empty((group_C.size, D)), rng.normal(size=group_C.size)
    weight[class_of] = rng.normal(size=(len(sizes), D))[group_C]
    counts = np.exp(bias)
    counts[class_of] *= rng.uniform(0.1, 1000, len(sizes))[group_C]  # only shares within a group matter here
    layer = layer_of(tree, weight, bias, counts)
    assert_same(layer.log_prob(some_inputs()), flat_log_prob(some_inputs(), weight, bias))


@pytest.mark.parametrize("name", TREES)
def test_tangent_to_the_flat_layer_where_the_posterior_is_the_counts(name: str) -> None:
    tree = without_projections(TREES[name])
    weight, bias = flat_layer(tree)
    point = some_inputs(1).requires_grad_()
    theirs = flat_log_prob(point, weight, bias)
    layer = layer_of(tree, weight, bias, theirs.exp().detach().numpy()[0])
    ours = layer.log_prob(point)
    assert_same(ours, theirs)
    direction = torch.from_numpy(np.random.default_rng(2).normal(size=(1, tree.num_classes)))
    slopes = [torch.autograd.grad((scores * direction).sum(), point)[0] for scores in (ours, theirs)]
    assert_same(*slopes)


# -- the definition ----------------------------------------------------------------------------------------------------


def classes_below(nested: naive.Naive) -> list[int]:
    return [cls for child in nested for cls in classes_below(child)] if isinstance(nested, list) else [nested]


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("counted", [False, True])
def test_rows_by_the_definition(name: str, counted: bool) -> None:
    tree = without_projections(TREES[name])
    weight, bias = flat_layer(tree)
    counts = np.random.default_rng(3).integers(0, 4, tree.num_classes) + (tree.num_classes == 1)
    mass = np.where(counts > 0, counts, 0.5) if counted else np.ones(tree.num_classes)
    rows, biases = [np.empty((0, D))], [np.empty(0)]
    for _, entry, _ in naive.walk(tree.to_nested()):
        if not isinstance(entry, list):
            continue
        vector, offset = [], []
        for child in entry:
            classes = classes_below(child)
            share = mass[classes] / mass[classes].sum()
            vector.append(share @ weight[classes])
            offset.append(share @ bias[classes] - share @ np.log(share))
        if len(entry) == 2:
            vector, offset = [vector[0] - vector[1]], [offset[0] - offset[1]]
        rows.append(np.array(vector))
        biases.append(np.array(offset))
    start = start_of(tree, weight, bias, counts if counted else None)
    np.testing.assert_allclose(start.weights[0], np.concatenate(rows), rtol=0, atol=1e-12)
    np.testing.assert_allclose(start.biases[0], np.concatenate(biases), rtol=0, atol=1e-12)


def test_a_class_without_count_weighs_half_a_count() -> None:
    start = start_of(Tree.from_nested([0, [1, 2], 3]), np.array([[1.0], [2.0], [5.0], [7.0]]), None, [4, 1, 0, 2])
    np.testing.assert_allclose(start.weights[0][:, 0], [1, 3, 7, -3], rtol=1e-14)
    entropy = np.log(1.5) - np.log(0.5) / 3
    np.testing.assert_allclose(start.biases[0], [0, entropy, 0, 0], rtol=1e-14)


def test_only_shares_matter() -> None:
    weight, bias = flat_layer(MIXED)
    counts = np.arange(1.0, MIXED.num_classes + 1)
    first, second = (start_of(MIXED, weight, bias, counts * scale) for scale in (1, 1e-300))
    np.testing.assert_allclose(first.weights[0], second.weights[0], rtol=1e-12)
    np.testing.assert_allclose(first.biases[0], second.biases[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["chain", "mixed depths", "adaptive", "nested, growing again"])
def test_counts_of_any_range_give_finite_rows(name: str) -> None:
    tree = TREES[name]
    counts = 10.0 ** np.random.default_rng(0).integers(-320, 308, tree.num_classes)
    start = start_of(tree, *flat_layer(tree), counts)
    assert all(np.isfinite(array).all() for part in start for array in part)


# -- how good a start it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TREES if name != "one class"])
def test_far_better_than_zeros_on_data_of_the_flat_model(name: str) -> None:
    tree = TREES[name]
    weight, bias = flat_layer(tree, scale=0.7)
    inputs = some_inputs(3000)
    log_prob = flat_log_prob(inputs, weight, bias)
    targets = torch.multinomial(log_prob.exp(), 1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    counts = np.bincount(targets, minlength=tree.num_classes)
    layer = layer_of(tree, weight, bias, counts)
    start = layer(inputs, targets).loss
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    zero = layer(inputs, targets).loss
    best = -log_prob.gather(1, targets[:, None]).mean()
    assert zero - start > 2 / 3 * (zero - best)  # most of the way to the model that made the data


# -- projections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_square_projections_change_nothing(name: str) -> None:
    tree = without_projections(TREES[name])
    square = with_projections(tree, np.full(tree.num_internal, D))
    weight, bias = flat_layer(tree)
    start = start_of(square, weight, bias)
    assert len(start.projections) == tree.num_internal
    for matrix in start.projections:
        np.testing.assert_array_equal(matrix, np.eye(D))
    assert_same(
        layer_of(square, weight, bias).log_prob(some_inputs()), layer_of(tree, weight, bias).log_prob(some_inputs())
    )


def test_a_projection_that_grows_is_padded_with_zeros() -> None:
    tree = projected([0, 1, [2, 3, [4, 5]]], [2, 4, 4])
    start = start_of(tree, *flat_layer(tree))
    assert [matrix.shape for matrix in start.projections] == [(2, D), (4, 2), (4, 4)]
    np.testing.assert_array_equal(start.projections[1], np.eye(4, 2))
    np.testing.assert_array_equal(start.projections[2], np.eye(4))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("everywhere", [False, True])
def test_nothing_is_lost_where_class_vectors_differ_in_few_dimensions(name: str, rank: int, everywhere: bool) -> None:
    tree = TREES[name]
    rng = np.random.default_rng(0)
    dims = rng.integers(rank, D + 1, tree.num_internal)
    if not everywhere:
        dims = np.where(tree.projection_dim > 0, dims, 0)
    common = rng.normal(size=D) * 10  # in a direction of its own
    weight = common + rng.normal(size=(tree.num_classes, rank)) @ rng.normal(size=(rank, D))
    bias = rng.normal(size=tree.num_classes)
    counts = rng.uniform(0.1, 5, tree.num_classes)
    low = layer_of(with_projections(tree, dims), weight, bias, counts)
    full = layer_of(without_projections(tree), weight, bias, counts)
    assert_same(low.log_prob(some_inputs()), full.log_prob(some_inputs()))


@pytest.mark.parametrize("seed", range(8))
def test_projections_by_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, 25)
    weight, bias = flat_layer(tree, seed)
    counts = rng.uniform(0.1, 5, tree.num_classes)
    start = start_of(tree, weight, bias, counts)
    own = iter(start.projections)
    to_source: dict[int, Array] = {}  # of each internal node: from the raw input to what its decision sees
    for number, entry, steps in naive.walk(tree.to_nested()):
        if not isinstance(entry, list):
            continue
        above = to_source[steps[-1][0]] if steps else np.eye(D)
        to_source[number] = above
        dim = int(tree.projection_dim[number])
        if not dim:
            continue
        matrix = next(own)
        to_source[number] = matrix @ above
        assert matrix.shape == (dim, above.shape[0])
        if dim >= above.shape[0]:
            continue
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), rtol=0, atol=1e-12)
        classes = classes_below(entry)
        mapped = weight[classes] @ above.T
        moment = np.cov(mapped, rowvar=False, aweights=counts[classes], ddof=0).reshape(above.shape[0], -1)
        kept, most = np.trace(matrix @ moment @ matrix.T), np.linalg.svd(moment)[1][:dim].sum()
        np.testing.assert_allclose(kept, most, rtol=1e-9, atol=1e-12)
        random_axes = np.linalg.qr(rng.normal(size=matrix.T.shape))[0].T
        assert np.trace(random_axes @ moment @ random_axes.T) <= kept + 1e-12
    assert next(own, None) is None


def test_rows_of_wide_nodes_below_a_projection_are_centred() -> None:
    tree = projected([0, 1, [2, [3, 4], 5, 6]], [0, 3, 0])
    weight, bias = flat_layer(tree)
    counts = np.array([1.0, 2, 3, 4, 5, 6, 7])
    inside = start_of(tree, weight + 100, bias, counts).weights[1][:4]
    np.testing.assert_allclose(counts[2:] @ inside[[0, 1, 1, 2, 3]], np.zeros(3), rtol=0, atol=1e-10)
    outside = start_of(tree, weight + 100, bias, counts).weights[0]
    np.testing.assert_array_equal(outside[:2], weight[:2] + 100)


def test_counts_weigh_the_axes() -> None:
    weight = np.array([[3.0, 0, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]])
    tree = projected([0, 1, 2, 3], [1])
    for counts, axis in (([1, 1, 1, 1], 0), ([1, 1, 100, 100], 1)):
        (matrix,) = start_of(tree, weight, None, counts).projections
        np.testing.assert_allclose(np.abs(matrix), [np.eye(3)[axis]], rtol=0, atol=1e-12)


# -- sizes and refusals ------------------------------------------------------------------------------------------------


def test_one_class_has_no_rows() -> None:
    start = start_of(Tree.from_nested(0), np.ones((1, D)), None)
    assert [array.shape for part in start for array in part] == [(0, D), (0,)]


def test_arguments_stay_as_they_were() -> None:
    weight, bias = flat_layer(MIXED)
    counts = np.zeros(MIXED.num_classes)
    counts[0] = 1
    before = [array.copy() for array in (weight, bias, counts)]
    start_of(MIXED, weight, bias, counts)
    for array, copy in zip((weight, bias, counts), before, strict=True):
        np.testing.assert_array_equal(array, copy)


GOOD = np.zeros((12, D))


@pytest.mark.parametrize(
    ("weight", "bias", "counts", "message"),
    [
        (GOOD[:11], None, None, r"weight must have shape \(12, 6\).*but got \(11, 6\)"),
        (np.zeros((12, 5)), None, None, r"weight must have shape \(12, 6\).*but got \(12, 5\)"),
        (np.zeros(12), None, None, r"but got \(12,\)"),
        (np.where(np.arange(6) == 2, np.nan, GOOD), None, None, r"weight must be finite, but \(0, 2\) holds nan"),
        (np.where(np.arange(6) == 5, np.inf, GOOD), None, None, r"\(0, 5\) holds inf"),
        ([["a"] * 6] * 12, None, None, "weight must be an array of numbers, but got list"),
        (GOOD, np.zeros(11), None, r"bias must have shape \(12,\).*but got \(11,\)"),
        (GOOD, np.zeros((12, 1)), None, r"but got \(12, 1\)"),
        (GOOD, -np.inf * np.ones(12), None, r"bias must be finite, but \(0,\) holds -inf"),
        (GOOD, None, np.ones(11), "got 11 for 12 classes"),
        (GOOD, None, np.zeros(12), "at least one count must be > 0"),
        (GOOD, None, -np.ones(12), "finite and >= 0, but class 0 has -1.0"),
    ],
)
def test_a_flat_layer_that_does_not_fit(weight: Any, bias: Any, counts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows_from_linear(SoftmaxLayout.of(MIXED, D), weight, bias, counts)
    assert "\n" not in str(caught.value)
