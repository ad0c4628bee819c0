"""Naive trees: nested lists and recursion, the oracle for everything that treesearch does with arrays."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from treesearch import Tree

Naive = Any  # a class id, or a list of Naive


def random_nested(rng: np.random.Generator, num_classes: int, max_arity: int = 5) -> Naive:
    """Join random groups of subtrees until one is left."""
    parts: list[Naive] = rng.permutation(num_classes).tolist()
    while len(parts) > 1:
        rng.shuffle(parts)
        size = int(rng.integers(2, max_arity + 1))
        parts = [*parts[size:], parts[:size]]
    return parts[0]


@st.composite
def nested_trees(draw: st.DrawFn, max_leaves: int = 30) -> Naive:
    """Any tree with two to four children a node, its leaves labelled by a random permutation."""
    shape = draw(st.recursive(st.none(), lambda below: st.lists(below, min_size=2, max_size=4), max_leaves=max_leaves))
    labels = iter(draw(st.permutations(range(num_leaves(shape)))))

    def label(entry: Naive) -> Naive:
        return [label(child) for child in entry] if isinstance(entry, list) else next(labels)

    return label(shape)


def num_leaves(nested: Naive) -> int:
    return sum(map(num_leaves, nested)) if isinstance(nested, list) else 1


def smallest(nested: Naive) -> int:
    return min(map(smallest, nested)) if isinstance(nested, list) else nested


def canonical(nested: Naive) -> Naive:
    """Children by the smallest class below them, everywhere."""
    return sorted(map(canonical, nested), key=smallest) if isinstance(nested, list) else nested


def depths(nested: Naive, depth: int = 0) -> dict[int, int]:
    """Edges from the root to each class."""
    if not isinstance(nested, list):
        return {nested: depth}
    return {cls: below for child in nested for cls, below in depths(child, depth + 1).items()}


def walk(nested: Naive) -> Iterator[tuple[int, Naive, list[tuple[int, int]]]]:
    """Breadth-first over the canonical form: number among its kind, entry, and (node, branch) steps that lead there.

    Internal nodes and leaves are numbered apart.
    """
    queue: deque[tuple[Naive, list[tuple[int, int]]]] = deque([(canonical(nested), [])])
    num_internal = num_seen = 0
    while queue:
        entry, steps = queue.popleft()
        if isinstance(entry, list):
            yield num_internal, entry, steps
            queue.extend((child, [*steps, (num_internal, branch)]) for branch, child in enumerate(entry))
            num_internal += 1
        else:
            yield num_seen, entry, steps
            num_seen += 1


def scrambled(tree: Tree, rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Arguments of `Tree.from_parents` for the same tree in a random numbering, and the new id of each node."""
    N = tree.num_internal
    new_id = np.concatenate([rng.permutation(N), N + rng.permutation(tree.num_classes)])
    parent, leaf_class, projection = (np.empty_like(a) for a in (tree.parent, tree.leaf_class, tree.projection_dim))
    parent[new_id] = np.where(tree.parent >= 0, new_id[tree.parent], Tree.NO_PARENT)
    leaf_class[new_id[N:] - N] = tree.leaf_class
    projection[new_id[:N]] = tree.projection_dim
    return {"parent": parent, "leaf_class": leaf_class, "projection_dim": projection}, new_id
