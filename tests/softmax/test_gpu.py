"""The GPU kernel: against the reference and the naive walk, compiled, exported, fake, never waiting."""

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.softmax import oracle
from tests.softmax.oracle import TREES, projected, random_batch, random_layer
from tests.waiting import NoWaiting, cuda, no_waiting_on_cuda
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.paths import class_paths
from treesearch.softmax import HierarchicalSoftmax, gpu, reference
from treesearch.softmax.forest import MAX_RUNS, Product
from treesearch.softmax.forest_layer import SoftmaxForest
from treesearch.softmax.gpu import ForestTables
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.sparse import all_rows, gather_many, gather_rows

# Every tree by products alone, by fetched rows alone, and by both.
SETTINGS: dict[str, dict[str, int]] = {
    "default": {},
    "dense": {"dense_rows": 10**9},
    "gathered": {"dense_rows": 0, "gather_arity": 10**9},
    "top dense": {"dense_rows": 6, "gather_arity": 10**9},
    "wide dense": {"dense_rows": 0, "gather_arity": 2},
    "few wide ones dense": {"dense_rows": 0, "gather_arity": 3, "dense_ratio": 2},
}
SOME_TREES = ["one class", "two classes", "huffman 5-ary", "adaptive", "nested, growing again", "random"]
CHAIN = Tree.from_parents([-1, *range(59), *range(60), 59], [*range(61)])


