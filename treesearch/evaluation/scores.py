"""From node scores to a reward, with the share of every node.

Shapes: **C** classes, **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import TreeCost, node_costs, tree_cost
from treesearch.evaluation.frozen import NodeScores
from treesearch.tree import Tree


@dataclass(frozen=True)
class TreeScore:
    """The outcome of one evaluation. ``reward`` is minus the sum of ``node_loss``."""

    reward: float  # -(validation NLL) - λ * cost, nats
    valid_nll: float  # nats per token
    cost: TreeCost
    node_loss: NDArray[np.float64]  # [N] each node's share of the loss, per token of the corpus
    node_mass: NDArray[np.float64]  # [N] share of training tokens that pass the node


def score_tree(
    tree: Tree, scores: NodeScores, *, counts: NDArray[np.float64], in_features: int, cost_weight: float
) -> TreeScore:
    """Combine the NLL on validation data with the analytic cost under the training counts.

    Args:
        tree: The evaluated tree.
        scores: Its nodes' NLL.
        counts: [C] training counts.
        in_features: D.
        cost_weight: λ, nats per binary-node unit.
    """
    mass = tree.node_mass(counts)[: tree.num_internal] / counts.sum()
    cost = tree_cost(tree, counts, in_features=in_features)
    node_loss = scores.nll / scores.num_tokens + cost_weight * mass * node_costs(tree, in_features)
    return TreeScore(
        reward=-scores.mean_nll - cost_weight * cost.cost,
        valid_nll=scores.mean_nll,
        cost=cost,
        node_loss=node_loss,
        node_mass=mass,
    )
