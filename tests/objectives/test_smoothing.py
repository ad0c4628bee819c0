"""Hierarchical label smoothing against the formula, class by class."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nested import nested_trees
from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.errors import DataError
from treesearch.objectives.distances import TreeDistance
from treesearch.objectives.smoothing import HierarchicalSmoothing

KINDS = ["edges", "height", "lengths"]


def ancestors(tree: Tree, node: int) -> list[int]:
    return [node] + ([] if tree.parent[node] < 0 else ancestors(tree, int(tree.parent[node])))


def distance(tree: Tree, a: int, b: int, kind: str, lengths: np.ndarray) -> float:
    up, other = (ancestors(tree, int(tree.class_leaf[cls])) for cls in (a, b))
    meet = next(node for node in up if node in other)
    if kind == "edges":
        return sum(lengths[node] for node in up[: up.index(meet)] + other[: other.index(meet)])
    leaves = [ancestors(tree, int(leaf)) for leaf in tree.class_leaf]
    return max(path.index(meet) for path in leaves if meet in path)


@settings(deadline=None, max_examples=40)
@given(
    nested_trees(max_leaves=12),
    st.sampled_from(["edges", "height", "lengths"]),
    st.floats(0, 3),
    st.floats(0, 0.9),
    st.data(),
)
def test_distributions(nested: Any, kind: str, beta: float, smoothing: float, data: Any) -> None:
    tree = Tree.from_nested(nested)
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    lengths = np.ones(tree.num_nodes)
    if kind == "lengths":
        lengths = rng.uniform(0, 2, tree.num_nodes)
    own = TreeDistance(tree, "edges" if kind != "height" else kind, lengths if kind == "lengths" else None)  # type: ignore[arg-type]
    smoother = HierarchicalSmoothing(tree, smoothing=smoothing, beta=beta, distance=own)
    num_classes = tree.num_classes
    target = torch.arange(num_classes)
    pairs = np.array(
        [
            [distance(tree, a, b, own.kind, lengths) if a != b else 0 for b in range(num_classes)]
            for a in range(num_classes)
        ]
    )
    assert own.between(*np.indices((num_classes, num_classes)).reshape(2, -1)) == pytest.approx(pairs.ravel())
    expected = np.eye(num_classes)
    if num_classes > 1:
        weight = np.exp(-beta * pairs) * (1 - np.eye(num_classes))
        expected = (1 - smoothing) * np.eye(num_classes) + smoothing * weight / weight.sum(1, keepdims=True)
    found = smoother.distribution(target).double().numpy()
    assert found == pytest.approx(expected, abs=2e-6)

    targets = smoother.node_targets(target)
    listed: dict[tuple[int, int], list[float]] = {}
    for entry, (row, node) in enumerate(zip(targets.row.tolist(), targets.node.tolist(), strict=True)):
        listed[row, node] = targets.mass[targets.ptr[entry] : targets.ptr[entry + 1]].tolist()
    paths = [ancestors(tree, int(leaf)) for leaf in tree.class_leaf]
    below = [[cls for cls in range(num_classes) if node in paths[cls]] for node in range(tree.num_nodes)]
    for cls in range(num_classes):
        path = [node for node in paths[cls] if node < tree.num_internal]
        assert [node for row, node in listed if row == cls] == sorted(path)
        for node in path:
            masses = [expected[cls, below[child]].sum() for child in tree.children(node)]
            assert listed[cls, node] == pytest.approx(masses, abs=2e-6)


def test_losses() -> None:
    tree = Tree.from_nested([[0, 1, 2], [[3, 4], 5], 6])
    smoother = HierarchicalSmoothing(tree, smoothing=0.2, beta=0.5)
    target = torch.tensor([0, 4, 6, 4])
    logits = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    wanted = smoother.distribution(target).double()
    by_torch = torch.nn.functional.cross_entropy(logits, wanted)
    assert torch.allclose(smoother.flat_loss(logits, target), by_torch)
    layer = HierarchicalSoftmax(5, tree, dtype=torch.float64)
    input_BD = torch.randn(4, 5, dtype=torch.float64)
    log_prob = layer.log_prob(input_BD)
    exact = smoother.loss(layer, input_BD, target, exact=True)
    assert torch.allclose(exact, -(wanted * log_prob).sum(1).mean())
    local = smoother.loss(layer, input_BD, target)
    # The exact loss is the local one and the decisions off the path, none of which are negative.
    assert layer(input_BD, target).loss * 0.8 < local < exact
    plain = HierarchicalSmoothing(tree, smoothing=0)
    assert torch.allclose(plain.loss(layer, input_BD, target), layer(input_BD, target).loss)


def test_uniform_smoothing_is_torchs_over_the_other_classes() -> None:
    tree = build_tree("huffman", counts=np.arange(1, 9))
    logits, target = torch.randn(3, 8), torch.tensor([1, 0, 7])
    smoother = HierarchicalSmoothing(tree, smoothing=0.1 * 7 / 8, beta=0)
    torchs = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    assert torch.allclose(smoother.flat_loss(logits, target), torchs)


def test_deep_and_steep_trees_stay_finite() -> None:
    nested: Any = 0
    for cls in range(1, 400):
        nested = [nested, cls]
    tree = Tree.from_nested(nested)
    smoother = HierarchicalSmoothing(tree, smoothing=0.3, beta=20.0)
    target = torch.tensor([0, 200, 399])
    assert torch.allclose(smoother.distribution(target).sum(1), torch.ones(3))
    mass = smoother.node_targets(target).mass
    assert bool((torch.isfinite(mass) & (mass >= 0)).all())
    with pytest.raises(DataError, match="lower it"):
        HierarchicalSmoothing(tree, smoothing=0.3, beta=1000.0)


def test_one_class_and_errors() -> None:
    single = HierarchicalSmoothing(Tree.from_nested(0), smoothing=0.5)
    assert single.distribution(torch.tensor([0])).tolist() == [[1.0]]
    assert single.node_targets(torch.tensor([0, 0])).num_rows == 2
    steep = HierarchicalSmoothing(Tree.from_nested([0, [1, 2]]), smoothing=0, beta=2000.0)
    assert steep.distribution(torch.tensor([1])).tolist() == [[0.0, 1.0, 0.0]]
    with pytest.raises(DataError, match="classes must lie in"):
        TreeDistance(Tree.from_nested([0, [1, 2]])).between([0], [3])
    tree = Tree.from_nested([0, [1, 2]])
    for bad, message in (
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), but got 1.0"),
        ({"smoothing": -0.1}, "smoothing must lie"),
        ({"smoothing": 0.1, "beta": -1.0}, "beta must be finite and >= 0"),
        ({"smoothing": 0.1, "distance": "hops"}, "'edges' or 'height'"),
        ({"smoothing": 0.1, "distance": TreeDistance(Tree.from_nested([0, 1]))}, "on another one"),
    ):
        with pytest.raises(DataError, match=message):
            HierarchicalSmoothing(tree, **bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="5 numbers >= 0"):
        TreeDistance(tree, lengths=[1, 1])
    with pytest.raises(DataError, match="leave them out"):
        TreeDistance(tree, "height", lengths=[1] * 5)
    smoother = HierarchicalSmoothing(tree, smoothing=0.1)
    with pytest.raises(DataError, match=r"targets must lie in \[0, 3\)"):
        smoother.distribution(torch.tensor([3]))
    with pytest.raises(DataError, match="integer class ids"):
        smoother.node_targets(torch.tensor([0.0]))
    with pytest.raises(DataError, match=r"scores must be \[B, 3\]"):
        smoother.flat_loss(torch.zeros(1, 4), torch.tensor([0]))
    other = HierarchicalSoftmax(2, Tree.from_nested([[0, 1], 2]))
    with pytest.raises(DataError, match="use exact=True"):
        smoother.loss(other, torch.zeros(1, 2), torch.tensor([0]))
    assert torch.isfinite(smoother.loss(other, torch.zeros(1, 2), torch.tensor([0]), exact=True))
