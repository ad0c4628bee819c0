"""From node scores to a reward, with the share of every node.

Shapes: **C** classes, **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel, TreeCost
from treesearch.evaluation.frozen import NodeScores
from treesearch.tree import Tree


@dataclass(frozen=True)
class TreeScore:
    """The outcome of one evaluation. ``reward`` is minus the sum of ``node_loss``."""

    reward: float  # -(validation NLL) - what compute takes, nats
    valid_nll: float  # nats per token
    cost: TreeCost
    node_loss: NDArray[np.float64]  # [N] each node's share of the loss, per token of the corpus
    node_mass: NDArray[np.float64]  # [N] share of training tokens that pass the node


def score_tree(tree: Tree, scores: NodeScores, *, counts: NDArray[np.float64], cost_model: CostModel) -> TreeScore:
    """Combine the NLL on validation data with the cost under the training counts.

    Args:
        tree: The evaluated tree.
        scores: Its nodes' NLL.
        counts: [C] training counts.
        cost_model: What compute takes.
    """
    mass = tree.pass_shares(counts)
    cost = cost_model.tree_cost(tree, counts)
    node_loss = scores.nll / scores.num_tokens + cost_model.node_losses(tree, counts)
    return TreeScore(
        reward=-scores.mean_nll - cost_model.loss(cost),
        valid_nll=scores.mean_nll,
        cost=cost,
        node_loss=node_loss,
        node_mass=mass,
    )
