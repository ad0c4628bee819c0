"""How long it takes to write a tree over a large vocabulary in each format of `treesearch.exchange`, and to read it.

Two trees: a balanced binary one, and the Huffman tree of counts that follow Zipf's law in random order over the class
ids. No class names. One thread and one run each, after one on a tiny tree for what is loaded or compiled at first use.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from treesearch.bench.timing import call_seconds
from treesearch.bench.trees import zipf_counts
from treesearch.builders import build_tree
from treesearch.exchange import FORMATS, Format, export_tree, import_tree
from treesearch.tree import Tree

TARGET_SECONDS = 20.0  # to write a million classes
WARM_UP_CLASSES = 50


def run(num_classes: int = 1_000_000) -> list[dict[str, object]]:
    """Write and read each tree in each format.

    Returns:
        One row per tree and format: ``tree``, ``format``, ``write_seconds``, ``target_seconds`` (for the default size),
        ``megabytes`` on disk, and ``read_seconds``, None where the format is written only.
    """
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, counts in {
            "balanced": np.ones(num_classes),
            "huffman": zipf_counts(num_classes, np.random.default_rng(0)),
        }.items():
            tree = build_tree(name, counts=counts)
            tiny = build_tree(name, counts=counts[:WARM_UP_CLASSES])
            for format in FORMATS.values():
                _measured(tiny, format, Path(folder) / f"tiny-{name}-{format.name}")
                path = Path(folder) / f"{name}-{format.name}"
                rows.append({"tree": name, "format": format.name} | _measured(tree, format, path))
    return rows


def _measured(tree: Tree, format: Format, path: Path) -> dict[str, object]:
    write_seconds = call_seconds(lambda: export_tree(tree, path, format=format.name))
    files = path.rglob("*") if format.folder else [path]
    return {
        "write_seconds": write_seconds,
        "target_seconds": TARGET_SECONDS,
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "read_seconds": call_seconds(lambda: import_tree(path, format=format.name)) if format.read else None,
    }