class Case(NamedTuple):
    """A layer's parameters and a batch, as the kernels take them."""

    layer: HierarchicalSoftmax
    input: Tensor
    target: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    projections: list[Tensor]

    @property
    def parameters(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        return self.weights, self.biases, self.projections

    @property
    def leaves(self) -> list[Tensor]:
        return [self.input, *self.weights, *self.biases, *self.projections]


def make_case(
    tree: Tree, num: int = 9, *, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0
) -> Case:
    layer = random_layer(tree, dtype=dtype, seed=seed)
    inputs, targets = random_batch(layer, num, dtype=dtype, seed=seed)
    parts = [
        [parameter.detach().to(device).requires_grad_() for parameter in part]
        for part in (layer.weights, layer.biases, layer.projections)
    ]
    return Case(layer, inputs.to(device).requires_grad_(), targets.to(device), *parts)


def gradients(output: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of a weighted sum of the outputs; zeros where a leaf has no part in it."""
    factor = torch.linspace(-1, 2, output.numel(), dtype=output.dtype, device=output.device).view(output.shape)
    found = torch.autograd.grad((output * factor).sum(), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


def assert_same(
    output: Tensor, expected: Tensor, leaves: Sequence[Tensor], expected_leaves: Sequence[Tensor] | None = None,
    *, tolerance: float = 1e-9,
) -> None:  # fmt: skip
    """Equal values and equal gradients."""
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    wanted = gradients(expected, leaves if expected_leaves is None else expected_leaves)
    for leaf, grad in zip(wanted, gradients(output, leaves), strict=True):
        torch.testing.assert_close(grad, leaf, rtol=tolerance, atol=tolerance)


def tables_of(case: Case, device: str = "cpu", **options: int) -> ForestTables:
    return ForestTables.of([case.layer.layout], device, **options)


def by_reference(case: Case) -> tuple[Tensor, Tensor]:
    """Of the targets [B], and of all classes [B, C]."""
    tables = reference.Tables.of(case.layer.layout, case.input.device)
    return (
        reference.target_log_prob(tables, case.input, case.target, *case.parameters),
        reference.full_log_prob(tables, case.input, *case.parameters),
    )


# -- values and gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", TREES)
def test_equals_the_reference(name: str, options: dict[str, int]) -> None:
    case = make_case(TREES[name])
    tables = tables_of(case, **options)
    of_target, of_all = by_reference(case)
    assert_same(gpu.target_log_prob(tables, case.input, case.target, *case.parameters), of_target, case.leaves)
    assert_same(gpu.full_log_prob(tables, case.input, *case.parameters), of_all, case.leaves)


@settings(deadline=None, max_examples=50)
@given(
    oracle.projected_trees(),
    st.integers(0, 1000),
    st.sampled_from([0, 1, 3, 8, 10**9]),
    st.sampled_from([2, 3, 64]),
    st.sampled_from([1, 256]),
)
def test_any_tree_against_the_naive_walk(
    tree: Tree, seed: int, dense_rows: int, gather_arity: int, dense_ratio: int
) -> None:
    case = make_case(tree, 5, seed=seed)
    tables = tables_of(case, dense_rows=dense_rows, gather_arity=gather_arity, dense_ratio=dense_ratio)
    expected = np.array([oracle.class_log_probs(case.layer, row) for row in case.input.detach().numpy()])
    scores = gpu.full_log_prob(tables, case.input, *case.parameters)
    np.testing.assert_allclose(scores.detach(), expected, rtol=1e-10, atol=1e-12)
    output = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
    np.testing.assert_allclose(output.detach(), expected[np.arange(5), case.target], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_a_chain_of_60_decisions(options: dict[str, int]) -> None:
    assert CHAIN.max_depth == 60
    case = make_case(CHAIN, 20)
    of_target, of_all = by_reference(case)
    tables = tables_of(case, **options)
    assert_same(gpu.target_log_prob(tables, case.input, case.target, *case.parameters), of_target, case.leaves)
    assert_same(gpu.full_log_prob(tables, case.input, *case.parameters), of_all, case.leaves)


def test_every_form_of_table_occurs_above() -> None:
    """The trees and settings of these tests reach each branch of the tables."""
    tables = [
        ForestTables.of([SoftmaxLayout.of(tree, oracle.D)], **options)
        for tree in TREES.values()
        for options in SETTINGS.values()
    ]
    groups = [group for table in tables for group in table.groups]
    for flag in ("dense", "ragged", "scoped", "optional", "binary"):
        assert {getattr(group, flag) for group in groups if flag == "dense" or not group.dense} == {True, False}
    products = [product for table in tables for product in table.dense.products]
    assert {min(len(product.sources), 2) for product in products} == {0, 1, 2}
    assert {product.first_row == Product.NOT_A_RANGE for product in products} == {True, False}
    normalisers = [own for table in tables for own in table.dense.normalisers]
    assert {own.columns is None for own in normalisers} == {True, False}
    assert max(sum(own.columns is None for own in table.dense.normalisers) for table in tables) <= 3 * MAX_RUNS


@pytest.mark.slow
@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_numerical_derivatives(options: dict[str, int]) -> None:
    case = make_case(projected([0, [1, 2, [3, 4]], [5, 6, 7, 8]], [0, 2, 0, 3]), 4)
    tables = tables_of(case, **options)

    def score(*leaves: Tensor) -> Tensor:
        given_input, *rest = leaves
        weights, biases = rest[: len(case.weights)], rest[len(case.weights) : 2 * len(case.weights)]
        return gpu.target_log_prob(tables, given_input, case.target, weights, biases, rest[2 * len(weights) :])

    assert torch.autograd.gradcheck(score, case.leaves)
    assert torch.autograd.gradgradcheck(score, case.leaves)


def test_padding_gives_zeros_and_not_nan() -> None:
    """A path that ends at the root beside long ones; nodes of 3 and 4 children in one group."""
    tree = Tree.from_nested([0, [[1, 2, 3], [4, 5, 6, [7, 8, 9, [10, 11]]]]])
    case = make_case(tree, 3)
    tables = tables_of(case, dense_rows=0)
    assert any(group.ragged and group.optional for group in tables.groups)
    targets = torch.zeros(3, dtype=torch.int64)  # ends at the root
    output = gpu.target_log_prob(tables, case.input, targets, *case.parameters)
    for grad in torch.autograd.grad(output.sum(), [*case.weights, *case.biases]):
        assert grad[:1].abs().min() > 0
        assert not grad[1:].any()


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_empty_batch(options: dict[str, int]) -> None:
    for name in SOME_TREES:
        case = make_case(TREES[name], 0)
        tables = tables_of(case, **options)
        output = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
        assert output.shape == (0,)
        scores = gpu.full_log_prob(tables, case.input, *case.parameters)
        assert scores.shape == (0, case.layer.tree.num_classes)
        assert not any(grad.any() for grad in gradients(output, case.leaves) + gradients(scores, case.leaves))
        log_prob, node = gpu.node_log_probs(tables, case.input, case.target, *case.parameters)
        assert log_prob.shape == node.shape == (0, case.layer.tree.max_depth)


@pytest.mark.parametrize("name", TREES)
def test_decisions_along_the_path(name: str) -> None:
    tree = TREES[name]
    case = make_case(tree)
    paths = class_paths(tree)
    for options in SETTINGS.values():
        tables = tables_of(case, **options)
        log_prob, node = gpu.node_log_probs(tables, case.input, case.target, *case.parameters)
        assert node.dtype == torch.int64
        assert log_prob.shape == node.shape == (9, tree.max_depth)
        for found, target in zip(node.tolist(), case.target.tolist(), strict=True):
            path = paths.node[paths.ptr[target] : paths.ptr[target + 1]].tolist()
            assert found == path + [-1] * (tree.max_depth - len(path))
        assert not log_prob[node < 0].any()
        expected = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
        assert_same(log_prob.sum(1), expected, case.leaves)


def test_single_decisions_are_right() -> None:
    """Not only their sum: each against the naive walk's probabilities of subtrees."""
    tree = TREES["nested, growing again"]
    case = make_case(tree, tree.num_classes)
    targets = torch.arange(tree.num_classes)
    log_prob, node = gpu.node_log_probs(tables_of(case, dense_rows=4), case.input, targets, *case.parameters)
    paths = class_paths(tree)
    for row, target in enumerate(targets.tolist()):
        own = np.exp(oracle.class_log_probs(case.layer, case.input[row].detach().numpy()))
        start, end = paths.ptr[target], paths.ptr[target + 1]
        for step, (at, branch) in enumerate(zip(paths.node[start:end], paths.branch[start:end], strict=True)):
            through = np.array(
                [np.any((paths.node == at) & (entry_class(paths.ptr) == other)) for other in range(tree.num_classes)]
            )
            taken = np.array(
                [
                    np.any((paths.node == at) & (paths.branch == branch) & (entry_class(paths.ptr) == other))
                    for other in range(tree.num_classes)
                ]
            )
            assert log_prob[row, step].item() == pytest.approx(np.log(own[taken].sum() / own[through].sum()), abs=1e-9)
            assert node[row, step] == at


def entry_class(ptr: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.repeat(np.arange(ptr.size - 1), np.diff(ptr))


# -- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one class", "two classes", "huffman", "adaptive"])
@pytest.mark.parametrize("options", [SETTINGS["dense"], SETTINGS["gathered"]])
def test_a_target_out_of_range_fails(name: str, options: dict[str, int]) -> None:
    case = make_case(TREES[name], 3)
    tables = tables_of(case, **options)
    for bad in (-1, -TREES[name].num_classes, TREES[name].num_classes, 10**12):
        with pytest.raises((IndexError, RuntimeError)):
            gpu.target_log_prob(tables, case.input, torch.tensor([0, bad, 0]), *case.parameters)


def test_a_target_does_not_reach_the_next_tree() -> None:
    trees = [TREES["three classes"], TREES["flat"]]
    layouts = [SoftmaxLayout.of(tree, oracle.D) for tree in trees]
    tables = ForestTables.of(layouts)
    weights = [torch.randn(rows, width) for rows, width in zip(tables.rows_per_width, tables.widths, strict=True)]
    biases = [torch.zeros(rows) for rows in tables.rows_per_width]
    inputs = torch.randn(1, oracle.D)
    assert gpu.forest_log_prob(tables, inputs, torch.tensor([[2], [39]]), weights, biases, []).shape == (2, 1)
    for bad in ([[3], [0]], [[0], [40]], [[0], [-1]]):
        with pytest.raises((IndexError, RuntimeError)):
            gpu.forest_log_prob(tables, inputs, torch.tensor(bad), weights, biases, [])


def test_targets_of_any_integer_type() -> None:
    case = make_case(TREES["huffman"])
    expected = gpu.target_log_prob(tables_of(case), case.input, case.target, *case.parameters)
    for dtype in (torch.int32, torch.uint8):
        found = gpu.target_log_prob(tables_of(case), case.input, case.target.to(dtype), *case.parameters)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_wrong_use_is_named() -> None:
    case = make_case(TREES["huffman"])
    layouts = [case.layer.layout, SoftmaxLayout.of(TREES["flat"], oracle.D)]
    both = ForestTables.of(layouts)
    with pytest.raises(DataError, match="one tree is needed here, but the tables are of 2"):
        gpu.target_log_prob(both, case.input, case.target, *case.parameters)
    with pytest.raises(DataError, match=r"targets must have shape \(2, 9\), but got \(1, 9\)"):
        gpu.forest_log_prob(both, case.input, case.target[None], *case.parameters)
    with pytest.raises(DataError, match=r"inputs of one size, but got sizes \[6, 7\]"):
        ForestTables.of([case.layer.layout, SoftmaxLayout.of(TREES["flat"], 7)])
    with pytest.raises(DataError, match="one or more trees"):
        ForestTables.of([])
    with pytest.raises(DataError, match=r"over the same classes, but got sizes \[3, 40\]"):
        SoftmaxForest(oracle.D, [TREES["three classes"], TREES["flat"]])
    with pytest.raises(DataError, match="one or more trees"):
        SoftmaxForest(oracle.D, [])


# -- tables --------------------------------------------------------------------------------------------------------


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors_of(part)
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, SoftmaxLayout):
        for name in value.__dataclass_fields__:
            yield from tensors_of(getattr(value, name))


@pytest.mark.parametrize("arity", [2, 16, 128])
def test_tables_take_memory_in_proportion_to_the_paths(arity: int) -> None:
    num_classes = 20_000
    tree = build_tree("huffman", counts=1 / np.arange(1, num_classes + 1), arity=arity)
    tables = ForestTables.of([SoftmaxLayout.of(tree, 8)])
    assert tables.path_edge.dtype == torch.int32
    assert tables.path_edge.numel() == tree.depths.sum()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(tables))
    assert num_bytes < 4 * tables.path_edge.numel() + 100 * num_classes


def test_wide_nodes_are_dense_unless_there_are_too_many() -> None:
    """100 nodes of 100 children: a product with all 10,000 rows, or 100 rows fetched per target."""
    tree = Tree.from_nested([[*range(100 * i, 100 * i + 100)] for i in range(100)])
    layout = SoftmaxLayout.of(tree, 4)
    all_dense = ForestTables.of([layout], dense_ratio=1000)
    assert [group.dense for group in all_dense.groups] == [True]
    mixed = ForestTables.of([layout], dense_ratio=50, dense_rows=100)
    assert [(group.dense, group.length) for group in mixed.groups] == [(True, 1), (False, 1)]
    rows = sum(product.rows.numel() for product in mixed.dense.products)
    assert rows == 100  # of the root alone


# -- row-sparse gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", [*SOME_TREES, "very wide"])
def test_sparse_gradients_are_the_dense_ones(name: str, options: dict[str, int]) -> None:
    case = make_case(TREES[name])
    tables = tables_of(case, **options)
    dense = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
    sparse = gpu.target_log_prob(tables, case.input, case.target, *case.parameters, sparse=True)
    torch.testing.assert_close(sparse, dense, rtol=0, atol=0)
    has_rows = case.layer.tree.num_internal > 0
    for leaf, expected, grad in zip(
        case.leaves, gradients(dense, case.leaves), gradients(sparse, case.leaves), strict=True
    ):
        if leaf is not case.input and has_rows and grad.is_sparse:
            assert grad.sparse_dim() == 1
            grad = grad.to_dense()
        elif leaf is not case.input:
            assert not grad.any()  # a width that nothing fetches
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def test_sparse_gradients_hold_the_rows_of_the_paths_only() -> None:
    case = make_case(build_tree("huffman", counts=1 / np.arange(1, 301)), 2)
    tables = tables_of(case, dense_rows=0)
    targets = torch.tensor([5, 299])
    gpu.target_log_prob(tables, case.input, targets, *case.parameters, sparse=True).sum().backward()
    paths = class_paths(case.layer.tree)
    on_paths = {int(node) for target in (5, 299) for node in paths.node[paths.ptr[target] : paths.ptr[target + 1]]}
    for leaf in (case.weights[0], case.biases[0]):
        assert leaf.grad is not None
        assert leaf.grad.is_sparse
        assert set(leaf.grad._indices()[0].tolist()) == on_paths  # binary nodes have one row each


def test_sparse_gradients_go_with_the_optimiser_for_them() -> None:
    case = make_case(TREES["random"])
    leaves = [*case.weights, *case.biases, *case.projections]
    before = [leaf.detach().clone() for leaf in leaves]
    output = gpu.target_log_prob(tables_of(case), case.input, case.target, *case.parameters, sparse=True)
    optimizer = torch.optim.SparseAdam([leaf for leaf in leaves if leaf.numel()], lr=0.01)
    (-output.mean()).backward()
    optimizer.step()
    assert any(not torch.equal(old, leaf) for old, leaf in zip(before, leaves, strict=True))


def test_row_fetches() -> None:
    values = torch.arange(12.0).view(4, 3).requires_grad_()
    rows = torch.tensor([[3, 0], [3, 1]], dtype=torch.int32)
    for sparse in (False, True):
        taken = gather_rows(values, rows, sparse)
        torch.testing.assert_close(taken, values[rows.long()])
        (grad,) = torch.autograd.grad(taken.sum(), values)
        assert grad.is_sparse == sparse
        expected = torch.tensor([[1.0], [1.0], [0.0], [2.0]]).expand(4, 3)
        torch.testing.assert_close(grad.to_dense() if sparse else grad, expected)
        first, second = gather_many(values[:, 0], [rows[0], rows], sparse)
        assert (first.tolist(), second.tolist()) == ([9.0, 0.0], [[9.0, 0.0], [9.0, 3.0]])
        with pytest.raises((IndexError, RuntimeError)):
            gather_rows(values, torch.tensor([-1]), sparse)
    (grad,) = torch.autograd.grad((all_rows(values, True) ** 2).sum(), values)
    assert grad.is_sparse
    torch.testing.assert_close(grad.to_dense(), 2 * values.detach())
    assert all_rows(values, False) is values


# -- number types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SETTINGS["default"], SETTINGS["gathered"]], ids=["default", "gathered"])
@pytest.mark.parametrize("name", ["flat", "huffman", "adaptive", "random"])
def test_bfloat16(name: str, options: dict[str, int]) -> None:
    case = make_case(TREES[name], 64, dtype=torch.float32)
    tables = tables_of(case, **options)
    exact = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
    expected, expected_grads = exact.mean(), gradients(exact, case.leaves)
    low = [[part.detach().bfloat16() for part in parts] for parts in case.parameters]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
        of_low_input = gpu.target_log_prob(tables, case.input.bfloat16(), case.target, *case.parameters)
        scores = gpu.full_log_prob(tables, case.input, *case.parameters)
    alone = gpu.target_log_prob(tables, case.input.bfloat16(), case.target, *low)
    for found in (mixed, of_low_input, alone, scores.gather(1, case.target[:, None])):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.mean(), expected, rtol=2e-2, atol=0)
    for grad, wanted in zip(gradients(mixed, case.leaves), expected_grads, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, wanted, rtol=5e-2, atol=5e-2 * float(wanted.abs().max()))


