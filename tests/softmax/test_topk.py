"""Best-first top-k against sorting the scores of all classes: results, ties, and which nodes were visited at all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.nested import walk
from tests.softmax.oracle import TREES, D, class_log_probs, projected_trees, random_batch, random_layer, random_tree
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.topk import TopK, best_first, from_full, topk_tables

DTYPES = [torch.float64, torch.float32]


def chain(num_classes: int) -> Tree:
    """Every class but the last leaves the path to it at a node of its own."""
    nested: Any = num_classes - 1
    for cls in range(num_classes - 2, -1, -1):
        nested = [cls, nested]
    return Tree.from_nested(nested)


SHAPES = {
    **TREES,
    "long chain": chain(300),  # deeper than what the search starts with ..
    "bush": Tree.from_nested([[2 * i, 2 * i + 1] for i in range(150)]),  # .. and with more open nodes
}


def search(layer: HierarchicalSoftmax, inputs: Tensor, k: int, *, max_nodes: int | None = None) -> TopK:
    parameters = list(layer.weights), list(layer.biases), list(layer.projections)
    return best_first(topk_tables(layer.layout), inputs, k, *parameters, max_nodes=max_nodes)


def scores_of(layer: HierarchicalSoftmax, inputs: Tensor) -> NDArray[Any]:
    return layer.log_prob(inputs).detach().numpy()


def brute_force(scores_BC: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Ids of the k best, of equals the smaller first: a stable sort."""
    return np.argsort(-scores_BC, axis=1, kind="stable")[:, :k]


def some_k(num_classes: int) -> list[int]:
    if num_classes <= 12:
        return list(range(1, num_classes + 1))
    return [1, 2, 7, num_classes // 2, num_classes - 1, num_classes]


def assert_equals_brute_force(layer: HierarchicalSoftmax, inputs: Tensor, ks: Sequence[int]) -> None:
    scores = scores_of(layer, inputs)
    for k in ks:
        found, ids = search(layer, inputs, k), brute_force(scores, k)
        assert found.indices.tolist() == ids.tolist()
        np.testing.assert_allclose(found.log_prob, np.take_along_axis(scores, ids, 1), rtol=1e-12, atol=1e-12)
        assert found.exact.all()
        assert (found.num_nodes <= layer.tree.num_internal).all()


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_brute_force(name: str, bias: bool) -> None:
    layer = random_layer(SHAPES[name], bias=bias)
    assert_equals_brute_force(layer, random_batch(layer, 5)[0], some_k(layer.tree.num_classes))


@settings(max_examples=60, deadline=None)
@given(projected_trees(), st.integers(0, 2**31), st.booleans())
def test_equals_brute_force_on_any_tree(tree: Tree, seed: int, bias: bool) -> None:
    layer = random_layer(tree, seed=seed, bias=bias)
    assert_equals_brute_force(layer, random_batch(layer, 2, seed=seed)[0], some_k(tree.num_classes))


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force_on_larger_trees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(500, 2001)))
    layer = random_layer(tree, seed=seed)
    assert_equals_brute_force(layer, random_batch(layer, 3, seed=seed)[0], [1, 10, 100, tree.num_classes])


@pytest.mark.parametrize("name", SHAPES)
def test_single_precision(name: str) -> None:
    layer = random_layer(SHAPES[name], dtype=torch.float32)
    inputs, _ = random_batch(layer, 5, dtype=torch.float32)
    scores = scores_of(layer.double(), inputs.double())
    layer.float()
    for k in some_k(layer.tree.num_classes):
        found, ids = search(layer, inputs, k), brute_force(scores, k)
        assert found.log_prob.dtype == torch.float32
        best = np.take_along_axis(scores, ids, 1)
        np.testing.assert_allclose(found.log_prob, best, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(scores, found.indices.numpy(), 1), best, rtol=1e-5, atol=1e-5)
        assert all(len(set(row)) == k for row in found.indices.tolist())
        ranked = -np.sort(-scores, axis=1)
        gap = np.pad(-np.diff(ranked, axis=1), ((0, 0), (1, 1)), constant_values=np.inf)
        clear = np.minimum(gap[:, :-1], gap[:, 1:])[:, :k] > 1e-4
        np.testing.assert_array_equal(found.indices.numpy()[clear], ids[clear])


