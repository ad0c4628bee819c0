"""The nearest other class of each class, by cosine.

Shapes: **C** classes, **D** features, **n** classes that are looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import DataError

NO_NEIGHBOUR = -1
BLOCK = 512  # classes that are compared with all others at a time
SAME = 1e-12  # cosines that differ by less are equal: products of equal rows may differ in their last bits


def nearest_neighbours(vectors: ArrayLike, *, among: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The nearest other class of each of some classes, among these: exact, blockwise, O(n² D).

    Args:
        vectors: [C, D]; a row that is not finite or all zero is nobody's neighbour and has none.
        among: [n] different class ids.

    Returns:
        ``neighbour`` int32 [n], class ids, -1 where there is none; and ``cosine`` float64 [n], 0 there. Ties go to the
        smaller id.

    Raises:
        DataError: Vectors are no matrix, or ids are no different classes of it.
    """
    vectors_CD, ids = np.asarray(vectors), np.asarray(among)
    if vectors_CD.ndim != 2:
        raise DataError(f"vectors must be one row per class, but have shape {vectors_CD.shape}")
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= len(vectors_CD))):
        raise DataError(f"among must list class ids in [0, {len(vectors_CD)}), but got {str(ids)[:60]!r}")
    if np.unique(ids).size != ids.size:
        raise DataError("among must list each class once")
    neighbour, cosine = np.full(ids.size, NO_NEIGHBOUR, np.int32), np.zeros(ids.size)
    rows = vectors_CD[ids].astype(np.float64)
    usable = np.flatnonzero(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
    if usable.size < 2:
        return neighbour, cosine
    usable = usable[np.argsort(ids[usable], kind="stable")]  # the first of equal cosines is the smaller id
    unit = rows[usable]
    unit /= np.abs(unit).max(axis=1, keepdims=True)  # so that no square is beyond a float
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for begin in range(0, usable.size, BLOCK):
        part = np.arange(begin, min(begin + BLOCK, usable.size))
        products = unit[part] @ unit.T
        products[part - begin, part] = -np.inf
        best = products.max(axis=1)
        nearest = (products >= best[:, None] - SAME).argmax(axis=1)
        neighbour[usable[part]] = ids[usable[nearest]]
        cosine[usable[part]] = np.clip(best, -1.0, 1.0)
    return neighbour, cosine
