"""`taxonomy_tree`: a tree from whatever holds a taxonomy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from treesearch.errors import TreeError
from treesearch.taxonomy.files import load_taxonomy
from treesearch.taxonomy.forms import accepted, taxonomy_from_nested, taxonomy_from_networkx, taxonomy_from_paths
from treesearch.taxonomy.links import taxonomy_from_edges
from treesearch.taxonomy.taxonomy import Taxonomy
from treesearch.tree import Tree


def taxonomy_tree(source: Any, *, classes: Sequence[str] | None = None, **options: Any) -> Tree:
    """The tree of a taxonomy, with the names of classes and inner nodes.

    ``Taxonomy.of(tree)`` gives the taxonomy back, with its levels and the nodes that decide nothing.

    Args:
        source: A file (`load_taxonomy`), pairs (child, parent), a list of paths, nested dicts and lists, or a
            `networkx.DiGraph`.
        classes: As in `taxonomy_from_edges`.
        **options: Of the function that reads such a source: ``parents``, ``separator``. Every source takes
            ``parents="error"``.

    Raises:
        TreeError: The source is none of these, or no taxonomy, or takes no such option.
        DataError: A class is not in it.
    """
    return as_taxonomy(source, classes=classes, **options).tree


def as_taxonomy(source: Any, *, classes: Sequence[str] | None = None, **options: Any) -> Taxonomy:
    """The taxonomy of any source that `taxonomy_tree` takes; a `Taxonomy` is returned as it is, and takes no options.

    Raises:
        TreeError: As in `taxonomy_tree`.
        DataError: As there.
    """
    if isinstance(source, Taxonomy):
        accepted(options if classes is None else options | {"classes": classes}, "a Taxonomy")
        return source
    if isinstance(source, str | Path):
        return load_taxonomy(source, classes=classes, **options)
    if isinstance(source, Mapping):
        return taxonomy_from_nested(source, classes=classes, **accepted(options, "a nested taxonomy"))
    if hasattr(source, "is_directed"):
        return taxonomy_from_networkx(source, classes=classes, **accepted(options, "a graph", "parents"))
    # Tables and open files are iterable too, over column names and raw lines.
    plain = isinstance(source, Iterable) and not (hasattr(source, "columns") or hasattr(source, "read"))
    entries = list(source) if plain else []
    if entries and all(isinstance(entry, str) for entry in entries):
        return taxonomy_from_paths(entries, classes=classes, **accepted(options, "a list of paths", "separator"))
    if entries and all(isinstance(entry, tuple | list) and len(entry) == 2 for entry in entries):
        links = ((str(child), str(parent)) for child, parent in entries)
        return taxonomy_from_edges(links, classes=classes, **accepted(options, "a list of pairs", "parents"))
    if any(isinstance(entry, Mapping) for entry in entries):
        return taxonomy_from_nested(entries, classes=classes, **accepted(options, "a nested taxonomy"))
    raise TreeError(
        "a taxonomy must be a file, pairs (child, parent), a list of paths, nested dicts or a networkx.DiGraph, but got"
        f" {type(source).__name__} {' '.join(repr(source).split()):.60}"
    )
