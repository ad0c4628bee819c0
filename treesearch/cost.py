"""What one prediction along a tree costs.

Shapes: **N** internal nodes, **D** features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.paths import input_dims, projection_scopes
from treesearch.tree import Tree, check_counts

DENSE_ROW_COST = 1 / 20  # one dense row in binary-node units (measured on a CPU, see DESIGN.md section 5)


@dataclass(frozen=True)
class TreeCost:
    """Cost of a tree under a class distribution."""

    cost: float  # analytic, binary-node units per example
    expected_depth: float  # decisions per example
    dot_products: float  # D-dimensional dot products per example
    max_depth: int  # decisions on the longest path


def node_costs(tree: Tree, in_features: int) -> NDArray[np.float64]:
    """Analytic cost of one pass through each node in binary-node units, float64 [N].

    A decision of arity k on d_n inputs costs ``d_n / D`` times 1 (k = 2) or ``1 + k / 20`` (k > 2); a projection to
    d_n costs ``d_n / 20`` and is charged to the node that carries it.
    """
    width = np.where(tree.arities == 2, 1.0, 1.0 + tree.arities * DENSE_ROW_COST)
    return input_dims(tree, in_features) / in_features * width + tree.projection_dim * DENSE_ROW_COST


def node_dot_products(tree: Tree, in_features: int) -> NDArray[np.float64]:
    """Multiply-adds of one pass through each node, in dot products of size D, float64 [N].

    Each logit row counts d_n / D; a projection from d to d_n counts ``d_n * d / D``.
    """
    rows = np.where(tree.arities == 2, 1, tree.arities)
    scopes = projection_scopes(tree)
    above = np.where(tree.parent[: tree.num_internal] >= 0, scopes[tree.parent[: tree.num_internal]], -1)
    source_dim = np.where(above < 0, in_features, tree.projection_dim[above])
    return (input_dims(tree, in_features) * rows + tree.projection_dim * source_dim) / in_features


def tree_cost(tree: Tree, counts: ArrayLike, *, in_features: int) -> TreeCost:
    """Cost of ``tree`` averaged over classes drawn in proportion to ``counts`` [C].

    Raises:
        DataError: The counts do not fit the tree.
    """
    counts_C = check_counts(counts, tree.num_classes)
    passes = tree.node_mass(counts_C)[: tree.num_internal] / counts_C.sum()
    return TreeCost(
        cost=float(passes @ node_costs(tree, in_features)),
        expected_depth=float(passes.sum()),
        dot_products=float(passes @ node_dot_products(tree, in_features)),
        max_depth=tree.max_depth,
    )
