"""`sparse=True`: gradients hold the rows on the batch's paths alone, and training with them is training."""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.softmax.oracle import KERNELS, TREES, D, random_batch, random_layer, rows_on_paths
from treesearch import build_tree
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.layer import Kernel
from treesearch.softmax.optim import RowwiseAdagrad, RowwiseAdam

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def pair(name: str, kernel: Kernel, *, bias: bool = True) -> tuple[HierarchicalSoftmax, HierarchicalSoftmax]:
    """Two layers of the same numbers: with sparse gradients, and with dense ones by the reference."""
    dtype = torch.float32
    sparse = random_layer(TREES[name], kernel=kernel, dtype=dtype, bias=bias, sparse=True)
    return sparse, random_layer(TREES[name], dtype=dtype, bias=bias)


def backward(layer: HierarchicalSoftmax, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradients of a weighted sum into the parameters; returns that of the inputs."""
    inputs = inputs.detach().requires_grad_()
    scale = torch.linspace(-1, 1, len(targets))
    torch.autograd.backward((layer(inputs, targets).output * scale).sum())
    assert inputs.grad is not None
    return inputs.grad


def gradient(parameter: nn.Parameter) -> Tensor:
    """As a matrix, zeros where autograd gave none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("num", "bias"), [(1, True), (6, False), (60, True)])
def test_gradients_are_the_rows_on_the_paths(kernel: Kernel, name: str, num: int, bias: bool) -> None:
    layer, dense = pair(name, kernel, bias=bias)
    inputs, targets = random_batch(layer, num, dtype=torch.float32)
    torch.testing.assert_close(backward(layer, inputs, targets), backward(dense, inputs, targets))
    for own, other in zip(layer.parameters(), dense.parameters(), strict=True):
        assert own.grad is None or own.grad.layout == torch.sparse_coo or layer.tree.num_classes == 1
        torch.testing.assert_close(gradient(own), gradient(other), rtol=1e-5, atol=1e-5)
    expected = rows_on_paths(layer, targets)
    lists = [layer.weights, layer.biases] if bias else [layer.weights]
    for parameters in lists:
        for parameter, width in zip(parameters, expected, strict=True):
            if parameter.grad is None or layer.tree.num_classes == 1:
                assert not expected[width]
                continue
            rows = parameter.grad.coalesce().indices()[0]
            if kernel == "cpu":
                # Each once, in rising order as it comes: autograd drops the mark `is_coalesced` of what it accumulates.
                assert parameter.grad._indices()[0].tolist() == expected[width]
            elif kernel == "reference":
                assert rows.tolist() == expected[width]
            else:  # a row that no target needs may stand there, with a zero gradient
                assert set(expected[width]) <= set(rows.tolist())
    passed = {scope for target in targets.tolist() for scope in scopes_above(layer, target)}
    for scope, projection in enumerate(layer.projections):
        if scope not in passed:
            assert not gradient(projection).any()
            if projection.grad is not None and kernel == "cpu":
                assert projection.grad._nnz() == 0


def scopes_above(layer: HierarchicalSoftmax, target: int) -> list[int]:
    """Projections on the path of a class, by their number."""
    tree = layer.tree
    numbers = np.cumsum(tree.projection_dim > 0) - 1
    node = int(tree.parent[tree.num_internal + int(np.flatnonzero(tree.leaf_class == target)[0])])
    found = []
    while node >= 0:
        if tree.projection_dim[node]:
            found.append(int(numbers[node]))
        node = int(tree.parent[node])
    return found


def test_the_cpu_kernels_give_coalesced_gradients() -> None:
    layer, _ = pair("nested, growing again", "cpu")
    inputs, targets = random_batch(layer, 9, dtype=torch.float32)
    grads = torch.autograd.grad(layer(inputs, targets).loss, list(layer.parameters()))
    for grad in grads:
        assert grad.is_coalesced()
        assert (grad.indices()[0].diff() > 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_two_batches_add_up(kernel: Kernel) -> None:
    layer, dense = pair("nested, growing again", kernel)
    for seed in (1, 2):
        inputs, targets = random_batch(layer, 7, seed=seed, dtype=torch.float32)
        backward(layer, inputs, targets)
        backward(dense, inputs, targets)
    for own, other in zip(layer.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(gradient(own), gradient(other), rtol=1e-5, atol=1e-5)


# -- training ----------------------------------------------------------------------------------------------------------

SAME_AS_DENSE: dict[str, Optimizer] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.3),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1, eps=1e-6),
    "RowwiseAdagrad": lambda parameters: RowwiseAdagrad(parameters, lr=0.1, eps=1e-6),
}
OPTIMIZERS: dict[str, Optimizer] = {
    **SAME_AS_DENSE,
    "SparseAdam": lambda parameters: torch.optim.SparseAdam(parameters, lr=0.1),
    "RowwiseAdam": lambda parameters: RowwiseAdam(parameters, lr=0.1),
}


