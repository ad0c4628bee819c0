"""Contributions against autograd, finite differences and closed forms; integrals against completeness."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.nested import Naive, nested_trees, random_nested
from treesearch import HierarchicalSoftmax, Tree
from treesearch.decisions.attribution import branch_rows, integrated_gradients, linear_contributions
from treesearch.errors import DataError
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax

D = 5


def projected(nested: Naive, seed: int) -> Tree:
    """The tree with projections of sizes 1 to D at about half of its nodes."""
    tree, rng = Tree.from_nested(nested), np.random.default_rng(seed)
    dims = rng.integers(1, D + 1, tree.num_internal) * rng.integers(0, 2, tree.num_internal)
    return Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)


def random_layer(tree: Tree, seed: int = 0, *, bias: bool = True, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    layer = HierarchicalSoftmax(D, tree, bias, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def random_decisions(tree: Tree, num: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Any nodes with two of their children each, not on one path: nothing here depends on that; some are left out."""
    rng = np.random.default_rng(seed)
    found = np.full((3, num, length), -1)
    for row, place in np.ndindex(num, length) if tree.num_internal else ():
        if rng.random() < 0.8:
            node = int(rng.integers(tree.num_internal))
            found[:, row, place] = node, *rng.choice(tree.children(node), 2, replace=False)
    return tuple(torch.from_numpy(array) for array in found)  # type: ignore[return-value]


def branch_logit(layer: HierarchicalSoftmax, input: Tensor, node: Tensor, taken: Tensor, rival: Tensor) -> Tensor:
    """[B, L], from the log-probabilities of all nodes: an independent way."""
    log_prob_BM = layer.subtree_log_probs(input)
    difference = log_prob_BM.gather(1, taken.clamp(min=0)) - log_prob_BM.gather(1, rival.clamp(min=0))
    return difference.where(node >= 0, 0.0)


@settings(deadline=None, max_examples=25)
@given(nested=nested_trees(max_leaves=12), seed=st.integers(0, 99), bias=st.booleans(), projecting=st.booleans())
def test_contributions_are_exact(nested: Naive, seed: int, bias: bool, projecting: bool) -> None:
    tree = projected(nested, seed) if projecting else Tree.from_nested(nested)
    layer = random_layer(tree, seed, bias=bias)
    input, baseline = torch.randn(2, 4, D, dtype=torch.float64)
    decisions = random_decisions(tree, 4, 3, seed)
    found = linear_contributions(layer, input, baseline, *decisions)
    assert found.shape == (4, 3, D)

    def logit(values: Tensor) -> Tensor:
        return branch_logit(layer, values, *decisions)

    # They add up: exactly, not as an approximation around the input.
    torch.testing.assert_close(found.sum(2), (logit(input) - logit(baseline)).detach(), rtol=1e-9, atol=1e-9)
    # By autograd, and by finite differences, of which a linear function needs no small one.
    for place in range(3):
        values = input.clone().requires_grad_()
        gradient = torch.autograd.grad(logit(values)[:, place].sum(), values)[0]
        torch.testing.assert_close(found[:, place], gradient * (input - baseline), rtol=1e-8, atol=1e-9)
    for feature in range(D):
        moved = input.clone()
        moved[:, feature] = baseline[:, feature]
        slope = (logit(input) - logit(moved)).detach()
        torch.testing.assert_close(found[:, :, feature], slope, rtol=1e-8, atol=1e-8)
    weight, offset = branch_rows(layer, *decisions)
    torch.testing.assert_close((weight * input[:, None]).sum(2) + offset, logit(input).detach(), rtol=1e-9, atol=1e-9)


