"""What the layer promises to its user: shapes, exact predictions, initial values, one-line errors."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.softmax.oracle import TREES, D, projected, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError, TreeError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.initialization import log_mass_biases

KERNELS = ["reference", "cpu"]
MIXED = TREES["nested, growing again"]  # 9 classes, binary and wide nodes, nested projections


def make(kernel: str, tree: Tree = MIXED) -> HierarchicalSoftmax:
    return random_layer(tree, dtype=torch.float32, kernel=kernel)  # type: ignore[arg-type]


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=str)
def test_shapes(kernel: str, shape: tuple[int, ...]) -> None:
    layer = make(kernel)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(*shape, D, generator=generator), torch.randint(9, shape, generator=generator)
    output, loss = layer(inputs, targets)
    scores = layer.log_prob(inputs)
    assert (output.shape, loss.shape, scores.shape) == (shape, (), (*shape, 9))
    torch.testing.assert_close(output, scores.gather(-1, targets[..., None])[..., 0])
    torch.testing.assert_close(loss, -output.mean())
    flat = layer.log_prob(inputs.reshape(-1, D))
    torch.testing.assert_close(scores.reshape(-1, 9), flat)
    assert torch.equal(layer.predict(inputs), scores.argmax(-1))
    assert [part.shape for part in layer.topk(inputs, 4)] == [(*shape, 4)] * 2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again", "very wide", "random, large"])
def test_examples_do_not_influence_each_other(kernel: str, name: str) -> None:
    layer = make(kernel, TREES[name])
    inputs, targets = random_batch(layer, 70, dtype=torch.float32)
    alone = torch.cat([layer(inputs[i : i + 1], targets[i : i + 1]).output for i in range(70)])
    torch.testing.assert_close(layer(inputs, targets).output, alone)
    spoilt = inputs.clone()
    spoilt[::7] = torch.nan
    for clean, dirty in (
        (layer(inputs, targets).output, layer(spoilt, targets).output),
        (layer.log_prob(inputs), layer.log_prob(spoilt)),
    ):
        others = torch.arange(70) % 7 > 0
        assert torch.equal(clean[others], dirty[others])
        assert dirty[~others].isnan().all()
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(inputs, targets).output[3], inputs)
    assert gradient.any(1).nonzero().tolist() == [[3]]


@pytest.mark.parametrize("name", TREES)
def test_predictions_against_sorting(name: str) -> None:
    layer = random_layer(TREES[name])
    inputs, _ = random_batch(layer, 25)
    scores = layer.log_prob(inputs).detach().numpy()
    order = np.argsort(-scores, axis=1)
    assert layer.predict(inputs).tolist() == order[:, 0].tolist()
    for k in {1, min(3, scores.shape[1]), scores.shape[1]}:
        values, classes = layer.topk(inputs, k)
        assert classes.tolist() == order[:, :k].tolist()
        np.testing.assert_array_equal(values.detach(), np.take_along_axis(scores, order[:, :k], 1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_class_is_certain(kernel: str) -> None:
    layer = make(kernel, Tree.from_nested(0))
    inputs = torch.ones(4, D, requires_grad=True)
    output, loss = layer(inputs, torch.zeros(4, dtype=torch.int64))
    assert (output.tolist(), loss.item()) == ([0.0] * 4, 0.0)
    assert layer.log_prob(inputs).tolist() == [[0.0]] * 4
    assert layer.predict(inputs).tolist() == [0] * 4


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["one class", "huffman", "nested, growing again"])
def test_an_empty_batch(kernel: str, name: str) -> None:
    layer = make(kernel, TREES[name])
    inputs = torch.zeros(0, D, requires_grad=True)
    output, loss = layer(inputs, torch.zeros(0, dtype=torch.int64))
    assert output.shape == (0,)
    assert loss.isnan()  # like torch's own: the mean of nothing
    assert layer.log_prob(inputs).shape == (0, layer.tree.num_classes)
    output.sum().backward()
    assert all(not p.grad.any() for p in layer.parameters() if p.grad is not None)


def test_auto_takes_the_cpu_kernels_where_it_can() -> None:
    layer = make("auto")
    inputs, targets = random_batch(layer, 6, dtype=torch.float32)
    cpu, reference = make("cpu"), make("reference")
    assert torch.equal(layer(inputs, targets).output, cpu(inputs, targets).output)
    exact = layer.double()(inputs.double(), targets).output
    assert exact.dtype == torch.float64
    assert torch.equal(exact, reference.double()(inputs.double(), targets).output)


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
    inputs, _ = random_batch(layer, 2)
    np.testing.assert_allclose(
        layer.log_prob(inputs).detach(), [np.log(smoothed / smoothed.sum())] * 2, rtol=0, atol=1e-5
    )


def test_literal_biases() -> None:
    # root: three rows of log shares; the pair: one row of log odds, where class 2 without count has a half
    biases = log_mass_biases(Tree.from_nested([0, [1, 2], 3]), [4, 1, 0, 2.5])
    np.testing.assert_allclose(biases, np.log([4 / 8, 1.5 / 8, 2.5 / 8, 2]), rtol=1e-6)
    assert biases.dtype == np.float32


def test_initial_weights_are_those_of_linear() -> None:
    layer = HierarchicalSoftmax(100, projected(list(range(50)), [25]))
    layer.reset_parameters(generator=torch.Generator().manual_seed(0))
    for matrix in (*layer.weights[1:], *layer.projections):
        bound = matrix.shape[1] ** -0.5
        assert 0.98 * bound < matrix.abs().max() <= bound
        assert abs(matrix.mean()) < 0.05 * bound
    assert not any(bias.any() for bias in layer.biases)


def test_initial_weights_come_from_the_generator() -> None:
    first, second, other = (HierarchicalSoftmax(D, MIXED) for _ in range(3))
    for layer, seed in ((first, 1), (second, 1), (other, 2)):
        layer.reset_parameters(generator=torch.Generator().manual_seed(seed))
    pairs = zip(first.parameters(), second.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) and (a.numel() == 0 or not torch.equal(a, c) or not a.any()) for a, b, c in pairs)


# -- an nn.Module ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_deep_copy_is_independent(kernel: str) -> None:
    layer = make(kernel)
    inputs, targets = random_batch(layer, 7, dtype=torch.float32)
    before = layer(inputs, targets).output  # so that what is cached is copied too
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(layer(inputs, targets).output, before)
    assert not torch.equal(twin(inputs, targets).output, before)


def test_to_another_type() -> None:
    layer = make("auto")
    inputs, targets = random_batch(layer, 7, dtype=torch.float32)
    output = layer(inputs, targets).output
    layer.to(torch.float64)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
    assert all(not buffer.is_floating_point() for buffer in layer.buffers())
    torch.testing.assert_close(layer(inputs.double(), targets).output.float(), output)
    layer.to(torch.float32)
    assert torch.equal(layer(inputs, targets).output, output)


def test_half_precision_inputs_and_weights() -> None:
    layer = make("auto")
    inputs, targets = random_batch(layer, 30, dtype=torch.float32)
    exact = layer.log_prob(inputs)
    layer.to(torch.bfloat16)
    scores, output = layer.log_prob(inputs.bfloat16()), layer(inputs.bfloat16(), targets).output
    assert scores.dtype == output.dtype == torch.float32  # logits are normalised in single precision
    torch.testing.assert_close(scores, exact, rtol=0, atol=0.2)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(30), rtol=0, atol=1e-5)


def test_state_dict_round_trip() -> None:
    layer, other = make("auto"), HierarchicalSoftmax(D, MIXED)
    names = set(layer.state_dict())
    assert names == {name for name, _ in layer.named_parameters()}  # the layout follows from the tree
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    inputs, targets = random_batch(layer, 7, dtype=torch.float32)
    assert torch.equal(other(inputs, targets).output, layer(inputs, targets).output)


@pytest.mark.parametrize("kernel", KERNELS)
def test_learns(kernel: str) -> None:
    tree = TREES["mixed depths"]
    layer = HierarchicalSoftmax(D, tree, kernel=kernel)  # type: ignore[arg-type]
    layer.reset_parameters(generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(tree.num_classes, D, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(tree.num_classes)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        layer(inputs, targets).loss.backward()
        optimizer.step()
    assert layer(inputs, targets).loss < 0.1
    assert torch.equal(layer.predict(inputs), targets)


def test_repr_states_the_sizes() -> None:
    assert "in_features=6, num_classes=9, bias=True" in repr(make("auto"))


# -- refusals ----------------------------------------------------------------------------------------------------------

ZEROS, IDS = torch.zeros(2, D), torch.zeros(2, dtype=torch.int64)


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
        (ZEROS, torch.zeros(2), r"integer class ids, but got torch.float32"),
    ],
)
def test_a_batch_that_does_not_fit(kernel: str, inputs: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make(kernel)(inputs, targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("k", [0, 10, -1])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(DataError, match=rf"k must lie in \[1, 9\], but got {k}$"):
        make("auto").topk(ZEROS, k)


def test_scores_need_the_right_features() -> None:
    for method in (HierarchicalSoftmax.log_prob, HierarchicalSoftmax.predict):
        with pytest.raises(DataError, match=r"6 features, but got shape \(2, 7\)"):
            method(make("auto"), torch.zeros(2, 7))


def test_cpu_kernels_need_single_precision() -> None:
    layer = make("cpu")
    for double in (ZEROS, ZEROS.double()):
        with pytest.raises(DataError, match="needs float32 tensors on the CPU; use kernel='auto'"):
            layer.double()(double, IDS)
    with pytest.raises(DataError, match="needs float32"):
        make("cpu")(ZEROS.double(), IDS)


def test_construction_that_does_not_fit() -> None:
    with pytest.raises(DataError, match="'auto', 'reference' or 'cpu', but got 'gpu'"):
        HierarchicalSoftmax(D, MIXED, kernel="gpu")  # type: ignore[arg-type]
    with pytest.raises(TreeError, match="at most in_features = 4, but one is 5"):
        HierarchicalSoftmax(4, MIXED)
    with pytest.raises(DataError, match="got 3 for 9 classes"):
        HierarchicalSoftmax(D, MIXED).reset_parameters([1, 2, 3])
