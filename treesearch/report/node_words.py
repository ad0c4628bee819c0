"""Which classes name a node: those that are frequent in it and typical of what sets it apart from its parent.

Shapes: **C** classes, **D** features, **N** internal nodes, **M** all nodes, **E** pairs of a node and a candidate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch import tree_kernels
from treesearch.errors import DataError
from treesearch.tree import IntArray, Tree

NO_CLASS = -1
NUM_CANDIDATES = 64  # the heaviest classes of a node; rarer ones do not name it
BLOCK = 1 << 15  # pairs whose vectors are gathered at a time


def representative_classes(
    tree: Tree, *, mass: ArrayLike, vectors: ArrayLike | None = None, num: int = 3
) -> NDArray[np.int32]:
    """The classes that name each internal node, most representative first, int32 [N, num]; -1 where it has fewer.

    With vectors the score of class c in node n with parent p is ``sqrt(share of c in n) * max(cos, 0)``, where cos is
    that of ``v_c - mean_p`` with ``mean_n - mean_p`` (means are weighted by mass; the root's parent is 0): a frequent
    class that lies where the node differs from its parent. The candidates are the `NUM_CANDIDATES` heaviest classes of
    a node; those that score nothing follow by mass. Without vectors the heaviest classes name a node. Ties go to the
    heavier class, then to the smaller id.

    Args:
        tree: Over C classes.
        mass: [C], >= 0, such as training counts.
        vectors: [C, D]; a row that is not finite or all zero is like nothing, and never typical.
        num: Classes for each node.

    Raises:
        DataError: Mass or vectors do not fit the tree.
    """
    mass_C = np.asarray(mass, np.float64)
    if mass_C.shape != (tree.num_classes,) or not (np.isfinite(mass_C) & (mass_C >= 0)).all():
        raise DataError(
            f"mass must be {tree.num_classes} finite numbers >= 0, but got shape {mass_C.shape}; pass counts"
        )
    words = np.full((tree.num_internal, num), NO_CLASS, np.int32)
    if not tree.num_internal:
        return words
    rank = np.empty(tree.num_classes, np.int64)
    rank[np.lexsort((np.arange(tree.num_classes), -mass_C))] = np.arange(tree.num_classes)
    node_E, class_E = _heaviest(tree, rank, num if vectors is None else max(num, NUM_CANDIDATES))
    score_E = np.zeros(node_E.size)
    if vectors is not None:
        score_E = _scores(tree, mass_C, _usable(vectors, tree.num_classes), node_E, class_E)
    order = np.lexsort((rank[class_E], -score_E, node_E))
    node_E, class_E = node_E[order], class_E[order]
    place = _places(node_E)
    words[node_E[place < num], place[place < num]] = class_E[place < num]
    return words


def _heaviest(tree: Tree, rank: NDArray[np.int64], limit: int) -> tuple[IntArray, IntArray]:
    """The ``limit`` heaviest classes below each internal node, as pairs (node, class).

    Level by level from below: a node chooses among what its children have chosen, so that a chain is no dearer than
    another tree.
    """
    depth = tree.node_depths
    by_depth = np.argsort(depth, kind="stable").astype(np.int32)
    level_ptr = np.concatenate([[0], np.cumsum(np.bincount(depth))])
    found_node: list[IntArray] = []
    found_class: list[IntArray] = []
    node_E = class_E = np.zeros(0, np.int32)  # what the nodes of the level below have chosen
    for level in range(level_ptr.size - 2, 0, -1):
        nodes = by_depth[level_ptr[level] : level_ptr[level + 1]]
        leaves = nodes[nodes >= tree.num_internal]
        owner = np.concatenate([tree.parent[node_E], tree.parent[leaves]])
        chosen = np.concatenate([class_E, tree.leaf_class[leaves - tree.num_internal]])
        order = np.lexsort((rank[chosen], owner))
        owner, chosen = owner[order], chosen[order]
        kept = _places(owner) < limit
        node_E, class_E = owner[kept], chosen[kept]
        found_node.append(node_E)
        found_class.append(class_E)
    return np.concatenate(found_node), np.concatenate(found_class)


def _places(group: IntArray) -> NDArray[np.int64]:
    """The place of each entry in its run of equal values."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(group.size) - np.repeat(starts, np.diff(starts, append=group.size))


def _usable(vectors: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Vectors as float64 [C, D], rows that are not finite set to 0."""
    vectors_CD = np.array(vectors, np.float64)
    if vectors_CD.ndim != 2 or vectors_CD.shape[0] != num_classes:
        raise DataError(f"vectors must be one row for each of {num_classes} classes, but got shape {vectors_CD.shape}")
    vectors_CD[~np.isfinite(vectors_CD).all(axis=1)] = 0.0
    return vectors_CD


def _scores(
    tree: Tree, mass_C: NDArray[np.float64], vectors_CD: NDArray[np.float64], node_E: IntArray, class_E: IntArray
) -> NDArray[np.float64]:
    """What `representative_classes` ranks by, float64 [E]."""
    known_C = (vectors_CD != 0).any(axis=1)
    mass_N, weight_C = _sums(tree, mass_C), mass_C * known_C
    weight_N = _sums(tree, weight_C)
    mean_ND = np.zeros((tree.num_internal, vectors_CD.shape[1]))
    for feature in range(vectors_CD.shape[1]):
        mean_ND[:, feature] = _sums(tree, weight_C * vectors_CD[:, feature]) / np.where(weight_N > 0, weight_N, 1)
    above_ND = np.where(tree.parent[: tree.num_internal, None] < 0, 0.0, mean_ND[tree.parent[: tree.num_internal]])
    apart_ND = mean_ND - above_ND
    score = np.empty(node_E.size)
    for begin in range(0, node_E.size, BLOCK):
        part = slice(begin, begin + BLOCK)
        apart, own = apart_ND[node_E[part]], vectors_CD[class_E[part]] - above_ND[node_E[part]]
        size = np.sqrt(np.einsum("ed,ed->e", own, own) * np.einsum("ed,ed->e", apart, apart))
        cosine = np.einsum("ed,ed->e", own, apart) / np.where(size > 0, size, 1)
        share = mass_C[class_E[part]] / np.where(mass_N[node_E[part]] > 0, mass_N[node_E[part]], 1)
        score[part] = np.sqrt(share) * np.maximum(cosine, 0.0) * known_C[class_E[part]]
    return score


def _sums(tree: Tree, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of ``values`` [C] below each internal node, float64 [N]."""
    own = np.concatenate([np.zeros(tree.num_internal), values[tree.leaf_class]])
    return tree_kernels.subtree_sums(tree.parent, own, tree.num_internal)
