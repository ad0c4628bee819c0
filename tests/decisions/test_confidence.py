"""Confidence of paths against sums over classes; risk against coverage by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decisions.test_attribution import D, random_layer
from tests.nested import nested_trees
from tests.ragged import ZOO, path, taxonomies
from treesearch import Tree
from treesearch.decisions.audit import explain
from treesearch.decisions.confidence import level_confidence, minimum, path_confidence, product
from treesearch.decisions.risk_coverage import risk_coverage
from treesearch.errors import DataError
from treesearch.metrics.levels import tree_levels
from treesearch.taxonomy import Taxonomy


@settings(deadline=None, max_examples=20)
@given(taxonomy=taxonomies(), nested=nested_trees(max_leaves=10), own_tree=st.booleans())
def test_levels_are_sums_over_classes(taxonomy: Taxonomy, nested, own_tree: bool) -> None:
    tree = taxonomy.tree if own_tree else Tree.from_nested(nested)
    hierarchy = taxonomy if own_tree else tree_levels(tree)
    layer, hidden = random_layer(tree), torch.randn(3, D, dtype=torch.float64)
    audit, prob = explain(layer, hidden), layer.log_prob(hidden).exp().detach()
    found = level_confidence(audit)
    assert found.shape == (3, hierarchy.num_levels)
    ways = [path(hierarchy, cls) for cls in range(tree.num_classes)]
    for row, cls in enumerate(audit.classes.tolist()):
        for level in range(1, hierarchy.num_levels + 1):
            ended = len(ways[cls]) <= level
            same = [c for c, way in enumerate(ways) if c == cls or (not ended and ways[cls][level] in way)]
            assert found[row, level - 1] == pytest.approx(float(prob[row, same].sum()), abs=1e-9)
    if hierarchy.num_levels:
        np.testing.assert_allclose(found[:, -1], path_confidence(audit), atol=1e-12)
        assert (np.diff(found, axis=1) <= 1e-12).all()


def test_product_and_minimum() -> None:
    log_prob = np.log([[0.5, 0.25, 1.0], [0.9, 0.9, 0.9]])
    assert product(log_prob).tolist() == pytest.approx([0.125, 0.729])
    assert minimum(log_prob).tolist() == pytest.approx([0.25, 0.9])
    assert minimum(np.zeros((2, 0))).tolist() == product(np.zeros((2, 0))).tolist() == [1, 1]
    with pytest.raises(DataError, match="must be"):
        product([[0.5]])


def test_bad_confidence() -> None:
    audit = explain(random_layer(Tree.from_nested([[0, 2], [1, 3], 4])), torch.zeros(2, D).double())
    with pytest.raises(DataError, match="did you mean 'product'"):
        path_confidence(audit, "produkt")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="must refine the hierarchy, but no node of it has the classes of 'animal'"):
        level_confidence(explain(random_layer(audit.tree), torch.zeros(1, D).double(), target=torch.tensor([0])), ZOO)
    with pytest.raises(DataError, match="must be a Taxonomy"):
        level_confidence(audit, audit.tree)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    confidence=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    errors=st.booleans(),
)
def test_curves_by_brute_force(confidence: list[int], seed: int, errors: bool) -> None:
    rng, num = np.random.default_rng(seed), len(confidence)
    loss = rng.integers(0, 2, num).astype(float) if errors else rng.standard_normal(num)
    values = np.array(confidence) / 4
    curve = risk_coverage(values, loss)
    expected = [(t, (values >= t).mean(), loss[values >= t].mean()) for t in sorted(set(values.tolist()), reverse=True)]
    found = np.stack([curve.threshold, curve.coverage, curve.risk], 1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert curve.aurc == pytest.approx(np.mean([loss[values >= value].mean() for value in values]), abs=1e-12)
    for share in (0.01, 0.3, 0.5, 1.0, *curve.coverage.tolist()):
        threshold, risk = next((t, r) for t, c, r in expected if c >= share - 1e-12)
        assert curve.risk_at(share) == pytest.approx(risk, abs=1e-12)
        assert curve.threshold_at(share) == threshold
    for limit in (-9.0, 0.0, 0.4, *curve.risk.tolist()):
        reached = max((c for _, c, r in expected if r <= limit + 1e-12), default=0.0)
        assert curve.coverage_at(limit) == pytest.approx(reached, abs=1e-12)
    if errors:
        order = np.sort(loss)
        best = risk_coverage(-np.arange(num), order)
        assert curve.excess_aurc == pytest.approx(curve.aurc - best.aurc, abs=1e-12)
        assert best.excess_aurc == pytest.approx(0, abs=1e-12)


def test_order_of_equals_does_not_matter() -> None:
    confidence, loss = np.array([0.5] * 6 + [0.9]), np.array([0, 0, 0, 1, 1, 1, 0])
    curves = [risk_coverage(confidence[order], loss[order]) for order in (np.arange(7), np.arange(7)[::-1])]
    assert curves[0].risk.tolist() == curves[1].risk.tolist() == [0, pytest.approx(3 / 7)]
    assert curves[0].coverage.tolist() == [pytest.approx(1 / 7), 1]


@pytest.mark.parametrize(
    ("confidence", "loss", "message"),
    [
        ([], [], "one number each per example"),
        ([0.1], [1, 0], "one number each per example"),
        ([0.1, np.nan], [1, 0], "that of example 1 is NaN"),
        ([0.1, 0.2], [np.inf, 0], "losses must be finite, but that of example 0 is not"),
        (["a"], [1], "must be numbers"),
    ],
)
def test_bad_curves(confidence, loss, message: str) -> None:
    with pytest.raises(DataError, match=message):
        risk_coverage(confidence, loss)
    curve = risk_coverage([0.1, 0.2], [0.5, 0.75])
    with pytest.raises(DataError, match=r"coverage must lie in \(0, 1\]"):
        curve.risk_at(0)
    with pytest.raises(DataError, match="losses that are 0 or 1"):
        _ = curve.excess_aurc
    with pytest.raises(DataError, match="risk must be a number"):
        curve.coverage_at(float("nan"))


@pytest.mark.parametrize("loss", [[0.5, 0.5], [2.0, -1.0], [-1.0, 2.0]])
def test_losses_that_sum_to_a_whole_number_are_no_errors(loss: list[float]) -> None:
    curve = risk_coverage([2.0, 1.0], loss)
    with pytest.raises(DataError, match="0 or 1"):
        _ = curve.excess_aurc
