"""Trees of any arity as binary ones, with a record of where each binary node comes from.

Shapes: **C** classes, **N** internal nodes, **M** nodes in all.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from treesearch.builders.huffman import merge
from treesearch.errors import TreeError
from treesearch.tree import IntArray, Tree

ORIGIN = "binarized"  # metadata entry: for each binary node, the node of the original tree that it decides for


def binarize(tree: Tree, *, counts: ArrayLike | None = None) -> Tree:
    """Replace every node of k > 2 children by k - 1 binary ones.

    A node's children are merged like the leaves of a Huffman tree, by their mass where there are counts, and else as if
    all weighed the same: then their depths below the node differ by one at most. The metadata entry `ORIGIN` says for
    each binary node which node of the given tree it stands in for, from which `restore` gets that tree back.

    Args:
        tree: Of any arity, without projections.
        counts: [C] class counts.

    Raises:
        TreeError: A node has a projection.
        DataError: The counts do not fit the tree.
    """
    if tree.projection_dim.any():
        raise TreeError(
            f"binary nodes cannot share a projection, but {int((tree.projection_dim > 0).sum())} nodes have one; leave"
            " them out with --drop-projections (drop_projections=True)"
        )
    if not tree.num_internal or int(tree.arities.max()) == 2:
        return tree
    weight_M = np.ones(tree.num_nodes) if counts is None else tree.node_mass(counts)
    parent, origin = _expand(tree.child_ptr, tree.child_idx, weight_M, tree.num_internal)
    binary, new_id = Tree.from_parents_with_ids(parent, tree.leaf_class)
    canonical = np.empty(binary.num_internal, np.int32)
    canonical[new_id[: binary.num_internal]] = origin
    metadata = {**tree.metadata, ORIGIN: canonical.tolist()}
    return binary.annotate(class_names=tree.class_names, metadata=metadata)


@njit(cache=True)
def _expand(
    child_ptr: IntArray, child_idx: IntArray, weight: NDArray[np.float64], num_internal: int
) -> tuple[IntArray, IntArray]:
    """Parents of the binary nodes and then of the leaves, and the original node of each binary one."""
    arity = child_ptr[1:] - child_ptr[:-1]
    end = np.cumsum(arity - 1)  # a node's binary nodes are numbered up to here, the topmost last
    num_binary = end[-1]
    parent = np.full(num_binary + weight.size - num_internal, -1, np.int32)
    origin = np.empty(num_binary, np.int32)
    for node in range(num_internal):
        first = end[node] - (arity[node] - 1)
        children = child_idx[child_ptr[node] : child_ptr[node + 1]]
        rising = np.argsort(weight[children], kind="mergesort")
        inner, outer = merge(weight[children][rising], 2)
        for place in range(inner.size):
            origin[first + place] = node
            if inner[place] >= 0:
                parent[first + place] = first + inner[place]
        for place in range(outer.size):
            child = children[rising[place]]
            at = end[child] - 1 if child < num_internal else num_binary + child - num_internal
            parent[at] = first + outer[place]
    return parent, origin


def binarized_by(tree: Tree) -> IntArray | None:
    """The record of `binarize`, int32 [N]; None for a tree without one.

    Raises:
        TreeError: It does not fit the tree.
    """
    record = tree.metadata.get(ORIGIN)
    if record is None:
        return None
    try:
        origin = np.asarray(record)
    except ValueError:
        origin = np.zeros(0)
    if origin.shape != (tree.num_internal,) or origin.dtype.kind not in "iu" or origin.min() < 0:
        raise TreeError(f"the metadata entry {ORIGIN!r} must hold a node for each of {tree.num_internal} binary nodes")
    return origin.astype(np.int32)


def restore(tree: Tree) -> Tree:
    """The tree that `binarize` was given; a tree without its record is returned as it is.

    Raises:
        TreeError: The record does not fit the tree.
    """
    origin = binarized_by(tree)
    if origin is None:
        return tree
    num = int(origin.max()) + 1
    if num > tree.num_internal:
        raise TreeError(
            f"nodes of the metadata entry {ORIGIN!r} must be below {tree.num_internal}, but one is {num - 1}"
        )
    above = tree.parent[: tree.num_internal]
    top = (above < 0) | (origin != origin[above])
    parent = np.full(num, Tree.NO_PARENT, np.int32)
    parent[origin[top]] = np.where(above[top] < 0, Tree.NO_PARENT, origin[above[top]])
    metadata = {key: value for key, value in tree.metadata.items() if key != ORIGIN}
    parents = np.concatenate([parent, origin[tree.parent[tree.num_internal :]]])
    restored = Tree.from_parents(parents, tree.leaf_class, metadata=metadata)
    return restored.annotate(class_names=tree.class_names)