def test_log_probabilities_have_at_least_single_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        case = make_case(TREES["one class"], dtype=dtype)
        assert gpu.target_log_prob(tables_of(case), case.input, case.target, *case.parameters).dtype == dtype


# -- compilers -----------------------------------------------------------------------------------------------------


# torch's compilers do these two things themselves: making a `Function` while tracing one, and using torch.jit.
COMPILER_WARNINGS = (
    "ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning",
    "ignore:.*torch.jit.*is deprecated:DeprecationWarning",
)
pytestmark = [pytest.mark.filterwarnings(warning) for warning in COMPILER_WARNINGS]


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one class", SETTINGS["default"]),
        ("huffman 5-ary", SETTINGS["default"]),
        ("huffman", SETTINGS["gathered"]),
        ("adaptive", SETTINGS["gathered"]),
        ("nested, growing again", SETTINGS["top dense"]),
    ],
)
def test_compiled_whole(name: str, options: dict[str, int]) -> None:
    target_log_prob = torch.compile(gpu.target_log_prob, fullgraph=True, backend="aot_eager")
    for num in (9, 5, 7):  # the second size makes the batch dynamic, the third reuses that code
        case = make_case(TREES[name], num)
        tables = tables_of(case, **options)
        arguments = (tables, case.input, case.target, *case.parameters)
        assert_same(target_log_prob(*arguments), gpu.target_log_prob(*arguments), case.leaves)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", ["one class", "nested, growing again"])
