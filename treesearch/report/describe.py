"""A tree in words: its sizes, and the top of it with names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from rich.text import Text
from rich.tree import Tree as RichTree

from treesearch.cost import tree_cost
from treesearch.tree import Tree


def tree_statistics(tree: Tree, counts: ArrayLike | None = None, in_features: int | None = None) -> dict[str, object]:
    """Sizes of a tree; averages are over ``counts`` [C], or over classes where there are none."""
    weights = np.ones(tree.num_classes) if counts is None else counts
    arities, times = np.unique(tree.arities, return_counts=True)
    widths = np.unique(tree.projection_dim[tree.projection_dim > 0]).tolist()
    known = in_features if in_features is not None else (max(widths) if widths else 1)
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
    }


def top_of_tree(tree: Tree, *, levels: int = 3, width: int = 8, counts: ArrayLike | None = None) -> RichTree:
    """The first levels, heaviest children first, each with its share, its name if it has one, and its classes."""
    mass = tree.node_mass(np.ones(tree.num_classes) if counts is None else counts)
    names = tree.class_names or tuple(str(c) for c in range(tree.num_classes))
    weight = mass[tree.num_internal :]

    def label(node: int) -> Text:
        share = f"{100 * mass[node] / mass[0]:.1f} %  "
        if node >= tree.num_internal:
            return Text(share + names[tree.leaf_class[node - tree.num_internal]])
        leaves = _leaves_below(tree, node)
        top = leaves[np.argsort(-weight[leaves], kind="stable")[:5]]
        sample = " ".join(names[tree.leaf_class[leaf]] for leaf in top)
        own = "" if tree.node_names is None else f"{tree.node_names[node]}  "
        projection = f", projection {tree.projection_dim[node]}" if tree.projection_dim[node] else ""
        return Text(f"{share}{own}{tree.arities[node]}-way, {leaves.size} classes{projection}: {sample}")

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
            branch.add(Text(f"... {len(children) - width} more"))
    return root


def _leaves_below(tree: Tree, node: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    frontier = np.array([node])
    leaves = []
    while frontier.size:
        leaves.append(frontier[frontier >= tree.num_internal] - tree.num_internal)
        internal = frontier[frontier < tree.num_internal]
        frontier = np.concatenate([tree.children(n) for n in internal]) if internal.size else np.zeros(0, np.int64)
    return np.concatenate(leaves).astype(np.int64)
