"""Trees as they lie in the ledger: small, and written in less than a millisecond where there are ten thousand classes.

Differences of neighbouring entries, their bytes sorted by significance, and the fastest zlib: a tenth of the time that
a compressed npz takes and two thirds of its size.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.tree import Tree

_HEAD = struct.Struct("<3I")  # entries of parent, leaf_class and projection_dim
_LEVEL = 1


def pack_tree(tree: Tree) -> bytes:
    """The bytes of a tree without its names and metadata; the same tree gives the same bytes."""
    arrays = (tree.parent, tree.leaf_class, tree.projection_dim)
    planes = b"".join(map(_planes, arrays))
    return _HEAD.pack(*(array.size for array in arrays)) + zlib.compress(planes, _LEVEL)


def unpack_tree(packed: bytes) -> Tree:
    """The tree that `pack_tree` packed.

    Raises:
        TreeError: It was not packed by `pack_tree`, or not all of it is there.
    """
    try:
        sizes = _HEAD.unpack_from(packed)
        planes = np.frombuffer(zlib.decompress(packed[_HEAD.size :]), np.uint8)
        ends = 4 * np.cumsum(sizes)
        if planes.size != ends[-1]:
            raise ValueError(f"{planes.size} bytes in place of {ends[-1]}")
    except (struct.error, zlib.error, ValueError) as error:
        raise TreeError(f"a packed tree must be whole, but this one is not: {error}") from None
    parent, leaf_class, projection_dim = (_integers(part) for part in np.split(planes, ends[:-1]))
    return Tree.from_parents(parent, leaf_class, projection_dim=projection_dim)


def _planes(array: NDArray[np.int32]) -> bytes:
    return np.diff(array, prepend=0).astype("<i4").view(np.uint8).reshape(-1, 4).T.tobytes()


def _integers(planes: NDArray[np.uint8]) -> NDArray[np.int32]:
    differences = np.ascontiguousarray(planes.reshape(4, -1).T).view("<i4").ravel()
    return np.cumsum(differences, dtype=np.int32)
