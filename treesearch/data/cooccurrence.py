"""Vectors of items that occur together: positive pointwise mutual information, reduced by singular values.

Shapes: **E** events, **C** items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import ArpackError, svds

from treesearch.errors import DataError

NUM_DIMENSIONS = 64
WINDOW = 10  # events on either side that count as together
SMOOTHING = 0.75  # power of an item's share as a context: takes weight from rare ones (Levy et al. 2015)
POWER = 0.5  # of the singular values


def cooccurrence_vectors(
    items: NDArray[np.int32],
    users: NDArray[np.integer],
    *,
    num_classes: int,
    num_dimensions: int = NUM_DIMENSIONS,
    window: int = WINDOW,
) -> NDArray[np.float32]:
    """A vector for each item such that items near each other in the histories of the same users are alike.

    The truncated SVD of the items' positive pointwise mutual information (Levy & Goldberg 2014, Levy et al. 2015).

    Args:
        items: [E] items, users one after another, each in order of time.
        users: [E] of which user.
        num_classes: C.
        num_dimensions: Of the vectors, fewer where there are fewer items.
        window: Events between two items at most, plus one.

    Returns:
        float32 [C, dimensions]; zero for an item without events.

    Raises:
        DataError: The singular values cannot be computed.
    """
    size = min(num_dimensions, num_classes - 1)
    counts = sparse.csr_array((num_classes, num_classes), dtype=np.float64)
    for distance in range(1, min(window, items.size - 1) + 1):
        same = users[distance:] == users[:-distance]
        left, right = items[:-distance][same], items[distance:][same]
        pairs = sparse.coo_array((np.ones(left.size), (left, right)), shape=counts.shape).tocsr()
        counts = counts + pairs + pairs.T
    left, right = counts.nonzero()
    if not left.size:
        return np.zeros((num_classes, size), np.float32)
    together: NDArray[np.float64] = counts.tocoo().data
    own = np.bincount(left, weights=together, minlength=num_classes)
    context = own**SMOOTHING / (own**SMOOTHING).sum()
    information = np.log(together / (own[left] * context[right]))
    positive = information > 0
    coordinates = left[positive], right[positive]
    ppmi = sparse.coo_array((information[positive], coordinates), shape=counts.shape).tocsr()
    if ppmi.nnz == 0:
        return np.zeros((num_classes, size), np.float32)
    start = np.ones(num_classes) / np.sqrt(num_classes)  # svds would draw one
    try:
        left_vectors, values, _ = svds(ppmi, k=size, v0=start)
    except (ArpackError, ValueError) as error:
        raise DataError(
            f"items that occur together give no vectors: {error}; leave similarity: cooccurrence out"
        ) from None
    order = np.argsort(-values)
    vectors = left_vectors[:, order] * values[order] ** POWER
    # A singular vector's sign is free: the largest entry is made positive.
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)] < 0, -1.0, 1.0)
    return np.asarray(vectors, np.float32)
