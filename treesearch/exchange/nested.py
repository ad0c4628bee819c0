"""Nested brackets, the text form of `nltk.Tree`: ``(T (T a b) c)``.

The token rules are those of ``nltk.Tree.fromstring`` (NLTK 3.10): a bracket, then its label, then its children; a label
is a run of characters without white space and without brackets that no backslash precedes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.files import read_text, write_text
from treesearch.exchange.labels import class_labels
from treesearch.exchange.links import GrowingTree
from treesearch.exchange.sequence import bracketed
from treesearch.tree import Tree
from treesearch.tree_files import reading

if TYPE_CHECKING:
    import nltk

INNER_LABEL = "T"  # of every internal node; NLTK wants one
_UNWRITABLE = re.compile(r"[\s()]|^$")
_TOKEN = re.compile(r"\(\s*((?:\\[()]|[^\s()])*)|(\))|((?:\\[()]|[^\s()])+)")


def write_nested(tree: Tree, path: Path) -> None:
    """Write nested brackets on one line; a single class is ``(T label)``.

    Raises:
        TreeError: Two classes have one name, or a name is empty or has white space or brackets, for which this format
            has no quotes.
        OSError: The file cannot be written.
    """
    labels = class_labels(tree)
    if tree.class_names is not None:
        bad = next((label for label in labels if _UNWRITABLE.search(label)), None)
        if bad is not None:
            raise TreeError(
                f"a name in nested brackets must have neither white space nor brackets and not be empty, but one is"
                f" {bad!r:.60}; rename it or use the format newick"
            )
        # A backslash before a bracket would make it part of the name.
        labels = [f"{label} " if label.endswith("\\") else label for label in labels]
    text = bracketed(tree, labels, f"({INNER_LABEL} ", ")", " ")
    write_text(path, (text if tree.num_internal else f"({INNER_LABEL} {text})", "\n"))


def read_nested(path: Path) -> Tree:
    """Read nested brackets; labels of inner brackets are left out, and brackets with one child are collapsed.

    Raises:
        TreeError: The file is not one balanced bracket, a bracket is empty, or a leaf stands twice.
    """
    with reading(path, "file of nested brackets"):
        return _parse(read_text(path))


def _parse(text: str) -> Tree:
    tree = GrowingTree()
    open_nodes: list[int] = []
    for match in _TOKEN.finditer(text):
        above = open_nodes[-1] if open_nodes else Tree.NO_PARENT
        if match.lastindex == 2:
            if not open_nodes:
                raise TreeError(f"brackets must balance, but one closes at character {match.start()} that none opened")
            open_nodes.pop()
        elif not open_nodes and (len(tree) or match.lastindex == 3):
            raise TreeError(f"there must be one outer bracket, but got {match.group()!r:.60} outside of it")
        elif match.lastindex == 3:
            tree.add_leaf(above, match.group(3))
        else:
            open_nodes.append(tree.add_node(above))
    if open_nodes or not len(tree):
        raise TreeError(f"brackets must balance, but {len(open_nodes) or 'none'} are open at the end (truncated?)")
    return tree.tree()


def to_nltk(tree: Tree) -> nltk.Tree:
    """The tree as `nltk.Tree`, children in canonical order; leaves are class labels (str), inner nodes ``T``.

    NLTK's own methods recurse, so most of them fail on trees that are some hundred levels deep.

    Raises:
        MissingExtraError: nltk is not installed.
        TreeError: Two classes have one name.
    """
    nltk_tree = _nltk().Tree
    labels = class_labels(tree)
    built: list[Any] = [None] * tree.num_internal + [labels[cls] for cls in tree.leaf_class.tolist()]
    children, pointers = tree.child_idx.tolist(), tree.child_ptr.tolist()
    for node in range(tree.num_internal - 1, -1, -1):
        below = [built[child] for child in children[pointers[node] : pointers[node + 1]]]
        built[node] = nltk_tree(INNER_LABEL, below)
    return built[0] if tree.num_internal else nltk_tree(INNER_LABEL, built)


def from_nltk(nltk_tree: nltk.Tree) -> Tree:
    """The tree of an `nltk.Tree`; leaves may be of any type and are known by ``str(leaf)``.

    Labels of inner nodes are left out, and nodes with one child are collapsed.

    Raises:
        MissingExtraError: nltk is not installed.
        TreeError: It is no `nltk.Tree`, a node of it has no children, or a leaf stands twice.
    """
    node_type = _nltk().Tree
    if not isinstance(nltk_tree, node_type):
        raise TreeError(f"an nltk.Tree must be given, but got {type(nltk_tree).__name__}")
    tree = GrowingTree()
    stack: list[tuple[Any, int]] = [(nltk_tree, Tree.NO_PARENT)]
    while stack:
        node, above = stack.pop()
        if isinstance(node, node_type):
            number = tree.add_node(above)
            stack.extend((child, number) for child in reversed(node))
        else:
            tree.add_leaf(above, str(node))
    return tree.tree()


def _nltk() -> Any:
    try:
        import nltk.tree
    except ImportError:
        raise MissingExtraError("nltk", "interop") from None
    return nltk.tree
