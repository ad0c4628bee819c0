"""The frozen rung: node classifiers of a tree trained on an encoder's fixed features.

Shapes: **T** tokens, **D** features, **C** classes, **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import DataError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen_kernels import Parameters, run_epoch
from treesearch.evaluation.threads import one_blas_thread
from treesearch.paths import block_roots
from treesearch.softmax.cpu_plan import Layout, kernel_layout, restrict_layout
from treesearch.softmax.initialization import log_mass_biases, principal_projections
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree

INITIAL_SQUARE = 0.01  # Adagrad accumulators start here, which bounds the first steps


@dataclass(frozen=True)
class NodeScores:
    """What each internal node of a tree costs on the validation split."""

    nll: NDArray[np.float64]  # [N] nats, summed over the tokens that pass the node; NaN where it was not wanted
    tokens: NDArray[np.int64]  # [N] tokens that pass the node
    num_tokens: int  # T of the split

    @property
    def mean_nll(self) -> float:
        """Nats per token of the whole tree."""
        return float(self.nll.sum() / self.num_tokens)


def evaluate_frozen(
    tree: Tree,
    *,
    train: Features,
    valid: Features,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    learning_rate: float = 0.025,
    epochs: int = 1,
    wanted: NDArray[np.bool_] | None = None,
) -> NodeScores:
    """Train the nodes of ``tree`` on ``train`` and score them on ``valid``.

    Nodes (blocks, where there are projections) do not influence each other, and every tree reads the same tokens in
    the same order. Weights start at zero, biases at the log mass of each child, projections that shrink at the
    principal axes of the class vectors below them, others at the identity. One thread.

    Args:
        tree: Over C classes.
        train: Features to learn from.
        valid: Features to score.
        counts: [C] training counts, for the biases.
        vectors: [C, D] class vectors; needed where a projection shrinks.
        learning_rate: Of the row-wise Adagrad.
        epochs: Passes over ``train``.
        wanted: bool [N], the nodes to train and score, a block whole or not at all; None for all. Their results are
            the same, to the bit, as when all are trained.

    Raises:
        DataError: Tree, features, counts, vectors and wanted nodes do not fit together.
    """
    check_splits(train, valid, tree.num_classes)
    wanted_N = np.ones(tree.num_internal, np.bool_) if wanted is None else _checked_wanted(tree, wanted)
    layout, parameters = initial_state(tree, train.num_features, counts, vectors)
    if wanted is not None:
        layout = restrict_layout(layout, wanted_N)
    scores = np.zeros(tree.num_internal)
    if wanted_N.any():
        with one_blas_thread():
            ignored = np.zeros(tree.num_internal)
            for _ in range(epochs):
                for x, y in train.blocks():
                    run_epoch(layout, parameters, x, y, np.float32(learning_rate), True, ignored)
            for x, y in valid.blocks():
                run_epoch(layout, parameters, x, y, np.float32(0.0), False, scores)
    return NodeScores(np.where(wanted_N, scores, np.nan), passes(tree, valid.labels), len(valid))


def check_splits(train: Features, valid: Features, num_classes: int) -> None:
    """Check that both splits have features of one size, a row per label, and labels of these classes.

    Raises:
        DataError: They do not.
    """
    for split in (train, valid):
        if split.x.shape != (expected := (split.y.size, *train.x.shape[-1:])):
            raise DataError(f"features must have shape {expected}, one row per label, but got {split.x.shape}")
        if split.y.size and not 0 <= split.y.min() <= split.y.max() < num_classes:
            raise DataError(f"labels must lie in [0, {num_classes}), but got {split.y.min()} to {split.y.max()}")


def passes(tree: Tree, labels_T: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tokens that pass each internal node, [N]."""
    if not labels_T.size:
        return np.zeros(tree.num_internal, np.int64)
    seen = np.bincount(labels_T, minlength=tree.num_classes)
    return tree.node_mass(seen)[: tree.num_internal].astype(np.int64)


def _checked_wanted(tree: Tree, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if wanted.shape != (tree.num_internal,) or wanted.dtype != np.bool_:
        raise DataError(
            f"wanted must be bool, one per internal node, but got {wanted.dtype} of shape {wanted.shape}"
            f" for {tree.num_internal}"
        )
    roots = block_roots(tree)
    inside = roots >= 0
    if (wanted[inside] != wanted[roots[inside]]).any():
        raise DataError("the nodes below a topmost projection are trained together: want all of them or none")
    return wanted


def initial_state(
    tree: Tree, in_features: int, counts: NDArray[np.float64], vectors: NDArray[np.float32] | None = None
) -> tuple[Layout, Parameters]:
    """Layout and untrained parameters of ``tree``; both depend on the content of each node or block alone.

    Raises:
        DataError: A projection shrinks, but there are no class vectors.
    """
    softmax_layout = SoftmaxLayout.of(tree, in_features)
    layout = kernel_layout(softmax_layout)
    rows, widths = layout.rows_per_width, layout.widths
    weight = np.zeros(int(rows @ widths), np.float32)
    bias = log_mass_biases(tree, counts)[softmax_layout.row_order]
    square = np.full(bias.size, INITIAL_SQUARE, np.float32)
    projections = projection_starts(softmax_layout, counts, vectors)
    projection = np.concatenate([np.zeros(0, np.float32), *(matrix.ravel() for matrix in projections)])
    parameters = Parameters(
        weight=weight,
        bias=bias,
        square=square,
        projection=projection,
        projection_square=np.full(sum(softmax_layout.scope_dim), INITIAL_SQUARE, np.float32),
        weight_address=_addresses(weight, rows * widths),
        bias_address=_addresses(bias, rows),
        square_address=_addresses(square, rows),
        projection_address=_addresses(projection, np.array([matrix.size for matrix in projections], np.int64)),
    )
    return layout, parameters


def _addresses(flat: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where parts of these sizes begin."""
    return flat.ctypes.data + flat.itemsize * (np.cumsum(sizes) - sizes)


def projection_starts(
    layout: SoftmaxLayout, counts: NDArray[np.float64], vectors: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    """What each projection of a tree starts from, [d, source d]: see `evaluate_frozen`.

    Raises:
        DataError: A projection shrinks, but there are no class vectors.
    """
    sizes = list(zip(layout.scope_dim, layout.source_dim, strict=True))
    if all(dim >= source for dim, source in sizes):
        return [np.eye(dim, source, dtype=np.float32) for dim, source in sizes]
    if vectors is None:
        raise DataError(f"projections from {max(layout.source_dim)} to {min(layout.scope_dim)} need class vectors")
    with one_blas_thread():
        return [matrix.astype(np.float32) for matrix in principal_projections(layout, vectors, counts)]
