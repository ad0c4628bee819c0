"""The distribution over all classes: the compiled kernels against the reference, and what must agree with it.

NLL, the decisions on a path, prediction and top-k are all defined by `log_prob`; here it is their oracle.
"""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.softmax import oracle
from tests.softmax.oracle import KERNELS, TREES, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.paths import class_paths
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.layer import Kernel
from treesearch.softmax.nll import Reduction

SOME_TREES = ["one class", "two classes", "flat", "mixed depths", "adaptive", "nested, growing again"]


def make(tree: Tree, kernel: Kernel = "cpu", *, bias: bool = True, seed: int = 0) -> HierarchicalSoftmax:
    return random_layer(tree, dtype=torch.float32, kernel=kernel, bias=bias, seed=seed)


def exactly(layer: HierarchicalSoftmax) -> HierarchicalSoftmax:
    """The same layer on the reference kernel in float64."""
    exact = copy.deepcopy(layer).double()
    exact.kernel = "reference"
    return exact


def scores_and_gradients(layer: HierarchicalSoftmax, inputs: Tensor, scale: Tensor) -> tuple[Tensor, list[Tensor]]:
    """All scores, and the gradients of ``scale . scores``: of the inputs, then of all parameters."""
    inputs = inputs.detach().requires_grad_()
    scores = layer.log_prob(inputs)
    wanted = [inputs, *layer.parameters()]
    grads = torch.autograd.grad((scores * scale).sum(), wanted, allow_unused=True)
    return scores.detach(), [torch.zeros_like(v) if g is None else g for g, v in zip(grads, wanted, strict=True)]


def assert_equals_reference(layer: HierarchicalSoftmax, num: int, seed: int = 0) -> None:
    inputs, _ = random_batch(layer, num, seed=seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    size = num, layer.tree.num_classes
    scale = torch.randn(size, generator=generator) / (size[0] * size[1]) ** 0.5
    scores, grads = scores_and_gradients(layer, inputs, scale)
    expected, expected_grads = scores_and_gradients(exactly(layer), inputs.double(), scale.double())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)
    for grad, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad.double(), other, rtol=1e-5, atol=1e-5)


# -- the compiled kernels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("num", "bias"), [(1, True), (31, False), (32, True), (33, True), (70, False)])
def test_equals_the_reference(name: str, num: int, bias: bool) -> None:  # a block of examples is 32
    assert_equals_reference(make(TREES[name], bias=bias), num)


@settings(deadline=None, max_examples=40)
@given(oracle.projected_trees(), st.integers(0, 1000), st.sampled_from([1, 5, 33]), st.booleans())
def test_any_tree_equals_the_reference(tree: Tree, seed: int, num: int, bias: bool) -> None:
    assert_equals_reference(make(tree, seed=seed, bias=bias), num, seed)


@pytest.mark.parametrize("name", ["mixed depths", "random"])
def test_layouts_of_memory_do_not_matter(name: str) -> None:
    layer = make(TREES[name])
    inputs, targets = random_batch(layer, 40, dtype=torch.float32)
    weights, grads = scores_and_gradients(layer, inputs, torch.ones(40, layer.tree.num_classes))
    views = inputs.T.contiguous().T, torch.stack([inputs, inputs], 1)[:, 1]
    for view in views:
        same, same_grads = scores_and_gradients(layer, view, torch.ones(1, 1).expand(40, layer.tree.num_classes))
        for one, other in zip([weights, *grads], [same, *same_grads], strict=True):
            torch.testing.assert_close(one, other)
    # Here the gradient that comes in is not contiguous.
    by_scan = torch.autograd.grad(layer.log_prob(inputs).T.gather(0, targets[None]).sum(), layer.weights[0])
    by_path = torch.autograd.grad(layer(inputs, targets).output.sum(), layer.weights[0])
    torch.testing.assert_close(by_scan, by_path, rtol=1e-5, atol=1e-5)


