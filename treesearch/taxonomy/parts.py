"""How the nodes of a taxonomy part some of its classes.

Shapes: **n** classes, of C in all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treesearch import tree_kernels
from treesearch.taxonomy.taxonomy import Taxonomy


def parts_below(taxonomy: Taxonomy, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each of >= 2 classes, int64 [n], equal under one child of the deepest node above all of them.

    A class that is that node itself has a number of its own. Numbers rise with the smallest class, of all C, below the
    child. O(n log arity + depth).
    """
    tree = taxonomy.tree
    first_M, _ = tree.leaf_intervals
    place_n = first_M[tree.class_leaf[classes]]
    ends = tree.class_leaf[classes[[place_n.argmin(), place_n.argmax()]]]
    common = tree_kernels.lowest_common_ancestors(tree.parent, tree.node_depths, ends[:1], ends[1:])[0]
    starts = first_M[tree.children(int(common))]  # rising: siblings have intervals one after the other
    return np.searchsorted(starts, place_n, side="right").astype(np.int64)


def parts_at(taxonomy: Taxonomy, level: int, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each class, int64 [n], equal under one node of the level; its own where a class ends above it.

    Args:
        taxonomy: Of C classes.
        level: At least 0; at a level below all classes each has its own number.
        classes: Ids.
    """
    own_n = taxonomy.num_nodes + classes
    if level > taxonomy.num_levels:
        return own_n
    node_n = taxonomy.ancestors(level)[classes]
    return np.where(node_n == Taxonomy.NO_NODE, own_n, node_n)