def test_all_classes_and_decisions_compiled_whole(name: str) -> None:
    case = make_case(TREES[name])
    tables = tables_of(case, dense_rows=6)
    full = torch.compile(gpu.full_log_prob, fullgraph=True, backend="aot_eager")
    arguments = (tables, case.input, *case.parameters)
    assert_same(full(*arguments), gpu.full_log_prob(*arguments), case.leaves)
    decisions = torch.compile(gpu.node_log_probs, fullgraph=True, backend="aot_eager")
    targeted = (tables, case.input, case.target, *case.parameters)
    log_prob, node = decisions(*targeted)
    expected, expected_node = gpu.node_log_probs(*targeted)
    assert torch.equal(node, expected_node)
    assert_same(log_prob, expected, case.leaves)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", ["huffman", "adaptive"])
def test_compiled_to_machine_code(name: str) -> None:
    target_log_prob = torch.compile(gpu.target_log_prob, fullgraph=True, dynamic=True)
    for num in (9, 5):
        case = make_case(TREES[name], num)
        tables = tables_of(case, dense_rows=6)
        arguments = (tables, case.input, case.target, *case.parameters)
        assert_same(target_log_prob(*arguments), gpu.target_log_prob(*arguments), case.leaves)


class _Scorer(nn.Module):
    def __init__(self, case: Case, tables: ForestTables, sparse: bool = False) -> None:
        super().__init__()
        self.tables = tables
        self.sparse = sparse
        self.weights = nn.ParameterList(case.weights)
        self.biases = nn.ParameterList(case.biases)
        self.projections = nn.ParameterList(case.projections)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        parameters = list(self.weights), list(self.biases), list(self.projections)
        return gpu.target_log_prob(self.tables, input, target, *parameters, sparse=self.sparse)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME_TREES[1:])
