"""What every node seen so far costs on frozen features, so that a tree trains only what is new.

On fixed features a node's result depends on nothing but the class set below it and how its children part it; below a
projection, on the whole block. A memo holds for one set of circumstances: encoder, tokens, counts,
class vectors, learning rate, epochs.

Shapes: **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.evaluation.memo_kernels import WORDS, insert, look_up, node_keys
from treesearch.paths import block_roots
from treesearch.tree import Tree

Keys = NDArray[np.uint64]
FIRST_SIZE = 1 << 12


def memo_keys(tree: Tree) -> Keys:
    """What the result of each node depends on, as a key of 128 bits, uint64 [N, 2].

    Two keys that ought to differ agree by chance once in about 2^126 pairs.
    """
    return node_keys(tree.parent, tree.leaf_class, tree.projection_dim, block_roots(tree))


@dataclass(frozen=True)
class NewNodes:
    """What a memo has learned since it was last asked."""

    keys: Keys  # [n, 2]
    nll: NDArray[np.float64]  # [n]
    forgot: bool = False  # all that it knew before


class NodeMemo:
    """Validation NLL of nodes by content.

    Args:
        max_entries: Nodes remembered at most, 48 bytes each; a memo that would outgrow this forgets everything first.
    """

    def __init__(self, *, max_entries: int = 4_000_000) -> None:
        self.max_entries = max_entries
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._keys = np.zeros((FIRST_SIZE, WORDS), np.uint64)
        self._values = np.zeros(FIRST_SIZE)
        self._num = 0
        self._new: list[tuple[Keys, NDArray[np.float64]]] = []  # since `take_new`
        self._forgot = True

    def __len__(self) -> int:
        return self._num

    def look_up(self, keys: Keys) -> NDArray[np.float64]:
        """NLL of the nodes with these keys, nats summed over the validation tokens, float64 [N]; NaN where unknown."""
        return look_up(self._keys, self._values, keys)

    def store(self, keys: Keys, nll: NDArray[np.float64]) -> None:
        """Remember results; those that are not finite are left out, and what is known already stays."""
        if self._num + len(keys) > self.max_entries:
            self.clear()
        self._reserve(self._num + len(keys))
        new = np.isnan(self.look_up(keys)) & np.isfinite(nll)
        self._num += insert(self._keys, self._values, keys[new], nll[new])
        self._new.append((keys[new], nll[new]))

    def take_new(self) -> NewNodes:
        """What was stored since the last call; a memo that is given all of it in turn knows the same."""
        keys = [one for one, _ in self._new] or [np.zeros((0, WORDS), np.uint64)]
        nll = [one for _, one in self._new] or [np.zeros(0)]
        taken = NewNodes(np.concatenate(keys), np.concatenate(nll), self._forgot)
        self._new, self._forgot = [], False
        return taken

    def _reserve(self, num: int) -> None:
        """Make the table at least twice as large as ``num`` entries."""
        size = len(self._keys)
        while size < 2 * num:
            size *= 2
        if size > len(self._keys):
            keys, values = self._keys, self._values
            self._keys, self._values = np.zeros((size, WORDS), np.uint64), np.zeros(size)
            used = keys[:, 0] != 0
            insert(self._keys, self._values, keys[used], values[used])