def test_integrated_gradients_of_a_layer_are_the_linear_ones() -> None:
    tree = projected(random_nested(np.random.default_rng(3), 30, 8), 3)
    layer = random_layer(tree)
    input, decisions = torch.randn(6, D, dtype=torch.float64), random_decisions(tree, 6, 1, 4)
    found = integrated_gradients(lambda x: branch_logit(layer, x, *decisions)[:, 0], input, num_steps=1)
    exact = linear_contributions(layer, input, None, *decisions)[:, 0]
    torch.testing.assert_close(found.values, exact)
    assert set(found.num_steps.tolist()) == {1}
    assert float(found.gap.abs().max()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(dtype: torch.dtype) -> None:
    tree = Tree.from_nested([[0, 1], [2, 3, 4]])
    layer = random_layer(tree, dtype=dtype)
    decisions = random_decisions(tree, 4, 2, 0)
    input = torch.randn(4, D).to(dtype)
    found = linear_contributions(layer, input, None, *decisions)
    assert found.dtype == torch.float32
    exact = linear_contributions(layer.double(), input.double(), None, *decisions)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_leaf_vectors_one_class_and_no_example() -> None:
    tree = Tree.from_nested([[0, 1], [2, 3, 4]])
    layer = LeafVectorSoftmax(D, tree, dtype=torch.float64)
    input, decisions = torch.randn(4, D, dtype=torch.float64), random_decisions(tree, 4, 2, 1)
    found = linear_contributions(layer, input, None, *decisions)
    zero = torch.zeros_like(input)
    expected = branch_logit(layer, input, *decisions) - branch_logit(layer, zero, *decisions)
    torch.testing.assert_close(found.sum(2), expected.detach())

    single = random_layer(Tree.from_nested(0))
    assert not linear_contributions(single, input, None, *random_decisions(single.tree, 4, 2, 1)).any()
    empty = torch.zeros(0, 2, dtype=torch.int64)
    assert linear_contributions(layer, input[:0], None, empty, empty, empty).shape == (0, 2, D)
    assert integrated_gradients(lambda x: x.sum(1), input[:0]).values.shape == (0, D)


def test_closed_form_of_an_integral() -> None:
    # x0 * x1^2 from (0, 0) to (a, b): along t(a, b) the gradient is t^2 (b^2, 2ab), of mean (b^2, 2ab) / 3.
    input = torch.tensor([[3.0, 2.0], [-1.0, 4.0]], dtype=torch.float64)
    found = integrated_gradients(lambda x: x[:, 0] * x[:, 1] ** 2, input, num_steps=2, tolerance=1e-12)
    first, second = input.T
    expected = torch.stack([first * second**2 / 3, 2 * first * second**2 / 3], 1)
    torch.testing.assert_close(found.values, expected)
    assert found.num_steps.tolist() == [2, 2]  # exact for polynomials


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 50), kinks=st.booleans())
def test_completeness_through_an_encoder(seed: int, kinks: bool) -> None:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU() if kinks else nn.Tanh(), nn.Linear(8, D)).double()
    layer = random_layer(Tree.from_nested([[0, 1], [2, 3, 4]]), seed)
    decisions = random_decisions(layer.tree, 3, 1, seed)
    input, baseline = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    def score(x: Tensor) -> Tensor:
        return branch_logit(layer, encoder(x), *decisions)[:, 0]

    found = integrated_gradients(score, input, baseline, num_steps=4, max_steps=4096, tolerance=1e-2)
    rise = (score(input) - score(baseline.expand_as(input))).detach()
    torch.testing.assert_close(found.values.sum(1) - found.gap, rise)
    assert bool((found.gap.abs() <= 1e-2 * rise.abs().clamp(min=1)).all())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_steps_are_doubled_until_it_adds_up() -> None:
    def score(x: Tensor) -> Tensor:
        return (40 * (x[:, 0] - 0.3)).tanh() + x[:, 1]

    input = torch.tensor([[1.0, 0.0], [0.01, 5.0]], dtype=torch.float64)
    found = integrated_gradients(score, input, num_steps=2, tolerance=1e-6)
    assert found.num_steps[0] > 32 > found.num_steps[1]  # each example its own
    assert float(found.gap.abs().max()) <= 1e-6 * 5
    for row in range(2):
        single = integrated_gradients(score, input[row : row + 1], num_steps=2, tolerance=1e-6)
        torch.testing.assert_close(single.values[0], found.values[row], rtol=1e-14, atol=1e-14)


def test_what_does_not_add_up_is_an_error() -> None:
    input = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(DataError, match=r"sum to 0 for 1 with 64 steps; raise max_steps"):
        integrated_gradients(lambda x: (x[:, 0] > 0.5) + 0 * x[:, 1], input, max_steps=64)


@pytest.mark.parametrize(
    ("score", "settings", "message"),
    [
        (lambda x: x, {}, r"one number for each of 2 examples, but got \(2, 3\)"),
        (lambda x: x.sum(1) / 0, {}, "must be finite"),
        (lambda x: x.detach().sum(1), {}, "must be differentiable"),
        (lambda x: x.sum(1), {"num_steps": 0}, "num_steps must be a whole number >= 1"),
        (lambda x: x.sum(1), {"max_steps": 8}, "max_steps must be a whole number >= 32"),
        (lambda x: x.sum(1), {"tolerance": 0.0}, "tolerance must be > 0"),
        (lambda x: x.sum(1), {"baseline": torch.zeros(2)}, r"a baseline must be a tensor \[3\] or \[2, 3\]"),
        (lambda x: x.sum(1), {"baseline": torch.full((3,), torch.nan)}, "a baseline must be finite"),
    ],
)
def test_bad_scores_and_settings(score, settings, message: str) -> None:
    with pytest.raises(DataError, match=message):
        integrated_gradients(score, torch.ones(2, 3), **settings)


def test_bad_decisions() -> None:
    layer = random_layer(Tree.from_nested([[0, 1], [2, 3, 4]]))  # nodes 0 to 2, leaves 3 to 7
    input = torch.zeros(1, D, dtype=torch.float64)
    for decisions, message in (
        (([[0]], [[1]], [[3]]), "3 is none of node 0"),
        (([[0]], [[-1]], [[1]]), "-1 is none of node 0"),
        (([[3]], [[1]], [[2]]), "nodes must be internal"),
        (([[0]], [[1]], [[1, 2]]), "must have one shape"),
        (([[0.0]], [[1]], [[2]]), "node must hold integer node ids"),
        (([[0], [0]], [[1], [1]], [[2], [2]]), r"decisions must be \[1, L\]"),
    ):
        with pytest.raises(DataError, match=message):
            linear_contributions(layer, input, None, *map(torch.tensor, decisions))
    with pytest.raises(DataError, match="must be a floating tensor"):
        integrated_gradients(lambda x: x.sum(1), torch.zeros(2, 3, dtype=torch.int64))
