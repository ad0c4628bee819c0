"""Taxonomies from files: tables of links, lists of paths, nested JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from treesearch.errors import TreeError
from treesearch.taxonomy.forms import accepted, check_separator, taxonomy_from_nested, taxonomy_from_paths
from treesearch.taxonomy.links import taxonomy_from_edges
from treesearch.taxonomy.taxonomy import Taxonomy
from treesearch.text_files import read_lines, read_text

HEADINGS = {  # what tables call their columns
    "child": {"child", "children", "class", "concept", "id", "label", "name", "node", "hyponym"},
    "parent": {"parent", "parents", "parent id", "parent_id", "parent name", "parent_name", "hypernym"},
}


def load_taxonomy(path: str | Path, *, classes: Sequence[str] | None = None, **options: Any) -> Taxonomy:
    """Read a taxonomy from a UTF-8 file.

    ``.json`` is nested (`taxonomy_from_nested`). Any other file holds either lines ``child TAB parent``
    (`taxonomy_from_edges`) or, where no line has a tab, a path such as ``animal/dog/poodle`` a line
    (`taxonomy_from_paths`); names alone are a taxonomy of one level. Blank lines are skipped.

    Args:
        path: The file.
        classes: As in `taxonomy_from_edges`.
        **options: As in `taxonomy_tree`.

    Raises:
        TreeError: It cannot be read, or is no taxonomy.
        DataError: A class is not in it.
    """
    path = Path(path)
    what = f"taxonomy {str(path)!r}"
    if path.suffix.lower() == ".json":
        nested = _json(read_text(path, what, TreeError), path)
        return taxonomy_from_nested(nested, classes=classes, **accepted(options, f"nested {what}"))
    lines = [(number, line) for number, line in read_lines(path, what, TreeError) if line.strip()]
    if not lines:
        raise TreeError(f"{what} is empty; give lines of 'child TAB parent', or a path a line")
    if not any("\t" in line for _, line in lines):
        options = accepted(options, f"{what}, a list of paths,", "separator")
        _check_columns(lines, path, **options)
        return taxonomy_from_paths([line.strip() for _, line in lines], classes=classes, **options)
    options = accepted(options, f"{what}, a list of pairs,", "parents")
    edges = []
    for number, line in lines:
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise TreeError(f"lines must be 'child TAB parent', but line {number} of {str(path)!r} is {line!r:.60}")
        edges.append((fields[0], fields[1]))
    _check_heading(edges, lines[0][0], path)
    return taxonomy_from_edges(edges, classes=classes, **options)


def _check_columns(lines: Sequence[tuple[int, str]], path: Path, separator: str = "/") -> None:
    """Refuse lines without separators that have columns, or are indented, by spaces."""
    check_separator(separator)
    if any(separator in line for _, line in lines):
        return
    for number, line in lines:
        if "  " in line.rstrip() or line[0].isspace():
            raise TreeError(
                f"lines need a tab between child and parent, or {separator!r:.20} between the parts of a path, but line"
                f" {number} of {str(path)!r} has spaces: {line!r:.60}; replace them"
            )


def _check_heading(edges: Sequence[tuple[str, str]], number: int, path: Path) -> None:
    """Refuse a first link that names the columns: words of `HEADINGS`, and a parent that is nowhere else."""
    words = {name.casefold() for name in edges[0]}
    if words & HEADINGS["parent"] and words & HEADINGS["child"] and edges[0][1] not in set(chain(*edges[1:])):
        raise TreeError(
            f"lines must be 'child TAB parent', but line {number} of {str(path)!r} looks like a heading:"
            f" {' TAB '.join(edges[0])!r:.60}; leave it out"
        )


def _json(text: str, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise TreeError(f"every node must have a name of its own, but {str(path)!r} has {twice!r:.60} twice")
        return content

    try:
        return json.loads(text, object_pairs_hook=unique)
    except ValueError as error:  # also a number of too many digits
        raise TreeError(f"taxonomy {str(path)!r} must be JSON, but {error}") from None
    except RecursionError:
        raise TreeError(f"taxonomy {str(path)!r} is nested too deep for JSON; give lines 'child TAB parent'") from None
