"""What one prediction along a tree costs, and what compute takes from the reward.

Shapes: **N** internal nodes, **D** features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.cost_table import CostTable
from treesearch.errors import ConfigError
from treesearch.paths import input_dims, source_dims
from treesearch.tree import Tree

# Of a time: rounds of timing one tree differ by as much (results/2026-11-24-kjv-measured), and the sums of node times
# that are charged are no better.
TIMING_ERROR = 0.01
DENSE_ROW_COST = 1 / 20  # one dense row in binary-node units (measured on a CPU, see DESIGN.md section 5)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class TreeCost:
    """Cost of a tree under a class distribution."""

    cost: float  # analytic, binary-node units per example
    expected_depth: float  # decisions per example
    dot_products: float  # D-dimensional dot products per example
    max_depth: int  # decisions on the longest path
    measured_us: float | None = None  # microseconds per example in the tree's nodes, where there is a table


def node_costs(tree: Tree, in_features: int) -> FloatArray:
    """Analytic cost of one pass through each node in binary-node units, float64 [N].

    A decision of arity k on d_n inputs costs ``d_n / D`` times 1 (k = 2) or ``1 + k / 20`` (k > 2); a projection to
    d_n costs ``d_n / 20`` and is charged to the node that carries it.
    """
    width = np.where(tree.arities == 2, 1.0, 1.0 + tree.arities * DENSE_ROW_COST)
    return input_dims(tree, in_features) / in_features * width + tree.projection_dim * DENSE_ROW_COST


def node_dot_products(tree: Tree, in_features: int) -> FloatArray:
    """Multiply-adds of one pass through each node, in dot products of size D, float64 [N].

    Each logit row counts d_n / D; a projection from d to d_n counts ``d_n * d / D``.
    """
    rows = np.where(tree.arities == 2, 1, tree.arities)
    return (input_dims(tree, in_features) * rows + tree.projection_dim * source_dims(tree, in_features)) / in_features


def tree_cost(tree: Tree, counts: ArrayLike, *, in_features: int) -> TreeCost:
    """Cost of ``tree`` averaged over classes drawn in proportion to ``counts`` [C].

    Raises:
        DataError: The counts do not fit the tree.
    """
    passes = tree.pass_shares(counts)
    return TreeCost(
        cost=float(passes @ node_costs(tree, in_features)),
        expected_depth=float(passes.sum()),
        dot_products=float(passes @ node_dot_products(tree, in_features)),
        max_depth=tree.max_depth,
    )


Phase = Literal["training", "inference"]


def no_dearer(units: float, limit: float, *, measured: bool) -> bool:
    """Whether ``units`` are at most ``limit``; where they are of measured time, within `TIMING_ERROR`."""
    return units <= (limit * (1 + TIMING_ERROR) if measured else limit)


@dataclass(frozen=True)
class CostModel:
    """What compute takes from the reward: λ times the units that a tree is charged.

    A unit is a binary node of the analytic cost; with a table it is ``unit_us`` microseconds.
    """

    in_features: int  # D
    weight: float = 0.005  # λ, nats per unit: the one that a run reports, whatever its search draws
    table: CostTable | None = None
    phase: Phase = "training"  # which of the table's times
    unit_us: float = 1.0  # microseconds of a unit, with a table

    def node_units(self, tree: Tree, counts: ArrayLike) -> FloatArray:
        """Units that each node is charged per example, float64 [N]; a node that few examples pass costs little.

        Raises:
            DataError: The counts do not fit the tree.
        """
        if self.table is None:
            return tree.pass_shares(counts) * node_costs(tree, self.in_features)
        return self._node_us(tree, counts) / self.unit_us

    def node_losses(self, tree: Tree, counts: ArrayLike) -> FloatArray:
        """What each node takes from the reward at λ = ``weight``, nats per example, float64 [N].

        Raises:
            DataError: The counts do not fit the tree.
        """
        return self.weight * self.node_units(tree, counts)

    def tree_cost(self, tree: Tree, counts: ArrayLike) -> TreeCost:
        """The cost of ``tree``, with its time where there is a table."""
        cost = tree_cost(tree, counts, in_features=self.in_features)
        if self.table is None:
            return cost
        return replace(cost, measured_us=float(self._node_us(tree, counts).sum()))

    def loss(self, cost: TreeCost) -> float:
        """What a tree of this cost, as given by `tree_cost`, loses in reward at λ = ``weight``, nats."""
        return self.weight * self.charged(cost.cost, cost.measured_us)

    def charged(self, cost: float, measured_us: float | None) -> float:
        """The units that a tree is charged: trees are compared by them, whatever λ is.

        Args:
            cost: Analytic, binary-node units: what counts without a table.
            measured_us: Microseconds per example: what counts with a table.
        """
        if self.table is None:
            return cost
        assert measured_us is not None, "trees under a cost model with a table have their time"
        return measured_us / self.unit_us

    def no_dearer(self, units: float, limit: float) -> bool:
        """Whether what is charged ``units`` costs at most ``limit``; times within `TIMING_ERROR` count as equal."""
        return no_dearer(units, limit, measured=self.table is not None)

    def _node_us(self, tree: Tree, counts: ArrayLike) -> FloatArray:
        assert self.table is not None
        if self.phase == "training":
            return self.table.training_node_us(tree, counts)
        return self.table.inference_node_us(tree, counts)


@dataclass(frozen=True)
class CostWeights:
    """The λs that a search draws from, nats per unit: a list, or all between two bounds on a logarithmic scale.

    Raises:
        ConfigError: None at all, or one that is negative, not finite or, as a bound, not positive.
    """

    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low is None) == (not self.values):
            raise ConfigError(
                f"cost weights must be a list of at least one, or low and high, but got {list(self.values)},"
                f" {self.low} and {self.high}"
            )
        for value in self.values:
            if not 0 <= value < np.inf:
                raise ConfigError(f"a cost weight must be finite and >= 0, but got {value}")
        if self.low is not None and self.high is not None and not 0 < self.low < self.high < np.inf:
            raise ConfigError(f"cost weights need 0 < low < high, but got {self.low} and {self.high}")

    def draw(self, rng: np.random.Generator) -> float:
        """One of the list with equal chances, or log-uniform between the bounds; one alone takes no draw."""
        if self.low is not None and self.high is not None:
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return self.values[0] if len(self.values) == 1 else float(rng.choice(self.values))

    def grid(self, num: int = 5) -> tuple[float, ...]:
        """The list, or ``num`` weights from bound to bound with equal ratios."""
        if self.low is not None and self.high is not None:
            return tuple(float(value) for value in np.geomspace(self.low, self.high, num))
        return self.values
