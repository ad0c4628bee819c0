"""Which kernel a call reaches: what is traced, transformed, moved, copied or broken."""

import copy
import pickle
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.softmax import oracle
from tests.softmax.oracle import TREES, random_batch, random_layer, rows_on_paths
from treesearch import HierarchicalSoftmax, Tree
from treesearch.errors import DataError, TreeError
from treesearch.softmax import RowwiseAdagrad
from treesearch.softmax.dispatch import Kernel

NAMES = ["mixed depths", "huffman", "nested, growing again"]
TORCH_OWN = [  # torch's own code raises these under filterwarnings=error
    "ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning",
    "ignore:.*torch.jit.*is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
]


def single(name: str, kernel: Kernel = "auto") -> HierarchicalSoftmax:
    return random_layer(TREES[name], dtype=torch.float32, kernel=kernel)


def loss_and_grads(layer: HierarchicalSoftmax, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    inputs = inputs.detach().requires_grad_()
    loss = layer(inputs, targets).loss
    used = [inputs, *layer.parameters()]
    grads = torch.autograd.grad(loss, used, allow_unused=True)
    return [loss, *(torch.zeros_like(p) if g is None else g.to_dense() for g, p in zip(grads, used, strict=True))]


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", NAMES)
def test_torchs_default_type_changes_nothing(name: str, default_dtype: torch.dtype) -> None:
    layer = single(name)
    inputs, targets = random_batch(layer, 20, dtype=torch.float32)
    expected, scores = loss_and_grads(layer, inputs, targets), layer.log_prob(inputs)
    torch.set_default_dtype(default_dtype)
    for sparse in (False, True):
        layer.sparse = sparse
        for own, other in zip(loss_and_grads(layer, inputs, targets), expected, strict=True):
            torch.testing.assert_close(own, other)
    with torch.no_grad():
        torch.testing.assert_close(layer.log_prob(inputs), scores.detach())


# -- what is not where it should be


def test_parameters_elsewhere_than_the_input() -> None:
    layer = HierarchicalSoftmax(oracle.D, TREES["huffman"], device="meta")
    inputs, targets = torch.zeros(2, oracle.D), torch.zeros(2, dtype=torch.int64)
    for call in (lambda: layer(inputs, targets), lambda: layer.topk(inputs, 1), lambda: layer.log_prob(inputs)):
        with pytest.raises(DataError, match=r"must be torch.float32 .* on cpu .*, but one is .* meta"):
            call()


@pytest.mark.parametrize("wrong", [torch.zeros(3, oracle.D), torch.zeros(1)], ids=["short", "vector"])
def test_parameters_of_another_shape(wrong: Tensor) -> None:
    layer = single("huffman")
    layer.weights[0] = nn.Parameter(wrong)
    inputs = torch.zeros(2, oracle.D)
    for call in (lambda: layer(inputs, torch.zeros(2, dtype=torch.int64)), lambda: layer.topk(inputs, 1)):
        with pytest.raises(DataError, match="move or load the whole layer"):
            call()


def test_parameters_of_mixed_types() -> None:
    layer = single("huffman")
    layer.biases[0] = nn.Parameter(layer.biases[0].half())
    with pytest.raises(DataError, match="move or load the whole layer"):
        layer(torch.zeros(2, oracle.D), torch.zeros(2, dtype=torch.int64))


# -- compilers and transforms


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings(*TORCH_OWN)
def test_a_layer_compiles_whole(name: str) -> None:
    layer = single(name, "gpu")
    inputs, targets = random_batch(layer, 9, dtype=torch.float32)
    expected = loss_and_grads(layer, inputs, targets)
    for own in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch._dynamo.reset()
        compiled = torch.compile(own, fullgraph=True, backend="aot_eager")
        loss = compiled(inputs, targets).loss
        torch.testing.assert_close(loss, expected[0])
        grads = torch.autograd.grad(loss, list(own.parameters()), allow_unused=True)
        for grad, other in zip(grads, expected[2:], strict=True):
            torch.testing.assert_close(torch.zeros_like(other) if grad is None else grad, other)


@pytest.mark.slow
@pytest.mark.filterwarnings(*TORCH_OWN)
def test_compilers_go_round_the_cpu_kernels() -> None:
    layer = single("huffman")
    inputs, targets = random_batch(layer, 9, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(nn.Sequential(nn.Identity(), layer)[1], backend="aot_eager")
    assert torch.equal(compiled(inputs, targets).output, layer(inputs, targets).output)


def test_a_trace_is_of_operations_that_torch_knows() -> None:
    layer = single("mixed depths", "gpu")
    inputs, _ = random_batch(layer, 8, dtype=torch.float32)
    other, _ = random_batch(layer, 8, seed=1, dtype=torch.float32)

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer.log_prob(x)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, which is deprecated
        traced = torch.jit.trace(Scores(), inputs, check_trace=False)
        torch.testing.assert_close(traced(other), layer.log_prob(other))


def test_tracing_without_tables_says_what_to_do() -> None:
    layer = single("huffman")  # kernel="auto"
    inputs = torch.zeros(2, oracle.D)
    with (
        torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode,
        pytest.raises(DataError, match="make it with kernel='gpu'"),
    ):
        layer.log_prob(mode.from_tensor(inputs))


def test_function_transforms() -> None:
    layer = single("mixed depths", "gpu")
    inputs, targets = random_batch(layer, 6, dtype=torch.float32)
    expected = loss_and_grads(layer, inputs, targets)[1]
    for kernel in ("gpu", "reference"):
        layer.kernel = kernel  # type: ignore[assignment]
        torch.testing.assert_close(torch.func.grad(lambda x: layer(x, targets).loss)(inputs), expected)


@pytest.mark.parametrize("kernel", oracle.KERNELS)
def test_gradients_after_a_first_call_in_inference_mode(kernel: Kernel) -> None:
    layer = copy.deepcopy(single("nested, growing again", kernel))
    inputs, targets = random_batch(layer, 5, dtype=torch.float32)
    with torch.inference_mode():
        layer(inputs, targets), layer.log_prob(inputs), layer.topk(inputs, 2), layer.node_log_probs(inputs, targets)
    (layer(inputs, targets).loss + layer.log_prob(inputs).sum()).backward()
    layer.node_log_probs(inputs, targets).log_prob.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


# -- row-sparse gradients beyond `forward`


@pytest.mark.parametrize("kernel", oracle.KERNELS)
def test_decisions_have_row_sparse_gradients_too(kernel: Kernel) -> None:
    layer = random_layer(TREES["nested, growing again"], dtype=torch.float32, kernel=kernel, sparse=True)
    inputs, targets = random_batch(layer, 4, dtype=torch.float32)
    layer.node_log_probs(inputs, targets).log_prob.sum().backward()
    assert all(p.grad is None or p.grad.is_sparse for p in layer.parameters())
    assert layer.weights[0].grad is not None


@pytest.mark.parametrize("kernel", ["cpu", "reference"])
def test_ignored_targets_touch_no_rows(kernel: Kernel) -> None:
    layer = random_layer(TREES["huffman"], dtype=torch.float32, kernel=kernel, sparse=True)
    inputs, _ = random_batch(layer, 8, dtype=torch.float32)
    targets = torch.tensor([-100] * 7 + [5])
    layer.nll(inputs, targets).backward()
    grad = layer.weights[0].grad
    assert grad is not None
    assert set(grad.coalesce().indices()[0].tolist()) == set(rows_on_paths(layer, torch.tensor([5]))[oracle.D])


def test_steps_of_layers_without_rows_of_some_width() -> None:
    for name in ("one class", "projected root", "binary root, projected"):
        layer = random_layer(TREES[name], dtype=torch.float32, kernel="cpu", sparse=True)
        inputs, targets = random_batch(layer, 4, dtype=torch.float32)
        optimizer = RowwiseAdagrad(layer.parameters())
        layer(inputs, targets).loss.backward()
        before = [p.detach().clone() for p in layer.parameters()]
        optimizer.step()
        moved = [not torch.equal(old, p) for old, p in zip(before, layer.parameters(), strict=True)]
        assert any(moved) == (layer.tree.num_internal > 0)
        assert not any(move and not p.numel() for move, p in zip(moved, layer.parameters(), strict=True))


def test_evaluation_keeps_nothing_for_gradients() -> None:
    layer = single("huffman")
    inputs, targets = random_batch(layer, 4, dtype=torch.float32)
    with torch.no_grad():
        output = layer(inputs.requires_grad_(), targets).output
    assert output.grad_fn is None
    torch.testing.assert_close(output, layer(inputs, targets).output.detach())


# -- construction


@pytest.mark.parametrize("size", [0, -1, 2.5, "16", None], ids=str)
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(DataError, match="in_features must be a whole number >= 1"):
        HierarchicalSoftmax(size, TREES["huffman"])  # type: ignore[arg-type]


def test_a_tree_must_be_one() -> None:
    with pytest.raises(TreeError, match="tree must be a Tree, but got list"):
        HierarchicalSoftmax(4, [0, [1, 2]])  # type: ignore[arg-type]


def test_counts_need_biases() -> None:
    layer = HierarchicalSoftmax(4, Tree.from_nested([0, [1, 2]]), bias=False)
    with pytest.raises(DataError, match="counts need biases"):
        layer.reset_parameters([1, 2, 3])


@pytest.mark.parametrize("linear", [nn.Linear(4, 3, device="meta"), "linear", nn.Identity()], ids=str)
def test_from_something_that_is_no_linear_layer(linear: object) -> None:
    with pytest.raises(DataError, match=r"linear must be an nn\.Linear that holds weights"):
        HierarchicalSoftmax.from_linear(linear, Tree.from_nested([0, [1, 2]]))  # type: ignore[arg-type]