def test_exported_with_a_dynamic_batch(name: str) -> None:
    case = make_case(TREES[name], 9)
    module = _Scorer(case, tables_of(case, dense_rows=6))
    batch = torch.export.Dim("batch", min=2, max=1 << 20)
    program = torch.export.export(
        module, (case.input.detach(), case.target), dynamic_shapes={"input": {0: batch}, "target": {0: batch}}
    )
    for num in (9, 4, 17):
        other = make_case(TREES[name], num)
        torch.testing.assert_close(
            program.module()(other.input, other.target), module(other.input, other.target), rtol=1e-9, atol=1e-9
        )


def test_sparse_gradients_cannot_be_compiled() -> None:
    case = make_case(TREES["huffman"])
    module = _Scorer(case, tables_of(case), sparse=True)
    with pytest.raises(DataError, match="sparse=True cannot be compiled"):
        torch.export.export(module, (case.input.detach(), case.target))


@pytest.mark.parametrize("name", SOME_TREES)
@pytest.mark.parametrize("inside", [True, False], ids=["tables inside", "tables outside"])
def test_under_fake_tensors(name: str, inside: bool) -> None:
    case = make_case(TREES[name])
    tables = tables_of(case, dense_rows=6)
    mode = FakeTensorMode(allow_non_fake_inputs=not inside)
    fakes = [mode.from_tensor(leaf.detach()) for leaf in case.leaves]
    with mode:
        if inside:
            tables = tables_of(case, dense_rows=6)
            assert all(isinstance(tensor, FakeTensor) for tensor in tensors_of(tables))
        leaves = [leaf.requires_grad_() for leaf in fakes]
        fake_input, *rest = leaves
        ends = np.cumsum([len(case.weights), len(case.biases)])
        parameters = rest[: ends[0]], rest[ends[0] : ends[1]], rest[ends[1] :]
        target = mode.from_tensor(case.target)
        output = gpu.target_log_prob(tables, fake_input, target, *parameters)
        output.sum().backward()
        assert (output.shape, output.dtype) == ((9,), torch.float64)
        assert fake_input.grad is not None
        assert gpu.full_log_prob(tables, fake_input, *parameters).shape == (9, TREES[name].num_classes)


