"""Trees from parent links where nodes come in any order and may have a single child."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import TreeError
from treesearch.tree import IntArray, Tree

COLLAPSED = -1  # instead of the id of a node that is not in the tree


def tree_from_links(
    parent: ArrayLike,
    leaf: ArrayLike,
    leaf_class: ArrayLike,
    *,
    projection_dim: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> Tree:
    """Build a tree from parent links; nodes with a single child are collapsed into that child.

    A node with one child decides nothing, so the tree without it gives every class the same probability.

    Args:
        parent: int [M'], the parent of each node in any numbering, -1 at the root.
        leaf: int [C], the nodes that are leaves.
        leaf_class: int [C], the class at each of them.
        projection_dim: int [M'], 0 for no projection; None for none anywhere.
        class_names: C names.

    Raises:
        TreeError: There is not exactly one root, there is a cycle, a leaf has children, a node has neither children
            nor a class, a node that would be collapsed has a projection, or the classes are not exactly 0 .. C-1.
    """
    tree, _ = tree_from_links_with_ids(parent, leaf, leaf_class, projection_dim=projection_dim)
    return tree.annotate(class_names=class_names)


def tree_from_links_with_ids(
    parent: ArrayLike, leaf: ArrayLike, leaf_class: ArrayLike, *, projection_dim: ArrayLike | None = None
) -> tuple[Tree, IntArray]:
    """Like `tree_from_links`, and also return each given node's id in the tree, int32 [M'], -1 for collapsed ones."""
    parent_M, leaf_L = np.asarray(parent, np.int64), np.asarray(leaf, np.int64)
    num_nodes = parent_M.size
    roots = int((parent_M < 0).sum())
    if roots != 1:
        raise TreeError(f"exactly one node must have no parent (the root), but {roots} of {num_nodes} have none")
    arity = np.bincount(parent_M[parent_M >= 0], minlength=num_nodes)
    is_leaf = np.zeros(num_nodes, np.bool_)
    is_leaf[leaf_L] = True
    if np.any(is_leaf & (arity > 0)):
        raise TreeError(
            f"a class must be a leaf, but {int((is_leaf & (arity > 0)).sum())} classes have nodes below them"
        )
    if np.any(~is_leaf & (arity == 0)):
        raise TreeError(
            f"every node must have children or be a class, but {int((~is_leaf & (arity == 0)).sum())} are neither"
        )
    parent_M = _skip_single(parent_M, arity != 1)
    kept = np.concatenate([np.flatnonzero(arity > 1), leaf_L])
    projection_N = None
    if projection_dim is not None:
        projection_M = np.asarray(projection_dim, np.int64)
        if projection_M[arity == 1].any():
            raise TreeError("a node with a projection must have >= 2 children, but one has a single child")
        projection_N = projection_M[arity > 1]
    new_id = np.full(num_nodes + 1, Tree.NO_PARENT, np.int64)  # the last entry is the parent of the root
    new_id[kept] = np.arange(kept.size)
    tree, canonical = Tree.from_parents_with_ids(new_id[parent_M[kept]], leaf_class, projection_dim=projection_N)
    ids = np.full(num_nodes, COLLAPSED, np.int32)
    ids[kept] = canonical
    return tree, ids


def _skip_single(parent: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The nearest ancestor of each node that is kept, -1 where there is none, by pointer doubling."""
    # Index -1 is the last entry, which stands for what is above the root and points at itself.
    jump = np.append(np.where(kept, np.arange(parent.size), parent), Tree.NO_PARENT)
    for _ in range(parent.size.bit_length() + 1):
        further = jump[jump]
        if np.array_equal(further, jump):
            break
        jump = further
    above = jump[parent]
    if np.any((above >= 0) & ~kept[above]):
        raise TreeError("the parent links must lead to the root, but some run in a cycle")
    return above
