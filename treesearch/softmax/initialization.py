"""Start a hierarchical softmax from a trained flat layer.

Shapes: **C** classes, **D** features, **M** nodes in all, **N** internal nodes, **R** logit rows, **S** scopes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.paths import row_ptr
from treesearch.softmax.layout import IntArray, SoftmaxLayout
from treesearch.softmax.tree_sums import accumulate_up
from treesearch.tree import IntArray as NodeArray
from treesearch.tree import Tree, check_counts

FloatArray = NDArray[np.float64]
COUNT_OF_UNSEEN = 0.5  # what a class without any count weighs
CLASS_VECTORS = "class vectors"


class LinearStart(NamedTuple):
    """Parameters of a `HierarchicalSoftmax`, float64, in the order of its parameter lists."""

    weights: list[FloatArray]  # a matrix [rows, width] per width of the layout
    biases: list[FloatArray]  # a vector [rows] per width
    projections: list[FloatArray]  # a matrix [d, source d] per scope, canonical order


def rows_from_linear(
    layout: SoftmaxLayout, weight_CD: FloatArray, bias_C: FloatArray | None, counts: ArrayLike | None
) -> LinearStart:
    """The rows that make a tree imitate the flat layer ``logit_c = w_c . x + b_c``.

    A flat softmax gives the subtree s the logit ``log sum_c exp(a_c)`` over its classes, ``a_c = w_c . x + b_c``, which
    is not linear in x. For any distribution pi over these classes it is at least ``sum_c pi_c (a_c - log pi_c)``
    (Gibbs' inequality), with equality where pi is the posterior within s: the right side is the tangent plane of
    log-sum-exp at pi. Here pi is each class's share of the counts, so a subtree gets the vector ``sum_c pi_c w_c`` and
    the bias ``sum_c pi_c b_c + H(pi)``, H the entropy in nats. A single class keeps w_c and b_c: a depth-1 tree over
    C > 2 classes *is* the flat layer, and any tree is exact where classes of a subtree share their vector and
    ``exp(b_c)`` is proportional to their counts.

    A wide node has its children's vectors and biases as rows, a binary node the first child's less the second's.
    One vector added to all rows of a wide node changes nothing, so below a projection the node's own mean vector is
    taken from them first: what is left, like a binary node's difference, lies in the span of the class vectors'
    deviations from their mean. The rows of a projection are the first d principal axes of these deviations, in its
    source space, over the classes below it and weighted by count (Pearson 1901): orthonormal, so that mapping rows w
    to P w loses nothing where the deviations span at most d dimensions, and is else the best of rank d. A projection
    that does not shrink is the identity, padded with zero rows. Nested ones act on what those above leave.

    Time O(C D) and, for each projection from s to d < s dimensions, O(n D s + s^3), n the classes below it.

    Args:
        layout: Of the tree and D.
        weight_CD: float [C, D], finite.
        bias_C: float [C], finite; None for zeros.
        counts: [C] class counts; a class without any is given half a count. None: all alike.

    Returns:
        Weights, biases and projections of a layer with bias.

    Raises:
        DataError: Shapes do not fit the tree, or a number is not finite.
    """
    tree = layout.tree
    weight_CD = _checked("weight", weight_CD, (tree.num_classes, layout.in_features))
    bias_C = np.zeros(tree.num_classes) if bias_C is None else _checked("bias", bias_C, (tree.num_classes,))
    mass_M = node_masses(tree, counts)
    vector_MD, bias_M = _subtree_planes(tree, mass_M, weight_CD, bias_C)
    maps, projections = _principal_axes(layout, mass_M, vector_MD)

    node_R = layout.row_node
    child_R, second_R, is_binary_R = row_children(layout)
    bias_R = bias_M[child_R] - np.where(is_binary_R, bias_M[second_R], 0.0)

    weights = []
    ends = np.cumsum(layout.rows_per_width)
    for width, end, num_rows, scopes in zip(
        layout.widths, ends.tolist(), layout.rows_per_width, layout.scope_rows, strict=True
    ):
        weight_rd = np.empty((num_rows, width))
        for scope, own in scopes:
            row = end - num_rows + own
            row_rD = vector_MD[child_R[row]]
            binary = is_binary_R[row]
            row_rD[binary] -= vector_MD[second_R[row[binary]]]
            if scope != layout.NO_SCOPE:
                row_rD[~binary] -= vector_MD[node_R[row[~binary]]]
                row_rD = row_rD @ maps[scope].T
            weight_rd[own] = row_rD
        weights.append(weight_rd)
    return LinearStart(weights, np.split(bias_R, ends[:-1]), projections)


def row_children(layout: SoftmaxLayout) -> tuple[NodeArray, NodeArray, NDArray[np.bool_]]:
    """The child whose logit each row is, its node's second child, and whether the node is binary, each [R].

    Rows stand as in `SoftmaxLayout.row_node`. That of a binary node is the first child's logit less the second's.
    """
    tree, node_R = layout.tree, layout.row_node
    first_R = tree.child_ptr[node_R].astype(np.int64)
    child_R = tree.child_idx[first_R + layout.row_order - row_ptr(tree)[node_R]]
    return child_R, tree.child_idx[first_R + 1], tree.arities[node_R] == 2


def principal_projections(
    layout: SoftmaxLayout, vectors_CD: NDArray[np.floating], counts: ArrayLike | None
) -> list[FloatArray]:
    """The projections of `rows_from_linear`, [d, source d] per scope in canonical order, for these class vectors.

    Each depends on the content of its topmost projection's subtree alone. One BLAS thread makes it the same to the bit.

    Raises:
        DataError: Shapes do not fit the tree, or a number is not finite.
    """
    tree = layout.tree
    vectors_CD = _checked(CLASS_VECTORS, vectors_CD, (tree.num_classes, layout.in_features))
    mass_M = node_masses(tree, counts)
    vector_MD, _ = _subtree_planes(tree, mass_M, vectors_CD, np.zeros(tree.num_classes))
    return _principal_axes(layout, mass_M, vector_MD)[1]


def node_masses(tree: Tree, counts: ArrayLike | None) -> FloatArray:
    """Mass of each node, float64 [M], in proportion to the counts; None weighs all classes alike.

    Raises:
        DataError: The counts do not fit the tree.
    """
    if counts is None:
        return tree.node_mass(np.ones(tree.num_classes))
    counts_C = check_counts(counts, tree.num_classes)
    counts_C = np.where(counts_C > 0, counts_C, COUNT_OF_UNSEEN)
    # Only shares matter; scaled so, none underflows to zero beside a far heavier one.
    return tree.node_mass(np.maximum(counts_C / counts_C.max(), np.finfo(np.float64).tiny))


def mass_shares(tree: Tree, mass_M: FloatArray) -> FloatArray:
    """Part of its parent's mass that each node has, float64 [M]; 1 at the root."""
    share_M = np.ones(tree.num_nodes)
    share_M[1:] = mass_M[1:] / mass_M[tree.parent[1:]]
    return share_M


def split_entropies(tree: Tree, share_M: FloatArray) -> FloatArray:
    """Entropy of each node's decision where its children's shares are their probabilities, [M], nats; 0 at leaves."""
    entropy_M = np.zeros(tree.num_nodes)
    np.add.at(entropy_M, tree.parent[1:], -share_M[1:] * np.log(share_M[1:]))
    return entropy_M


def _subtree_planes(
    tree: Tree, mass_M: FloatArray, weight_CD: FloatArray, bias_C: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Vector [M, D] and bias [M] of each node: the tangent plane of log-sum-exp over the classes below it.

    Means of means, not sums over mass: they stay within the range of the classes. Entropy by its chain rule.
    """
    share_M = mass_shares(tree, mass_M)
    vector_MD = np.zeros((tree.num_nodes, weight_CD.shape[1]))
    vector_MD[tree.num_internal :] = weight_CD[tree.leaf_class]
    bias_M1 = split_entropies(tree, share_M)[:, None]
    bias_M1[tree.num_internal :, 0] = bias_C[tree.leaf_class]
    accumulate_up(tree.parent, share_M, vector_MD)
    accumulate_up(tree.parent, share_M, bias_M1)
    return vector_MD, bias_M1[:, 0]


def _principal_axes(
    layout: SoftmaxLayout, mass_M: FloatArray, vector_MD: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """For each scope the product of all projections from the raw input down to it, [d, D], and its own, [d, s]."""
    maps: list[FloatArray] = []
    projections: list[FloatArray] = []
    leaves = _leaves_below(layout)
    openers = np.flatnonzero(layout.tree.projection_dim)
    for scope, (parent, dim, source) in enumerate(
        zip(layout.scope_parent, layout.scope_dim, layout.source_dim, strict=True)
    ):
        if dim >= source:
            own = np.eye(dim, source)
        else:
            share_n = mass_M[leaves[scope]] / mass_M[openers[scope]]
            deviation = vector_MD[leaves[scope]] - vector_MD[openers[scope]]
            deviation *= np.sqrt(share_n)[:, None]
            if parent != layout.NO_SCOPE:
                deviation = deviation @ maps[parent].T
            _, axes = np.linalg.eigh(deviation.T @ deviation)  # eigenvalues rise
            own = np.ascontiguousarray(axes[:, : -dim - 1 : -1].T)
        projections.append(own)
        maps.append(own if parent == layout.NO_SCOPE else own @ maps[parent])
    return maps, projections


def _leaves_below(layout: SoftmaxLayout) -> list[IntArray]:
    """The leaves (as nodes) that each scope's projection feeds, [S] arrays."""
    tree, num_scopes = layout.tree, len(layout.scope_dim)
    if not num_scopes:
        return []
    leaf = np.arange(tree.num_internal, tree.num_nodes)
    scope = layout.node_scope[tree.parent[leaf]]
    scope_parent = np.array(layout.scope_parent)
    leaves, scopes = [], []
    while (inside := scope != layout.NO_SCOPE).any():
        leaf, scope = leaf[inside], scope[inside]
        leaves.append(leaf)
        scopes.append(scope)
        scope = scope_parent[scope]
    scope_all = np.concatenate(scopes)
    order = np.argsort(scope_all, kind="stable")
    bounds = np.cumsum(np.bincount(scope_all, minlength=num_scopes))[:-1]
    return np.split(np.concatenate(leaves)[order], bounds)


def _checked(name: str, values: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an array of numbers, but got {type(values).__name__}") from None
    if array.shape != shape:
        raise DataError(
            f"{name} must have shape {shape} to fit the tree and its features, but got {array.shape};"
            f" {'take vectors' if name == CLASS_VECTORS else 'take a flat layer'} over the classes of the tree"
        )
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        place = tuple(bad[0].tolist())
        raise DataError(f"{name} must be finite, but {place} holds {array[place]}; take a layer that did not diverge")
    return array


@torch.no_grad()
def draw_uniform(matrix: Tensor, generator: torch.Generator | None) -> None:
    """Fill a matrix [rows, d] as `nn.Linear` does, uniform up to 1 / sqrt(d); drawn in single precision on the CPU."""
    bound = 1 / math.sqrt(matrix.shape[1])
    drawn = torch.rand(matrix.shape, generator=generator, dtype=torch.float32, device="cpu")
    matrix.copy_(drawn * (2 * bound) - bound)


def log_mass_biases(tree: Tree, counts: ArrayLike) -> NDArray[np.float32]:
    """Biases that make a tree with zero weights predict the class frequencies, float32 [R], rows in canonical order.

    A class without count is given half a count.
    """
    mass = node_masses(tree, counts)
    log_mass = np.log(mass[tree.child_idx])  # one entry per edge, edges grouped by node
    rows = row_ptr(tree)
    first_edge = tree.child_ptr[:-1]
    edge_node = np.repeat(np.arange(tree.num_internal), tree.arities)
    position = np.arange(edge_node.size) - first_edge[edge_node]
    wide = tree.arities[edge_node] != 2
    biases = np.empty(rows[-1], np.float32)
    biases[(rows[edge_node] + position)[wide]] = (log_mass - np.log(mass[edge_node]))[wide]
    binary = np.flatnonzero(tree.arities == 2)
    biases[rows[binary]] = log_mass[first_edge[binary]] - log_mass[first_edge[binary] + 1]
    return biases
