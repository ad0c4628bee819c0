"""Trees that ignore similarity: flat, balanced, random."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.errors import ConfigError
from treesearch.tree import IntArray, Tree


def check_arity(arity: int) -> None:
    """Raise ConfigError unless ``arity`` is an integer >= 2."""
    if not isinstance(arity, (int, np.integer)) or isinstance(arity, bool) or arity < 2:
        raise ConfigError(f"arity must be an integer >= 2, but got {arity!r}")


def by_falling_count(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Class ids by falling count, ties by smaller id, int64 [C]."""
    return np.argsort(-counts, kind="stable")


def flat(*, counts: NDArray[np.float64]) -> Tree:
    """All classes directly under the root: an ordinary softmax. O(C), no ties to break."""
    num_classes = counts.size
    if num_classes == 1:
        return Tree.from_nested(0)
    parent = np.zeros(num_classes + 1, np.int32)
    parent[0] = Tree.NO_PARENT
    return Tree.from_parents(parent, np.arange(num_classes))


def balanced(*, counts: NDArray[np.float64], arity: int = 2, order: str = "frequency") -> Tree:
    """A k-ary tree of least depth: every range of classes is cut into ``arity`` runs whose sizes differ by at most one.

    Args:
        counts: [C] class counts; only their order matters.
        arity: Children per node, >= 2.
        order: ``frequency`` (falling count, ties by smaller class id) or ``given`` (class ids as they are).

    The depth is ceil(log_arity C); longer runs come first. O(C).

    Raises:
        ConfigError: Unknown order or arity < 2.
    """
    check_arity(arity)
    if order == "frequency":
        return _balanced_over(by_falling_count(counts), arity)
    if order == "given":
        return _balanced_over(np.arange(counts.size), arity)
    raise ConfigError(f"order must be 'frequency' or 'given', but got {order!r}")


def random(*, counts: NDArray[np.float64], seed: int = 0, arity: int = 2) -> Tree:
    """`balanced` over a uniformly random order of the classes: the random tree of Mnih & Hinton 2008. O(C).

    Raises:
        ConfigError: arity < 2.
    """
    check_arity(arity)
    return _balanced_over(np.random.default_rng(seed).permutation(counts.size), arity)


def _balanced_over(order: NDArray[np.int64], arity: int) -> Tree:
    internal_parent, leaf_parent = _balanced_parents(order.size, arity)
    return Tree.from_parents(np.concatenate([internal_parent, leaf_parent]), order)


@njit(cache=True)
def _balanced_parents(num_classes: int, arity: int) -> tuple[IntArray, IntArray]:
    internal_parent = np.empty(max(num_classes - 1, 0), np.int32)
    leaf_parent = np.full(num_classes, -1, np.int32)
    num_internal = 0
    stack = [(0, num_classes, -1)]
    while len(stack) > 0:
        low, high, above = stack.pop()
        size = high - low
        if size == 1:
            leaf_parent[low] = above
            continue
        internal_parent[num_internal] = above
        parts = min(arity, size)
        longer = size % parts
        for part in range(parts):
            part_size = size // parts + (1 if part < longer else 0)
            stack.append((low, low + part_size, num_internal))
            low += part_size
        num_internal += 1
    return internal_parent[:num_internal], leaf_parent
