"""What a finished tree is worth, and which of its nodes lost how much.

Shapes: **N** internal nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.task import ConstructionTask
from treesearch.cost import node_costs
from treesearch.errors import ConfigError, ExecutionError
from treesearch.tree import Tree

FloatArray = NDArray[np.float64]
StructuralCost = Literal["depth", "analytic"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a reward says about one tree. Everything is a sum over internal nodes."""

    reward: float  # -node_loss.sum()
    node_loss: FloatArray  # [N] what each node takes from the reward: (NLL + λ·cost per example there) * node_mass
    node_mass: FloatArray  # [N] share of all examples that pass the node
    node_cost: FloatArray | None = None  # [N] the units of cost inside node_loss, per example; None: λ plays no part
    cost_weight: float = 0.0  # the λ of node_loss

    @classmethod
    def of_nodes(
        cls,
        node_loss: FloatArray,
        node_mass: FloatArray,
        *,
        node_cost: FloatArray | None = None,
        cost_weight: float = 0.0,
    ) -> Evaluation:
        """An evaluation from its nodes."""
        return cls(-float(node_loss.sum()), node_loss, node_mass, node_cost, cost_weight)

    def at(self, cost_weight: float) -> Evaluation:
        """What the same tree is worth under another λ; the same where λ plays no part."""
        if self.node_cost is None or cost_weight == self.cost_weight:
            return self
        change = (cost_weight - self.cost_weight) * self.node_cost
        return Evaluation.of_nodes(
            self.node_loss + change, self.node_mass, node_cost=self.node_cost, cost_weight=cost_weight
        )


class Reward(Protocol):
    """Anything that evaluates a tree."""

    def __call__(self, tree: Tree, /) -> Evaluation:
        """Evaluate ``tree``."""
        ...


class StructuralReward:
    """Minus the expected cost of one prediction, exact and without any model.

    Args:
        task: Its counts weigh the classes.
        cost: ``depth``: 1 for each decision, so that a binary Huffman tree is the best of all binary trees;
            ``analytic``: `treesearch.cost.node_costs` times λ, in nats.

    Raises:
        ConfigError: Unknown cost.
    """

    def __init__(self, task: ConstructionTask, *, cost: StructuralCost = "analytic") -> None:
        if cost not in ("depth", "analytic"):
            raise ConfigError(f"cost must be 'depth' or 'analytic', but got {cost!r}")
        self.task = task
        self.cost = cost

    def __call__(self, tree: Tree) -> Evaluation:
        """Evaluate ``tree``; DataError where it does not have the task's classes."""
        mass_N = tree.node_mass(self.task.probability)[: tree.num_internal]
        if self.cost == "depth":
            return Evaluation.of_nodes(mass_N, mass_N)
        cost_N, weight = mass_N * node_costs(tree, self.task.in_features), self.task.cost_weight
        return Evaluation.of_nodes(weight * cost_N, mass_N, node_cost=cost_N, cost_weight=weight)


class EvaluatedReward:
    """The verdict of an evaluator that is handed in, such as one that trains a model on the tree.

    Args:
        evaluate: Takes a tree, gives its `Evaluation`.
    """

    def __init__(self, evaluate: Callable[[Tree], Evaluation]) -> None:
        self.evaluate = evaluate

    def __call__(self, tree: Tree) -> Evaluation:
        """Evaluate ``tree``.

        Raises:
            ExecutionError: The evaluator's answer does not fit the tree.
        """
        evaluation = self.evaluate(tree)
        num_losses, num_masses = len(evaluation.node_loss), len(evaluation.node_mass)
        if not num_losses == num_masses == tree.num_internal:
            raise ExecutionError(
                f"an evaluation must have one loss and one mass for each of the {tree.num_internal} internal nodes,"
                f" but got {num_losses} and {num_masses}; correct the evaluator"
            )
        if not np.isclose(evaluation.reward, -evaluation.node_loss.sum(), rtol=1e-6, atol=1e-9):
            raise ExecutionError(
                f"a reward must be finite and minus the sum of the node losses ({-evaluation.node_loss.sum()}),"
                f" but got {evaluation.reward}; use Evaluation.of_nodes"
            )
        return evaluation