def test_the_detector_of_waiting_works() -> None:
    values = torch.tensor([1.0, -1.0])
    for waiting in (lambda: values.sum().item(), lambda: values[values > 0], lambda: values.nonzero()):
        with pytest.raises(AssertionError), NoWaiting():
            waiting()


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", SOME_TREES)
def test_nothing_waits_for_the_device(name: str, options: dict[str, int]) -> None:
    case = make_case(TREES[name])
    tables = tables_of(case, **options)
    with NoWaiting():
        for sparse in (False, True):
            output = gpu.target_log_prob(tables, case.input, case.target, *case.parameters, sparse=sparse)
            gradients(output, case.leaves)
        gradients(gpu.full_log_prob(tables, case.input, *case.parameters), case.leaves)
        log_prob, _ = gpu.node_log_probs(tables, case.input, case.target, *case.parameters)
        gradients(log_prob, case.leaves)


# -- forests -------------------------------------------------------------------------------------------------------

FOREST = ["huffman", "adaptive", "flat", "huffman 5-ary"]  # all over 40 classes


def forest_of(names: Sequence[str], *, bias: bool = True) -> tuple[SoftmaxForest, list[HierarchicalSoftmax]]:
    layers = [random_layer(TREES[name], seed=seed, bias=bias) for seed, name in enumerate(names)]
    forest = SoftmaxForest(oracle.D, [TREES[name] for name in names], bias, dtype=torch.float64)
    for index, layer in enumerate(layers):
        forest.load_tree(index, layer)
    return forest, layers


