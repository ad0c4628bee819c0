"""What stays together where a search refines a taxonomy: units, which are classes and nodes of the taxonomy's tree.

An open node of such a search has the children of one of those nodes, or some of them, and groups these.

Shapes: **C** classes, **N** internal nodes of the taxonomy's tree, **U** = C + N units, **n** units of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from treesearch.builders.assembly import ClassIds
from treesearch.builders.reassignment import NodeDirections
from treesearch.tree import Tree

Refine = Literal["parents", "anywhere"]
DECIDABLE = 3  # units: two have one tree


class Units:
    """The units of a tree: class c is unit c, internal node i is unit C + i and stands for all classes below it.

    Args:
        tree: Every set of classes below one of its nodes stays together.
        refine: Which nodes are open to decisions: ``anywhere``: all; ``parents``: those whose children are all classes.
            Of a node that has other children beside, the classes are a part of their own if there are three or more.
    """

    def __init__(self, tree: Tree, refine: Refine) -> None:
        self.num_classes = tree.num_classes
        self.keeps_upper = refine == "parents"
        self._tree = tree
        unit_of_node = np.concatenate([self.num_classes + np.arange(tree.num_internal), tree.leaf_class])
        child_unit = unit_of_node[tree.child_idx].astype(np.int64)
        owner = np.repeat(np.arange(tree.num_internal), tree.arities)
        self._child_unit = child_unit[np.lexsort((child_unit, owner))]
        first_M, count_M = tree.leaf_intervals
        node_of_unit = np.concatenate([tree.class_leaf, np.arange(tree.num_internal)])
        self._first_U, self._count_U = first_M[node_of_unit].astype(np.int64), count_M[node_of_unit].astype(np.int64)
        self._class_at = tree.class_order.astype(np.int64)

    @property
    def root(self) -> ClassIds:
        """The units below the root, rising."""
        return self.children(self.num_classes)

    def children(self, unit: int) -> ClassIds:
        """The units right below one that is no class, rising."""
        node = unit - self.num_classes
        return self._child_unit[self._tree.child_ptr[node] : self._tree.child_ptr[node + 1]]

    def kept(self, units: ClassIds) -> bool:
        """Whether a node over these (rising) is not open to decisions, but its children are what they are."""
        return units.size < DECIDABLE or (self.keeps_upper and units[-1] >= self.num_classes)

    def widest(self) -> ClassIds:
        """The most units that a node can be open with; fewer than three where nothing can be decided."""
        tree = self._tree
        own_classes = np.bincount(tree.parent[tree.num_internal :], minlength=tree.num_internal)
        size_N = own_classes if self.keeps_upper else tree.arities
        units = self.children(self.num_classes + int(size_N.argmax()))
        return units[units < self.num_classes] if self.keeps_upper else units

    def classes(self, units: ClassIds) -> tuple[ClassIds, NDArray[np.int64]]:
        """All classes of these units, and of each the place of its unit in ``units``."""
        size_n = self._count_U[units]
        owner = np.repeat(np.arange(units.size), size_n)
        place = np.arange(owner.size) - np.repeat(np.cumsum(size_n) - size_n, size_n)
        return self._class_at[self._first_U[units][owner] + place], owner

    def sums(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of ``value`` [C] over the classes of each unit, float64 [U]."""
        before = np.concatenate([[0.0], np.cumsum(value[self._class_at])])
        below: NDArray[np.float64] = before[self._first_U + self._count_U] - before[self._first_U]
        below[: self.num_classes] = value
        return below

    def means(self, vectors: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean of ``vectors`` [C, E] over the classes of each unit, float32 [U, E]; unweighted where no weight is."""
        total_U = self.sums(weights.astype(np.float64))
        bare_U = total_U == 0
        found = np.empty((total_U.size, vectors.shape[1]), np.float32)
        for column, own in enumerate(vectors.T.astype(np.float64)):
            sum_U = np.where(bare_U, self.sums(own), self.sums(weights * own))
            found[:, column] = sum_U / np.where(bare_U, self._count_U, total_U)
        found[: self.num_classes] = vectors
        return found

    def categories(self, categories: NDArray[np.int64]) -> NDArray[np.int64]:
        """The category of each unit, int64 [U]; one of its own for a node whose classes are of several."""
        by_place = categories[self._class_at]
        changes = np.concatenate([[0], np.cumsum(by_place[1:] != by_place[:-1])])  # before each place
        mixed_U = changes[self._first_U] < changes[self._first_U + self._count_U - 1]
        own = categories.max() + 1 + np.arange(mixed_U.size)
        return np.where(mixed_U, own, by_place[self._first_U]).astype(np.int64)

    def directions(self, of_classes: NodeDirections, counts: NDArray[np.float64]) -> NodeDirections:
        """What trains nodes over units: a unit's row is the mean of those of its classes, weighted by ``counts``."""

        def of_units(parts: Sequence[ClassIds]) -> NDArray[np.float64]:
            row_nK = of_classes([np.sort(self.classes(part)[0]) for part in parts])
            units = np.sort(np.concatenate(parts))
            classes, owner = self.classes(units)
            weight = counts[classes]
            total = np.bincount(owner, weight, units.size)
            weight = np.where(total[owner] > 0, weight, 1.0)  # none of its classes occurs: all count alike
            weight = weight / np.bincount(owner, weight, units.size)[owner]
            row_nK = weight[:, None] * row_nK[np.argsort(np.argsort(classes))]
            return np.stack([np.bincount(owner, row_nK[:, k], units.size) for k in range(row_nK.shape[1])], axis=1)

        return of_units
