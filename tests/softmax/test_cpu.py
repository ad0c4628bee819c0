"""The compiled CPU kernels against the reference in float64: outputs and every gradient."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.softmax import oracle
from tests.softmax.oracle import TREES, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax


def make(name: str, *, bias: bool = True, seed: int = 0) -> HierarchicalSoftmax:
    return random_layer(TREES[name], seed=seed, bias=bias, dtype=torch.float32, kernel="cpu")


def with_gradients(
    layer: HierarchicalSoftmax, inputs: Tensor, targets: Tensor, scale: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Output, and the gradients of ``scale . output``: of the inputs, then of all parameters."""
    inputs = inputs.detach().requires_grad_()
    output = layer(inputs, targets).output
    wanted = [inputs, *layer.parameters()]
    grads = torch.autograd.grad((output * scale).sum(), wanted, allow_unused=True)
    filled = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, wanted, strict=True)]
    return output.detach(), filled


def assert_equals_reference(layer: HierarchicalSoftmax, inputs: Tensor, targets: Tensor, scale: Tensor) -> None:
    exact = copy.deepcopy(layer).double()
    exact.kernel = "reference"
    output, grads = with_gradients(layer, inputs, targets, scale)
    expected, expected_grads = with_gradients(exact, inputs.double(), targets, scale.double())
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    for grad, other in zip(grads, expected_grads, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("num", "bias"), [(1, True), (40, False), (700, True)])
def test_equals_the_reference(name: str, num: int, bias: bool) -> None:
    layer = make(name, bias=bias)
    inputs, targets = random_batch(layer, num, dtype=torch.float32)
    assert_equals_reference(layer, inputs, targets, torch.linspace(-1, 1, num) / num**0.5)


@pytest.mark.parametrize("seed", range(8))
def test_random_trees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = oracle.random_tree(rng, int(rng.integers(2, 80)))
    layer = random_layer(tree, seed=seed, dtype=torch.float32, kernel="cpu")
    inputs, targets = random_batch(layer, 50, seed=seed, dtype=torch.float32)
    assert_equals_reference(layer, inputs, targets, torch.from_numpy(rng.standard_normal(50).astype(np.float32) / 7))


@settings(deadline=None)
@given(oracle.projected_trees(), st.integers(0, 1000), st.integers(1, 40), st.booleans())
def test_any_tree(tree: Tree, seed: int, num: int, bias: bool) -> None:
    layer = random_layer(tree, seed=seed, bias=bias, dtype=torch.float32, kernel="cpu")
    inputs, targets = random_batch(layer, num, seed=seed, dtype=torch.float32)
    assert_equals_reference(layer, inputs, targets, torch.linspace(-1, 1, num) / num**0.5)


