"""Foreign tree formats: what `treesearch export` writes beside its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from treesearch.builders.registry import did_you_mean
from treesearch.errors import ConfigError
from treesearch.exchange.dot import write_dot
from treesearch.tree import Tree
from treesearch.tree_files import write_json, write_npz

WRITERS: dict[str, Callable[[Tree, Path], None]] = {"json": write_json, "npz": write_npz, "dot": write_dot}


def export_tree(tree: Tree, path: Path, *, format: str) -> None:
    """Write ``tree`` in a named format.

    Raises:
        ConfigError: Unknown format.
        OSError: The file cannot be written.
    """
    if format not in WRITERS:
        raise ConfigError(f"unknown format {format!r}{did_you_mean(format, WRITERS)}")
    WRITERS[format](tree, path)