@pytest.mark.parametrize("names", [FOREST, FOREST[::-1], ["huffman"] * 3], ids=["mixed", "reversed", "same"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_forest_is_its_layers(names: list[str], bias: bool) -> None:
    forest, layers = forest_of(names, bias=bias)
    inputs, targets = random_batch(layers[0], 9)
    inputs.requires_grad_()
    output = forest(inputs, targets)
    expected = torch.stack([layer(inputs, targets).output for layer in layers])
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)

    factor = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    (output * factor).sum().backward()
    input_grad, inputs.grad = inputs.grad, None
    (expected * factor).sum().backward()
    torch.testing.assert_close(input_grad, inputs.grad, rtol=1e-9, atol=1e-9)
    of_forest = copy.deepcopy(forest)  # its parameters replaced by their gradients, cut like parameters
    with torch.no_grad():
        for parameter, source in zip(of_forest.parameters(), forest.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(source) if source.grad is None else source.grad)
    for index, layer in enumerate(layers):
        own = layer.weights, layer.biases, layer.projections
        for parts, theirs in zip(of_forest.tree_parameters(index), own, strict=True):
            for part, parameter in zip(parts, theirs, strict=True):
                wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(part, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_trees_over_different_classes(options: dict[str, int]) -> None:
    names = ["one class", "random", "two classes", "nested, growing again", "random, large", "one class", "adaptive"]
    cases = [make_case(TREES[name], seed=seed) for seed, name in enumerate(names)]
    tables = ForestTables.of([case.layer.layout for case in cases], **options)
    weights, biases = [], []
    for width in tables.widths:
        holders = [(case, case.layer.layout.widths.index(width)) for case in cases if width in case.layer.layout.widths]
        weights.append(torch.cat([case.weights[index] for case, index in holders]))
        biases.append(torch.cat([case.biases[index] for case, index in holders]))
    projections = [matrix for case in cases for matrix in case.projections]
    assert tuple(map(len, weights)) == tables.rows_per_width
    assert [tuple(matrix.shape) for matrix in projections] == list(
        zip(tables.scope_dim, tables.source_dim, strict=True)
    )

    inputs = cases[0].input
    targets = torch.stack([case.target for case in cases])
    expected = torch.stack([by_reference(case._replace(input=inputs))[0] for case in cases])
    leaves = [inputs, *(leaf for case in cases for leaf in case.leaves[1:])]
    for sparse in (False, True):
        output = gpu.forest_log_prob(tables, inputs, targets, weights, biases, projections, sparse=sparse)
        if sparse:
            torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
        else:
            assert_same(output, expected, leaves)


def test_parameters_go_in_and_out_of_a_forest() -> None:
    forest, layers = forest_of(FOREST)
    for index, layer in enumerate(layers):
        taken = forest.to_layer(index)
        assert taken.tree == layer.tree
        for found, wanted in zip(taken.parameters(), layer.parameters(), strict=True):
            assert torch.equal(found, wanted)
    with torch.no_grad():
        forest.tree_parameters(0).weights[0].zero_()
    assert not forest.to_layer(0).weights[0].any()
    assert torch.equal(forest.to_layer(1).weights[0], layers[1].weights[0])
    with pytest.raises(DataError, match="the layer must be over tree 0 of the forest"):
        forest.load_tree(0, layers[1])
    with pytest.raises(DataError, match="bias must be the same in both"):
        forest.load_tree(0, random_layer(TREES["huffman"], bias=False))


def test_a_forest_starts_at_random_and_learns() -> None:
    forest = SoftmaxForest(oracle.D, [TREES["huffman"], TREES["adaptive"]])
    forest.reset_parameters(torch.Generator().manual_seed(0))
    assert not any(vector.any() for vector in forest.biases)
    for matrix in [*forest.weights, *forest.projections]:
        assert 0 < matrix.abs().max() <= matrix.shape[1] ** -0.5
    inputs, targets = random_batch(random_layer(TREES["huffman"]), 32, dtype=torch.float32)
    optimizer = torch.optim.Adam(forest.parameters(), lr=0.05)
    before = forest(inputs, targets).mean(1)
    for _ in range(30):
        optimizer.zero_grad()
        (-forest(inputs, targets).sum()).backward()
        optimizer.step()
    assert (forest(inputs, targets).mean(1) > before + 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64], ids=str)
def test_a_forest_refuses_inputs_of_another_type(dtype: torch.dtype) -> None:
    forest, _ = forest_of(FOREST)
    with pytest.raises(DataError, match=f"must have the type of the layer, torch.float64, but got {dtype}"):
        forest(torch.zeros(3, oracle.D, dtype=dtype), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.complex64], ids=str)
def test_a_forest_refuses_targets_that_are_no_class_ids(dtype: torch.dtype) -> None:
    forest, _ = forest_of(FOREST)
    with pytest.raises(DataError, match=f"integer class ids, but got {dtype}; use target.long"):
        forest(torch.zeros(3, oracle.D, dtype=torch.float64), torch.zeros(3, dtype=dtype))


def test_a_forest_takes_class_ids_of_any_integer_type() -> None:
    forest, layers = forest_of(FOREST)
    inputs, targets = random_batch(layers[0], 9)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(forest(inputs, targets.to(dtype)), forest(inputs, targets))


