"""Whether predictions at neighbouring levels agree: nodes on one path, parents with the mass of their children.

A hierarchical softmax is consistent by construction: p(child) <= p(parent), and the children of a node share its
probability. Heads of their own for each level are not. The constraint is that of Giunchiglia & Lukasiewicz 2020.

Shapes: **B** batch, **C** classes, **L** levels below the root, **O** outcomes of one level (see `Levels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.metrics.base import check_classes, check_log_prob
from treesearch.metrics.levels import Levels
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


def consistency_violations(nodes: Tensor, hierarchy: Taxonomy | Tree | Levels) -> float:
    """Share of the examples whose nodes at some two neighbouring levels are not parent and child.

    A path may end at a class, and at no other node. An end is `Taxonomy.NO_NODE`, which goes with any class at the
    level above it or with another end; or the node of the class that it ends at, of lesser depth than the level, which
    goes with that class alone. `class_levels` has no violations; `marginal_levels` and separate heads may have.

    Args:
        nodes: int64 [B, L], a node for levels 1 to L.
        hierarchy: A taxonomy, a tree (its own nodes), or levels.

    Returns:
        0 to 1; NaN without examples.

    Raises:
        DataError: The shape does not fit, an entry is no node, or is of a deeper level.
    """
    levels = Levels.of(hierarchy).on(nodes.device)
    if nodes.dim() != 2 or nodes.shape[1] != levels.num_levels:
        raise DataError(f"nodes must have shape [B, {levels.num_levels}], a node a level, but got {tuple(nodes.shape)}")
    none = Taxonomy.NO_NODE
    lower = check_classes(nodes, levels.depth.numel(), "nodes", low=none)
    depth_BL = torch.where(lower == none, 0, levels.depth[lower.clamp(min=0)])
    level_L = torch.arange(1, levels.num_levels + 1, device=nodes.device)
    if bool((depth_BL > level_L).any()):
        level = int(level_L[(depth_BL > level_L).any(0)][0])
        raise DataError(f"nodes at level {level} must be of that depth or less, but some are deeper; sort by level")
    root = lower.new_zeros(len(lower), 1)
    upper = torch.cat([root, lower[:, :-1]], 1)
    is_class = torch.zeros_like(levels.depth, dtype=torch.bool)
    is_class[levels.class_node] = True
    may_end = torch.where(upper == none, True, is_class[upper.clamp(min=0)])
    inside = depth_BL == level_L
    expected = torch.where(inside, levels.parent[lower.clamp(min=0)], lower)
    named_end = (lower != none) & ~inside & is_class[lower.clamp(min=0)]
    fits = torch.where(lower == none, may_end, (upper == expected) & (inside | named_end))
    return float((~fits).any(1).to(torch.float64).mean())


def level_log_probs(log_prob: Tensor, hierarchy: Taxonomy | Tree | Levels) -> list[Tensor]:
    """Log-probabilities of the outcomes of levels 1 to L from those of the classes, [B, O] each; differentiable.

    Args:
        log_prob: [B, C], nats.
        hierarchy: A taxonomy, a tree (its own nodes), or levels.

    Raises:
        DataError: Values are no log-probabilities, or not of C classes.
    """
    levels = Levels.of(hierarchy).on(log_prob.device)
    check_log_prob(log_prob, levels.num_classes)
    if not levels.num_levels:
        return []
    outcomes = [log_prob.reshape(-1, levels.num_classes)[:, levels.outcome_of_class[-1].argsort()]]
    for level in range(levels.num_levels - 1, 0, -1):
        outcomes.append(levels.log_sums(outcomes[-1], level))
    return outcomes[::-1]


class MassViolations(NamedTuple):
    """What `mass_violations` returns."""

    excess: float
    gap: float


@torch.no_grad()
def mass_violations(log_probs: Sequence[Tensor], hierarchy: Taxonomy | Tree | Levels) -> MassViolations:
    """How much probability breaks the constraints between neighbouring levels.

    Args:
        log_probs: [B, O] log-probabilities of the outcomes of levels 1 to L, nats: `SeparateHeads.log_prob`, or
            `level_log_probs` of a model of classes.
        hierarchy: A taxonomy, a tree (its own nodes), or levels.

    Returns:
        Means over examples and pairs of neighbouring levels: ``excess``, the sum over outcomes of
        max(0, p(child) - p(parent)), and ``gap``, the sum of |p(parent) - Σ p(children)|, which is twice their distance
        in total variation. Both are 0 (up to rounding) for a model that is consistent, and if there is one level alone;
        NaN without examples.

    Raises:
        DataError: There is not one for each level, or shapes do not fit.
    """
    if not log_probs:
        raise DataError("log_probs must have an entry for each level, but is empty; see level_log_probs")
    levels = Levels.of(hierarchy).on(log_probs[0].device)
    sizes = [node_O.numel() for node_O in levels.outcomes]
    probs = [
        check_log_prob(log_prob, size).to(torch.float64).exp() for log_prob, size in zip(log_probs, sizes, strict=False)
    ]
    if len(log_probs) != len(sizes) or len({len(prob_BO) for prob_BO in probs}) != 1:
        raise DataError(
            f"log_probs must have {len(sizes)} entries of equally many rows, one a level, but have"
            f" {[tuple(log_prob.shape) for log_prob in log_probs]!s:.80}"
        )
    excess = gap = torch.zeros(len(probs[0]), dtype=torch.float64, device=levels.device)
    for upper_BO, lower_BO, above_O in zip(probs[:-1], probs[1:], levels.outcome_above, strict=True):
        excess = excess + (lower_BO - upper_BO[:, above_O]).clamp(min=0).sum(1)
        gap = gap + (torch.zeros_like(upper_BO).index_add_(1, above_O, lower_BO) - upper_BO).abs().sum(1)
    num_pairs = max(1, len(probs) - 1)
    return MassViolations(float(excess.mean()) / num_pairs, float(gap.mean()) / num_pairs)
