"""Hierarchical softmax by the book: one example and one node at a time, in float64, from the documented row order."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import nested as naive
from treesearch import Tree, build_tree
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.layer import Kernel

D = 6  # features of all trees here
KERNELS: tuple[Kernel, ...] = ("reference", "cpu", "gpu")


def projected(nested: naive.Naive, dims: Sequence[int]) -> Tree:
    """The tree with these projections on its internal nodes, in canonical order (0: none)."""
    shape = Tree.from_nested(nested)
    return Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=dims)


def random_tree(rng: np.random.Generator, num_classes: int, max_dim: int = D) -> Tree:
    """A random shape with a projection of random size on two nodes in five."""
    nested = naive.random_nested(rng, num_classes)
    num_internal = Tree.from_nested(nested).num_internal
    dims = rng.integers(1, max_dim + 1, num_internal) * (rng.random(num_internal) < 0.4)
    return projected(nested, dims.tolist())


@st.composite
def projected_trees(draw: st.DrawFn) -> Tree:
    """Any small tree, each node with a projection of any size or none."""
    nested = draw(naive.nested_trees(max_leaves=12))
    num_internal = Tree.from_nested(nested).num_internal
    return projected(nested, draw(st.lists(st.integers(0, D), min_size=num_internal, max_size=num_internal)))


_counts = 1 / np.arange(1, 41)
TREES: dict[str, Tree] = {
    "one class": Tree.from_nested(0),
    "two classes": Tree.from_nested([0, 1]),
    "three classes": Tree.from_nested([0, 1, 2]),
    "flat": build_tree("flat", counts=_counts),
    "very wide": build_tree("flat", counts=np.ones(700)),
    "huffman": build_tree("huffman", counts=_counts),
    "huffman 5-ary": build_tree("huffman", counts=_counts, arity=5),
    "chain": Tree.from_nested([0, [1, [2, [3, [4, [5, 6, 7]]]]]]),
    "mixed depths": Tree.from_nested([0, [1, 2], [3, [4, 5, 6], 7], [8, [9, [10, 11]]]]),
    "adaptive": build_tree("adaptive", counts=_counts, cutoffs=[5, 15], div_value=2.0, in_features=D),
    "projected root": projected([[0, 1], [2, 3, 4], 5], [4, 0, 0]),
    "binary root, projected": projected([0, 1], [3]),
    "square, nested": projected([0, [1, [2, [3, 4, 5]]]], [6, 6, 6, 6]),
    "nested, growing again": projected([[0, [1, [2, 3]]], [4, [5, 6, 7]], 8], [0, 2, 3, 5, 0, 1]),
    "projection below a gap": projected([[[0, 1], 2], [[3, 4, 5], 6]], [4, 0, 0, 2, 4]),
    "random": random_tree(np.random.default_rng(0), 60),
    "random, large": random_tree(np.random.default_rng(1), 300),
}


def random_layer(
    tree: Tree,
    *,
    seed: int = 0,
    in_features: int = D,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    kernel: Kernel = "reference",
    sparse: bool = False,
) -> HierarchicalSoftmax:
    """A layer whose parameters, biases too, are random."""
    generator = torch.Generator().manual_seed(seed)
    layer = HierarchicalSoftmax(in_features, tree, bias, dtype=dtype, kernel=kernel, sparse=sparse)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return layer


def random_batch(
    layer: HierarchicalSoftmax, num: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [B, D] and targets [B]; low classes are frequent, so that targets repeat."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, layer.in_features, generator=generator).to(dtype)
    targets = (torch.rand(num, generator=generator) ** 3 * layer.tree.num_classes).long()
    return inputs, targets


def class_log_probs(layer: HierarchicalSoftmax, x_D: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probability of every class for one example, [C]."""
    branches = branch_log_probs(layer, x_D)
    result = np.empty(layer.tree.num_classes)
    for _, entry, steps in naive.walk(layer.tree.to_nested()):
        if not isinstance(entry, list):
            result[entry] = sum(branches[node][branch] for node, branch in steps)
    return result


def branch_log_probs(layer: HierarchicalSoftmax, x_D: NDArray[Any]) -> dict[int, NDArray[np.float64]]:
    """Log-probability of each child of every internal node for one example."""
    biases = list(layer.biases) or [torch.zeros(len(matrix)) for matrix in layer.weights]
    tables = {
        matrix.shape[1]: (_array(matrix), _array(bias)) for matrix, bias in zip(layer.weights, biases, strict=True)
    }
    projections = map(_array, layer.projections)
    rows_used: Counter[int] = Counter()
    seen: dict[int, NDArray[Any]] = {}  # the vector that each node's decision sees
    branches: dict[int, NDArray[Any]] = {}
    for number, entry, steps in naive.walk(layer.tree.to_nested()):
        if not isinstance(entry, list):
            continue
        vector = seen[steps[-1][0]] if steps else x_D
        if layer.tree.projection_dim[number]:
            vector = next(projections) @ vector
        seen[number] = vector
        width, num_rows = vector.size, 1 if len(entry) == 2 else len(entry)
        own = slice(rows_used[width], rows_used[width] + num_rows)
        rows_used[width] += num_rows
        weight, bias = tables[width]
        logits = weight[own] @ vector + bias[own]
        if len(entry) == 2:
            logits = np.append(logits, 0.0)  # sigmoid(z) is a softmax of z against 0
        branches[number] = logits - np.log(np.exp(logits).sum())
    return branches


def rows_on_paths(layer: HierarchicalSoftmax, targets: torch.Tensor) -> dict[int, list[int]]:
    """By width (size of the vector): the rows, in rising order, of the nodes on the targets' paths."""
    wanted = set(targets.tolist())
    rows: dict[int, list[int]] = {matrix.shape[1]: [] for matrix in layer.weights}
    rows_used: Counter[int] = Counter()
    width_of: dict[int, int] = {}
    for number, entry, steps in naive.walk(layer.tree.to_nested()):
        if isinstance(entry, list):
            above = width_of[steps[-1][0]] if steps else layer.in_features
            width = width_of[number] = int(layer.tree.projection_dim[number]) or above
            first = rows_used[width]
            rows_used[width] += 1 if len(entry) == 2 else len(entry)
            if wanted & set(naive.depths(entry)):
                rows[width] += range(first, rows_used[width])
    return rows


def _array(parameter: torch.Tensor) -> NDArray[np.float64]:
    return parameter.detach().numpy().astype(np.float64)
