"""A tree in words: its sizes, and the top of it with names."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

import numpy as np
from numpy.typing import ArrayLike
from rich.cells import cell_len, set_cell_size
from rich.text import Text
from rich.tree import Tree as RichTree

from treesearch.cost import tree_cost
from treesearch.report.node_words import NO_CLASS, representative_classes
from treesearch.tree import Tree
from treesearch.visible import visible

NUM_WORDS = 5  # classes that tell what is below a node
INDENT = 15  # columns of the names of statistics
MAX_NAME, MAX_SAMPLE = 60, 24  # columns of a name that stands alone, and of one among others


def tree_statistics(tree: Tree, counts: ArrayLike | None = None, in_features: int | None = None) -> dict[str, object]:
    """Sizes of a tree.

    Args:
        tree: Any.
        counts: [C]; averages are over them, or over classes where there are none.
        in_features: D of the layer, on which the cost of projections depends; None takes the widest projection's, and
            says so.
    """
    weights = np.ones(tree.num_classes) if counts is None else counts
    arities, times = np.unique(tree.arities, return_counts=True)
    widths = np.unique(tree.projection_dim[tree.projection_dim > 0]).tolist()
    known = in_features if in_features is not None else (max(widths) if widths else 1)
    assumed = {"features": f"taken as {known}, the widest projection"} if widths and in_features is None else {}
    cost = tree_cost(tree, weights, in_features=known)
    return {
        "hash": tree.hash,
        "classes": tree.num_classes,
        "internal nodes": tree.num_internal,
        "arities": ", ".join(f"{a} ({n}x)" for a, n in zip(arities[:8], times[:8], strict=True))
        + (f" and {arities.size - 8} more up to {arities[-1]}" if arities.size > 8 else ""),
        "projections": ", ".join(map(str, widths)) or "none",
        "weighted by": "classes" if counts is None else "training counts",
        "expected depth": round(cost.expected_depth, 4),
        "max depth": cost.max_depth,
        "cost": round(cost.cost, 4),
        "dot products": round(cost.dot_products, 4),
        **assumed,
    }


def statistics_lines(statistics: Mapping[str, object], *, width: int) -> list[str]:
    """What `tree_statistics` gives for people; values that do not fit go on in the next line."""
    lines = []
    for key, value in statistics.items():
        first, *rest = wrap(str(value), max(width - INDENT - 2, 16), break_on_hyphens=False) or [""]
        lines += [f"{key:>{INDENT}}: {first}", *(" " * (INDENT + 2) + line for line in rest)]
    return lines


def top_of_tree(
    tree: Tree,
    *,
    levels: int = 3,
    width: int = 8,
    counts: ArrayLike | None = None,
    vectors: ArrayLike | None = None,
) -> RichTree:
    """The first levels, heaviest children first, each with its share, its name if it has one, and some of its classes.

    A line for each node: what does not fit the screen is left out, and long names are shortened.

    Args:
        tree: What is drawn.
        levels: Below the root.
        width: Children of a node at most.
        counts: [C] class counts; None weighs all the same.
        vectors: [C, D] class vectors: a node is then told by its `representative_classes`, else by its heaviest.
    """
    weights = np.ones(tree.num_classes) if counts is None else counts
    mass = tree.node_mass(weights)
    weight = mass[tree.num_internal :]
    words = None if vectors is None else representative_classes(tree, mass=weights, vectors=vectors, num=NUM_WORDS)

    def name(cls: int, max_width: int) -> str:
        return _short(str(cls) if tree.class_names is None else tree.class_names[cls], max_width)

    def label(node: int) -> Text:
        share = f"{_percent(100 * mass[node] / mass[0])} %  "
        if node >= tree.num_internal:
            return _line(share + name(tree.leaf_class[node - tree.num_internal], MAX_NAME))
        leaves = _leaves_below(tree, node)
        if words is None:
            top = tree.leaf_class[leaves[np.argsort(-weight[leaves], kind="stable")[:NUM_WORDS]]]
        else:
            top = words[node][words[node] != NO_CLASS]
        sample = " ".join(name(cls, MAX_SAMPLE) for cls in top)
        own = "" if tree.node_names is None else f"{_short(tree.node_names[node], MAX_NAME)}  "
        projection = f", projection {tree.projection_dim[node]}" if tree.projection_dim[node] else ""
        return _line(f"{share}{own}{tree.arities[node]}-way, {leaves.size} classes{projection}: {sample}")

    root = RichTree(label(0))
    stack = [(0, root, 1)]
    while stack:
        node, branch, level = stack.pop()
        if node >= tree.num_internal or level > levels:
            continue
        children = sorted(tree.children(node).tolist(), key=lambda child: -mass[child])
        for child in children[:width]:
            stack.append((child, branch.add(label(child)), level + 1))
        if len(children) > width:
            branch.add(_line(f"... {len(children) - width} more"))
    return root


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _short(name: str, max_width: int) -> str:
    """A name as it may be shown, in at most so many columns."""
    return set_cell_size(shown, max_width - 1).rstrip() + "…" if cell_len(shown := visible(name)) > max_width else shown


def _percent(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}" if value >= 0.001 else "< 0.001"


def _leaves_below(tree: Tree, node: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    frontier = np.array([node])
    leaves = []
    while frontier.size:
        leaves.append(frontier[frontier >= tree.num_internal] - tree.num_internal)
        internal = frontier[frontier < tree.num_internal]
        frontier = np.concatenate([tree.children(n) for n in internal]) if internal.size else np.zeros(0, np.int64)
    return np.concatenate(leaves).astype(np.int64)