def test_a_forest_casts_under_autocast_like_a_layer() -> None:
    forest = SoftmaxForest(oracle.D, [TREES["huffman"]])
    layer = forest.to_layer(0)
    layer.kernel = "gpu"
    inputs, targets = random_batch(layer, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(forest(inputs, targets)[0], layer(inputs, targets).output)


def test_a_forest_draws_the_same_weights_in_every_type_and_place() -> None:
    """The draws are float32 on the CPU, so a seed means the same weights wherever the forest stands."""
    trees = [TREES["huffman"], TREES["adaptive"]]
    forests = [SoftmaxForest(oracle.D, trees, dtype=dtype) for dtype in (torch.float32, torch.float64)]
    for forest in forests:
        forest.reset_parameters(torch.Generator().manual_seed(3))
    for single, double in zip(forests[0].parameters(), forests[1].parameters(), strict=True):
        assert torch.equal(single.double(), double)
    alone, layer = SoftmaxForest(oracle.D, trees[1:]), HierarchicalSoftmax(oracle.D, trees[1])
    alone.reset_parameters(torch.Generator().manual_seed(3))
    layer.reset_parameters(generator=torch.Generator().manual_seed(3))
    for own, theirs in zip(alone.parameters(), layer.parameters(), strict=True):
        assert torch.equal(own, theirs)


def test_a_forest_checks_its_arguments() -> None:
    forest, _ = forest_of(FOREST)
    inputs, targets = torch.zeros(3, oracle.D, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(DataError, match=r"input must have 6 features, but got shape \(3, 5\)"):
        forest(inputs[:, :5], targets)
    with pytest.raises(DataError, match=r"input must have shape \[B, 6\], but got \(6,\)"):
        forest(inputs[0], targets[0])
    with pytest.raises(DataError, match=r"target must have shape \(3,\), but got \(2,\)"):
        forest(inputs, targets[:2])
    with pytest.raises(DataError, match=r"integer class ids, but got torch\.float64"):
        forest(inputs, inputs[:, 0])
    with pytest.raises(DataError, match=r"targets must lie in \[0, 40\), but range from -1 to -1"):
        forest(inputs, targets - 1)
    assert "num_trees=4, num_classes=40" in repr(forest)


def test_a_forest_is_copied_pickled_and_moved() -> None:
    forest, layers = forest_of(FOREST)
    inputs, targets = random_batch(layers[0], 5)
    expected = forest(inputs, targets)
    for other in (copy.deepcopy(forest), pickle.loads(pickle.dumps(forest))):
        assert torch.equal(other(inputs, targets), expected)
    empty = SoftmaxForest(oracle.D, forest.trees, device="meta", dtype=torch.float64)
    assert empty.tables.device.type == "meta"
    moved = empty.to_empty(device="cpu")
    moved.load_state_dict(forest.state_dict())
    assert torch.equal(moved(inputs, targets), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_forest_is_compiled_whole() -> None:
    forest, layers = forest_of(FOREST)
    inputs, targets = random_batch(layers[0], 5)
    compiled: Callable[..., Tensor] = torch.compile(forest, fullgraph=True, backend="aot_eager")
    assert_same(compiled(inputs, targets), forest(inputs, targets), list(forest.parameters()))


# -- CUDA ----------------------------------------------------------------------------------------------------------


class TestCuda:
    pytestmark = cuda

    @pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
    @pytest.mark.parametrize("name", TREES)
    def test_equals_the_reference_on_the_host(self, name: str, options: dict[str, int]) -> None:
        here, there = make_case(TREES[name]), make_case(TREES[name], device="cuda")
        tables = tables_of(there, "cuda", **options)
        expected, expected_scores = by_reference(here)
        wanted = gradients(expected, here.leaves)
        factor = torch.linspace(-1, 2, 9, dtype=torch.float64, device="cuda")
        with no_waiting_on_cuda():
            output = gpu.target_log_prob(tables, there.input, there.target, *there.parameters)
            grads = torch.autograd.grad((output * factor).sum(), there.leaves, allow_unused=True)
            scores = gpu.full_log_prob(tables, there.input, *there.parameters)
            log_prob, _ = gpu.node_log_probs(tables, there.input, there.target, *there.parameters)
            rows = gpu.target_log_prob(tables, there.input, there.target, *there.parameters, sparse=True)
            torch.autograd.grad((rows * factor).sum(), there.leaves, allow_unused=True)
        torch.testing.assert_close(output.cpu(), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(scores.cpu(), expected_scores, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_prob.sum(1), output, rtol=1e-9, atol=1e-9)
        for grad, want in zip(grads, wanted, strict=True):
            found = torch.zeros_like(want) if grad is None else grad.cpu()
            torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)

    def test_forest(self) -> None:
        forest, layers = forest_of(FOREST)
        inputs, targets = random_batch(layers[0], 9)
        expected = forest(inputs, targets)
        forest.cuda()
        inputs, targets = inputs.cuda(), targets.cuda()
        with no_waiting_on_cuda():
            output = forest(inputs, targets)
            output.sum().backward()
        torch.testing.assert_close(output.cpu(), expected, rtol=1e-9, atol=1e-9)

    def test_bfloat16(self) -> None:
        case = make_case(TREES["random"], 64, dtype=torch.float32, device="cuda")
        tables = tables_of(case, "cuda", dense_rows=20)
        exact = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
        with torch.autocast("cuda", torch.bfloat16), no_waiting_on_cuda():
            mixed = gpu.target_log_prob(tables, case.input, case.target, *case.parameters)
            mixed.sum().backward()
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed.mean(), exact.mean(), rtol=2e-2, atol=0)
