"""Violations: none by construction for a hierarchical softmax, counted right for anything else."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ragged import ZOO, path, scores, taxonomies
from treesearch import HierarchicalSoftmax
from treesearch.errors import DataError
from treesearch.metrics import (
    Levels,
    class_levels,
    consistency_violations,
    level_log_probs,
    marginal_levels,
    mass_violations,
)
from treesearch.taxonomy import Taxonomy

NONE = Taxonomy.NO_NODE
ANIMAL_NODE, BIRD_NODE, FISH_NODE, EAGLE_NODE, ROCK_NODE = ZOO.nodes(
    ["animal", "bird", "fish", "eagle", "rock"]
).tolist()


@pytest.mark.parametrize(
    ("nodes", "violated"),
    [
        ([ANIMAL_NODE, BIRD_NODE, EAGLE_NODE], False),
        ([ANIMAL_NODE, BIRD_NODE, NONE], False),  # bird is a class
        ([ANIMAL_NODE, BIRD_NODE, BIRD_NODE], False),
        ([ROCK_NODE, ROCK_NODE, NONE], False),
        ([ROCK_NODE, NONE, NONE], False),
        ([ROCK_NODE, BIRD_NODE, EAGLE_NODE], True),
        ([ANIMAL_NODE, FISH_NODE, EAGLE_NODE], True),
        ([ANIMAL_NODE, NONE, NONE], True),  # animal is no class
        ([ANIMAL_NODE, ANIMAL_NODE, ANIMAL_NODE], True),
        ([ROCK_NODE, NONE, EAGLE_NODE], True),
        ([ANIMAL_NODE, BIRD_NODE, FISH_NODE], True),  # ends, but not where it was
        ([NONE, NONE, NONE], True),  # the root is no class
    ],
)
def test_by_hand(nodes: list[int], violated: bool) -> None:
    assert consistency_violations(torch.tensor([nodes]), ZOO) == violated
    consistent = [ANIMAL_NODE, BIRD_NODE, NONE]
    assert consistency_violations(torch.tensor([nodes, consistent]), ZOO) == violated / 2


@settings(deadline=None, max_examples=30)
@given(taxonomies(), st.integers(0, 2**32 - 1))
def test_levels_of_classes_never_violate_and_marginals_are_brute_force(taxonomy: Taxonomy, seed: int) -> None:
    log_prob = scores(np.random.default_rng(seed), 6, taxonomy)
    log_prob_BC = torch.from_numpy(log_prob)
    assert consistency_violations(class_levels(log_prob_BC.argmax(1), taxonomy), taxonomy) == 0.0
    nodes, by_level = marginal_levels(log_prob_BC, taxonomy), level_log_probs(log_prob_BC, taxonomy)
    ways = [path(taxonomy, cls) for cls in range(taxonomy.num_classes)]
    broken = 0
    for row in range(6):
        best = []
        for level in range(1, taxonomy.num_levels + 1):
            mass = dict.fromkeys(Levels(taxonomy).outcomes[level - 1].tolist(), 0.0)
            for cls, way in enumerate(ways):
                mass[way[min(level, len(way) - 1)]] += np.exp(log_prob[row, cls])
            best.append(max(mass, key=mass.__getitem__))
            np.testing.assert_allclose(by_level[level - 1][row].exp().numpy(), list(mass.values()))
        assert nodes[row].tolist() == best
        broken += any(
            above != (below if taxonomy.depth[below] <= level else taxonomy.parent[below])
            for level, (above, below) in enumerate(zip([0, *best], best, strict=False))
        )
    assert consistency_violations(nodes, taxonomy) == broken / 6
    assert max(mass_violations(by_level, taxonomy)) < 1e-12


def test_a_hierarchical_softmax_has_no_violations() -> None:
    """The probability of a node is the product of the decisions that lead to it, in floating point as on paper."""
    generator = torch.Generator().manual_seed(0)
    tree, levels = ZOO.tree, Levels(ZOO)
    layer = HierarchicalSoftmax(4, tree, dtype=torch.float64)
    layer.reset_parameters(generator=generator)
    input = 5 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    found = [torch.empty(7, node_O.numel(), dtype=torch.float64) for node_O in levels.outcomes]
    for cls in range(5):
        log_prob, node = layer.node_log_probs(input, torch.full((7,), cls))
        steps = {int(node): step for step, node in enumerate(node[0]) if node >= 0}  # decisions above each node
        reached_BL = torch.nn.functional.pad(log_prob.detach().cumsum(1), (1, 0))
        places = zip(levels.outcomes, levels.outcome_of_class, found, strict=True)
        for level, (node_O, outcome_C, found_BO) in enumerate(places, start=1):
            outcome = int(outcome_C[cls])
            ended = ZOO.depth[ZOO.class_node[cls]] < level
            step = len(steps) if ended else steps.get(int(ZOO.tree_node[node_O[outcome]]), len(steps))
            found_BO[:, outcome] = reached_BL[:, step]
    violations = mass_violations(found, ZOO)
    assert violations.excess < 1e-15
    assert violations.gap < 1e-14
    for ours, theirs in zip(level_log_probs(layer.log_prob(input).detach(), ZOO), found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mass_violations_by_hand() -> None:
    """Level 1: animal, rock; level 2: bird, fish, rock; level 3 agrees with level 2."""
    upper, middle = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.7, 0.0, 0.3]])
    lower = torch.tensor([[0.4, 0.2, 0.1, 0.0, 0.3]])
    found = mass_violations([upper.log(), middle.log(), lower.log()], ZOO)
    assert found.excess == pytest.approx(0.2 / 2)
    assert found.gap == pytest.approx((0.2 + 0.2) / 2)


def test_sums_survive_probabilities_that_float32_does_not_hold() -> None:
    log_prob = torch.tensor([[-200.0, -201.0, -202.0, -300.0, 0.0]], requires_grad=True)
    level1 = level_log_probs(log_prob, ZOO)[0]
    expected = torch.logsumexp(log_prob[0, :4], 0)
    torch.testing.assert_close(level1[0, 0], expected)
    (gradient,) = torch.autograd.grad(level1[0, 0], log_prob)
    torch.testing.assert_close(gradient[0, :4], log_prob[0, :4].softmax(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: consistency_violations(torch.zeros(2, 2, dtype=torch.int64), ZOO), r"shape \[B, 3\], a node a level"),
        (lambda: consistency_violations(torch.tensor([[0, 1, 7]]), ZOO), r"nodes must lie in \[-1, 7\)"),
        (lambda: consistency_violations(torch.tensor([[EAGLE_NODE, -1, -1]]), ZOO), "at level 1 must be of that depth"),
        (lambda: mass_violations([torch.zeros(1, 2)], ZOO), "must have 3 entries of equally many rows"),
        (lambda: mass_violations([torch.zeros(1, 3)] * 3, ZOO), "must have 2 classes in a row"),
        (lambda: mass_violations([], ZOO), "but is empty"),
        (lambda: class_levels(torch.tensor([5]), ZOO), r"classes must lie in \[0, 5\)"),
        (lambda: marginal_levels(torch.ones(2, 5), ZOO), "must be <= 0, but the highest is 1"),
    ],
)
def test_errors_name_rule_and_value(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
