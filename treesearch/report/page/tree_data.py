"""What the tree viewer of the page shows: every fact is computed here, ``assets/viewer`` only shows it.

Shapes: **C** classes, **K** classes kept, **N** internal nodes kept, **M** all nodes kept, **W** words of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch import tree_kernels
from treesearch.cost import node_costs, tree_cost
from treesearch.errors import DataError, did_you_mean
from treesearch.objectives.distances import TreeDistance
from treesearch.report.node_words import representative_classes
from treesearch.report.page.class_labels import class_labels
from treesearch.report.page.neighbours import NO_NEIGHBOUR, nearest_neighbours
from treesearch.report.page.packing import pack
from treesearch.tree import Tree, check_counts
from treesearch.visible import visible

MAX_CLASSES = 50_000  # of more, the heaviest are in the page
NUM_COMPARED = 10_000  # the heaviest classes, among which nearest neighbours are looked for
NUM_WORDS = 3  # classes that name a node
NOT_KEPT = -1
SIBLINGS = 2  # edges between two leaves of one parent

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ViewedTree:
    """A tree with the name under which the viewer lists it."""

    name: str
    tree: Tree


def viewer_data(
    trees: Sequence[ViewedTree],
    *,
    counts: ArrayLike,
    class_names: Sequence[str] | None,
    vectors: ArrayLike | None,
    in_features: int | None = None,
    reference: str = "huffman",
) -> dict[str, Any]:
    """The data of ``mountTreeViewer``, JSON-able without NaN; arrays are packed by `pack`.

    Of more than `MAX_CLASSES` classes the heaviest are kept, with the nodes above them; the numbers of a node are
    still those of all of its classes.

    Args:
        trees: Over the same C classes; the first is shown first.
        counts: [C] class counts.
        class_names: C names; None shows ids.
        vectors: [C, D] class vectors, by which neighbours are near and nodes get their words. None: there are no
            neighbours, and the heaviest classes name a node, which the viewer says.
        in_features: D of the layer, for the cost of projections; None takes the width of ``vectors``.
        reference: Name of the tree that the others are compared with.

    Raises:
        DataError: No trees, two of one name, none of the reference's, or trees, counts, names and vectors that do not
            fit each other; or a tree with projections and nothing that says D.
    """
    counts_C = _checked_counts(trees, counts, class_names, vectors)
    dims = _in_features(trees, vectors, in_features)
    share_C = counts_C / counts_C.sum()
    heaviest = np.lexsort((np.arange(counts_C.size), -counts_C))
    kept = np.sort(heaviest[:MAX_CLASSES])
    neighbours = None
    if vectors is not None:
        compared = heaviest[:NUM_COMPARED]
        neighbours = Neighbours.of(vectors, compared[counts_C[compared] > 0], share_C)
    return {
        "reference": _reference_index(trees, reference),
        "numClasses": counts_C.size,
        "keptShare": float(share_C[kept].sum()),
        "entropy": float(share_C @ -np.log2(np.where(share_C > 0, share_C, 1.0))),
        "ids": pack(kept),
        "names": _labels(class_names, kept),
        "share": pack(share_C[kept]),
        "idealBits": pack(_ideal_bits(share_C[kept])),
        "byVectors": vectors is not None,
        "neighbours": None if neighbours is None else neighbours.packed(kept, counts_C.size),
        "trees": [
            _tree_data(one, counts_C=counts_C, kept=kept, vectors=vectors, in_features=dims, neighbours=neighbours)
            for one in trees
        ],
    }


@dataclass(frozen=True)
class Neighbours:
    """Classes that have a nearest neighbour among the heaviest, with it; **P** pairs."""

    classes: IntArray  # [P]
    nearest: IntArray  # [P]
    cosine: FloatArray  # [P]
    share: FloatArray  # [P] of the examples that are of the class
    num_compared: int

    @classmethod
    def of(cls, vectors: ArrayLike, compared: IntArray, share_C: FloatArray) -> Neighbours:
        """Look for them among ``compared``, by `nearest_neighbours`."""
        nearest, cosine = nearest_neighbours(vectors, among=compared)
        found = nearest != NO_NEIGHBOUR
        return cls(compared[found], nearest[found], cosine[found], share_C[compared[found]], compared.size)

    def edges(self, tree: Tree) -> FloatArray:
        """Edges between each pair in a tree, [P]; 2 for siblings."""
        return TreeDistance(tree).between(self.classes, self.nearest)

    def sibling_share(self, tree: Tree) -> float | None:
        """Of the examples whose class has a neighbour, the share where that is a sibling; None where none has one."""
        total = self.share.sum()
        return float(self.share @ (self.edges(tree) == SIBLINGS) / total) if total > 0 else None

    def packed(self, kept: IntArray, num_classes: int) -> dict[str, Any]:
        """Places among ``kept`` of the neighbours of its classes, -1 for none, and cosines."""
        place = _places(kept, num_classes)
        nearest, cosine = np.full(kept.size, NO_NEIGHBOUR), np.zeros(kept.size)
        nearest[place[self.classes]], cosine[place[self.classes]] = place[self.nearest], self.cosine
        return {
            "nearest": pack(nearest),
            "cosine": pack(cosine),
            "numCompared": self.num_compared,
            "share": float(self.share.sum()),
        }


def _tree_data(
    one: ViewedTree,
    *,
    counts_C: FloatArray,
    kept: IntArray,
    vectors: ArrayLike | None,
    in_features: int,
    neighbours: Neighbours | None,
) -> dict[str, Any]:
    tree = one.tree
    place = _places(kept, tree.num_classes)
    nodes = _kept_nodes(tree, place)
    new_id = _places(nodes, tree.num_nodes)
    inner = nodes[nodes < tree.num_internal]
    named_by_C = np.where(place[:-1] != NOT_KEPT, counts_C, 0.0)  # classes that are not in the page name nothing
    words = place[representative_classes(tree, mass=named_by_C, vectors=vectors, num=NUM_WORDS)[inner]]
    cost, bits = node_costs(tree, in_features), np.log2(tree.arities)
    passes = tree.pass_shares(counts_C)
    totals = tree_cost(tree, counts_C, in_features=in_features)
    edges = None
    if neighbours is not None:
        edges = np.zeros(kept.size, np.int64)
        edges[place[neighbours.classes]] = neighbours.edges(tree)
    return {
        "name": visible(one.name),
        "numInternal": tree.num_internal,
        "expectedDepth": totals.expected_depth,
        "expectedBits": float(passes @ bits),
        "cost": totals.cost,
        "maxDepth": totals.max_depth,
        "siblingShare": None if neighbours is None else neighbours.sibling_share(tree),
        "parent": pack(new_id[tree.parent[nodes[1:]]]),  # of every node but the root
        "leafClass": pack(place[tree.leaf_class[nodes[inner.size :] - tree.num_internal]]),
        "nodeShare": pack(passes[inner]),
        "nodeClasses": pack(tree.leaf_intervals[1][inner]),
        "arity": pack(tree.arities[inner]),
        "projection": pack(tree.projection_dim[inner]),
        "words": pack(words),  # NUM_WORDS of each node, places among the classes kept
        "nodeNames": None if tree.node_names is None else [visible(tree.node_names[node]) for node in inner],
        "depth": pack(tree.depths[kept]),
        "bits": pack(tree.path_sums(bits)[kept]),
        "classCost": pack(tree.path_sums(cost)[kept]),
        "edges": None if edges is None else pack(edges),  # to the nearest neighbour, 0 where there is none
    }


def _kept_nodes(tree: Tree, place_C: IntArray) -> IntArray:
    """The root, all nodes above the leaves of kept classes and these leaves, in the tree's order."""
    own = np.concatenate([np.zeros(tree.num_internal), place_C[tree.leaf_class] != NOT_KEPT]).astype(np.float64)
    own[: tree.num_internal] = tree_kernels.subtree_sums(tree.parent, own, tree.num_internal)
    return np.flatnonzero(own > 0)