def test_many_small_terms_are_not_lost_beside_a_large_one() -> None:
    num_small = 100_000
    layer = HierarchicalSoftmax(1, build_tree("flat", counts=np.ones(num_small + 1)), bias=False)
    with torch.no_grad():
        layer.weights[0].fill_(-16.7)
        layer.weights[0][70] = 0.0
    found = search(layer, torch.ones(1, 1), 4)
    top = -np.log1p(num_small * np.exp(np.float64(np.float32(-16.7))))
    assert found.indices.tolist() == [[70, 0, 1, 2]]
    np.testing.assert_allclose(found.log_prob[0], [top, *[top - 16.7] * 3], rtol=1e-6)
    assert len(set(found.log_prob[0, 1:].tolist())) == 1, "equal rows are exact ties"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_logits(dtype: torch.dtype) -> None:
    # integers of thousands: a sigmoid is 0 or 1, the sums of logits are exact
    for tree in (chain(61), build_tree("balanced", counts=np.ones(64))):
        layer = HierarchicalSoftmax(2, tree, bias=False, dtype=dtype, kernel="reference")
        rng = np.random.default_rng(0)
        with torch.no_grad():
            layer.weights[0].copy_(torch.from_numpy(rng.choice([-1.0, 1.0], layer.weights[0].shape)))
        inputs = torch.tensor([[3000.0, 7000.0], [-9000.0, 1000.0], [4000.0, 2000.0]], dtype=dtype)
        scores = scores_of(layer.double(), inputs.double())
        layer.to(dtype)
        assert scores.min() < -1e4
        for k in (1, 5, tree.num_classes):
            found, ids = search(layer, inputs, k), brute_force(scores, k)
            assert found.indices.tolist() == ids.tolist()
            assert found.log_prob.tolist() == np.take_along_axis(scores, ids, 1).tolist()


def test_classes_of_no_probability_are_found_too() -> None:
    layer = HierarchicalSoftmax(1, Tree.from_nested([0, [1, [2, 3]], 4]), bias=False, kernel="reference")
    with torch.no_grad():
        layer.weights[0].copy_(torch.tensor([[0.0], [-torch.inf], [0.0], [0.0], [0.0]]))
    found = search(layer, torch.ones(1, 1), 5)
    assert found.indices.tolist() == [[0, 4, 1, 2, 3]]
    np.testing.assert_allclose(found.log_prob, [[np.log(0.5)] * 2 + [-np.inf] * 3], rtol=1e-6)
    assert found.exact.tolist() == [True]


# -- ties --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tree", [build_tree("balanced", counts=np.ones(64)), TREES["flat"], TREES["two classes"]])
def test_all_classes_are_equal(tree: Tree, dtype: torch.dtype) -> None:
    layer = HierarchicalSoftmax(D, tree, bias=False, dtype=dtype, kernel="reference")
    torch.nn.init.zeros_(layer.weights[0])
    for k in some_k(tree.num_classes):
        found = search(layer, torch.ones(2, D, dtype=dtype), k)
        assert found.indices.tolist() == [list(range(k))] * 2
        np.testing.assert_allclose(found.log_prob, -np.log(tree.num_classes), rtol=1e-6)
        assert found.exact.all()


