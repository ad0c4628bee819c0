"""A bounded memo for everything that depends on a class set alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.nodes import OpenNode
from envs.task import ConstructionTask

Value = TypeVar("Value")
ENTRY_OVERHEAD = 128  # what an entry's Python objects take, in class ids of 8 bytes


class SplitCache:
    """Splits, closed subtrees and features of class sets of one task; the least recently used ones go first.

    Args:
        task: The task; constructions of another one must not share the memo.
        max_ids: Class ids held at most (a class set of n counts n and a constant).
    """

    def __init__(self, task: ConstructionTask, *, max_ids: int = 20_000_000) -> None:
        self.task = task
        self.max_ids = max_ids
        self.num_ids = 0
        # Legal actions by size, for (names of all actions, number of classes, inputs, whether they are projected).
        self.masks: dict[tuple[tuple[str, ...], int, int, bool], NDArray[np.int8]] = {}
        self._entries: OrderedDict[tuple[str, bytes], tuple[Any, int]] = OrderedDict()

    def get(self, what: str, node: OpenNode, compute: Callable[[], Value]) -> Value:
        """``compute()``, or what it gave before for the same ``what`` and the same class set."""
        key = (what, node.digest)
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            value: Value = found[0]
            return value
        value = compute()
        size = node.size + ENTRY_OVERHEAD
        self._entries[key] = (value, size)
        self.num_ids += size
        while self.num_ids > self.max_ids:
            self.num_ids -= self._entries.popitem(last=False)[1][1]
        return value

    def __len__(self) -> int:
        return len(self._entries)
