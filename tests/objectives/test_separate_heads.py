"""Separate heads against losses written out level by level, and what the penalty is for."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.ragged import EAGLE, FISH, ROCK, ZOO, path, taxonomies
from treesearch.errors import DataError
from treesearch.metrics import LevelAccuracy, marginal_levels, mass_violations
from treesearch.objectives.separate_heads import SeparateHeads
from treesearch.taxonomy import Taxonomy

D = 4


def heads(taxonomy: Taxonomy = ZOO, seed: int = 0, **options: Any) -> SeparateHeads:
    layer = SeparateHeads(D, taxonomy, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def batch(num: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    input = torch.randn(num, D, generator=generator, dtype=torch.float64)
    return input, torch.randint(num_classes, (num,), generator=generator)


def brute(layer: SeparateHeads, input: Tensor, known: list[list[int]]) -> tuple[float, float]:
    """Weighted cross-entropies and unweighted divergences, from dicts of the probability of each outcome's node.

    ``known`` lists the node of each level that is known, for each example, ends included.
    """
    taxonomy, L = layer.taxonomy, layer.taxonomy.num_levels
    probs = [
        [dict(zip(node_O.tolist(), row.exp().tolist(), strict=True)) for row in log_prob_BO]
        for node_O, log_prob_BO in zip(layer.levels.outcomes, layer.log_prob(input), strict=True)
    ]
    loss = divergence = 0.0
    for level in range(L):
        nll = [-math.log(probs[level][row][nodes[level]]) for row, nodes in enumerate(known) if len(nodes) > level]
        loss += layer.level_weights[level] * sum(nll) / max(1, len(nll))
    for level in range(L - 1):
        for upper, lower in zip(probs[level], probs[level + 1], strict=True):
            below = dict.fromkeys(upper, 0.0)
            for node, p in lower.items():
                below[int(taxonomy.parent[node]) if taxonomy.depth[node] == level + 2 else node] += p
            divergence += sum(p * math.log(p / below[node]) for node, p in upper.items()) / len(input)
    return loss, divergence


@settings(deadline=None, max_examples=25)
@given(taxonomies())
def test_the_loss_is_brute_force(taxonomy: Taxonomy) -> None:
    if taxonomy.num_levels == 0:
        with pytest.raises(DataError, match="at least one level"):
            SeparateHeads(D, taxonomy)
        return
    weights = np.linspace(0.5, 2, taxonomy.num_levels).tolist()
    layer = heads(taxonomy, penalty=0.7, level_weights=weights)
    input, target = batch(6, taxonomy.num_classes)
    ways = [path(taxonomy, int(cls))[1:] or [0] for cls in target]
    padded = [way + way[-1:] * (taxonomy.num_levels - len(way)) for way in ways]
    loss, divergence = brute(layer, input, padded)
    output, ours = layer(input, target)
    assert ours.item() == pytest.approx(loss + 0.7 * divergence)
    torch.testing.assert_close(output, layer.class_log_prob(input).gather(1, target[:, None])[:, 0])
    torch.testing.assert_close(layer.class_log_prob(input).exp().sum(1), torch.ones(6, dtype=torch.float64))
    assert layer.num_classes == layer.heads[-1].out_features


def test_targets_at_nodes_of_any_depth() -> None:
    layer = heads(penalty=0.3)
    input, _ = batch(5, 5)
    names = ["animal", "bird", "eagle", "rock", "ROOT"]
    known = [ZOO.nodes(way).tolist() for way in (["animal"], ["animal", "bird"], ["animal", "bird", "eagle"])]
    rock = ZOO.node("rock")
    loss, divergence = brute(layer, input, [*known, [rock] * 3, []])
    ours = layer.node_loss(input, torch.from_numpy(ZOO.nodes(names)).long())
    assert ours.item() == pytest.approx(loss + 0.3 * divergence)


def test_targets_without_children_are_classes_and_the_root_tells_nothing() -> None:
    layer = heads(penalty=0.0)
    input, _ = batch(3, 5)
    classes = torch.tensor([EAGLE, FISH, ROCK])
    nodes = torch.from_numpy(ZOO.class_node[classes.numpy()]).long()
    torch.testing.assert_close(layer.node_loss(input, nodes), layer(input, classes).loss)
    nothing = layer.node_loss(input, torch.zeros(3, dtype=torch.int64))
    nothing.backward()
    assert nothing.item() == 0.0
    assert all(not parameter.grad.any() for parameter in layer.parameters())


def test_gradients_of_the_loss() -> None:
    layer = heads(penalty=0.5)
    input, target = batch(3, 5)
    parameters = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}

    def loss(input: Tensor, *values: Tensor) -> Tensor:
        own = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, own, (input, target)).loss

    assert torch.autograd.gradcheck(loss, (input.requires_grad_(), *parameters.values()))


def test_predictions_are_independent_and_the_penalty_pulls_them_together() -> None:
    """Upper heads without a loss of their own disagree with the deepest for ever, or learn from it by the penalty."""
    input, target = batch(200, 5)
    fits = {}
    for penalty in (0.0, 1.0):
        layer = heads(penalty=penalty, level_weights=[0, 0, 1])
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            layer(input, target).loss.backward()
            optimizer.step()
        log_probs = [log_prob.detach() for log_prob in layer.log_prob(input)]
        nodes = layer.predict(input)
        for level, (node_O, log_prob) in enumerate(zip(layer.levels.outcomes, log_probs, strict=True)):
            assert torch.equal(nodes[:, level], node_O[log_prob.argmax(1)])
        assert torch.equal(layer.levels.class_node[layer.predict_class(input)], nodes[:, -1])
        # Argmaxes of levels that agree may still violate: they are those of the deepest head's marginals.
        like_deepest = (nodes == marginal_levels(layer.class_log_prob(input), ZOO)).all(1).double().mean()
        fits[penalty] = mass_violations(log_probs, ZOO), float(like_deepest)
        accuracy = LevelAccuracy(ZOO)
        accuracy.update_nodes(nodes, target)
        assert np.isfinite(accuracy.compute()).all()
    (free, free_like), (bound, bound_like) = fits[0.0], fits[1.0]
    assert 0 < bound.gap < free.gap / 10
    assert bound.excess < free.excess / 10
    assert free_like < 0.5 < 0.95 < bound_like


def test_any_leading_shape() -> None:
    layer = heads()
    input, target = batch(6, 5)
    flat, shaped = layer(input, target), layer(input.reshape(2, 3, D), target.reshape(2, 3))
    torch.testing.assert_close(shaped.output, flat.output.reshape(2, 3))
    torch.testing.assert_close(shaped.loss, flat.loss)
    assert layer.predict(input.reshape(2, 3, D)).shape == (2, 3, 3)
    assert layer.predict_class(input[0]).shape == ()


INPUT = torch.zeros(2, D, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SeparateHeads(0, ZOO), "in_features must be a whole number >= 1, but got 0"),
        (lambda: SeparateHeads(D, "zoo"), "must be a Taxonomy or a Tree"),  # type: ignore[arg-type]
        (lambda: SeparateHeads(D, ZOO, penalty=-1), "penalty must be finite and >= 0, but got -1"),
        (lambda: SeparateHeads(D, ZOO, penalty=math.nan), "penalty must be finite and >= 0, but got nan"),
        (lambda: SeparateHeads(D, ZOO, level_weights=[1, 1]), "one number per level, but got 2 for 3 levels"),
        (lambda: SeparateHeads(D, ZOO, level_weights=[1, -1, 1]), "finite and >= 0, but got -1.0"),
        (lambda: heads()(INPUT, torch.tensor([0, 5])), r"lie in \[0, 5\), but range from 0 to 5"),
        (lambda: heads()(INPUT, torch.tensor([0])), r"target must have shape \(2,\)"),
        (lambda: heads()(INPUT[:, :3], torch.tensor([0, 1])), "input must have 4 features"),
        (lambda: heads().node_loss(INPUT, torch.tensor([0, 7])), r"lie in \[0, 7\), but range from 0 to 7"),
        (lambda: heads().predict(INPUT.float()), "type of the layer"),
    ],
)
def test_errors_name_rule_and_value(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
