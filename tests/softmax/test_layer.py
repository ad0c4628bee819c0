"""What the layer promises to its user: calls, initial values, one-line errors; on every kernel alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.softmax.oracle import KERNELS, TREES, D, projected, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError, TreeError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.initialization import log_mass_biases
from treesearch.softmax.layer import Kernel

MIXED = TREES["nested, growing again"]  # 9 classes, binary and wide nodes, nested projections


def make(kernel: Kernel, tree: Tree = MIXED) -> HierarchicalSoftmax:
    return random_layer(tree, dtype=torch.float32, kernel=kernel)


def batch_of(shape: tuple[int, ...], num_classes: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, D, generator=generator), torch.randint(num_classes, shape, generator=generator)


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=str)
def test_shapes_of_every_method(kernel: Kernel, shape: tuple[int, ...]) -> None:
    layer, flat = make(kernel), random_layer(MIXED)  # the same numbers, in float64, by the reference
    inputs, targets = batch_of(shape)
    exact, ids = flat.log_prob(inputs.reshape(-1, D).double()), targets.reshape(-1, 1)
    output, loss = result = layer(inputs, targets)
    assert (result.output is output, result.loss is loss, loss.shape) == (True, True, ())
    found = {
        "output": (output, exact.gather(1, ids).reshape(shape)),
        "loss": (loss, -exact.gather(1, ids).mean()),
        "nll": (layer.nll(inputs, targets, reduction="none"), -exact.gather(1, ids).reshape(shape)),
        "log_prob": (layer.log_prob(inputs), exact.reshape(*shape, 9)),
        "topk": (layer.topk(inputs, 4).log_prob, exact.topk(4).values.reshape(*shape, 4)),
        "node_log_probs": (layer.node_log_probs(inputs, targets).log_prob.sum(-1), exact.gather(1, ids).view(shape)),
    }
    for own, expected in found.values():
        torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer.predict(inputs), exact.argmax(-1).reshape(shape))
    assert [part.shape for part in layer.topk(inputs, 4)] == [(*shape, 4), (*shape, 4), shape, shape]
    assert [part.shape for part in layer.node_log_probs(inputs, targets)] == [(*shape, MIXED.max_depth)] * 2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32])
def test_targets_of_any_integer_type(kernel: Kernel, dtype: torch.dtype) -> None:
    layer, (inputs, targets) = make(kernel), batch_of((7,))
    weight = torch.rand(9)
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda t: layer(inputs, t).output,
        lambda t: layer.node_log_probs(inputs, t).log_prob,
        lambda t: layer.nll(inputs, t, weight=weight),
    ]
    for call in calls:
        assert torch.equal(call(targets.to(dtype)), call(targets))


@pytest.mark.parametrize("kernel", KERNELS)
def test_strides_do_not_matter(kernel: Kernel) -> None:
    layer, (inputs, targets) = make(kernel), batch_of((6,))
    wide, pairs = torch.full((6, 3 * D), torch.nan), torch.full((6, 2), -1)
    wide[:, ::3], pairs[:, 1] = inputs, targets
    one = targets[:1].expand(6)
    for call in (lambda x, t: layer(x, t).output, lambda x, t: layer.node_log_probs(x, t).log_prob, layer.nll):
        expected = call(inputs, targets)
        for view in (wide[:, ::3], inputs.T.contiguous().T):
            torch.testing.assert_close(call(view, pairs[:, 1]), expected)
        torch.testing.assert_close(call(inputs[:1].expand(6, D), one), call(inputs[:1].repeat(6, 1), one.clone()))
    for each in (layer.log_prob, layer.predict, lambda x: layer.topk(x, 3).indices):
        torch.testing.assert_close(each(wide[:, ::3]), each(inputs))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again", "very wide", "random, large"])
def test_examples_do_not_influence_each_other(kernel: Kernel, name: str) -> None:
    layer = make(kernel, TREES[name])
    inputs, targets = random_batch(layer, 70, dtype=torch.float32)
    alone = torch.cat([layer(inputs[i : i + 1], targets[i : i + 1]).output for i in range(70)])
    torch.testing.assert_close(layer(inputs, targets).output, alone)
    spoilt, others = inputs.clone(), torch.arange(70) % 7 > 0
    spoilt[::7] = torch.nan
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: layer(x, targets).output,
        lambda x: layer.node_log_probs(x, targets).log_prob[:, 0],
        layer.log_prob,
        lambda x: layer.topk(x, 5).log_prob,
    ]
    for call in calls:
        clean, dirty = call(inputs), call(spoilt)
        assert torch.equal(clean[others], dirty[others])
        assert dirty[~others].isnan().all()
    assert torch.equal(layer.predict(inputs)[others], layer.predict(spoilt)[others])
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(inputs, targets).output[3], inputs)
    assert gradient.any(1).nonzero().tolist() == [[3]]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["one class", "two classes", "huffman", "nested, growing again"])
def test_an_empty_batch(kernel: Kernel, name: str) -> None:
    layer = make(kernel, TREES[name])
    inputs, targets = torch.zeros(0, D, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    output, loss = layer(inputs, targets)
    assert output.shape == (0,)
    assert loss.isnan()  # like torch's own: the mean of nothing
    assert layer.nll(inputs, targets, reduction="sum") == 0
    assert layer.log_prob(inputs).shape == (0, layer.tree.num_classes)
    assert layer.predict(inputs).shape == (0,)
    assert layer.topk(inputs, 1).indices.shape == (0, 1)
    assert layer.node_log_probs(inputs, targets).node.shape == (0, layer.tree.max_depth)
    (output.sum() + layer.log_prob(inputs).sum()).backward()
    assert all(not p.grad.any() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_class_is_certain(kernel: Kernel) -> None:
    layer, inputs = make(kernel, Tree.from_nested(0)), torch.ones(4, D, requires_grad=True)
    output, loss = layer(inputs, torch.zeros(4, dtype=torch.int64))
    assert (output.tolist(), loss.item()) == ([0.0] * 4, 0.0)
    assert layer.log_prob(inputs).tolist() == [[0.0]] * 4
    assert layer.predict(inputs).tolist() == [0] * 4
    loss.backward()
    assert not inputs.grad.any()  # type: ignore[union-attr]


def test_auto_takes_the_cpu_kernels_where_it_can() -> None:
    layer, cpu, reference = make("auto"), make("cpu"), make("reference")
    inputs, targets = batch_of((6,))
    assert torch.equal(layer(inputs, targets).output, cpu(inputs, targets).output)
    assert torch.equal(layer.log_prob(inputs), cpu.log_prob(inputs))
    exact = layer.double()(inputs.double(), targets).output
    assert torch.equal(exact, reference.double()(inputs.double(), targets).output)


def fit(layer: Any, inputs: Tensor, targets: Tensor) -> tuple[Any, Tensor, Tensor]:
    """A user's training loop, written for `torch.nn.AdaptiveLogSoftmaxWithLoss`."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        layer(inputs, targets).loss.backward()
        optimizer.step()
    output, loss = layer(inputs, targets)
    torch.testing.assert_close(-output.mean(), loss)
    return layer(inputs, targets), layer.log_prob(inputs), layer.predict(inputs)


