"""torch's adaptive softmax is one of our trees: with its weights, the same probabilities and gradients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.softmax.oracle import projected
from treesearch import build_tree
from treesearch.softmax import HierarchicalSoftmax

FEATURES, CLASSES = 16, 20


def pair(cutoffs: list[int], div_value: float) -> tuple[nn.AdaptiveLogSoftmaxWithLoss, HierarchicalSoftmax]:
    """Torch's layer, and ours with its weights."""
    torch.manual_seed(0)  # the only source of randomness that torch's constructor takes
    theirs = nn.AdaptiveLogSoftmaxWithLoss(FEATURES, CLASSES, cutoffs, div_value, dtype=torch.float64)
    bounds = [*cutoffs, CLASSES]
    tails = [list(range(low, high)) for low, high in pairwise(bounds)]
    dims = [0, *(int(FEATURES // div_value ** (i + 1)) for i in range(len(tails)))]
    ours = HierarchicalSoftmax(FEATURES, projected([*range(cutoffs[0]), *tails], dims), bias=False, dtype=torch.float64)
    downs, ups = tail_matrices(theirs)
    load(ours, [theirs.head.weight, *ups])
    for projection, down in zip(ours.projections, downs, strict=True):
        projection.data.copy_(down)
    return theirs, ours


def tail_matrices(layer: nn.AdaptiveLogSoftmaxWithLoss) -> list[tuple[nn.Parameter, ...]]:
    """The projections of all tails, and their output matrices."""
    return list(zip(*(tail.parameters() for tail in layer.tail), strict=True))


def load(layer: HierarchicalSoftmax, matrices: list[Tensor]) -> None:
    """Fill the rows of each node, a matrix per node in canonical order; two rows become their difference."""
    for matrix, own in zip(matrices, rows_of_nodes(layer), strict=True):
        own.data.copy_(matrix if len(matrix) > 2 else matrix[:1] - matrix[1:])


def rows_of_nodes(layer: HierarchicalSoftmax, *, of_grad: bool = False) -> list[Tensor]:
    """Views of each node's rows, in weights or their gradients."""
    views, used = [], dict.fromkeys(layer.layout.widths, 0)
    for arity, dim in zip(layer.tree.arities.tolist(), [0, *layer.tree.projection_dim[1:].tolist()], strict=True):
        width, num_rows = dim or FEATURES, 1 if arity == 2 else arity
        matrix = layer.weights[layer.layout.widths.index(width)]
        source = matrix.grad if of_grad else matrix
        assert source is not None
        views.append(source[used[width] : used[width] + num_rows])
        used[width] += num_rows
    return views


@pytest.mark.parametrize("div_value", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("cutoffs", [[4, 10], [4, 6], [10], [2, 5, 18]], ids=str)
def test_same_function_and_gradients(cutoffs: list[int], div_value: float) -> None:
    if FEATURES // div_value ** len(cutoffs) < 1:
        cutoffs = cutoffs[:2]
    theirs, ours = pair(cutoffs, div_value)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, FEATURES, dtype=torch.float64, generator=generator)
    targets = torch.randint(CLASSES, (50,), generator=generator)
    torch.testing.assert_close(ours.log_prob(inputs), theirs.log_prob(inputs), rtol=0, atol=1e-12)
    assert torch.equal(ours.predict(inputs), theirs.predict(inputs))

    results, gradients = [], []
    for layer in (theirs, ours):
        own_inputs = inputs.clone().requires_grad_()
        results.append(layer(own_inputs, targets))
        results[-1].loss.backward()
        assert own_inputs.grad is not None
        gradients.append(own_inputs.grad)
    torch.testing.assert_close(tuple(results[1]), tuple(results[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)
    downs, ups = tail_matrices(theirs)
    for own, other in zip(rows_of_nodes(ours, of_grad=True), [theirs.head.weight, *ups], strict=True):
        assert other.grad is not None
        torch.testing.assert_close(own, other.grad[: len(own)], rtol=0, atol=1e-12)
    for projection, down in zip(ours.projections, downs, strict=True):
        torch.testing.assert_close(projection.grad, down.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("div_value", [1.0, 2.0, 4.0])
def test_the_builder_makes_this_tree(div_value: float) -> None:
    _, ours = pair([4, 10], div_value)
    counts = np.arange(CLASSES, 0, -1)
    built = build_tree("adaptive", counts=counts, cutoffs=[4, 10], div_value=div_value, in_features=FEATURES)
    assert built.hash == ours.tree.hash
