"""The leaves of a tree from left to right, with the brackets that open before and close after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from treesearch.tree import Tree


class LeafSequence(NamedTuple):
    """Leaves in depth-first order, children in canonical order; each field is a list of C entries."""

    classes: list[int]  # the class at each leaf
    opens: list[int]  # internal nodes whose first leaf this is
    closes: list[int]  # internal nodes whose last leaf this is


def leaf_sequence(tree: Tree) -> LeafSequence:
    """The sequence of leaves, in time linear in the number of nodes whatever the depth."""
    first, count = tree.leaf_intervals
    N, C = tree.num_internal, tree.num_classes
    opens = np.bincount(first[:N], minlength=C)
    closes = np.bincount(first[:N] + count[:N] - 1, minlength=C)
    return LeafSequence(tree.class_order.tolist(), opens.tolist(), closes.tolist())


def bracketed(tree: Tree, labels: Sequence[str], opening: str, closing: str, between: str) -> str:
    """The tree as one line of nested brackets.

    Args:
        tree: The tree.
        labels: [C], what stands for each class.
        opening: What begins an internal node.
        closing: What ends one.
        between: What separates siblings.
    """
    return between.join(
        f"{opening * opens}{labels[cls]}{closing * closes}"
        for cls, opens, closes in zip(*leaf_sequence(tree), strict=True)
    )
