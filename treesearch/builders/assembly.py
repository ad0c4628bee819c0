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

    @property
    def next_id(self) -> int:
        """Provisional id of the internal node that is opened, or grafted, next."""
        return self._num_internal

    def open_node(self, parent: int = Tree.NO_PARENT, *, projection_dim: int = Tree.NO_PROJECTION) -> int:
        """Add an internal node and return its provisional id."""
        self._parent.append(np.array([parent], np.int32))
        self._projection.append(np.array([projection_dim], np.int32))
        self._num_internal += 1
        return self._num_internal - 1

    def add_leaves(self, parent: int | IntArray, classes: ClassIds) -> None:
        """Hang each of ``classes`` directly under ``parent``, one for all or one each."""
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
        root = self._num_internal if subtree.num_internal else -1
        self.add_leaves(self.graft_top(parent, subtree, projection_dim=projection_dim), classes)
        return root

    def graft_top(self, parent: int, subtree: Tree, *, projection_dim: int = Tree.NO_PROJECTION) -> IntArray:
        """Hang the internal nodes of ``subtree`` under ``parent``; what stands in for its classes is hung there later.

        Args:
            parent: As for `graft`.
            subtree: Any tree.
            projection_dim: As for `graft`.

        Returns:
            Provisional id of the node above each class of ``subtree``, int32; ``parent`` where that is a single leaf.
        """
        shift, num_internal = self._num_internal, subtree.num_internal
        linked = np.where(subtree.parent >= 0, subtree.parent + shift, parent).astype(np.int32)
        projection = subtree.projection_dim.copy()
        if num_internal and projection_dim:
            projection[0] = projection_dim
        self._parent.append(linked[:num_internal])
        self._projection.append(projection)
        self._num_internal += num_internal
        above: IntArray = linked[subtree.class_leaf]
        return above

    def finish(self) -> tuple[Tree, IntArray]:
        """The canonical tree and the canonical id of each provisional internal node, int32 [N]."""
        empty: list[Any] = [np.zeros(0, np.int32)]
        tree, new_id = Tree.from_parents_with_ids(
            np.concatenate([*self._parent, *self._leaf_parent]),
            np.concatenate(empty + self._leaf_class),
            projection_dim=np.concatenate(empty + self._projection),
        )
        return tree, new_id[: self._num_internal]
