"""treesearch: search for a better tree for hierarchical softmax."""

from typing import Any

from treesearch.builders import build_tree
from treesearch.errors import TreeSearchError
from treesearch.taxonomy import Taxonomy, taxonomy_tree
from treesearch.tree import Tree

__all__ = ["HierarchicalSoftmax", "Taxonomy", "Tree", "TreeSearchError", "build_tree", "taxonomy_tree"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The layer brings torch along; trees and builders do without.
    if name == "HierarchicalSoftmax":
        from treesearch.softmax import HierarchicalSoftmax

        return HierarchicalSoftmax
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