def train(layer: HierarchicalSoftmax, make: Optimizer, num_steps: int = 12) -> list[float]:
    optimizer = make(list(layer.parameters()))
    losses = []
    for step in range(num_steps):
        inputs, targets = random_batch(layer, 16, seed=step % 3, dtype=torch.float32)
        optimizer.zero_grad()
        loss = layer(inputs, targets).loss
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # by torch's own Adagrad
@pytest.mark.parametrize("optimizer", SAME_AS_DENSE)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["flat", "huffman", "mixed depths", "nested, growing again", "random"])
def test_training_equals_training_with_dense_gradients(optimizer: str, kernel: Kernel, name: str) -> None:
    layer, dense = pair(name, kernel)
    make = SAME_AS_DENSE[optimizer]
    losses = train(layer, make)
    np.testing.assert_allclose(losses, train(dense, make), rtol=1e-4, atol=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    for own, other in zip(layer.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # by torch's own Adagrad
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["huffman", "adaptive", "nested, growing again"])
def test_other_rows_stay_as_they_are(optimizer: str, kernel: Kernel, name: str) -> None:
    layer = random_layer(TREES[name], kernel=kernel, dtype=torch.float32, sparse=True)
    before = copy.deepcopy(layer)
    run, targets = OPTIMIZERS[optimizer](list(layer.parameters())), torch.tensor([0, 2, 2])
    for seed in range(4):
        inputs = torch.randn(3, D, generator=torch.Generator().manual_seed(seed))
        run.zero_grad()
        torch.autograd.backward(layer(inputs, targets).loss)
        run.step()
    rows = rows_on_paths(layer, targets)
    for parameters, olds in ((layer.weights, before.weights), (layer.biases, before.biases)):
        for width, parameter, old in zip(rows, parameters, olds, strict=True):
            moved = (parameter != old).reshape(len(parameter), -1).any(1).nonzero()[:, 0].tolist()
            assert moved == rows[width]
    passed = {scope for target in (0, 2) for scope in scopes_above(layer, target)}
    moved = [n for n, (p, q) in enumerate(zip(layer.projections, before.projections, strict=True)) if (p != q).any()]
    assert moved == sorted(passed)


@pytest.mark.parametrize("kernel", KERNELS)
def test_sparse_adam_learns(kernel: Kernel) -> None:
    layer = HierarchicalSoftmax(D, TREES["mixed depths"], sparse=True, kernel=kernel)
    optimizer = OPTIMIZERS["SparseAdam"](list(layer.parameters()))
    inputs, targets = torch.randn(12, D, generator=torch.Generator().manual_seed(0)), torch.arange(12)
    for _ in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(layer(inputs, targets).loss)
        optimizer.step()
    assert layer(inputs, targets).loss < 0.1
    assert torch.equal(layer.predict(inputs), targets)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_classes_have_dense_gradients_all_the_same(kernel: Kernel) -> None:
    layer, dense = pair("nested, growing again", kernel)
    inputs, _ = random_batch(layer, 5, dtype=torch.float32)
    for each in (layer, dense):
        torch.autograd.backward(each.log_prob(inputs)[:, 1].sum())
    for own, other in zip(layer.parameters(), dense.parameters(), strict=True):
        assert own.grad is None or own.grad.layout == torch.strided
        torch.testing.assert_close(gradient(own), gradient(other), rtol=1e-5, atol=1e-5)


def test_a_million_classes() -> None:
    counts = 1 / np.arange(1, 1_000_001)
    layer = HierarchicalSoftmax(8, build_tree("huffman", counts=counts), sparse=True)
    optimizer = RowwiseAdagrad(layer.parameters(), lr=0.5)
    targets = torch.from_numpy(np.random.default_rng(0).choice(counts.size, 64, p=counts / counts.sum()))
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    on_paths = int(layer.tree.depths[targets.numpy()].sum())  # at most: paths share their first nodes
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = layer(inputs, targets).loss
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    for parameter in layer.parameters():
        assert parameter.shape[0] == 999_999
        assert parameter.grad is not None
        assert 0 < parameter.grad._nnz() < on_paths < 2000
    assert losses[-1] < 0.5 * losses[0]
