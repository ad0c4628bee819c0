"""Leaf vectors: derived rows against means taken one node at a time, a flat layer, files, and refusals."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests import nested as naive
from tests.softmax.oracle import TREES, D
from treesearch import HierarchicalSoftmax, Tree
from treesearch.errors import DataError, TreeError
from treesearch.paths import class_paths, row_ptr
from treesearch.serving.modules import ScoringModule
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax, tied_leaf_vectors

CHAIN = Tree.from_nested([0, [1, [2, [3, 4, 5]]]])


def a_layer(tree: Tree, seed: int = 0, dtype: torch.dtype = torch.float64, counts: object = None) -> LeafVectorSoftmax:
    layer = LeafVectorSoftmax(D, tree, dtype=dtype, counts=counts)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def classes_below(nested: naive.Naive) -> list[int]:
    return [leaf for child in nested for leaf in classes_below(child)] if isinstance(nested, list) else [nested]


@settings(max_examples=40, deadline=None)
@given(naive.nested_trees(max_leaves=12), st.integers(0, 99))
def test_rows_are_means_over_the_classes_below(nested: naive.Naive, seed: int) -> None:
    tree = Tree.from_nested(nested)
    counts = np.random.default_rng(seed).integers(1, 9, tree.num_classes).astype(float)
    layer = a_layer(tree, seed, counts=counts)
    assert layer.leaf_biases is not None
    rows, begin = [], row_ptr(tree)
    for node, entry, _ in naive.walk(nested):
        if not isinstance(entry, list):
            continue
        planes = []
        for child in entry:
            own = classes_below(child)
            share = torch.from_numpy(counts[own] / counts[own].sum())
            bias = share @ layer.leaf_biases[own] - share @ share.log()
            planes.append(torch.cat([share @ layer.leaf_vectors[own], bias[None]]))
        rows += [planes[0] - planes[1]] if len(planes) == 2 else planes
        assert len(rows) == begin[node + 1]
    found = torch.cat([layer.weights[0], layer.biases[0][:, None]], dim=1)
    torch.testing.assert_close(found, torch.stack(rows) if rows else found[:0])


@pytest.mark.parametrize("name", ["flat", "huffman", "huffman 5-ary", "chain", "one class", "two classes"])
def test_all_methods_agree_with_each_other_and_with_the_rows(name: str) -> None:
    tree = TREES[name]
    for dtype in (torch.float64, torch.float32):
        layer = (
            a_layer(tree, dtype=dtype, counts=np.arange(tree.num_classes)) if tree.num_classes > 1 else a_layer(tree)
        )
        input = torch.randn(7, D, generator=torch.Generator().manual_seed(1)).to(layer.leaf_vectors.dtype)
        target = torch.arange(7) % tree.num_classes
        scores, plain = layer.log_prob(input), layer.to_rows()
        torch.testing.assert_close(scores.exp().sum(1), torch.ones_like(scores[:, 0]))
        torch.testing.assert_close(scores, plain.log_prob(input))
        torch.testing.assert_close(layer(input, target).output, scores.gather(1, target[:, None]).squeeze(1))
        torch.testing.assert_close(layer.nll(input, target), plain.nll(input, target))
        assert torch.equal(layer.predict(input), scores.argmax(1))
        torch.testing.assert_close(layer.topk(input, 1).log_prob[:, 0], scores.amax(1))
        torch.testing.assert_close(ScoringModule(layer)(input), scores)


def test_a_tree_of_depth_one_is_a_flat_layer_and_others_start_as_its_imitation() -> None:
    linear = nn.Linear(D, 40, dtype=torch.float64)
    input, target = torch.randn(9, D, dtype=torch.float64), torch.arange(9)
    flat = LeafVectorSoftmax.from_linear(linear, TREES["flat"])
    flat.nll(input, target).backward()
    nn.functional.cross_entropy(linear(input), target).backward()
    torch.testing.assert_close(flat.log_prob(input), linear(input).log_softmax(1))
    torch.testing.assert_close(flat.leaf_vectors.grad, linear.weight.grad)
    assert flat.leaf_biases is not None
    torch.testing.assert_close(flat.leaf_biases.grad, linear.bias.grad)

    counts = 1 / np.arange(1, 41)
    derived = LeafVectorSoftmax.from_linear(linear, TREES["huffman"], counts)
    torch.testing.assert_close(
        derived.log_prob(input), HierarchicalSoftmax.from_linear(linear, TREES["huffman"], counts).log_prob(input)
    )


def test_biases_can_predict_counts() -> None:
    counts = np.arange(1.0, 7)
    layer = LeafVectorSoftmax(D, CHAIN, dtype=torch.float64, counts=counts)
    layer.reset_parameters(counts)
    shares = layer.log_prob(torch.zeros(1, D, dtype=torch.float64)).exp()[0]
    torch.testing.assert_close(shares, torch.from_numpy(counts / counts.sum()))


def test_gradients_reach_the_leaf_vectors() -> None:
    layer, input = a_layer(CHAIN, counts=[5, 1, 1, 1, 1, 1]), torch.randn(3, D, dtype=torch.float64)

    def loss(vectors: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(  # type: ignore[no-any-return]
            layer, {"leaf_vectors": vectors, "leaf_biases": biases}, (input, torch.tensor([0, 3, 5]))
        ).loss

    parameters = [parameter.detach().requires_grad_() for parameter in layer.parameters()]
    assert torch.autograd.gradcheck(loss, parameters)
    assert torch.autograd.gradgradcheck(lambda values: layer._means(values).square(), parameters[:1])


@pytest.mark.parametrize("name", ["huffman 5-ary", "chain", "flat", "two classes"])
def test_tied_vectors_are_signed_sums_over_paths(name: str) -> None:
    tree = TREES[name]
    layer = HierarchicalSoftmax(D, tree, dtype=torch.float64)
    paths, begin = class_paths(tree), row_ptr(tree)
    expected = torch.zeros(tree.num_classes, D, dtype=torch.float64)
    for each in range(tree.num_classes):
        for step in range(paths.ptr[each], paths.ptr[each + 1]):
            node, branch = paths.node[step], paths.branch[step]
            binary = tree.arities[node] == 2
            row = layer.weights[0][begin[node] + (0 if binary else branch)]
            expected[each] += -row if binary and branch else row
    found = tied_leaf_vectors(layer)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(v.square().sum(), layer.weights[0])[0] for v in (found, expected)]
    torch.testing.assert_close(*grads)


def test_a_deep_chain_takes_linear_time() -> None:
    num_classes = 20_000
    parent = np.concatenate([np.arange(-1, num_classes - 2), np.arange(num_classes - 1), [num_classes - 2]])
    tree = Tree.from_parents(parent, np.arange(num_classes))
    layer = LeafVectorSoftmax(2, tree)
    (layer.weights[0].sum() + tied_leaf_vectors(layer.to_rows()).sum()).backward()
    assert layer.leaf_vectors.grad is not None
    assert torch.isfinite(layer.leaf_vectors.grad).all()


def test_saved_copied_and_loaded(tmp_path: Path) -> None:
    counts = np.arange(1.0, 7) / 3
    layer, input = a_layer(CHAIN, dtype=torch.float32, counts=counts), torch.randn(4, D)
    layer.save_pretrained(tmp_path / "layer")
    loaded = LeafVectorSoftmax.from_pretrained(tmp_path / "layer")
    other = LeafVectorSoftmax(D, CHAIN, counts=counts)
    other.load_state_dict(layer.state_dict())
    for twin in (loaded, other, copy.deepcopy(layer)):
        assert torch.equal(twin.log_prob(input), layer.log_prob(input))
    assert copy.deepcopy(layer).bfloat16().class_counts.dtype == torch.float64
    layer.bfloat16().save_pretrained(tmp_path / "small")
    assert LeafVectorSoftmax.from_pretrained(tmp_path / "small").leaf_vectors.dtype == torch.bfloat16

    with pytest.raises(DataError, match="must be a HierarchicalSoftmax, but is a 'LeafVectorSoftmax'"):
        HierarchicalSoftmax.from_pretrained(tmp_path / "layer")
    HierarchicalSoftmax(D, CHAIN).save_pretrained(tmp_path / "rows")
    with pytest.raises(DataError, match="must be a LeafVectorSoftmax"):
        LeafVectorSoftmax.from_pretrained(tmp_path / "rows")
    with pytest.raises(DataError, match="counts"):
        LeafVectorSoftmax(D, CHAIN).load_state_dict(layer.state_dict())


def test_what_does_not_fit_is_refused() -> None:
    projected = TREES["projected root"]
    with pytest.raises(TreeError, match="without_projections"):
        LeafVectorSoftmax(D, projected)
    with pytest.raises(TreeError, match="without_projections"):
        tied_leaf_vectors(HierarchicalSoftmax(D, projected))
    with pytest.raises(DataError, match="counts"):
        LeafVectorSoftmax(D, CHAIN, counts=[1, 2])
    with pytest.raises(DataError, match="one output per class"):
        LeafVectorSoftmax.from_linear(nn.Linear(D, 5), CHAIN)
    with pytest.raises(DataError, match=r"layer.parameters\(\)"):
        LeafVectorSoftmax(D, CHAIN).parameter_groups(np.ones(6))
    with pytest.raises(DataError, match="bias=True"):
        LeafVectorSoftmax(D, CHAIN, False).reset_parameters(np.ones(6))
    with pytest.raises(TreeError, match="must be a Tree"):
        LeafVectorSoftmax(D, [0, 1])  # type: ignore[arg-type]
