"""Which trees of a run, or of several, the viewer shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treesearch.errors import RunError
from treesearch.report.page.headline import best_builder, best_found, best_scored
from treesearch.report.page.run_view import RunView
from treesearch.report.page.tree_data import ViewedTree
from treesearch.search.promotion import HUFFMAN
from treesearch.tree import Tree

MAX_RUNS = 8  # whose trees are shown where runs are compared


def viewed_trees(view: RunView) -> list[ViewedTree]:
    """The best found tree, the best builder's and Huffman's: by what was confirmed, else by frozen rewards.

    Empty where the Huffman tree has no score, so that there is nothing to compare with.
    """
    chosen = _confirmed(view) if view.comparison is not None and view.comparison["rows"] else _scored(view)
    names = dict(reversed([(tree_hash, name) for name, tree_hash in chosen]))
    names |= {tree_hash: name for name, tree_hash in chosen if name == HUFFMAN}
    if HUFFMAN not in names.values():
        return []
    order = dict.fromkeys(tree_hash for _, tree_hash in chosen)  # each tree once
    return [ViewedTree(names[tree_hash], _tree(view, tree_hash)) for tree_hash in order]


def viewed_of_runs(views: Sequence[RunView]) -> list[ViewedTree]:
    """The first `viewed_trees` of each run over the same classes as `tree_basis`, and Huffman's; each tree once."""
    basis = tree_basis(views)
    viewed: dict[str, ViewedTree] = {}
    huffman: list[ViewedTree] = []
    for view in views[:MAX_RUNS]:
        trees = viewed_trees(view) if _same_classes(basis, view) else []
        if trees and trees[0].name != HUFFMAN:
            viewed.setdefault(trees[0].tree.hash, ViewedTree(f"{view.name}: {trees[0].name}", trees[0].tree))
        huffman += [one for one in trees if one.name == HUFFMAN]
    return [*viewed.values(), *huffman[:1]]


def tree_basis(views: Sequence[RunView]) -> RunView:
    """The run by whose counts, names and vectors trees are shown: one that has just begun may have none yet."""
    shown = views[:MAX_RUNS]
    known = [view for view in shown if view.counts is not None]
    return next((view for view in known if view.class_vectors is not None), (known or shown)[0])


def _same_classes(first: RunView, other: RunView) -> bool:
    if first.counts is None or other.counts is None or first.class_names != other.class_names:
        return False
    return np.array_equal(first.counts, other.counts)


def _confirmed(view: RunView) -> list[tuple[str, str]]:
    assert view.comparison is not None
    rows = [best_found(view.comparison), best_builder(view.comparison)]
    rows += [row for row in view.comparison["rows"] if row["name"] == HUFFMAN]
    return [(row["name"], row["tree"]) for row in rows if row is not None]


def _scored(view: RunView) -> list[tuple[str, str]]:
    huffman = view.huffman
    if huffman is None:
        return []
    best = [best_scored(view), best_scored(view, found=True)]
    chosen = [(view.tree_name(row), row.tree_hash) for row in best if row is not None]
    built = [row for row in view.scored if row.tree_hash in view.builders and view.reward(row) is not None]
    if built:
        row = max(built, key=lambda one: (view.reward(one) or 0.0, -one.id))
        chosen.append((view.tree_name(row), row.tree_hash))
    return [*chosen, (HUFFMAN, huffman.tree_hash)]


def _tree(view: RunView, tree_hash: str) -> Tree:
    """With the names of its nodes, where the exported tree has them."""
    if view.best_tree is not None and view.best_tree.hash == tree_hash:
        return view.best_tree
    try:
        return view.tree(tree_hash)
    except RunError as error:
        raise RunError(f"{error}: its rows and its trees are not of the same search") from None