def _places(kept: IntArray, size: int) -> IntArray:
    """The place in ``kept`` of each of ``size`` ids, `NOT_KEPT` where it has none, and of -1 too."""
    place = np.full(size + 1, NOT_KEPT, np.int64)
    place[kept] = np.arange(kept.size)
    return place


def _ideal_bits(share: FloatArray) -> FloatArray:
    """Code length of an ideal code, -log2 of the share; infinite where that is 0."""
    return np.where(share > 0, -np.log2(np.where(share > 0, share, 1.0)), np.inf)


def _labels(class_names: Sequence[str] | None, kept: IntArray) -> list[str]:
    if class_names is None:
        return [str(c) for c in kept]
    return class_labels([class_names[c] for c in kept], kept.tolist())


def _reference_index(trees: Sequence[ViewedTree], reference: str) -> int:
    names = [one.name for one in trees]
    if len(set(names)) < len(names):
        raise DataError(f"viewed trees must have different names, but are {', '.join(names)}")
    if reference not in names:
        raise DataError(f"no viewed tree is named {reference!r}{did_you_mean(reference, names)}")
    return names.index(reference)


def _checked_counts(
    trees: Sequence[ViewedTree], counts: ArrayLike, class_names: Sequence[str] | None, vectors: ArrayLike | None
) -> FloatArray:
    counts_C = check_counts(counts)
    for one in trees:
        if one.tree.num_classes != counts_C.size:
            raise DataError(
                f"viewed trees must be over the same classes, but {one.name!r} has {one.tree.num_classes} and there are"
                f" {counts_C.size} counts"
            )
    if vectors is not None and (np.ndim(vectors) != 2 or len(np.asarray(vectors)) != counts_C.size):
        raise DataError(
            f"vectors must be one row for each of {counts_C.size} classes, but got shape {np.shape(vectors)}"
        )
    if class_names is not None and len(class_names) != counts_C.size:
        raise DataError(f"one name per class must be given, but got {len(class_names)} for {counts_C.size} classes")
    return counts_C


def _in_features(trees: Sequence[ViewedTree], vectors: ArrayLike | None, in_features: int | None) -> int:
    """D, which matters where a tree has projections."""
    if in_features is not None:
        return in_features
    if vectors is not None:
        return int(np.shape(vectors)[1])
    projected = [one.name for one in trees if one.tree.projection_dim.any()]
    if projected:
        raise DataError(f"{projected[0]!r} has projections, whose cost depends on the features; pass in_features")
    return 1
