"""Layers on a device against the host in float64: what they compute, learn, save and are compiled to."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.devices import DEVICES, ready
from tests.softmax.oracle import TREES, D, random_batch, random_layer
from tests.waiting import cuda, no_waiting_on_cuda
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdagrad, RowwiseAdam
from treesearch.softmax.forest_layer import SoftmaxForest
from treesearch.softmax.layer import Kernel
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax, tied_leaf_vectors
from treesearch.softmax.nll import Reduction
from treesearch.softmax.node_targets import NodeTargets

NAMES = [
    "one class",
    "two classes",
    "very wide",
    "huffman",
    "huffman 5-ary",
    "adaptive",
    "nested, growing again",
    "random",
]
CLUSTERED = build_tree(
    "clustered",
    counts=1 / np.arange(1, 301),
    arity=8,
    vectors=np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32),
)
ALL: dict[str, Tree] = {**{name: TREES[name] for name in NAMES}, "clustered": CLUSTERED}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.15, torch.float16: 2e-2}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return ready(request.param)


def pair(
    name: str,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float64,
    kernel: Kernel = "auto",
    sparse: bool = False,
) -> tuple[HierarchicalSoftmax, HierarchicalSoftmax]:
    """A layer in float64 on the host, and one on the device with the same parameters."""
    here = random_layer(ALL[name])
    there = HierarchicalSoftmax(D, ALL[name], device=device, dtype=dtype, kernel=kernel, sparse=sparse)
    there.load_state_dict(here.state_dict())
    here.load_state_dict(there.state_dict())  # rounded alike
    return here, there


def batch(layer: HierarchicalSoftmax, num: int = 11, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    inputs, targets = random_batch(layer, num)
    return inputs.to(dtype).double(), targets


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.float64) -> None:
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        found.detach().cpu().double(), expected.detach().double(), rtol=tolerance, atol=tolerance
    )


def dense_grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("name", ALL)
def test_forward_and_backward(
    name: str, kernel: Kernel, dtype: torch.dtype, sparse: bool, device: torch.device
) -> None:
    if sparse and dtype == torch.float16 and device.type == "pretend":
        pytest.skip("the host cannot add up row-sparse gradients of this type")
    here, there = pair(name, device, dtype=dtype, kernel=kernel, sparse=sparse)
    inputs, targets = batch(here, dtype=dtype)
    x_here, x_there = inputs.requires_grad_(), inputs.detach().to(device, dtype).requires_grad_()
    expected, found = here(x_here, targets), there(x_there, targets.to(device))
    assert found.output.device == device
    assert found.output.dtype == torch.promote_types(dtype, torch.float32)
    assert_close(found.output, expected.output, dtype)
    expected.loss.backward()
    found.loss.backward()
    assert_close(dense_grad(x_there), dense_grad(x_here), dtype)
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        if own.numel():
            assert dense_grad(own).device == device
            assert own.grad is None or own.grad.is_sparse == sparse
            assert_close(dense_grad(own), dense_grad(other), dtype)


@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("name", ALL)
def test_losses_and_decisions(name: str, kernel: Kernel, device: torch.device) -> None:
    here, there = pair(name, device, kernel=kernel)
    inputs, targets = batch(here)
    x, y = inputs.to(device), targets.to(device)
    weight = torch.linspace(0.5, 2, here.num_classes, dtype=torch.float64)
    ignored = targets.clone()
    ignored[::3] = -100
    reductions: tuple[Reduction, ...] = ("mean", "sum", "none")
    for reduction in reductions:
        expected = here.nll(inputs, ignored, reduction=reduction, weight=weight)
        assert_close(there.nll(x, ignored.to(device), reduction=reduction, weight=weight.to(device)), expected)
    expected_steps, found_steps = here.node_log_probs(inputs, targets), there.node_log_probs(x, y)
    assert_close(found_steps.log_prob, expected_steps.log_prob)
    assert torch.equal(found_steps.node.cpu(), expected_steps.node)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "name", ["huffman", "huffman 5-ary", "adaptive", "nested, growing again", "random", "clustered"]
)
def test_soft_targets_at_nodes(name: str, sparse: bool, device: torch.device) -> None:
    here, there = pair(name, device, sparse=sparse)
    inputs, _ = batch(here, 5)
    tree, rng = here.tree, np.random.default_rng(0)
    rows, nodes = np.divmod(np.flatnonzero(rng.random(5 * tree.num_internal) < 0.3), tree.num_internal)
    mass = rng.random(int(tree.arities[nodes].sum()))
    wanted = NodeTargets.of(tree, row=rows, node=nodes, mass=mass, num_rows=5)
    expected, found = (
        here.node_cross_entropy(inputs, wanted),
        there.node_cross_entropy(inputs.to(device), wanted.to(device)),
    )
    assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        if other.grad is not None:
            assert_close(dense_grad(own), dense_grad(other))
    with pytest.raises(DataError, match="targets must be on the device of the input"):
        there.node_cross_entropy(inputs.to(device), wanted)


# -- all classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("name", ALL)
def test_all_classes(name: str, kernel: Kernel, dtype: torch.dtype, device: torch.device) -> None:
    here, there = pair(name, device, kernel=kernel, dtype=dtype)
    inputs, _ = batch(here, dtype=dtype)
    x_here, x_there = inputs.requires_grad_(), inputs.detach().to(device, dtype).requires_grad_()
    expected, found = here.log_prob(x_here), there.log_prob(x_there)
    assert_close(found, expected, dtype)
    factor = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    (expected * factor).sum().backward()
    (found * factor.to(device)).sum().backward()
    if dtype != torch.bfloat16:
        for own, other in zip(there.parameters(), here.parameters(), strict=True):
            if own.grad is not None:
                torch.testing.assert_close(
                    own.grad.cpu().double(), dense_grad(other), rtol=1e-3, atol=10 * TOLERANCE[dtype]
                )
    all_nodes, some = here.subtree_log_probs(inputs), torch.tensor([0, here.tree.num_nodes - 1])
    assert_close(there.subtree_log_probs(x_there), all_nodes, dtype)
    assert_close(there.subtree_log_probs(x_there, some.to(device)), all_nodes[:, some], dtype)
    assert_close(there.subtree_log_probs(x_there, some), all_nodes[:, some], dtype)


@pytest.mark.parametrize("name", ALL)
def test_best_classes(name: str, device: torch.device) -> None:
    here, there = pair(name, device)
    inputs, _ = batch(here)
    k = min(5, here.num_classes)
    expected, found = here.topk(inputs, k), there.topk(inputs.to(device), k)
    assert_close(found.log_prob, expected.log_prob)
    assert torch.equal(found.indices.cpu(), expected.indices)
    assert found.exact.all()
    assert torch.equal(there.predict(inputs.to(device)).cpu(), here.predict(inputs))
    with pytest.raises(DataError, match="max_nodes needs float32 or float64 on the CPU"):
        there.topk(inputs.to(device), k, max_nodes=2)


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_row", [False, True], ids=["one rate", "rates by row"])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("make", [RowwiseAdam, RowwiseAdagrad, torch.optim.SparseAdam], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["huffman", "adaptive", "random"])
def test_steps(name: str, make: Callable[..., Any], sparse: bool, by_row: bool, device: torch.device) -> None:
    if make is torch.optim.SparseAdam and (not sparse or by_row):
        pytest.skip("takes row-sparse gradients and one rate")
    here, there = pair(name, device, sparse=sparse)
    # Row-sparse gradients of this kernel hold rows that no target needs, which Adam moves on: the same kernel for both.
    here.kernel, here.sparse = "gpu", sparse
    counts = 1 / np.arange(1, here.num_classes + 1)
    optimizers = [
        make(layer.parameter_groups(counts) if by_row else list(layer.parameters()), lr=0.1) for layer in (here, there)
    ]
    for seed in range(4):
        inputs, targets = random_batch(here, 20, seed=seed)
        for layer, optimizer in zip((here, there), optimizers, strict=True):
            optimizer.zero_grad()
            x, y = (inputs, targets) if layer is here else (inputs.to(device), targets.to(device))
            layer(x, y).loss.backward()
            optimizer.step()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        assert_close(own, other)
    saved = optimizers[0].state_dict()  # of the host, as after torch.load(.., map_location="cpu")
    again = make(there.parameter_groups(counts) if by_row else list(there.parameters()), lr=0.1)
    again.load_state_dict(saved)
    for layer, optimizer in ((here, optimizers[0]), (there, again)):
        optimizer.zero_grad()
        layer(*(tensor.to(device if layer is there else "cpu") for tensor in (inputs, targets))).loss.backward()
        optimizer.step()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        assert_close(own, other)


# -- other layers ------------------------------------------------------------------------------------------------------


def test_a_forest(device: torch.device) -> None:
    counts = 1 / np.arange(1, 41)
    trees = [TREES["huffman"], TREES["adaptive"], TREES["flat"], build_tree("balanced", counts=counts)]
    here = SoftmaxForest(D, trees, dtype=torch.float64)
    there = SoftmaxForest(D, trees, device=device, dtype=torch.float64)
    there.load_state_dict(here.state_dict())
    inputs, targets = random_batch(random_layer(trees[0]), 9)
    expected, found = here(inputs, targets), there(inputs.to(device), targets.to(device))
    assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        assert_close(dense_grad(own), dense_grad(other))
    layer = there.to_layer(1)
    assert layer.weights[0].device == device
    assert_close(layer(inputs.to(device), targets.to(device)).output, expected[1])
    there.load_tree(1, layer)
    assert_close(copy.deepcopy(here).to(device)(inputs.to(device), targets.to(device)), expected)


def test_leaf_vectors(device: torch.device, tmp_path: Path) -> None:
    tree, counts = TREES["huffman 5-ary"], 1 / np.arange(1, 41)
    here = LeafVectorSoftmax(D, tree, dtype=torch.float64, counts=counts)
    there = LeafVectorSoftmax(D, tree, device=device, dtype=torch.float64, counts=counts)
    there.load_state_dict(here.state_dict())
    inputs, targets = random_batch(random_layer(tree), 9)
    x, y = inputs.to(device), targets.to(device)
    expected, found = here(inputs, targets), there(x, y)
    assert_close(found.output, expected.output)
    expected.loss.backward()
    found.loss.backward()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        assert_close(dense_grad(own), dense_grad(other))
    assert_close(there.subtree_vectors(), here.subtree_vectors())
    assert_close(there.log_prob(x), here.log_prob(inputs))
    assert_close(there.to_rows()(x, y).output, expected.output)
    there.save_pretrained(tmp_path)
    loaded = LeafVectorSoftmax.from_pretrained(tmp_path, device=device)
    assert_close(loaded(x, y).output, expected.output)
    rows_here, rows_there = pair("huffman", device)
    assert_close(tied_leaf_vectors(rows_there), tied_leaf_vectors(rows_here))


# -- moving, saving, starting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["huffman", "adaptive", "random", "one class"])
def test_there_and_back(name: str, device: torch.device, tmp_path: Path) -> None:
    here, there = pair(name, device, dtype=torch.float32)
    inputs, targets = batch(here, dtype=torch.float32)
    x, y = inputs.float().to(device), targets.to(device)
    output = there(x, y).output
    if device.type == "cuda":  # torch copies tensors of others in its own way
        for copied in (copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
            assert_close(copied(x, y).output, output.cpu(), torch.float32)
    there.save_pretrained(tmp_path)
    loaded = HierarchicalSoftmax.from_pretrained(tmp_path, device=device)
    assert loaded.weights[0].device == device == loaded.tree_hash.device
    assert_close(loaded(x, y).output, output.cpu(), torch.float32)
    assert_close(
        HierarchicalSoftmax.from_pretrained(tmp_path)(inputs.float(), targets).output, output.cpu(), torch.float32
    )
    back = there.cpu()
    assert_close(back(inputs.float(), targets).output, output.cpu(), torch.float32)
    again = back.to(device)
    assert_close(again(x, y).output, output.cpu(), torch.float32)


@pytest.mark.parametrize("kind", [HierarchicalSoftmax, LeafVectorSoftmax])
def test_from_a_flat_layer(kind: type[HierarchicalSoftmax], device: torch.device) -> None:
    tree, counts = TREES["huffman 5-ary"], np.arange(1, 41)
    linear = nn.Linear(D, 40, dtype=torch.float64)
    expected = kind.from_linear(linear, tree, counts)
    found = kind.from_linear(copy.deepcopy(linear).to(device), tree, counts)
    for own, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert own.device == device
        assert_close(own, other)


def test_starting_values_do_not_depend_on_the_device(device: torch.device) -> None:
    layers = []
    for where in ("cpu", device):
        layer = HierarchicalSoftmax(D, TREES["adaptive"], device=where)
        layer.reset_parameters(np.arange(1, 41), torch.Generator().manual_seed(0))
        layers.append(layer)
    for own, other in zip(layers[1].parameters(), layers[0].parameters(), strict=True):
        assert torch.equal(own.cpu(), other)


# -- CUDA alone --------------------------------------------------------------------------------------------------------


class TestCuda:
    pytestmark = cuda

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("kernel", ["auto", "reference"])
    @pytest.mark.parametrize("name", ALL)
    def test_autocast(self, name: str, kernel: Kernel, dtype: torch.dtype) -> None:
        here, there = pair(name, torch.device("cuda"), dtype=torch.float32, kernel=kernel)
        inputs, targets = batch(here, 64, torch.float32)
        x, y = inputs.float().cuda().requires_grad_(), targets.cuda()
        with torch.autocast("cuda", dtype):
            found, scores = there(x, y), there.log_prob(x)
            decisions = there.node_log_probs(x, y)
            nodes = there.subtree_log_probs(x)
        assert found.output.dtype == torch.float32
        assert_close(found.output, here(inputs, targets).output, torch.bfloat16)
        assert_close(scores, here.log_prob(inputs), torch.bfloat16)
        assert_close(decisions.log_prob.sum(-1), found.output.cpu(), torch.bfloat16)
        assert_close(nodes, here.subtree_log_probs(inputs), torch.bfloat16)
        found.loss.backward()
        for parameter in there.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()

    @pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
    @pytest.mark.parametrize("name", ["huffman", "huffman 5-ary", "adaptive", "clustered"])
    def test_compiled(self, name: str, mode: str) -> None:
        here, there = pair(name, torch.device("cuda"), dtype=torch.float32)
        compiled: Callable[..., Any] = torch.compile(there, fullgraph=True, mode=mode)
        for num in (8, 8, 12):
            inputs, targets = batch(here, num, torch.float32)
            here.zero_grad()
            there.zero_grad()
            expected, found = here(inputs, targets), compiled(inputs.float().cuda(), targets.cuda())
            expected.loss.backward()
            found.loss.backward()
            assert_close(found.output, expected.output, torch.float32)
            for own, other in zip(there.parameters(), here.parameters(), strict=True):
                assert_close(dense_grad(own), dense_grad(other), torch.float32)

    @pytest.mark.parametrize("make", [RowwiseAdam, RowwiseAdagrad])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_a_step_does_not_wait(self, make: Callable[..., Any], sparse: bool) -> None:
        layer = HierarchicalSoftmax(D, CLUSTERED, device="cuda", sparse=sparse)
        optimizer = make(layer.parameter_groups(1 / np.arange(1, 301)), lr=0.1)
        x, y = torch.randn(32, D, device="cuda"), torch.randint(300, (32,), device="cuda")
        with no_waiting_on_cuda():
            for _ in range(2):
                optimizer.zero_grad()
                layer(x, y).loss.backward()
                optimizer.step()
            with torch.no_grad():
                layer.topk(x, 3)
                layer.log_prob(x)
                layer.nll(x, y)

    def test_captured_in_a_graph(self) -> None:
        layer = HierarchicalSoftmax(D, CLUSTERED, device="cuda")
        x, y = torch.randn(32, D, device="cuda"), torch.randint(300, (32,), device="cuda")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                layer.zero_grad(set_to_none=True)
                layer(x, y).loss.backward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        layer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            loss = layer(x, y).loss
            loss.backward()
        x.copy_(torch.randn(32, D, device="cuda"))
        y.copy_(torch.randint(300, (32,), device="cuda"))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(loss, layer(x, y).loss)

    def test_loss_scaling_in_half_precision(self) -> None:
        layer = HierarchicalSoftmax(D, CLUSTERED, device="cuda")
        optimizer, scaler = RowwiseAdam(layer.parameters(), lr=0.1), torch.amp.GradScaler("cuda")
        x, y = torch.randn(64, D, device="cuda"), torch.randint(300, (64,), device="cuda")
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = layer(x, y).loss
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.5
