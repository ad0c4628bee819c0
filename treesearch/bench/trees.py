"""How long it takes to build, check, hash, save and load a tree over a large vocabulary.

Counts follow Zipf's law, in random order over the class ids. One thread; medians of ``repeats`` runs. Every operation
runs once on a tiny input first, so that compilation by numba (once per machine, then cached) is not in the figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from treesearch.bench.timing import call_seconds
from treesearch.builders import build_tree
from treesearch.paths import class_paths
from treesearch.tree import Tree

CLUSTERED_CLASSES, CLUSTERED_DIM = 10_000, 128
WARM_UP_CLASSES = 50

# Seconds, for a million classes (clustering: CLUSTERED_CLASSES). Saving and loading share a budget of 3 seconds.
TARGETS: dict[str, float] = {
    "huffman build": 3.0,
    "validate + paths + hash": 3.0,
    "save npz": 1.5,
    "load npz": 1.5,
    "huffman depth": 1.0,
    "clustered build": 1.0,
}


def run(num_classes: int = 1_000_000, repeats: int = 3) -> list[dict[str, object]]:
    """Time each operation of `TARGETS`.

    Args:
        num_classes: Classes of the Huffman tree; the clustered tree has at most 10,000, in 128 dimensions.
        repeats: Runs per operation; the median counts.

    Returns:
        One row per operation: ``operation``, ``seconds`` and ``target_seconds`` (for the default size).
    """
    with tempfile.TemporaryDirectory() as folder:
        _times(WARM_UP_CLASSES, 1, Path(folder))
        seconds = _times(num_classes, repeats, Path(folder))
    return [
        {"operation": operation, "seconds": seconds[operation], "target_seconds": target}
        for operation, target in TARGETS.items()
    ]


def _times(num_classes: int, repeats: int, folder: Path) -> dict[str, float]:
    rng = np.random.default_rng(0)
    counts = zipf_counts(num_classes, rng)
    few = min(num_classes, CLUSTERED_CLASSES)
    few_counts, vectors = zipf_counts(few, rng), rng.standard_normal((few, CLUSTERED_DIM)).astype(np.float32)
    tree = build_tree("huffman", counts=counts)
    path = folder / "tree.npz"

    def validate() -> None:
        fresh = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=tree.projection_dim)
        class_paths(fresh)
        assert fresh.hash  # computed here: a fresh tree caches nothing yet

    operations: dict[str, Callable[[], object]] = {
        "huffman build": lambda: build_tree("huffman", counts=counts),
        "validate + paths + hash": validate,
        "save npz": lambda: tree.annotate().save(path),
        "load npz": lambda: Tree.load(path),
        "huffman depth": lambda: tree.annotate().expected_depth(counts),  # a copy has no cached depths
        "clustered build": lambda: build_tree("clustered", counts=few_counts, vectors=vectors),
    }
    return {name: median(call_seconds(operation) for _ in range(repeats)) for name, operation in operations.items()}


def zipf_counts(num_classes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Counts that follow Zipf's law in random order, float64 [C]."""
    return rng.permutation(1e9 / np.arange(1, num_classes + 1))
