"""The reference kernel in float64: against a naive walk, torch's own layers, and numerical derivatives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.softmax import oracle
from tests.softmax.oracle import TREES, random_batch, random_layer
from treesearch import Tree
from treesearch.softmax import HierarchicalSoftmax, reference
from treesearch.softmax.reference_decisions import grouped_matmul


@pytest.mark.parametrize("num_classes", [3, 7, 600])
def test_a_flat_tree_is_linear_and_log_softmax(num_classes: int) -> None:
    linear = nn.Linear(9, num_classes, dtype=torch.float64)
    layer = HierarchicalSoftmax(9, Tree.from_nested(list(range(num_classes))), dtype=torch.float64)
    with torch.no_grad():
        layer.weights[0].copy_(linear.weight)
        layer.biases[0].copy_(linear.bias)
    inputs = torch.randn(11, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(11) % num_classes
    expected = linear(inputs).log_softmax(-1)
    torch.testing.assert_close(layer.log_prob(inputs), expected, rtol=0, atol=1e-12)
    output, loss = layer(inputs, targets)
    torch.testing.assert_close(output, expected.gather(1, targets[:, None])[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(loss, nn.functional.nll_loss(expected, targets), rtol=0, atol=1e-12)


def test_two_classes_are_one_sigmoid() -> None:
    layer = random_layer(TREES["two classes"])
    inputs, _ = random_batch(layer, 5)
    logit = inputs @ layer.weights[0][0] + layer.biases[0][0]
    expected = torch.stack([nn.functional.logsigmoid(logit), nn.functional.logsigmoid(-logit)], -1)
    torch.testing.assert_close(layer.log_prob(inputs), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("bias", [True, False])
def test_against_the_naive_walk(name: str, bias: bool) -> None:
    layer = random_layer(TREES[name], bias=bias)
    inputs, _ = random_batch(layer, 3)
    expected = [oracle.class_log_probs(layer, row) for row in inputs.numpy()]
    np.testing.assert_allclose(layer.log_prob(inputs).detach(), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None)
@given(oracle.projected_trees(), st.integers(0, 1000), st.integers(1, 12))
def test_any_tree_against_the_naive_walk(tree: Tree, seed: int, num: int) -> None:
    layer = random_layer(tree, seed=seed)
    inputs, targets = random_batch(layer, num, seed=seed)
    expected = np.array([oracle.class_log_probs(layer, row) for row in inputs.numpy()])
    output, loss = layer(inputs, targets)
    np.testing.assert_allclose(layer.log_prob(inputs).detach(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(output.detach(), expected[np.arange(num), targets], rtol=1e-10, atol=1e-12)
    assert loss.item() == pytest.approx(-expected[np.arange(num), targets].mean(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", TREES)
def test_probabilities_sum_to_one(name: str) -> None:
    layer = random_layer(TREES[name])
    totals = layer.log_prob(random_batch(layer, 20)[0]).exp().sum(-1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", TREES)
def test_forward_agrees_with_log_prob_for_every_class(name: str) -> None:
    layer = random_layer(TREES[name])
    classes = torch.arange(layer.tree.num_classes)
    for row in random_batch(layer, 2)[0]:
        output, loss = layer(row.expand(len(classes), -1), classes)
        torch.testing.assert_close(output, layer.log_prob(row), rtol=0, atol=1e-10)
        torch.testing.assert_close(loss, -output.mean())


@pytest.mark.parametrize("name", TREES)
def test_both_directions_have_the_same_gradients(name: str) -> None:
    layer = random_layer(TREES[name])
    inputs, targets = random_batch(layer, 90)
    inputs.requires_grad_()
    wanted = [inputs, *layer.parameters()]
    scale = torch.linspace(-1, 2, 90, dtype=torch.float64)
    by_path = torch.autograd.grad((layer(inputs, targets).output * scale).sum(), wanted, allow_unused=True)
    scores = layer.log_prob(inputs).gather(1, targets[:, None])[:, 0]
    by_scan = torch.autograd.grad((scores * scale).sum(), wanted, allow_unused=True)
    for one, other, value in zip(by_path, by_scan, wanted, strict=True):
        zero = torch.zeros_like(value)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["binary root, projected", "nested, growing again", "projection below a gap"])
def test_gradcheck(name: str) -> None:
    layer = random_layer(TREES[name])
    inputs, targets = random_batch(layer, 3)
    parameters = [list(group) for group in (layer.weights, layer.biases, layer.projections)]
    sizes = [len(group) for group in parameters]

    def as_function(of: Callable[..., Tensor], *middle: Tensor) -> Callable[..., Tensor]:
        def function(x: Tensor, *flat: Tensor) -> Tensor:
            parts = iter(flat)
            return of(
                reference.Tables.of(layer.layout), x, *middle, *([next(parts) for _ in range(size)] for size in sizes)
            )

        return function

    values = [value.detach().requires_grad_() for value in (inputs, *(p for group in parameters for p in group))]
    assert torch.autograd.gradcheck(as_function(reference.target_log_prob, targets), values)
    assert torch.autograd.gradcheck(as_function(reference.full_log_prob), values)


def test_logits_beyond_the_range_of_exp() -> None:
    layer = random_layer(TREES["mixed depths"])
    inputs, targets = random_batch(layer, 8)
    inputs *= 1e5
    output, _ = layer(inputs, targets)
    assert torch.isfinite(output).all()
    assert output.min() < -1e4
    torch.testing.assert_close(layer.log_prob(inputs).gather(1, targets[:, None])[:, 0], output)


def test_grouped_matmul_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(5, 3, 4, generator=generator)
    # group sizes 1, 8, 9, 64 and 70 stand on both sides of the bounds of the size classes; one group is empty
    group = torch.repeat_interleave(torch.tensor([4, 0, 3, 1]), torch.tensor([1, 8, 9, 134]))
    group[:70] = group[:70].flip(0)
    vectors = torch.randn(group.numel(), 4, generator=generator)
    expected = torch.stack([matrices[g] @ v for g, v in zip(group.tolist(), vectors, strict=True)])
    torch.testing.assert_close(grouped_matmul(vectors, group, matrices.__getitem__), expected)
