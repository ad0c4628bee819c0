"""Calibration of decisions against scipy, closed forms and models whose miscalibration is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize_scalar

from tests.decisions.probs import children, few, path, random_probs, trees
from treesearch import Tree
from treesearch.decisions.calibration import NodeIsotonic, NodeTemperatures
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError

TREE = Tree.from_nested([[0, 1, 2], [3, [4, 5]]])


def drawn(tree: Tree, num: int, seed: int, *, scale: float, sharpness: float) -> tuple[NodeProbs, torch.Tensor]:
    """Truths drawn from random decisions, and a model that takes their logits ``sharpness`` times."""
    probs = random_probs(tree, num, seed, scale)
    cls = torch.multinomial(probs.class_log_prob.exp(), 1, generator=torch.Generator().manual_seed(seed + 1000))[:, 0]
    leaf = torch.from_numpy(tree.class_leaf.astype(np.int64))[cls]
    log_conditional = sharpness * probs.log_conditional
    for node in range(tree.num_internal):
        below = children(tree, node)
        log_conditional[:, below] = log_conditional[:, below].log_softmax(1)
    return NodeProbs.of_conditional(tree, log_conditional), leaf


def decisions(probs: NodeProbs, truth: torch.Tensor, node: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a node's children, [E, K], and the right one, [E]."""
    below, rows, taken = children(probs.tree, node), [], []
    for row, leaf in enumerate(truth.tolist()):
        right = [child for child in path(probs.tree, leaf) if child in below]
        if right:
            rows.append(row)
            taken.append(below.index(right[0]))
    return probs.log_conditional[rows][:, below].numpy(), np.array(taken, int)


def nll(log_prob: np.ndarray, taken: np.ndarray, inverse: float) -> float:
    scaled = inverse * log_prob
    total = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
    return float((total - scaled[np.arange(len(taken)), taken]).sum())


@few
@given(tree=trees(max_leaves=8), seed=st.integers(0, 99))
def test_temperatures_are_those_that_scipy_finds(tree: Tree, seed: int) -> None:
    if tree.num_internal == 0:
        return
    probs, truth = drawn(tree, 60, seed, scale=1.0, sharpness=2.0)
    found = NodeTemperatures.fit(probs, truth, min_examples=20)
    every = [decisions(probs, truth, node) for node in range(tree.num_internal)]
    for node, (_, taken) in enumerate(every):
        assert int(found.num_examples[node]) == len(taken)
        group = [node]
        if len(taken) < 20:
            group = [other for other in range(tree.num_internal) if tree.node_depths[other] == tree.node_depths[node]]
        if sum(len(every[other][1]) for other in group) < 20:
            group = list(range(tree.num_internal))
        assert found.source[node] == ("node" if group == [node] and len(taken) >= 20 else found.source[node])

        def total(log_inverse: float, group: list[int] = group) -> float:
            return sum(nll(*every[other], np.exp(log_inverse)) for other in group if len(every[other][1]))

        best = minimize_scalar(total, bounds=(-np.log(100), np.log(100)), method="bounded", options={"xatol": 1e-10})
        assert total(-np.log(float(found.temperature[node]))) <= best.fun + 1e-9


def test_a_model_three_times_too_sure_has_temperature_three() -> None:
    probs, truth = drawn(TREE, 20_000, 0, scale=1.5, sharpness=3.0)
    found = NodeTemperatures.fit(probs, truth)
    assert found.temperature.tolist() == pytest.approx([3.0] * TREE.num_internal, rel=0.1)
    assert repr(found).endswith("node=4, level=0, all=0)")
    honest, _ = drawn(TREE, 20_000, 0, scale=1.5, sharpness=1.0)
    exact = NodeTemperatures(TREE, torch.full((4,), 3.0, dtype=torch.float64), found.num_examples, found.source)
    torch.testing.assert_close(exact.apply(probs).log_prob, honest.log_prob)


@pytest.mark.parametrize("kind", [NodeTemperatures, NodeIsotonic])
@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_likelihood_of_new_examples_rises(kind: type[NodeTemperatures | NodeIsotonic], sharpness: float) -> None:
    probs, truth = drawn(TREE, 3_000, 1, scale=2.0, sharpness=sharpness)
    new, new_truth = drawn(TREE, 3_000, 2, scale=2.0, sharpness=sharpness)
    best, _ = drawn(TREE, 3_000, 2, scale=2.0, sharpness=1.0)
    before, after, true = (
        -float(one.log_prob.gather(1, new_truth[:, None]).mean())
        for one in (new, kind.fit(probs, truth).apply(new), best)
    )
    assert before - true > 0.1
    assert after - true < 0.25 * (before - true)