@pytest.mark.parametrize("name", [*TREES, "bush"])
def test_ties_of_a_tree_without_preferences(name: str) -> None:
    tree = SHAPES[name]
    layer = random_layer(tree)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    arity: dict[int, int] = {}
    scores = np.empty((1, tree.num_classes))
    for number, entry, steps in walk(tree.to_nested()):
        if isinstance(entry, list):
            arity[number] = len(entry)
        else:
            scores[0, entry] = sum(-float(np.log(arity[node])) for node, _ in steps)  # from the root down
    for k in some_k(tree.num_classes):
        assert (
            search(layer, torch.ones(1, D, dtype=torch.float64), k).indices.tolist() == brute_force(scores, k).tolist()
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", [1, 5, 37, 64, 131])
def test_equal_rows_are_ties(features: int, dtype: torch.dtype) -> None:
    # rows 0 .. 4 over and over, wherever they stand in memory
    rng = np.random.default_rng(features)
    kind = rng.integers(0, 5, 90)
    layer = random_layer(build_tree("flat", counts=np.ones(90)), in_features=features, dtype=dtype)
    with torch.no_grad():
        for parameter in (layer.weights[0], layer.biases[0]):
            parameter.copy_(parameter[kind])
    inputs, _ = random_batch(layer, 20, dtype=dtype)
    logits = inputs.double() @ layer.weights[0].double().T + layer.biases[0].double()
    logit_BC = logits.detach().numpy()
    for i in range(20):
        level = {int(row): logit_BC[i, np.flatnonzero(kind == row)[0]] for row in set(kind)}
        expected = sorted(range(90), key=lambda cls, level=level: (-level[int(kind[cls])], cls))  # type: ignore[misc]
        for k in (1, 8, 45, 90):
            assert search(layer, inputs[i : i + 1], k).indices[0].tolist() == expected[:k]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_binary_nodes_are_ties(dtype: torch.dtype) -> None:
    layer = HierarchicalSoftmax(67, Tree.from_nested([[0, 1], [2, 3]]), bias=False, dtype=dtype, kernel="reference")
    inputs = torch.randn(30, 67, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        layer.weights[0][0] = 0
        layer.weights[0][2] = layer.weights[0][1]
    first = (inputs @ layer.weights[0][1] > 0).tolist()
    expected = [[0, 2, 1, 3] if left else [1, 3, 0, 2] for left in first]
    assert {True, False} == set(first)
    for k in range(1, 5):
        assert search(layer, inputs, k).indices.tolist() == [ids[:k] for ids in expected]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tie_below_a_node_as_probable_as_the_last_result(dtype: torch.dtype) -> None:
    # the root leaves it open, every other node is certain: classes 0 and 4 share first place, and 0 lies deeper
    tree = Tree.from_nested([[[[0, 1], 2], 3], [4, 5]])
    layer = HierarchicalSoftmax(1, tree, dtype=dtype, kernel="reference")
    with torch.no_grad():
        layer.weights[0].zero_()
        layer.biases[0].copy_(torch.tensor([0.0, 1e4, 1e4, 1e4, 1e4]))
    for k in range(1, 7):
        found = search(layer, torch.ones(1, 1, dtype=dtype), k)
        assert found.indices.tolist() == [[0, 4, 1, 2, 3, 5][:k]]


# -- what is visited ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize(
    "name", ["huffman", "chain", "adaptive", "nested, growing again", "random, large", "long chain"]
)
def test_no_node_less_probable_than_the_last_result_is_visited(name: str, k: int) -> None:
    tree = SHAPES[name]
    k = min(k, tree.num_classes)
    layer = random_layer(tree)
    inputs, _ = random_batch(layer, 6)
    for i in range(6):
        probability = np.exp(class_log_probs(layer, inputs[i].numpy()))
        last = np.sort(probability)[-k]
        worth = tree.node_mass(probability)[: tree.num_internal] > last * (1 - 1e-9)
        per_level = np.bincount(tree.node_depths[: tree.num_internal][worth])
        assert per_level.max() <= 1 / last
        found = search(layer, inputs[i : i + 1], k)
        assert found.num_nodes.tolist() == [worth.sum()]
        # what the others hold is never read: spoil it
        spoilt = random_layer(tree)
        with torch.no_grad():
            for node in np.flatnonzero(~worth):
                width, row = layer.layout.node_width[node], layer.layout.node_row[node]
                rows = slice(row, row + layer.layout.num_rows[node])
                spoilt.weights[width][rows] = torch.nan
                spoilt.biases[width][rows] = torch.nan
                if tree.projection_dim[node]:
                    torch.nn.init.constant_(spoilt.projections[layer.layout.node_scope[node]], torch.nan)
        again = search(spoilt, inputs[i : i + 1], k)
        assert all(map(torch.equal, found, again))


def widest_level(tree: Tree) -> int:
    return int(np.bincount(tree.node_depths[: tree.num_internal], minlength=1).max())


def beam(layer: HierarchicalSoftmax, x_D: Tensor, k: int, max_nodes: int) -> tuple[list[int], bool]:
    """Ids that a beam finds, and whether none of the nodes that it leaves can matter: level by level, in the open."""
    tree = layer.tree
    log_prob_C = class_log_probs(layer, x_D.numpy())
    mass = np.log(tree.node_mass(np.exp(log_prob_C)))
    level, reached, left = [0], [], [-np.inf]
    while level:
        below = [int(child) for node in level for child in tree.children(node)]
        reached += [int(tree.leaf_class[child - tree.num_internal]) for child in below if child >= tree.num_internal]
        inner = sorted((child for child in below if child < tree.num_internal), key=lambda node: -mass[node])
        level = inner[:max_nodes]
        left += [mass[node] for node in inner[max_nodes:]]
    best = sorted(reached, key=lambda cls: (-log_prob_C[cls], cls))[:k]
    return best, len(best) == k and bool(max(left) < log_prob_C[best[-1]] or len(left) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("max_nodes", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "name", ["huffman", "mixed depths", "adaptive", "nested, growing again", "random, large", "bush"]
)
def test_a_beam(name: str, max_nodes: int) -> None:
    layer = random_layer(SHAPES[name])
    tree, inputs = layer.tree, random_batch(layer, 8)[0]
    certain = []
    for k in some_k(tree.num_classes):
        found = search(layer, inputs, k, max_nodes=max_nodes)
        best = brute_force(scores_of(layer, inputs), k)
        for i in range(8):
            ids, exact = beam(layer, inputs[i], k, max_nodes)
            missing = k - len(ids)
            assert found.indices[i].tolist() == ids + [-1] * missing
            assert found.log_prob[i, len(ids) :].tolist() == [-np.inf] * missing
            np.testing.assert_allclose(
                found.log_prob[i, : len(ids)], class_log_probs(layer, inputs[i].numpy())[ids], rtol=1e-12, atol=1e-12
            )
            assert bool(found.exact[i]) == exact
            assert not exact or ids == best[i].tolist()
            assert found.num_nodes[i] <= max_nodes * tree.max_depth
            certain.append(exact)
    assert all(certain) == (widest_level(tree) <= max_nodes)  # for k = C every node matters


@pytest.mark.parametrize("name", SHAPES)
def test_a_beam_as_wide_as_the_tree_is_no_beam(name: str) -> None:
    layer = random_layer(SHAPES[name])
    tree, inputs = layer.tree, random_batch(layer, 3)[0]
    for k in some_k(tree.num_classes):
        free, wide = search(layer, inputs, k), search(layer, inputs, k, max_nodes=max(widest_level(tree), 1))
        assert all(map(torch.equal, free, wide))


def test_a_dropped_node_as_probable_as_the_last_result_may_matter() -> None:
    layer = HierarchicalSoftmax(1, Tree.from_nested([[0, 1], [2, 3], 4]), bias=False, kernel="reference")
    torch.nn.init.zeros_(layer.weights[0])
    found = search(layer, torch.ones(1, 1), 1, max_nodes=1)
    assert (found.indices.tolist(), found.exact.tolist()) == ([[4]], [False])  # all it knows of is 1/3 or less


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["huffman", "flat", "nested, growing again", "random, large", "long chain"])
def test_examples_do_not_influence_each_other(name: str, dtype: torch.dtype) -> None:
    layer = random_layer(SHAPES[name], dtype=dtype)
    inputs, _ = random_batch(layer, 9, dtype=dtype)
    inputs[4] = torch.nan
    k = min(6, layer.tree.num_classes)
    for max_nodes in (None, 2):
        together = search(layer, inputs, k, max_nodes=max_nodes)
        backwards = search(layer, inputs.flip(0), k, max_nodes=max_nodes)
        for part, other in zip(together, backwards, strict=True):
            alone = [search(layer, inputs[i : i + 1], k, max_nodes=max_nodes) for i in range(9)]
            assert torch.equal(part.nan_to_num(9), other.flip(0).nan_to_num(9))
            index = [p is part for p in together].index(True)
            assert torch.equal(part.nan_to_num(9), torch.cat([single[index] for single in alone]).nan_to_num(9))


def test_one_class_is_certain() -> None:
    layer = random_layer(TREES["one class"])
    found = search(layer, torch.full((2, D), torch.nan, dtype=torch.float64), 1, max_nodes=1)
    assert [part.tolist() for part in found] == [[[0.0]] * 2, [[0]] * 2, [0] * 2, [True] * 2]


@pytest.mark.parametrize("name", ["one class", "nested, growing again"])
def test_an_empty_batch(name: str) -> None:
    found = search(random_layer(TREES[name]), torch.zeros(0, D, dtype=torch.float64), 1)
    assert [(part.shape, part.dtype) for part in found] == [
        ((0, 1), torch.float64),
        ((0, 1), torch.int64),
        ((0,), torch.int64),
        ((0,), torch.bool),
    ]


def test_tensors_that_are_not_contiguous() -> None:
    layer = random_layer(TREES["nested, growing again"])
    inputs, _ = random_batch(layer, 4)
    expected = search(layer, inputs, 9)
    scattered = inputs.T.contiguous().T.requires_grad_()
    parameters = [[p.T.contiguous().T for p in group] for group in (layer.weights, layer.projections)]
    found = best_first(topk_tables(layer.layout), scattered, 9, parameters[0], list(layer.biases), parameters[1])
    assert all(map(torch.equal, expected, found))
    assert not found.log_prob.requires_grad


def test_leaves_its_arguments_alone() -> None:
    layer = random_layer(TREES["adaptive"])
    inputs, _ = random_batch(layer, 4)
    before = [value.detach().clone() for value in (inputs, *layer.parameters())]
    search(layer, inputs, 40)
    assert all(map(torch.equal, before, (inputs, *layer.parameters())))


@pytest.mark.parametrize("k", [0, 10, -1, 2.0])
def test_k_out_of_range(k: Any) -> None:
    layer = random_layer(TREES["nested, growing again"])
    message = rf"k must lie in \[1, 9\], but got {k}$"
    with pytest.raises(DataError, match=message):
        search(layer, torch.zeros(1, D, dtype=torch.float64), k)
    with pytest.raises(DataError, match=message):
        from_full(torch.zeros(2, 9), k, num_nodes=6)


@pytest.mark.parametrize("max_nodes", [0, -3, 1.5])
def test_a_beam_without_width(max_nodes: Any) -> None:
    layer = random_layer(TREES["huffman"])
    with pytest.raises(
        DataError, match=f"max_nodes must be an integer >= 1, or None for no limit, but got {max_nodes}$"
    ):
        search(layer, torch.zeros(1, D, dtype=torch.float64), 1, max_nodes=max_nodes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(1, D), "but got torch.float32 and torch.float64 on cpu; score all classes instead"),
        (torch.zeros(1, D, dtype=torch.float64, device="meta"), "and torch.float64 on meta"),
        (torch.zeros(1, D, dtype=torch.bfloat16), "but got torch.bfloat16"),
        (torch.zeros(1, D + 1, dtype=torch.float64), r"input must have shape \[B, 6\], but got \(1, 7\)"),
        (torch.zeros(D, dtype=torch.float64), r"input must have shape \[B, 6\], but got \(6,\)"),
    ],
    ids=["type", "device", "half", "features", "dimensions"],
)
def test_inputs_that_do_not_fit(inputs: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        search(random_layer(TREES["huffman"]), inputs, 1)
    assert "\n" not in str(caught.value)


# -- what is not a number ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", SHAPES)
def test_the_search_ends(name: str, value: float, dtype: torch.dtype) -> None:
    layer = random_layer(SHAPES[name], dtype=dtype)
    tree = layer.tree
    inputs = torch.full((2, D), value, dtype=dtype)
    for k in some_k(tree.num_classes):
        found = search(layer, inputs, k)
        for ids in found.indices.tolist():
            assert len(set(ids)) == k
            assert 0 <= min(ids) <= max(ids) < tree.num_classes
        if value != value and tree.num_internal:
            assert found.log_prob.isnan().all()
            assert not found.exact.any()
            assert (found.num_nodes <= tree.max_depth + k).all()
        search(layer, inputs, k, max_nodes=2)


@pytest.mark.parametrize(
    ("bias", "k", "ids", "exact"), [(3.0, 1, [0], True), (-3.0, 1, [2], False), (-3.0, 2, [2, 3], False)]
)
def test_a_node_that_is_not_a_number(bias: float, k: int, ids: list[int], exact: bool) -> None:
    layer = HierarchicalSoftmax(1, Tree.from_nested([[0, 1], [2, 3]]), kernel="reference")
    with torch.no_grad():
        layer.weights[0].zero_()
        layer.weights[0][2] = torch.nan
        layer.biases[0].copy_(torch.tensor([bias, 0.0, 0.0]))  # the root goes to the left, or to what is not a number
    found = search(layer, torch.ones(1, 1), k)
    assert (found.indices[0].tolist(), found.exact.tolist()) == (ids, [exact])
    assert found.log_prob.isnan().tolist() == [[not exact] * k]


# -- from the scores of all classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("levels", [1, 4, 1000])
def test_from_full_equals_a_stable_sort(levels: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = -torch.randint(levels, (3, 4, 30), generator=generator).to(dtype)
    scores[0, 1, ::3] = -torch.inf
    for k in (1, 2, 7, 29, 30):
        found = from_full(scores, k, num_nodes=17)
        expected = [
            [sorted(range(30), key=lambda cls, row=row: (-row[cls], cls))[:k] for row in rows]  # type: ignore[misc]
            for rows in scores.tolist()
        ]
        assert found.indices.tolist() == expected
        assert torch.equal(found.log_prob, scores.gather(-1, found.indices))
        assert found.num_nodes.tolist() == [[17] * 4] * 3
        assert found.exact.all()


def test_from_full_takes_what_is_not_a_number_for_the_largest() -> None:
    nan = torch.nan
    scores = torch.tensor([[-1.0, nan, -0.5, nan], [nan, nan, nan, nan], [-1.0, -2.0, -torch.inf, -2.0]])
    found = from_full(scores, 3, num_nodes=1)
    assert found.indices.tolist() == [[1, 3, 2], [0, 1, 2], [0, 1, 3]]
    assert found.log_prob.isnan().tolist() == [[True, True, False], [True] * 3, [False] * 3]
    assert found.exact.tolist() == [False, False, True]


def test_from_full_agrees_with_the_search() -> None:
    layer = random_layer(TREES["random, large"])
    inputs, _ = random_batch(layer, 5)
    full, found = from_full(layer.log_prob(inputs), 20, num_nodes=0), search(layer, inputs, 20)
    assert torch.equal(full.indices, found.indices)
    torch.testing.assert_close(full.log_prob, found.log_prob)