@pytest.mark.parametrize("kernel", ["adaptive", *KERNELS])
def test_a_training_loop_for_torchs_adaptive_softmax_runs_unchanged(kernel: Any) -> None:
    torch.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(D, 12, [4, 8], div_value=1.0)
    inputs, targets = torch.randn(12, D), torch.arange(12)
    if kernel != "adaptive":
        layer = HierarchicalSoftmax(D, TREES["mixed depths"], kernel=kernel)  # type: ignore[assignment]
    result, scores, best = fit(layer, inputs, targets)
    assert result.loss < 0.1
    assert (result.output.shape, result.loss.shape, scores.shape, best.dtype) == ((12,), (), (12, 12), torch.int64)
    torch.testing.assert_close(result.output, scores.gather(1, targets[:, None])[:, 0])
    assert torch.equal(best, targets)


# -- initial values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_biases_from_counts_predict_the_frequencies(name: str) -> None:
    tree = TREES[name]
    counts = np.random.default_rng(0).integers(0, 50, tree.num_classes) + (tree.num_classes == 1)
    layer = HierarchicalSoftmax(D, tree, dtype=torch.float64)
    layer.reset_parameters(counts)
    for matrix in layer.weights:
        nn.init.zeros_(matrix)
    smoothed = np.maximum(counts, 0.5)
    scores = layer.log_prob(random_batch(layer, 2)[0]).detach()
    np.testing.assert_allclose(scores, [np.log(smoothed / smoothed.sum())] * 2, rtol=0, atol=1e-5)


def test_literal_biases() -> None:
    # root: three rows of log shares; the pair: one row of log odds, where class 2 without count has a half
    biases = log_mass_biases(Tree.from_nested([0, [1, 2], 3]), [4, 1, 0, 2.5])
    np.testing.assert_allclose(biases, np.log([4 / 8, 1.5 / 8, 2.5 / 8, 2]), rtol=1e-6)
    assert biases.dtype == np.float32


def test_initial_weights_are_those_of_linear_and_come_from_the_generator() -> None:
    first, second, other = (HierarchicalSoftmax(100, projected(list(range(50)), [25])) for _ in range(3))
    for layer, seed in ((first, 1), (second, 1), (other, 2)):
        layer.reset_parameters(generator=torch.Generator().manual_seed(seed))
    for matrix in (*first.weights[1:], *first.projections):
        bound = matrix.shape[1] ** -0.5
        assert 0.98 * bound < matrix.abs().max() <= bound
        assert abs(matrix.mean()) < 0.05 * bound
    assert not any(bias.any() for bias in first.biases)
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if a.numel() and a.any())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_from_a_linear_layer(bias: bool, dtype: torch.dtype) -> None:
    linear = nn.Linear(D, 40, bias, dtype=dtype)
    layer = HierarchicalSoftmax.from_linear(linear, TREES["flat"], np.arange(40), kernel="reference", sparse=True)
    assert (layer.kernel, layer.sparse, layer.weights[0].dtype) == ("reference", True, dtype)
    assert torch.equal(layer.weights[0], linear.weight)
    assert torch.equal(layer.biases[0], torch.zeros(40, dtype=dtype) if linear.bias is None else linear.bias)
    inputs = torch.randn(5, D, dtype=dtype)
    expected = linear.double()(inputs.double()).log_softmax(-1)
    torch.testing.assert_close(layer.double().log_prob(inputs.double()), expected, rtol=0, atol=1e-12)


