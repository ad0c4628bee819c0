"""Trees of foreign files that are read node by node."""

from __future__ import annotations

from treesearch.exchange.labels import ids_of_labels
from treesearch.tree import Tree
from treesearch.tree_links import tree_from_links


class GrowingTree:
    """A tree that is read node by node, parents first, with a label at each leaf.

    Node numbers count up from 0; ``above`` is the number of a node's parent, `Tree.NO_PARENT` at the root.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._leaf: list[int] = []
        self._labels: list[str] = []

    def __len__(self) -> int:
        return len(self._parent)

    def add_node(self, above: int) -> int:
        """Add a node that is to get children; returns its number."""
        self._parent.append(above)
        return len(self._parent) - 1

    def add_leaf(self, above: int, label: str) -> None:
        """Add a leaf."""
        self._leaf.append(self.add_node(above))
        self._labels.append(label)

    def tree(self) -> Tree:
        """The tree; its classes are as `ids_of_labels` has them, nodes with a single child are collapsed.

        Raises:
            TreeError: It is not a valid tree.
        """
        ids, names = ids_of_labels(self._labels)
        return tree_from_links(self._parent, self._leaf, ids, class_names=names)