@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again"])
class TestCalls:
    def test_one_target_for_all(self, name: str) -> None:
        layer = make(name)
        inputs, _ = random_batch(layer, 100, dtype=torch.float32)
        assert_equals_reference(layer, inputs, torch.full((100,), 3), torch.full((100,), 0.01))

    def test_inputs_that_are_not_contiguous(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 20, dtype=torch.float32)
        wide = torch.full((20, 3 * layer.in_features), torch.nan)
        wide[:, ::3] = inputs
        for view in (wide[:, ::3], inputs.T.contiguous().T):
            assert not view.is_contiguous()
            assert_equals_reference(layer, view, targets, torch.ones(20) / 20)

    def test_parameters_that_are_not_contiguous(self, name: str) -> None:
        layer, plain = make(name), make(name)
        state = layer.state_dict()
        turned = {key: value.t().contiguous().t() if value.dim() == 2 else value for key, value in state.items()}
        layer.load_state_dict(turned, assign=True)
        assert not all(parameter.is_contiguous() for parameter in layer.parameters())
        inputs, targets = random_batch(layer, 20, dtype=torch.float32)
        one, other = (with_gradients(each, inputs, targets, torch.ones(20)) for each in (layer, plain))
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(layer.log_prob(inputs), plain.log_prob(inputs))

    def test_an_expanded_example(self, name: str) -> None:
        layer = make(name)
        classes = torch.arange(layer.tree.num_classes)
        row = torch.linspace(-1, 1, layer.in_features).requires_grad_()
        layer(row.expand(len(classes), -1), classes).output.exp().sum().backward()
        # probabilities sum to one whatever the input
        torch.testing.assert_close(row.grad, torch.zeros(layer.in_features), rtol=0, atol=1e-6)

    def test_no_gradient_comes_from_zero(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 20, dtype=torch.float32)
        _, grads = with_gradients(layer, inputs, targets, torch.zeros(20))
        assert not any(grad.any() for grad in grads)

    def test_a_gradient_is_the_sum_over_examples(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 12, dtype=torch.float32)
        scale = torch.linspace(-2, 1, 12)
        _, whole = with_gradients(layer, inputs, targets, scale)
        singles = [with_gradients(layer, inputs[i : i + 1], targets[i : i + 1], scale[i : i + 1])[1] for i in range(12)]
        torch.testing.assert_close(whole[0], torch.cat([grads[0] for grads in singles]), rtol=1e-5, atol=1e-6)
        for own, *parts in zip(whole[1:], *(grads[1:] for grads in singles), strict=True):
            torch.testing.assert_close(own, torch.stack(parts).sum(0), rtol=1e-5, atol=1e-5)

    def test_same_bits_on_repetition(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 300, dtype=torch.float32)
        first, second = (with_gradients(layer, inputs, targets, torch.ones(300)) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))

    def test_leaves_its_arguments_alone(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 30, dtype=torch.float32)
        before = [value.detach().clone() for value in (inputs, targets, *layer.parameters())]
        with_gradients(layer, inputs, targets, torch.ones(30))
        assert all(map(torch.equal, before, (inputs, targets, *layer.parameters())))

    @pytest.mark.parametrize("wanted", ["inputs", "weights", "biases", "projections"])
    def test_parts_of_the_gradient_that_nobody_wants(self, name: str, wanted: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 9, dtype=torch.float32)
        _, expected = with_gradients(layer, inputs, targets, torch.ones(9))
        layer.requires_grad_(False)
        own = [inputs] if wanted == "inputs" else list(getattr(layer, wanted))
        for value in own:
            value.requires_grad_()
        if not own:
            return
        layer(inputs, targets).output.sum().backward()
        for value, grad in zip([inputs, *layer.parameters()], expected, strict=True):
            assert (value.grad is not None) == any(value is other for other in own)
            assert value.grad is None or torch.equal(value.grad, grad)

    def test_backward_twice_gives_the_same_gradients(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 9, dtype=torch.float32)
        wanted = [inputs.requires_grad_(), *layer.parameters()]
        output = layer(inputs, targets).output
        first, _, again = (torch.autograd.grad((output * s).sum(), wanted, retain_graph=True) for s in (1.0, 3.0, 1.0))
        assert all(map(torch.equal, first, again))

    def test_without_gradients(self, name: str) -> None:
        layer = make(name)
        inputs, targets = random_batch(layer, 9, dtype=torch.float32)
        expected = layer(inputs, targets).output
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                output = layer(inputs, targets).output
                assert not output.requires_grad
                assert torch.equal(output, expected)


@pytest.mark.parametrize("name", ["huffman", "flat", "nested, growing again"])
def test_what_is_not_a_number_stays_where_it_is(name: str) -> None:
    layer = make(name)
    inputs, targets = random_batch(layer, 30, dtype=torch.float32)
    clean = with_gradients(layer, inputs, targets, torch.ones(30))
    inputs[4] = torch.nan
    output, grads = with_gradients(layer, inputs, targets, torch.ones(30))
    others = torch.arange(30) != 4
    assert output[4].isnan()
    assert torch.equal(output[others], clean[0][others])
    assert torch.equal(grads[0][others], clean[1][0][others])
    assert any(grad.isnan().any() for grad in grads[1:])


def test_large_logits() -> None:
    layer = make("mixed depths")
    inputs, targets = random_batch(layer, 20, dtype=torch.float32)
    output, grads = with_gradients(layer, inputs * 1e4, targets, torch.ones(20))
    assert output.min() < -1e3
    assert all(torch.isfinite(value).all() for value in (output, *grads))


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    layer = make("mixed depths")
    inputs, targets = random_batch(layer, 5, dtype=torch.float32)
    inputs.requires_grad_()
    with pytest.raises(DataError, match="no second derivatives; use kernel='reference'"):
        torch.autograd.grad(layer(inputs, targets).loss, inputs, create_graph=True)
