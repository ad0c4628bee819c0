"""The tree of a taxonomy, as a builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import DataError
from treesearch.taxonomy import Taxonomy, as_taxonomy
from treesearch.tree import Tree


def taxonomic(*, counts: NDArray[np.float64], taxonomy: Any = None) -> Tree:
    """Decide as a taxonomy does, level by level; counts play no part.

    Args:
        counts: [C] class counts.
        taxonomy: A `Taxonomy`, a tree that was made from one, or anything that `treesearch.taxonomy_tree` takes, such
            as the path of a file. Its classes must be those of the counts, in their order.

    Returns:
        The tree, with names of classes and nodes, and the taxonomy in its metadata (`Taxonomy.of`).

    Raises:
        DataError: There is no taxonomy, or it has another number of classes.
        TreeError: It cannot be read or is none.
    """
    if taxonomy is None:
        raise DataError("builder 'taxonomy' needs a taxonomy of the classes, but got none; pass taxonomy")
    found = Taxonomy.of(taxonomy) if isinstance(taxonomy, Tree) else as_taxonomy(taxonomy)
    if found.num_classes != counts.size:
        raise DataError(
            f"the taxonomy must have the {counts.size} classes of the counts, but has {found.num_classes}; load it with"
            " treesearch.taxonomy.load_taxonomy and classes="
        )
    return found.tree


def taxonomy_source(taxonomy: Any, tree: Tree) -> str:
    """What metadata say of where a tree came from: the path of a file, else the hash of the tree."""
    return str(taxonomy) if isinstance(taxonomy, str | Path) else tree.hash
