"""Distances between the classes of a tree, in a form that sums over subtrees in O(depth).

Shapes: **C** classes, **N** internal nodes, **M** all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch import tree_kernels
from treesearch.errors import DataError
from treesearch.objectives import kernels
from treesearch.tree import Tree, check_pairs

Kind = Literal["edges", "height"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TreeDistance:
    """The distance of two classes whose paths part at node a.

    ``edges``: the sum of the lengths of the edges between their leaves (each 1, unless lengths are given);
    ``height``: the height of a, edges from it down to its deepest leaf (Bertinetto et al. 2020).

    Args:
        tree: Over C classes.
        kind: One of these.
        lengths: [M] for ``edges``: the length of the edge above each node, >= 0; the root's counts for nothing.

    Raises:
        DataError: Unknown kind, or lengths that are negative, not finite, not one per node, or given for heights.
    """

    tree: Tree
    kind: Kind = "edges"
    lengths: ArrayLike | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in ("edges", "height"):
            raise DataError(f"distance must be 'edges' or 'height', but got {self.kind!r:.40}")
        if self.lengths is None:
            return
        lengths = np.asarray(self.lengths, np.float64)
        if self.kind == "height":
            raise DataError("lengths apply to the distance 'edges', but the distance is 'height'; leave them out")
        if lengths.shape != (self.tree.num_nodes,) or not (np.isfinite(lengths) & (lengths >= 0)).all():
            raise DataError(
                f"lengths must be {self.tree.num_nodes} numbers >= 0, one per node of the tree, but got shape"
                f" {lengths.shape}, smallest {lengths.min(initial=0)}"
            )

    @cached_property
    def from_root(self) -> FloatArray:
        """Distance of each node from the root, float64 [M]; zeros for heights."""
        if self.kind == "height":
            return np.zeros(self.tree.num_nodes)
        lengths = np.ones(self.tree.num_nodes) if self.lengths is None else np.array(self.lengths, np.float64)
        lengths[0] = 0.0
        return kernels.accumulate(self.tree.parent, lengths)

    @cached_property
    def at_node(self) -> FloatArray:
        """What a pair that parts at each node owes to the node itself, float64 [M]: its height, or 0."""
        if self.kind == "edges":
            return np.zeros(self.tree.num_nodes)
        return tree_kernels.node_heights(self.tree.parent).astype(np.float64)

    def between(self, first: ArrayLike, second: ArrayLike) -> FloatArray:
        """Distances of pairs of classes, float64 [P]; 0 of a class to itself.

        Raises:
            DataError: They are no classes, or not as many of one as of the other.
        """
        classes = check_pairs(first, second, self.tree.num_classes, "classes")
        a, b = (self.tree.class_leaf[ids] for ids in classes)
        meet = tree_kernels.lowest_common_ancestors(self.tree.parent, self.tree.node_depths, a, b)
        way = self.from_root[a] + self.from_root[b] - 2 * self.from_root[meet]
        return np.where(a == b, 0.0, way + self.at_node[meet])

    def decay(self, beta: float) -> Decay:
        """``exp(-beta * distance)``, summed over subtrees.

        Raises:
            DataError: ``beta`` is negative or not finite.
        """
        if not (np.isfinite(beta) and beta >= 0):
            raise DataError(f"beta must be finite and >= 0, but got {beta}")
        tree = self.tree
        below = kernels.decayed_sums(tree.parent, self.from_root, beta, tree.num_internal)
        others = kernels.sums_of_siblings(tree.child_ptr, tree.child_idx, below)
        return Decay(beta, self.from_root, self.at_node, below, others)


@dataclass(frozen=True, eq=False)
class Decay:
    """For a class y and a node a on its path, the factor ``exp(-beta * d)`` of y and all classes below a child s of a
    is ``exp(-beta * (from_root[y] - from_root[a] + at_node[a])) * below[s]``."""  # noqa: D205, D209

    beta: float
    from_root: FloatArray  # [M]
    at_node: FloatArray  # [M]
    below: FloatArray  # [M] sum over the classes c below of exp(-beta * (from_root[c] - from_root[parent]))
    others: FloatArray  # [M] sum of ``below`` over the siblings
