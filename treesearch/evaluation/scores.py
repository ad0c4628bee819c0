"""From node scores to a reward, with the share of every node.

Shapes: **C** classes, **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel, TreeCost
from treesearch.tree import Tree


@dataclass(frozen=True)
class TreeScore:
    """The outcome of one evaluation. It holds for every λ: NLL and cost stand apart, node by node."""

    valid_nll: float  # nats per token
    cost: TreeCost
    node_nll: NDArray[np.float64]  # [N] each node's share of the NLL, per token of the corpus
    node_cost: NDArray[np.float64]  # [N] units each node is charged, per token of the corpus
    node_mass: NDArray[np.float64]  # [N] share of training tokens that pass the node
    exact: bool = True  # False: an estimate of a tree whose evaluation was stopped

    def reward(self, cost_weight: float) -> float:
        """-(validation NLL) - λ * units, nats."""
        return -self.valid_nll - cost_weight * float(self.node_cost.sum())


def score_tree(
    tree: Tree, node_nll: NDArray[np.float64], *, counts: NDArray[np.float64], cost_model: CostModel
) -> TreeScore:
    """Combine the NLL on validation data with the cost under the training counts.

    Args:
        tree: The evaluated tree.
        node_nll: [N] NLL of its nodes, nats per token of the validation split.
        counts: [C] training counts.
        cost_model: What compute takes.
    """
    return TreeScore(
        valid_nll=float(node_nll.sum()),
        cost=cost_model.tree_cost(tree, counts),
        node_nll=node_nll,
        node_cost=cost_model.node_units(tree, counts),
        node_mass=tree.pass_shares(counts),
    )
