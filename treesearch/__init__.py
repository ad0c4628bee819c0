"""treesearch: search for a better tree for hierarchical softmax."""

from treesearch.builders import build_tree
from treesearch.errors import TreeSearchError
from treesearch.tree import Tree

__all__ = ["Tree", "TreeSearchError", "build_tree"]
__version__ = "0.1.0"