def test_repr_states_the_sizes() -> None:
    assert repr(make("auto")).startswith("HierarchicalSoftmax(\n  in_features=6, num_classes=9, bias=True\n")
    assert "bias=False, sparse=True" in repr(HierarchicalSoftmax(D, MIXED, bias=False, sparse=True))


# -- refusals ----------------------------------------------------------------------------------------------------------

ZEROS, IDS = torch.zeros(2, D), torch.zeros(2, dtype=torch.int64)


def refused(message: str, call: Callable[[], object], error: type[Exception] = DataError) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(2, 5), IDS, r"6 features, but got shape \(2, 5\)"),
        (torch.tensor(1.0), IDS, r"6 features, but got shape \(\)"),
        (ZEROS, torch.zeros(3, dtype=torch.int64), r"shape \(2,\), but got \(3,\)"),
        (ZEROS, IDS[:, None], r"shape \(2,\), but got \(2, 1\)"),
        (ZEROS[0], IDS, r"shape \(\), but got \(2,\)"),
        (ZEROS, torch.tensor([0, 9]), r"\[0, 9\), but range from 0 to 9"),
        (ZEROS, torch.tensor([-1, 3]), r"\[0, 9\), but range from -1 to 3"),
        (ZEROS, torch.tensor([3, 1 << 40]), r"\[0, 9\), but range from 3 to 1099511627776"),
        (ZEROS, torch.zeros(2), r"integer class ids, but got torch.float32; use target.long\(\)"),
        (ZEROS, IDS.bool(), "integer class ids, but got torch.bool"),
        (ZEROS.double(), IDS, "type of the layer, torch.float32, but got torch.float64"),
        (ZEROS.bfloat16(), IDS, r"but got torch.bfloat16; use input.to\(...\) or torch.autocast"),
        (ZEROS.long(), IDS, "but got torch.int64"),
    ],
)
def test_a_batch_that_does_not_fit(kernel: Kernel, inputs: Tensor, targets: Tensor, message: str) -> None:
    layer = make(kernel)
    for call in (layer, layer.nll, layer.node_log_probs):
        refused(message, lambda call=call: call(inputs, targets))  # type: ignore[misc]


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_that_cannot_be_scored(kernel: Kernel) -> None:
    layer = make(kernel)
    calls: list[Callable[[Tensor], object]] = [layer.log_prob, layer.predict, lambda x: layer.topk(x, 2)]
    for call in calls:
        refused(r"6 features, but got shape \(2, 7\)", lambda call=call: call(torch.zeros(2, 7)))  # type: ignore[misc]
        refused("torch.float32, but got torch.float64", lambda call=call: call(ZEROS.double()))  # type: ignore[misc]
    for k in (0, 10, -1):
        refused(rf"k must lie in \[1, 9\], but got {k}$", lambda k=k: layer.topk(ZEROS, k))  # type: ignore[misc]


def test_settings_that_do_not_fit() -> None:
    layer = make("auto")
    refused(r"weight must have shape \(9,\), but got \(8,\)", lambda: layer.nll(ZEROS, IDS, weight=torch.ones(8)))
    refused("'mean', 'sum' or 'none', but got 'max'", lambda: layer.nll(ZEROS, IDS, reduction="max"))  # type: ignore[arg-type]
    refused("got 3 for 9 classes", lambda: layer.reset_parameters([1, 2, 3]))
    wrong: Any = "gpu2"
    refused("'auto', 'reference', 'cpu', 'gpu', but got 'gpu2'", lambda: HierarchicalSoftmax(D, MIXED, kernel=wrong))
    refused("at most in_features = 4, but one is 5", lambda: HierarchicalSoftmax(4, MIXED), TreeError)
    linear = nn.Linear(D, 9)
    refused("got 3 for 9 classes", lambda: HierarchicalSoftmax.from_linear(linear, MIXED, [1, 2, 3]))
    refused(r"shape \(9, 6\)", lambda: HierarchicalSoftmax.from_linear(nn.Linear(D, 8), MIXED))


def test_the_cpu_kernels_need_single_precision() -> None:
    layer = make("cpu").double()
    for call in (layer, layer.nll):
        refused("needs float32 on the CPU.*float64.*; use kernel='auto'", lambda call=call: call(ZEROS.double(), IDS))  # type: ignore[misc]
    refused("needs float32 on the CPU", lambda: layer.log_prob(ZEROS.double()))
