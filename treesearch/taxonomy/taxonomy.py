"""`Taxonomy`: a hierarchy of labels as people drew it, and the tree of decisions that it makes over its classes.

Shapes: **T** nodes of the taxonomy, **C** classes, **M** nodes of a tree, **P** pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch import tree_kernels
from treesearch.errors import DataError, TreeError, did_you_mean
from treesearch.tree import IntArray, Tree, check_pairs
from treesearch.tree_links import COLLAPSED, tree_from_links_with_ids

ROOT = "ROOT"
METADATA = "taxonomy"  # key in the metadata of a taxonomy's tree


@dataclass(frozen=True, eq=False, repr=False)
class Taxonomy:
    """Named nodes, some of which are classes.

    A class may be any node. One that has others below it is a class *at an inner node*: in the tree it gets a leaf of
    its own beside what is below it ("here"). A node with a single child decides nothing and is not in the tree, but
    keeps its name and its level here.

    Do not call the constructor; `treesearch.taxonomy.load_taxonomy` and `taxonomy_from_edges`, `taxonomy_from_paths`,
    `taxonomy_from_nested`, `taxonomy_from_networkx` check what they are given.
    """

    parent: IntArray  # [T] parents come before their children; NO_NODE at the root, which is node 0
    names: tuple[str, ...]  # [T] each once
    class_node: IntArray  # [C] the node of each class, each once

    NO_NODE: ClassVar[int] = -1

    # -- sizes and names -----------------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        """T."""
        return int(self.parent.size)

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.class_node.size)

    @property
    def num_levels(self) -> int:
        """Levels below the root: the depth of the deepest class."""
        return int(self.depth[self.class_node].max())

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, [C]."""
        return tuple(self.names[node] for node in self.class_node.tolist())

    @cached_property
    def depth(self) -> IntArray:
        """Edges from the root to each node, int32 [T]; a node of depth l is of level l."""
        return tree_kernels.node_depths(self.parent, self.num_nodes)

    @cached_property
    def class_at(self) -> IntArray:
        """The class of each node, int32 [T]; -1 where it is none."""
        class_at = np.full(self.num_nodes, -1, np.int32)
        class_at[self.class_node] = np.arange(self.num_classes, dtype=np.int32)
        return class_at

    @cached_property
    def num_classes_below(self) -> NDArray[np.int64]:
        """Classes at each node or below it, int64 [T]."""
        own = (self.class_at >= 0).astype(np.float64)
        return tree_kernels.subtree_sums(self.parent, own, self.num_nodes).astype(np.int64)

    def node(self, name: str) -> int:
        """The node of a name.

        Raises:
            DataError: There is none.
        """
        found = self._index.get(name)
        if found is None:
            raise DataError(f"the taxonomy has no node {name!r:.60}{did_you_mean(name, self.names)}")
        return found

    def nodes(self, names: Sequence[str]) -> IntArray:
        """The nodes of names, int32; see `node`."""
        return np.array([self.node(name) for name in names], np.int32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: node for node, name in enumerate(self.names)}

    # -- levels --------------------------------------------------------------------------------------------------------

    def ancestors(self, level: int) -> IntArray:
        """The node of each class's path at a level, int32 [C]; `NO_NODE` for classes that end above it.

        Args:
            level: 0 (the root) to `num_levels`.

        Raises:
            DataError: There is no such level.
        """
        if not (isinstance(level, int | np.integer) and 0 <= level <= self.num_levels):
            raise DataError(
                f"level must lie in [0, {self.num_levels}], the levels of the taxonomy, but got {level!r:.40}"
            )
        return self.node_ancestors(level)[self.class_node]

    def node_ancestors(self, level: int) -> IntArray:
        """The ancestor-or-self of each node at any level >= 0, int32 [T]; `NO_NODE` for nodes above it."""
        return tree_kernels.nearest_marked(self.parent, self.depth == level, self.num_nodes, False)

    def lowest_common_ancestors(self, first: ArrayLike, second: ArrayLike) -> IntArray:
        """The deepest node above both (or one of them) of each pair of nodes, int32 [P].

        Raises:
            DataError: They are no nodes, or not as many of one as of the other.
        """
        a, b = check_pairs(first, second, self.num_nodes, "nodes")
        return tree_kernels.lowest_common_ancestors(self.parent, self.depth, a, b)

    @cached_property
    def heights(self) -> IntArray:
        """Edges from each node down to the deepest below it, int32 [T]."""
        return tree_kernels.node_heights(self.parent)

    # -- trees ---------------------------------------------------------------------------------------------------------

    @cached_property
    def tree(self) -> Tree:
        """The tree over the classes, with names at all nodes; its metadata hold the taxonomy, see `of`."""
        return self._annotated(self._built[0], self.tree_node)

    def annotate(self, tree: Tree) -> Tree:
        """Any tree over the classes with this taxonomy in its metadata, see `of`, and its names.

        Inner nodes are named where they have the classes of a node of the taxonomy; the others' names are empty.

        Raises:
            TreeError: The tree is over another number of classes.
        """
        return self._annotated(tree, self.nodes_in(tree))

    def _annotated(self, tree: Tree, node_T: IntArray) -> Tree:
        node_names = np.full(tree.num_internal, "", object)
        inner = (node_T >= 0) & (node_T < tree.num_internal)
        # A chain is one node of the tree and has the name of its end: the deepest comes last, and stays.
        node_names[node_T[inner]] = np.array(self.names, object)[inner]
        content = {
            "parent": self.parent.tolist(),
            "names": list(self.names),
            "class_node": self.class_node.tolist(),
        }
        return tree.annotate(
            class_names=self.class_names,
            node_names=node_names.tolist(),
            metadata={**tree.metadata, METADATA: content},
        )

    @cached_property
    def tree_node(self) -> IntArray:
        """The node of `tree` with the classes of each node, int32 [T]: all nodes of a chain have the one at its end."""
        _, ids = self._built
        node_of = ids[: self.num_nodes].copy()
        only_child = np.full(self.num_nodes, self.NO_NODE, np.int32)
        only_child[self.parent[1:]] = np.arange(1, self.num_nodes)  # read where there is one child alone
        for node in np.flatnonzero(node_of == COLLAPSED)[::-1].tolist():  # children before their parents
            node_of[node] = node_of[only_child[node]]
        return node_of

    @cached_property
    def _built(self) -> tuple[Tree, IntArray]:
        has_children = np.zeros(self.num_nodes, np.bool_)
        has_children[self.parent[1:]] = True
        inner = has_children[self.class_node]  # classes that get a leaf below their node
        leaf_C = self.class_node.copy()
        leaf_C[inner] = self.num_nodes + np.arange(inner.sum())
        return tree_from_links_with_ids(
            np.concatenate([self.parent, self.class_node[inner]]), leaf_C, np.arange(self.num_classes)
        )

    @classmethod
    def of(cls, tree: Tree) -> Taxonomy:
        """The taxonomy in the metadata of a tree that was made from one, also after saving and loading.

        Raises:
            TreeError: The tree holds none, or a damaged one.
        """
        content = tree.metadata.get(METADATA)
        if not isinstance(content, Mapping):
            raise TreeError("the tree holds no taxonomy; make it with treesearch.taxonomy_tree")
        return cls._checked(content, tree)

    @classmethod
    def _checked(cls, content: Mapping[str, Any], tree: Tree) -> Taxonomy:
        try:
            parent, class_node = (np.array(content[key], np.int64) for key in ("parent", "class_node"))
            names = tuple(content["names"])
            usable = (
                parent.ndim == class_node.ndim == 1
                and parent.size == len(names) == len(set(names)) >= 1
                and all(isinstance(name, str) for name in names)
                and class_node.size == np.unique(class_node).size == tree.num_classes
                and parent[0] == cls.NO_NODE
                and bool(((parent[1:] >= 0) & (parent[1:] < np.arange(1, parent.size))).all())
                and 0 <= class_node.min() <= class_node.max() < parent.size
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            usable = False
        if not usable:
            raise TreeError("the taxonomy in the tree's metadata is damaged; make the tree anew")
        return cls(parent.astype(np.int32), names, class_node.astype(np.int32))

    def nodes_in(self, tree: Tree) -> IntArray:
        """The node of any tree over the same classes that has the classes of each node below it, int32 [T].

        `NO_NODE` where the tree has no such node. A tree that *refines* the taxonomy has them all.

        Raises:
            TreeError: The tree is over another number of classes.
        """
        if tree.num_classes != self.num_classes:
            raise TreeError(
                f"the tree must be over the {self.num_classes} classes of the taxonomy, but has {tree.num_classes}"
            )
        if tree.num_internal == 0:
            return np.zeros(self.num_nodes, np.int32)
        first_M, count_M = tree.leaf_intervals
        place_C = first_M[tree.class_leaf]
        low_T = np.full(self.num_nodes, self.num_classes, np.int64)
        high_T = np.full(self.num_nodes, -1, np.int64)
        low_T[self.class_node] = high_T[self.class_node] = place_C
        tree_kernels.spread_up(self.parent, low_T, high_T)
        # Leaves below a node of the tree are an interval of places, and no two nodes have the same one.
        key_M = first_M.astype(np.int64) * (self.num_classes + 1) + count_M
        order = np.argsort(key_M)
        wanted_T = low_T * (self.num_classes + 1) + (high_T - low_T + 1)
        at = np.minimum(np.searchsorted(key_M[order], wanted_T), key_M.size - 1)
        found = (key_M[order][at] == wanted_T) & (high_T - low_T + 1 == self.num_classes_below)
        return np.where(found, order[at], self.NO_NODE).astype(np.int32)

    def __repr__(self) -> str:
        return f"Taxonomy(num_nodes={self.num_nodes}, num_classes={self.num_classes}, num_levels={self.num_levels})"
