"""Soft targets at nodes: against a naive walk in float64, `forward` and numerical derivatives; kernel by kernel."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.softmax import oracle
from tests.softmax.oracle import KERNELS, TREES, D, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.paths import class_paths
from treesearch.softmax import HierarchicalSoftmax, NodeTargets, reference
from treesearch.softmax.layer import Kernel

DEEP = TREES["nested, growing again"]  # 9 classes, binary and wide nodes, nested projections
PAIR = Tree.from_nested([[0, 1], [2, 3, 4]])  # three internal nodes: of arity 2, 2 and 3


def listed(tree: Tree, row: Any, node: Any, rng: np.random.Generator) -> NodeTargets:
    """These decisions with random masses that do not sum to one, a third of them zero."""
    num = int(tree.arities[node].sum())
    mass = rng.random(num) * (rng.random(num) < 0.67)
    return NodeTargets.of(tree, row=row, node=node, mass=mass, num_rows=int(max(row, default=-1)) + 2)


def random_targets(tree: Tree, num_rows: int, rng: np.random.Generator, share: float = 0.4) -> NodeTargets:
    """Each internal node is listed in a share of the rows; the last row lists none."""
    row, node = np.nonzero(rng.random((num_rows - 1, tree.num_internal)) < share)
    found = listed(tree, row, node, rng)
    return NodeTargets(found.row, found.node, found.ptr, found.mass, num_rows)


def one_hot_paths(tree: Tree, classes: Tensor) -> NodeTargets:
    """The paths of the classes, all mass on the branch taken."""
    paths = class_paths(tree)
    row = np.repeat(np.arange(len(classes)), tree.depths[classes])
    entry = np.concatenate([[0][:0], *(np.arange(paths.ptr[c], paths.ptr[c + 1]) for c in classes.tolist())]).astype(
        int
    )
    node = paths.node[entry]
    mass = np.zeros(tree.arities[node].sum())
    mass[np.cumsum(tree.arities[node]) - tree.arities[node] + paths.branch[entry]] = 1
    return NodeTargets.of(tree, row=row, node=node, mass=mass, num_rows=len(classes))


def by_the_book(layer: HierarchicalSoftmax, inputs: Tensor, targets: NodeTargets) -> list[float]:
    log_probs = [oracle.branch_log_probs(layer, row) for row in inputs.numpy()]
    total = [0.0] * len(inputs)
    for e, (row, node) in enumerate(zip(targets.row.tolist(), targets.node.tolist(), strict=True)):
        for k, mass in enumerate(targets.mass[targets.ptr[e] : targets.ptr[e + 1]].tolist()):
            total[row] -= mass * log_probs[row][node][k]
    return total


def with_gradients(layer: HierarchicalSoftmax, inputs: Tensor, targets: NodeTargets) -> list[Tensor]:
    """Values, and the gradients of a weighted sum of them: of the inputs, then of all parameters, made dense."""
    inputs = inputs.detach().requires_grad_()
    loss = layer.node_cross_entropy(inputs, targets)
    wanted = [inputs, *layer.parameters()]
    scale = torch.linspace(-1, 1, len(inputs), dtype=loss.dtype) / len(inputs) ** 0.5
    grads = torch.autograd.grad((loss * scale).sum(), wanted, allow_unused=True)
    filled = [torch.zeros_like(v) if g is None else g.to_dense() for g, v in zip(grads, wanted, strict=True)]
    return [loss.detach(), *filled]


def exactly(layer: HierarchicalSoftmax) -> HierarchicalSoftmax:
    """The same layer on the reference kernel in float64, with dense gradients."""
    exact = copy.deepcopy(layer).double()
    exact.kernel, exact.sparse = "reference", False
    return exact


def assert_equals_reference(layer: HierarchicalSoftmax, inputs: Tensor, targets: NodeTargets) -> None:
    found = with_gradients(layer, inputs, targets)
    for own, expected in zip(found, with_gradients(exactly(layer), inputs.double(), targets), strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-5)


# -- the loss ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(oracle.projected_trees(), st.integers(0, 1000), st.integers(1, 6), st.booleans())
def test_any_tree_against_the_naive_walk(tree: Tree, seed: int, num: int, bias: bool) -> None:
    layer = random_layer(tree, seed=seed, bias=bias)
    inputs, _ = random_batch(layer, num, seed=seed)
    targets = random_targets(tree, num, np.random.default_rng(seed))
    loss = layer.node_cross_entropy(inputs, targets).tolist()
    np.testing.assert_allclose(loss, by_the_book(layer, inputs, targets), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["binary root, projected", "nested, growing again", "projection below a gap"])
def test_gradcheck(name: str) -> None:
    layer = random_layer(TREES[name])
    targets = random_targets(layer.tree, 4, np.random.default_rng(0))
    groups = [list(group) for group in (layer.weights, layer.biases, layer.projections)]
    values = [random_batch(layer, 4)[0], *(value for group in groups for value in group)]
    tables = reference.Tables.of(layer.layout)

    def as_function(of: Callable[..., Tensor], middle: Any) -> Callable[..., Tensor]:
        def function(x: Tensor, *flat: Tensor) -> Tensor:
            parts = iter(flat)
            return of(tables, x, middle, *([next(parts) for _ in group] for group in groups))

        return function

    values = [value.detach().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(as_function(reference.node_cross_entropy, targets), values)
    nodes = torch.tensor([layer.tree.num_nodes - 1, 0, 1, 1])
    assert torch.autograd.gradcheck(as_function(reference.subtree_log_probs, nodes), values)


@settings(deadline=None)
@given(oracle.projected_trees(), st.integers(0, 1000), st.sampled_from([1, 5, 40]), st.booleans(), st.booleans())
def test_compiled_kernel_equals_the_reference(tree: Tree, seed: int, num: int, bias: bool, sparse: bool) -> None:
    layer = random_layer(tree, seed=seed, bias=bias, dtype=torch.float32, kernel="cpu", sparse=sparse)
    inputs, _ = random_batch(layer, num, seed=seed, dtype=torch.float32)
    assert_equals_reference(layer, inputs, random_targets(tree, num, np.random.default_rng(seed)))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["very wide", "random, large", "adaptive"])
def test_large_nodes_and_batches(name: str, sparse: bool) -> None:
    layer = random_layer(TREES[name], dtype=torch.float32, kernel="cpu", sparse=sparse)
    inputs, _ = random_batch(layer, 300, dtype=torch.float32)
    assert_equals_reference(layer, inputs, random_targets(layer.tree, 300, np.random.default_rng(0), share=0.1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["flat", "huffman", "chain", "nested, growing again", "random, large"])
def test_one_hot_paths_are_the_targets_of_forward(kernel: Kernel, name: str) -> None:
    layer = random_layer(TREES[name], dtype=torch.float32, kernel=kernel)
    inputs, classes = random_batch(layer, 30, dtype=torch.float32)
    soft = layer.node_cross_entropy(inputs, one_hot_paths(layer.tree, classes))
    hard = layer(inputs, classes).output
    torch.testing.assert_close(soft, -hard, rtol=2e-6, atol=1e-6)
    grads = [torch.autograd.grad(loss.sum(), list(layer.parameters()), allow_unused=True) for loss in (soft, -hard)]
    for one, other, value in zip(*grads, layer.parameters(), strict=True):
        zero = torch.zeros_like(value)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_sparse_gradients_hold_the_rows_of_the_listed_nodes(kernel: Kernel) -> None:
    layer = random_layer(DEEP, dtype=torch.float32, kernel=kernel, sparse=True)
    inputs, _ = random_batch(layer, 3, dtype=torch.float32)
    targets = listed(DEEP, [0, 1, 1], [3, 3, 5], np.random.default_rng(0))
    layer.node_cross_entropy(inputs, targets).sum().backward()
    layout = layer.layout
    for width, parameter in enumerate(layer.weights):
        first, last = ((layout.node_row + more)[[3, 5]] for more in (0, layout.num_rows))
        own = layout.node_width[[3, 5]] == width
        expected = sorted(r for a, b in zip(first[own], last[own], strict=True) for r in range(a, b))
        rows = [] if parameter.grad is None else parameter.grad.coalesce().indices()[0].tolist()
        assert rows == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_deep_decisions_alone_pass_the_projections_above_them(kernel: Kernel) -> None:
    layer = random_layer(DEEP, dtype=torch.float32, kernel=kernel)
    deepest = int(np.argmax(DEEP.node_depths[: DEEP.num_internal]))
    assert DEEP.projection_dim[DEEP.parent[deepest]] > 0
    targets = listed(DEEP, [0, 0, 2], [deepest - 1, deepest, deepest], np.random.default_rng(0))
    inputs, _ = random_batch(layer, 4, dtype=torch.float32)
    assert_equals_reference(layer, inputs, targets)
    np.testing.assert_allclose(
        layer.node_cross_entropy(inputs, targets).detach(), by_the_book(layer, inputs, targets), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_listed_costs_nothing(kernel: Kernel) -> None:
    for tree in (DEEP, Tree.from_nested(0)):
        layer = random_layer(tree, dtype=torch.float32, kernel=kernel)
        for num in (0, 3):
            inputs = torch.ones(num, D, requires_grad=True)
            targets = NodeTargets.of(tree, row=[], node=[], mass=[], num_rows=num)
            loss = layer.node_cross_entropy(inputs, targets)
            assert loss.tolist() == [0.0] * num
            loss.sum().backward()
            assert inputs.grad is not None
            assert not inputs.grad.any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_leading_shapes_and_types_of_mass(kernel: Kernel) -> None:
    layer = random_layer(DEEP, dtype=torch.float32, kernel=kernel)
    inputs, classes = random_batch(layer, 6, dtype=torch.float32)
    targets = one_hot_paths(DEEP, classes)
    flat = layer.node_cross_entropy(inputs, targets)
    assert torch.equal(layer.node_cross_entropy(inputs.view(2, 3, D), targets), flat.view(2, 3))
    single = NodeTargets(targets.row, targets.node, targets.ptr, targets.mass.float(), 6)
    wide = torch.stack([inputs, inputs], 1)[:, 1]
    torch.testing.assert_close(layer.node_cross_entropy(wide, single), flat)
    assert torch.equal(layer.node_cross_entropy(inputs, targets.to("cpu")), flat)
    with torch.no_grad():
        assert torch.equal(layer.node_cross_entropy(inputs, targets), flat)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_child_without_mass_may_be_impossible(kernel: Kernel) -> None:
    tree = Tree.from_nested([0, [1, 2], *range(3, 40)])
    layer = random_layer(tree, dtype=torch.float32, kernel=kernel)
    with torch.no_grad():
        layer.biases[0][[3, 20]] = -torch.inf  # two children of the root
        layer.biases[0][-1] = torch.inf  # the binary node always takes the first
    inputs, _ = random_batch(layer, 5, dtype=torch.float32)
    targets = one_hot_paths(tree, torch.tensor([0, 1, 3, 1, 39]))
    assert_equals_reference(layer, inputs, targets)
    loss, *grads = with_gradients(layer, inputs, targets)
    assert all(torch.isfinite(value).all() for value in (loss, *grads))


def test_a_chain_of_ten_thousand_nodes() -> None:
    depth = 10_000
    parent = np.concatenate([np.arange(-1, depth - 1), np.arange(depth), [depth - 1]])
    projection = np.zeros(depth, int)
    projection[[0, depth // 2]] = 2
    tree = Tree.from_parents(parent, np.arange(depth + 1), projection_dim=projection)
    layer = random_layer(tree, dtype=torch.float32, kernel="cpu", sparse=True)
    inputs, classes = random_batch(layer, 2, dtype=torch.float32)
    classes[:] = depth
    soft = layer.node_cross_entropy(inputs, one_hot_paths(tree, classes))
    torch.testing.assert_close(soft, -layer(inputs, classes).output, rtol=1e-4, atol=0)


# -- subtrees ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["one class", "flat", "mixed depths", "nested, growing again"])
def test_subtrees_add_up(kernel: Kernel, name: str) -> None:
    tree = TREES[name]
    layer = random_layer(tree, dtype=torch.float32, kernel=kernel)
    inputs = random_batch(layer, 6, dtype=torch.float32)[0].view(2, 3, D)
    scores = layer.subtree_log_probs(inputs)
    assert scores.shape == (2, 3, tree.num_nodes)
    torch.testing.assert_close(scores[..., tree.class_leaf.tolist()], layer.log_prob(inputs), rtol=1e-5, atol=1e-5)
    assert not scores[..., 0].any()
    for node in range(tree.num_internal):
        below = scores[..., tree.children(node).tolist()].logsumexp(-1)
        torch.testing.assert_close(below, scores[..., node], rtol=1e-5, atol=1e-5)
    some = torch.tensor([tree.num_nodes - 1, 0, tree.num_nodes - 1])
    torch.testing.assert_close(layer.subtree_log_probs(inputs, some), scores[..., some])
    assert layer.subtree_log_probs(inputs, some[:0]).shape == (2, 3, 0)


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rows": 1}, r"row must lie in \[0, 1\), but range from 0 to 1"),
        ({"num_rows": -1}, "num_rows must be a whole number >= 0, but got -1"),
        ({"row": [0, -1, 1]}, r"row must lie in \[0, 2\), but range from -1 to 1"),
        ({"row": [0, 1]}, "one per decision, but got 2 and 3"),
        ({"row": [1, 0, 1]}, "decision 0 is node 0 of row 1 and the next is node 1 of row 0; sort them"),
        ({"row": [[0, 0, 1]]}, r"row must be whole numbers \[E\], but got int64 of shape \(1, 3\)"),
        ({"node": [0, 0, 2]}, "decision 0 is node 0 of row 0 and the next is node 0 of row 0"),
        ({"node": [1, 0, 2]}, "decision 0 is node 1 of row 0 and the next is node 0 of row 0"),
        ({"node": [0, 1, 3]}, r"node must lie in \[0, 3\), but range from 0 to 3"),
        ({"node": [0.0, 1.0, 2.0]}, "node must be whole numbers"),
        ({"mass": [1.0] * 6}, r"one number per child of every decision, 7 in all, but got shape \(6,\)"),
        ({"mass": [1.0] * 6 + [-0.5]}, "finite and >= 0, but one is -0.5"),
        ({"mass": [1.0] * 6 + [np.nan]}, "finite and >= 0, but one is nan"),
        ({"mass": [1.0] * 6 + [np.inf]}, "finite and >= 0, but one is inf"),
        ({"mass": ["a"] * 7}, "mass must be numbers"),
        ({"mass": torch.ones(7, 1)}, r"7 in all, but got shape \(7, 1\)"),
    ],
    ids=str,
)
def test_targets_that_are_none(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"row": [0, 0, 1], "node": [0, 1, 2], "mass": [1.0] * 7, "num_rows": 2}
    assert NodeTargets.of(PAIR, **good).ptr.tolist() == [0, 2, 4, 7]
    refused(message, lambda: NodeTargets.of(PAIR, **(good | change)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_targets_of_another_batch_or_tree(kernel: Kernel) -> None:
    layer = random_layer(PAIR, dtype=torch.float32, kernel=kernel)
    inputs = torch.zeros(2, D)
    row, node, ptr, mass = torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([0, 2, 5]), torch.ones(5)
    assert layer.node_cross_entropy(inputs, NodeTargets(row, node, ptr, mass, 2)).shape == (2,)
    cases: list[tuple[NodeTargets, str]] = [
        (NodeTargets(row, node, ptr, mass, 3), "one row per input, 2, but have 3"),
        (NodeTargets(row + 1, node, ptr, mass, 2), r"row must lie in \[0, 2\)"),
        (NodeTargets(row, node + 1, ptr, mass, 2), r"node must lie in \[0, 3\)"),
        (NodeTargets(row, node, ptr + 1, mass, 2), "one per child of every node, 5 in all, but are 5"),
        (NodeTargets(row, node, ptr, mass[:4], 2), "5 in all, but are 4; make the targets with the tree of the layer"),
        (NodeTargets(row, node, ptr[:2], mass, 2), r"shapes \(E,\), \(E,\) and \(E \+ 1,\)"),
        (NodeTargets(row.int(), node, ptr, mass, 2), "must be int64 and their masses floating"),
        (NodeTargets(row, node, ptr, mass.long(), 2), "must be int64 and their masses floating"),
        (NodeTargets(row, node, ptr, mass.to("meta"), 2), "must be on the device of the input, cpu, but are on meta"),
    ]
    for targets, message in cases:
        refused(message, lambda targets=targets: layer.node_cross_entropy(inputs, targets))  # type: ignore[misc]
    wrong: Any = row
    refused("targets must be NodeTargets, but got Tensor", lambda: layer.node_cross_entropy(inputs, wrong))
    refused("6 features", lambda: layer.node_cross_entropy(inputs[:, :5], NodeTargets(row, node, ptr, mass, 2)))
    refused(r"nodes must lie in \[0, 8\), but range from 6 to 9", lambda: layer.subtree_log_probs(inputs, ptr[1:] + 4))
    refused(r"nodes must be integers \[K\]", lambda: layer.subtree_log_probs(inputs, mass))


def test_second_derivatives_and_traces_are_refused_rather_than_wrong() -> None:
    layer = random_layer(PAIR, dtype=torch.float32, kernel="cpu")
    inputs, classes = random_batch(layer, 5, dtype=torch.float32)
    targets = one_hot_paths(PAIR, classes)
    inputs.requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return layer.node_cross_entropy(x, targets).sum()

    refused("no second derivatives", lambda: torch.autograd.grad(loss(inputs), inputs, create_graph=True))
    refused("cannot be traced", lambda: torch.func.grad(loss)(inputs.detach()))
    refused("cannot be traced", lambda: torch.func.vmap(layer.subtree_log_probs)(inputs.detach()))
    layer.kernel = "reference"
    (first,) = torch.autograd.grad(loss(inputs), inputs, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), inputs)[0].any()