def test_backward_twice_gives_the_same_gradients() -> None:
    layer = make(TREES["nested, growing again"])
    scores = layer.log_prob(random_batch(layer, 5, dtype=torch.float32)[0])
    parameters = list(layer.parameters())
    first = torch.autograd.grad(scores[:, 0].sum(), parameters, retain_graph=True, allow_unused=True)
    torch.autograd.grad(scores[:, 1].sum(), parameters, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(scores[:, 0].sum(), parameters, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if a is not None)


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    layer = make(TREES["mixed depths"])
    inputs = random_batch(layer, 5, dtype=torch.float32)[0].requires_grad_()
    with pytest.raises(DataError, match="no second derivatives; use kernel='reference'"):
        torch.autograd.grad(layer.log_prob(inputs).square().sum(), inputs, create_graph=True)
    layer.kernel = "reference"
    (first,) = torch.autograd.grad(layer.log_prob(inputs).square().sum(), inputs, create_graph=True)
    assert torch.autograd.grad(first.sum(), inputs)[0].any()


# -- what must agree with the distribution -----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [-100, 3, 1 << 40])
@pytest.mark.parametrize("weight_type", [None, torch.float32, torch.float64])
def test_nll_is_that_of_torch(
    kernel: Kernel, reduction: Reduction, ignore_index: int, weight_type: torch.dtype | None
) -> None:
    layer = make(TREES["nested, growing again"], kernel)
    exact, (inputs, targets) = exactly(layer), random_batch(layer, 30, dtype=torch.float32)
    targets[::4] = ignore_index
    weight = None if weight_type is None else torch.linspace(0, 2, 9, dtype=weight_type)
    loss = layer.nll(inputs, targets, reduction=reduction, ignore_index=ignore_index, weight=weight)
    expected = functional.nll_loss(
        exact.log_prob(inputs.double()),
        targets,
        None if weight is None else weight.double(),
        reduction=reduction,
        ignore_index=ignore_index,
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    scale = torch.linspace(-1, 1, 30) if reduction == "none" else torch.tensor(1.0)
    grads = torch.autograd.grad((loss * scale).sum(), list(layer.parameters()), allow_unused=True)
    others = torch.autograd.grad((expected * scale.double()).sum(), list(exact.parameters()), allow_unused=True)
    for grad, other in zip(grads, others, strict=True):
        dense = torch.zeros_like(other) if grad is None else grad.double()
        torch.testing.assert_close(dense, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SOME_TREES)
def test_nll_where_nothing_counts(kernel: Kernel, name: str) -> None:
    layer = make(TREES[name], kernel)
    inputs, ignored = random_batch(layer, 4, dtype=torch.float32)[0], torch.full((4,), -100)
    reductions: tuple[Reduction, ...] = ("mean", "sum", "none")
    for reduction in reductions:
        loss = layer.nll(inputs, ignored, reduction=reduction)
        expected = functional.nll_loss(layer.log_prob(inputs), ignored, reduction=reduction)
        torch.testing.assert_close(loss, expected, rtol=0, atol=0, equal_nan=True)  # the mean is NaN
    grads = torch.autograd.grad(
        layer.nll(inputs, ignored, reduction="sum"), list(layer.parameters()), allow_unused=True
    )
    assert not any(grad.any() for grad in grads if grad is not None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_ignored_target_may_be_anything_but_others_may_not(kernel: Kernel) -> None:
    layer, inputs = make(TREES["mixed depths"], kernel), torch.zeros(3, oracle.D)
    targets = torch.tensor([-1, 5, 99])
    for ignore_index, low, high in ((-1, 5, 99), (99, -1, 5), (-100, -1, 99)):
        with pytest.raises(DataError, match=f"but range from {low} to {high}"):
            layer.nll(inputs, targets, ignore_index=ignore_index)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", TREES)
def test_node_log_probs_are_the_decisions_of_the_path(kernel: Kernel, name: str) -> None:
    tree = TREES[name]
    layer, paths = make(tree, kernel), class_paths(tree)
    inputs, targets = random_batch(layer, 12, dtype=torch.float32)
    inputs.requires_grad_()
    log_prob, node = layer.node_log_probs(inputs, targets)
    assert (log_prob.dtype, node.dtype, log_prob.shape) == (torch.float32, torch.int64, (12, tree.max_depth))
    for row, target in enumerate(targets.tolist()):
        path = paths.node[paths.ptr[target] : paths.ptr[target + 1]].tolist()
        assert node[row].tolist() == path + [-1] * (tree.max_depth - len(path))
        assert not log_prob[row, len(path) :].any()
    # A decision's log-probability is log p(below the child) - log p(below the node), from all classes.
    scores = exactly(layer).log_prob(inputs.double())
    below = {leaf: {leaf} for leaf in range(tree.num_internal, tree.num_nodes)}
    for number in range(tree.num_nodes - 1, 0, -1):
        below.setdefault(int(tree.parent[number]), set()).update(below[number])
    leaf_of = np.argsort(tree.leaf_class) + tree.num_internal
    for row, target in enumerate(targets[:4].tolist()):
        steps = [*node[row][: tree.depths[target]].tolist(), int(leaf_of[target])]
        classes = [[int(tree.leaf_class[leaf - tree.num_internal]) for leaf in below[step]] for step in steps]
        reached = torch.stack([scores[row, own].logsumexp(0) for own in classes])
        own = log_prob[row, : len(steps) - 1].double()
        torch.testing.assert_close(own, reached.diff(), rtol=1e-5, atol=1e-5)
    # Gradients flow, to inputs and parameters, and are those of `forward`.
    wanted = [inputs, *layer.parameters()]
    grads = torch.autograd.grad(log_prob.sum(), wanted, allow_unused=True)
    others = torch.autograd.grad(layer(inputs, targets).output.sum(), wanted, allow_unused=True)
    for grad, other, value in zip(grads, others, wanted, strict=True):
        zero = torch.zeros_like(value)
        filled = zero if grad is None else grad, zero if other is None else other
        torch.testing.assert_close(*filled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", TREES)
def test_predictions_against_sorting(kernel: Kernel, name: str) -> None:
    layer = make(TREES[name], kernel)
    inputs, _ = random_batch(layer, 25, dtype=torch.float32)
    scores = exactly(layer).log_prob(inputs.double()).detach()
    order = scores.sort(descending=True, stable=True).indices
    assert torch.equal(layer.predict(inputs), order[:, 0])
    for k in {1, min(3, scores.shape[1]), scores.shape[1]}:
        values, classes, _, exact = layer.topk(inputs, k)
        expected = scores.gather(1, order[:, :k])
        torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scores.gather(1, classes), expected, rtol=1e-5, atol=1e-5)  # up to rounding
        assert all(len(set(row)) == k for row in classes.tolist())
        assert exact.all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["two classes", "flat", "huffman", "mixed depths", "random"])
def test_of_equals_the_lowest_class_is_predicted(kernel: Kernel, name: str) -> None:
    layer = make(TREES[name], kernel)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()  # a class of depth d in a tree of arities k has probability 1 / (k_1 .. k_d)
    inputs, _ = random_batch(layer, 3, dtype=torch.float32)
    scores = layer.log_prob(inputs)[0]
    best = (scores > scores.max() - 1e-6).nonzero()[:, 0]
    if name in ("two classes", "flat"):
        assert best.tolist() == list(range(len(scores)))
        assert layer.predict(inputs).tolist() == [0] * 3
        assert layer.topk(inputs, len(scores)).indices.tolist() == [best.tolist()] * 3
    assert torch.equal(layer.predict(inputs), layer.log_prob(inputs).argmax(1))
    assert torch.equal(layer.predict(inputs), best[0].expand(3))
