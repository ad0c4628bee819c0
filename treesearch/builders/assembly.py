"""Putting a tree together from the top: internal nodes, leaves and whole subtrees under them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.tree import IntArray, Tree

ClassIds = NDArray[np.int64]


class TreeAssembly:
    """Collects nodes under provisional ids; `finish` makes the canonical tree.

    Provisional ids count internal nodes in the order in which they were opened, grafted ones included.
    """

    def __init__(self) -> None:
        self._parent: list[IntArray] = []
        self._projection: list[IntArray] = []
        self._leaf_parent: list[IntArray] = []
        self._leaf_class: list[ClassIds] = []
        self._num_internal = 0

    def open_node(self, parent: int = Tree.NO_PARENT, *, projection_dim: int = Tree.NO_PROJECTION) -> int:
        """Add an internal node and return its provisional id."""
        self._parent.append(np.array([parent], np.int32))
        self._projection.append(np.array([projection_dim], np.int32))
        self._num_internal += 1
        return self._num_internal - 1

    def add_leaves(self, parent: int, classes: ClassIds) -> None:
        """Hang each of ``classes`` directly under ``parent``."""
        self._leaf_parent.append(np.full(len(classes), parent, np.int32))
        self._leaf_class.append(np.asarray(classes, np.int64))

    def graft(self, parent: int, subtree: Tree, classes: ClassIds, *, projection_dim: int = Tree.NO_PROJECTION) -> int:
        """Hang ``subtree`` under ``parent``, its class i standing for ``classes[i]``.

        Args:
            parent: Provisional id, or NO_PARENT to make the subtree the whole tree.
            subtree: A tree over ``len(classes)`` classes.
            classes: Class ids in the tree under construction.
            projection_dim: Projection of the subtree's root; 0 keeps its own.

        Returns:
            Provisional id of the subtree's root; -1 where the subtree is a single leaf.
        """
        shift, num_internal = self._num_internal, subtree.num_internal
        linked = np.where(subtree.parent >= 0, subtree.parent + shift, parent).astype(np.int32)
        projection = subtree.projection_dim.copy()
        if num_internal and projection_dim:
            projection[0] = projection_dim
        self._parent.append(linked[:num_internal])
        self._projection.append(projection)
        self._leaf_parent.append(linked[num_internal:])
        self._leaf_class.append(np.asarray(classes, np.int64)[subtree.leaf_class])
        self._num_internal += num_internal
        return shift if num_internal else -1

    def finish(self) -> tuple[Tree, IntArray]:
        """The canonical tree and the canonical id of each provisional internal node, int32 [N]."""
        empty: list[Any] = [np.zeros(0, np.int32)]
        tree, new_id = Tree.from_parents_with_ids(
            np.concatenate([*self._parent, *self._leaf_parent]),
            np.concatenate(empty + self._leaf_class),
            projection_dim=np.concatenate(empty + self._projection),
        )
        return tree, new_id[: self._num_internal]
