"""Class -> root-to-leaf path arrays, and where each node keeps its logit rows.

Shapes: **C** classes, **N** internal nodes, **R** logit rows, **P** path entries of all classes together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch import tree_kernels
from treesearch.tree import IntArray, Tree


@dataclass(frozen=True)
class Paths:
    """Paths of all classes in compressed sparse rows: class c owns entries ``ptr[c] .. ptr[c+1]``, root first."""

    ptr: NDArray[np.int64]  # [C+1]
    node: IntArray  # [P] internal node at which the decision falls
    branch: IntArray  # [P] index of the child taken there


def class_paths(tree: Tree) -> Paths:
    """The path of every class, root first, in O(P)."""
    ptr = np.zeros(tree.num_classes + 1, np.int64)
    np.cumsum(tree.depths, out=ptr[1:])
    branch = tree_kernels.branch_index(tree.child_ptr, tree.child_idx)
    node, branch_taken = tree_kernels.fill_paths(tree.parent, branch, tree.class_leaf, ptr)
    return Paths(ptr, node, branch_taken)


def row_ptr(tree: Tree) -> NDArray[np.int64]:
    """Where each node's logit rows begin, int64 [N+1]; R is the last entry.

    A binary node has one row (the logit of child 0); a node of arity k > 2 has k rows.
    """
    rows = np.where(tree.arities == 2, 1, tree.arities)
    return np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)


def input_dims(tree: Tree, in_features: int) -> IntArray:
    """Size of the vector that each node's decision sees, int32 [N]: its own or the nearest projection above, else D."""
    dims = np.empty(tree.num_internal, np.int32)
    scopes = projection_scopes(tree)
    dims[:] = np.where(scopes < 0, in_features, tree.projection_dim[np.maximum(scopes, 0)])
    return dims


def source_dims(tree: Tree, in_features: int) -> NDArray[np.int64]:
    """Size of the vector above each node, int64 [N]: what a projection there reads."""
    scopes = projection_scopes(tree)
    above = np.where(tree.parent[: tree.num_internal] >= 0, scopes[tree.parent[: tree.num_internal]], -1)
    return np.where(above < 0, in_features, tree.projection_dim[above]).astype(np.int64)


def projection_scopes(tree: Tree) -> IntArray:
    """The node whose projection each node's decision sees (itself or an ancestor), int32 [N]; -1 for the raw input."""
    return tree_kernels.nearest_marked(tree.parent, tree.projection_dim > 0, tree.num_internal, False)


def block_roots(tree: Tree) -> IntArray:
    """The topmost projecting ancestor-or-self of each node, int32 [N]; -1 where there is none.

    Nodes with the same root form one block: on frozen features they must be trained together, and independently of
    all others.
    """
    return tree_kernels.nearest_marked(tree.parent, tree.projection_dim > 0, tree.num_internal, True)
