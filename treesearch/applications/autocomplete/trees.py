"""Trees over completions, and what they cost.

Shapes: **C** completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from treesearch.applications.autocomplete.completions import Completions
from treesearch.builders import build_tree
from treesearch.cost import tree_cost
from treesearch.data.categories import load_categories
from treesearch.errors import ConfigError, TreeError
from treesearch.tree import Tree

BUILT = ("huffman", "balanced", "categories")  # all else is a file
SHOWN = 3  # names in a message


def completion_tree(name: str, completions: Completions, *, categories: Path | None = None) -> Tree:
    """A tree over completions: class c is the c-th of them.

    Args:
        name: ``huffman`` or ``balanced``; ``categories`` (Huffman over the categories, and within each); or a tree
            file or the folder of a finished search, whose classes are the completions by name.
        completions: C of them.
        categories: File of lines ``query TAB category``, see `load_categories`; for ``categories`` alone.

    Raises:
        ConfigError: There is a file of categories without need, or none where one is needed.
        DataError: The categories cannot be used.
        TreeError: There is no such file, it holds no tree, or the classes are not the completions.
        RunError: The search has not finished.
    """
    if (name == "categories") != (categories is not None):
        raise ConfigError("--tree categories and --categories FILE go together; give both or neither")
    if name not in BUILT:
        return _tree_of_file(Path(name), completions)
    labels = None if categories is None else load_categories(categories, completions.names)
    return build_tree(name, counts=completions.counts, categories=labels)


def _tree_of_file(path: Path, completions: Completions) -> Tree:
    from treesearch.report.runs import load_tree  # a run folder needs what reads ledgers; no other tree does

    if not path.exists():
        raise TreeError(
            f"--tree must be {', '.join(BUILT)}, or a tree file or run folder, but there is no {str(path)!r}"
        )
    tree = load_tree(path)
    if tree.class_names is None:
        raise TreeError(f"the tree in {str(path)!r} has no class names; build it over the queries")
    return over_completions(tree, completions, repr(str(path)))


def over_completions(tree: Tree, completions: Completions, what: str = "the tree") -> Tree:
    """The same tree with classes numbered as completions are, by name.

    Args:
        tree: With class names.
        completions: The same names.
        what: Stands for the tree in messages.

    Raises:
        TreeError: The names of the classes are not the completions, each once.
    """
    assert tree.class_names is not None
    number = {name: cls for cls, name in enumerate(completions.names)}
    names = set(tree.class_names)
    for lacking, of in ((number.keys() - names, "completions are no class of"), (names - number.keys(), "classes of")):
        if lacking:
            shown = ", ".join(f"{name!r:.40}" for name in sorted(lacking)[:SHOWN])
            tail = "" if of.startswith("completions") else " are no completion"
            raise TreeError(
                f"the classes of a tree must be the completions, but {len(lacking)} {of} {what}{tail} ({shown}"
                f"{', ..' if len(lacking) > SHOWN else ''}); take the tree that was found for these queries"
            )
    if len(names) < tree.num_classes:
        raise TreeError(f"the names of classes must be different, but {what} has some twice; rename them")
    class_of = np.array([number[name] for name in tree.class_names], np.int32)
    return Tree.from_parents(tree.parent, class_of[tree.leaf_class], projection_dim=tree.projection_dim)


def size_rows(completions: Completions, trees: Mapping[str, Tree]) -> list[dict[str, Any]]:
    """What a query takes on average, drawn by count, in these trees and in Huffman's, a balanced and a flat one.

    Returns:
        Rows of ``tree``, ``decisions`` a query, ``cost`` in binary-node units (`treesearch.cost`: a decision among
        k > 2 costs 1 + k / 20) and ``longest``, decisions on the longest path. Projections are left out: counts need
        none.
    """
    rows = []
    for name in (*trees, *(name for name in ("huffman", "balanced", "flat") if name not in trees)):
        tree = trees[name] if name in trees else build_tree(name, counts=completions.counts)
        cost = tree_cost(tree.without_projections(), completions.counts, in_features=1)
        row = {"tree": name, "decisions": cost.expected_depth, "cost": cost.cost, "longest": cost.max_depth}
        rows.append(row)
    return rows


def size_table(completions: Completions, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for people."""
    title = f"{len(completions)} completion{'s' * (len(completions) != 1)}, entropy {completions.entropy:.2f} bits"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tree")
    for heading in ("decisions per query", "cost units", "longest path"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(str(row["tree"]), f"{row['decisions']:.2f}", f"{row['cost']:.2f}", str(row["longest"]))
    return table