def test_few_examples_take_what_more_have() -> None:
    """Node 2 has few; the node below it too, and so has its level."""
    probs, truth = drawn(TREE, 400, 3, scale=1.0, sharpness=2.0)
    left = truth_in(TREE, truth, 1)
    keep = left | (torch.arange(400) < 20)
    found = NodeTemperatures.fit(probs[keep], truth[keep], min_examples=50)
    assert found.source == ("node", "node", "level", "all")
    assert len(set(found.temperature.tolist())) == 4
    isotonic = NodeIsotonic.fit(probs[keep], truth[keep], min_examples=50)
    assert isotonic.source == found.source
    assert sorted(isotonic.curve_of_node.tolist()) == [0, 1, 2, 3]
    assert repr(isotonic).endswith("node=2, level=1, all=1)")


def truth_in(tree: Tree, truth: torch.Tensor, node: int) -> torch.Tensor:
    return torch.tensor([node in path(tree, leaf) for leaf in truth.tolist()])


def test_what_tells_of_a_decision() -> None:
    """Inner truths tell of what is above them, the root of nothing."""
    probs = random_probs(TREE, 4, 0)
    truth = torch.tensor([0, 1, 2, int(TREE.class_leaf[4])])
    assert NodeTemperatures.fit(probs, truth, min_examples=1).num_examples.tolist() == [3, 0, 1, 1]


def test_temperatures_without_bound_are_bounded() -> None:
    pair = Tree.from_nested([0, 1])
    probs = NodeProbs.of_log_prob(pair, torch.tensor([[0.6, 0.4]]).repeat(40, 1).log())
    right, wrong = torch.full((40,), 1), torch.full((40,), 2)
    assert NodeTemperatures.fit(probs, right).temperature.tolist() == pytest.approx([0.01], rel=0.2)  # flat in float64
    assert NodeTemperatures.fit(probs, wrong).temperature.tolist() == pytest.approx([100])
    even = NodeProbs.of_log_prob(pair, torch.zeros(40, 2).log_softmax(1))
    assert NodeTemperatures.fit(even, right).temperature.tolist() == [1]
    never = NodeProbs.of_log_prob(pair, torch.tensor([[0.0, -torch.inf]]).repeat(40, 1))
    assert NodeTemperatures.fit(never, wrong).temperature.tolist() == pytest.approx([100])
    assert NodeTemperatures.fit(never, right).apply(never).prob[0].tolist() == [1, 1, 0]


def test_a_curve_is_that_of_scipy() -> None:
    """A binary node: where its steps end the curve has the values of the regression on both children."""
    pair = Tree.from_nested([0, 1])
    probs, truth = drawn(pair, 300, 5, scale=1.0, sharpness=3.0)
    found = NodeIsotonic.fit(probs, truth)
    prob = probs.conditional[:, 1:].numpy().ravel()
    right = (truth[:, None] == torch.tensor([1, 2])).double().numpy().ravel()
    order = np.argsort(prob)
    value = np.maximum(isotonic_regression(right[order]).x, 0.5 / 600)
    where, fitted = found.curves[0]
    np.testing.assert_allclose(np.interp(prob[order], where, fitted), value, atol=1e-12)
    assert where.size < 100
    both = np.interp(probs.conditional[:, 1:].numpy(), where, fitted)
    applied = found.apply(probs).conditional[:, 1:]
    np.testing.assert_allclose(applied, both / both.sum(1, keepdims=True))
    assert float(applied.min()) > 0


@pytest.mark.parametrize("kind", [NodeTemperatures, NodeIsotonic])
def test_bad_calibrations(kind: type[NodeTemperatures | NodeIsotonic]) -> None:
    probs, truth = drawn(TREE, 200, 0, scale=1.0, sharpness=1.0)
    with pytest.raises(DataError, match=r"at least min_examples = 201 decisions .* but got 200"):
        kind.fit(probs[:100], torch.tensor([1, int(TREE.class_leaf[4])]).repeat_interleave(50), min_examples=201)
    with pytest.raises(DataError, match="min_examples must be a whole number >= 1"):
        kind.fit(probs, truth, min_examples=0)
    with pytest.raises(DataError, match=r"one node per example, 200, but got shape \(199,\)"):
        kind.fit(probs, truth[1:])
    with pytest.raises(DataError, match=r"truth must lie in \[0, 10\)"):
        kind.fit(probs, truth + 9)
    with pytest.raises(DataError, match="of the tree of the calibration"):
        kind.fit(probs, truth).apply(random_probs(Tree.from_nested([0, 1]), 1, 0))


@pytest.mark.parametrize("kind", [NodeTemperatures, NodeIsotonic])
def test_one_class_has_nothing_to_calibrate(kind: type[NodeTemperatures | NodeIsotonic]) -> None:
    one = random_probs(Tree.from_nested(0), 3, 0)
    assert kind.fit(one, torch.zeros(3, dtype=torch.int64)).apply(one).prob.tolist() == [[1]] * 3
