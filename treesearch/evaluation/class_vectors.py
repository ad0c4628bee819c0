"""Vectors by which classes are clustered, from the features of their tokens.

Shapes: **C** classes, **T** tokens, **D** features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treesearch.evaluation.features import Features

PRIOR = 5.0  # tokens of the mean of all that are mixed into each class
# Of the covariance within classes. 0 leaves the means as they are, -1 is the linear discriminant, whose directions are
# too noisy where a class has few tokens; between them is best (results/2026-11-24-class-vectors).
WHITENING_POWER = -0.25
SMALLEST_VARIANCE = 1e-3  # in shares of the largest
CHUNK = 1 << 16
SUMMED = 1 << 16  # examples on disk whose features are summed at a time


def class_means(features: Features, num_classes: int, *, prior: float = 1.0) -> NDArray[np.float32]:
    """Mean feature of each class, shrunk towards the mean of all, float32 [C, D].

    Args:
        features: Of T tokens.
        num_classes: C.
        prior: Weight of the overall mean, in tokens; a class without tokens gets the overall mean.
    """
    counts, sums = _sums(features, num_classes)
    overall = sum(x.sum(axis=0, dtype=np.float64) for x, _ in features.blocks()) / len(features)
    means: NDArray[np.float32] = ((sums + prior * overall) / (counts + prior)[:, None]).astype(np.float32)
    return means


def class_vectors(
    features: Features, num_classes: int, *, prior: float = PRIOR, power: float = WHITENING_POWER
) -> NDArray[np.float32]:
    """Shrunk class means, partly whitened by the covariance within classes: vectors for clustering, float32 [C, D].

    Directions in which the tokens of one class differ anyway count for less (after Fisher 1936, who whitens fully).

    Args:
        features: Of T tokens.
        num_classes: C.
        prior: See `class_means`.
        power: Of the covariance.
    """
    means = class_means(features, num_classes, prior=prior)
    variance, axes = np.linalg.eigh(_covariance_within(features, num_classes))
    if not variance[-1] > 0:  # every class has one and the same feature
        return means
    scale = np.maximum(variance, SMALLEST_VARIANCE * variance[-1]) ** power
    vectors: NDArray[np.float32] = (means @ ((axes * scale) @ axes.T)).astype(np.float32)
    return vectors


def _covariance_within(features: Features, num_classes: int) -> NDArray[np.float64]:
    """Of the tokens about the mean of their class, [D, D]: all scatter less that between the classes."""
    total = np.zeros((features.num_features, features.num_features))
    for x, _ in features.blocks():
        for begin in range(0, len(x), CHUNK):
            part = x[begin : begin + CHUNK].astype(np.float64)
            total += part.T @ part
    counts, sums = _sums(features, num_classes)
    between = (sums / np.maximum(counts, 1)[:, None]).T @ sums
    covariance: NDArray[np.float64] = (total - between) / max(len(features), 1)
    return covariance


def _sums(features: Features, num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of tokens [C] and sum of features [C, D] of each class."""
    counts, sums = np.zeros(num_classes), np.zeros((num_classes, features.num_features))
    for x, y in features.blocks():
        size = SUMMED if features.mapped else max(1, y.size)  # what is on disk is not to be copied whole
        for begin in range(0, y.size, size):
            own_x, own_y = x[begin : begin + size], y[begin : begin + size]
            own = np.bincount(own_y, minlength=num_classes)
            present = np.flatnonzero(own)
            starts = np.concatenate([[0], np.cumsum(own[present])[:-1]]).astype(np.int64)
            by_class = np.argsort(own_y, kind="stable")
            sums[present] += np.add.reduceat(own_x[by_class], starts, axis=0, dtype=np.float64)
            counts += own
    return counts, sums
