"""Newick, the text form of phylogenetic trees: ``((a,b),c);``.

The grammar is Olsen's ("Interpretation of the Newick's 8:45 tree format standard", 1990), with two habits of today's
programs: comments in square brackets may nest, and an underscore in an unquoted label stays one.
"""

from __future__ import annotations

import re
from pathlib import Path

from treesearch.errors import TreeError
from treesearch.exchange.files import read_text, write_text
from treesearch.exchange.labels import class_labels
from treesearch.exchange.links import GrowingTree
from treesearch.exchange.sequence import bracketed
from treesearch.tree import Tree
from treesearch.tree_files import reading

# An underscore is quoted because Olsen reads an unquoted one as a blank, a byte order mark because at the beginning of
# a file it belongs to no label.
_NEEDS_QUOTES = re.compile(r"[\s()\[\]':;,_\ufeff]|^$")
_TOKEN = re.compile(r"(?P<mark>[(),:;\[])|'(?P<quoted>[^']*(?:''[^']*)*)'|(?P<word>[^\s()\[\]':;,]+)|(?P<wrong>\S)")
_BRACKET = re.compile(r"[\[\]]")


def write_newick(tree: Tree, path: Path) -> None:
    """Write one tree on one line, without branch lengths or inner labels; labels are quoted where they must be.

    Raises:
        TreeError: Two classes have one name.
        OSError: The file cannot be written.
    """
    labels = class_labels(tree)
    if tree.class_names is not None:
        labels = ["'" + label.replace("'", "''") + "'" if _NEEDS_QUOTES.search(label) else label for label in labels]
    # No line end: the Python package newick takes whatever follows the ';' for a second, empty tree.
    write_text(path, (bracketed(tree, labels, "(", ")", ","), ";"))


def read_newick(path: Path) -> Tree:
    """Read a file of one tree.

    Branch lengths, comments and labels of inner nodes are left out, and inner nodes with one child are collapsed.

    Raises:
        TreeError: The file breaks the grammar, holds no tree or several, or a leaf has no label or that of another.
    """
    with reading(path, "Newick file"):
        return _Parser(read_text(path)).tree()


class _Parser:
    """One pass over the tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.grown = GrowingTree()
        self.open_nodes: list[int] = []
        # What may come next: a "node"; the "label" of a node that just closed, or what follows one; what follows a
        # label ("labelled"); a branch "length"; what follows that ("done"); or nothing ("end").
        self.state = "node"

    def tree(self) -> Tree:
        position = 0
        while match := _TOKEN.search(self.text, position):
            position, at = match.end(), match.start()
            kind, token = match.lastgroup, match[match.lastgroup or 0]
            if kind == "mark" and token == "[":
                position = self._end_of_comment(at)
            elif self.state == "end":
                raise TreeError(f"a file must hold one tree, but there is {token!r:.60} after its ';'")
            elif kind == "mark":
                self._mark(token, at)
            elif kind == "wrong":
                raise TreeError(f"quotes and comments must be paired, but {token!r} at character {at} is not")
            else:
                self._word(token.replace("''", "'") if kind == "quoted" else token, at)
        if self.state != "end":
            raise TreeError("a tree must end in ';', but the text ends before one (truncated?)")
        return self.grown.tree()

    def _word(self, word: str, at: int) -> None:
        if self.state == "node":
            self.grown.add_leaf(self._above(), word)
            self.state = "labelled"
        elif self.state == "label":
            self.state = "labelled"
        elif self.state == "length":
            try:
                float(word)
            except ValueError:
                raise TreeError(f"a branch length must be a number, but got {word!r:.60} at character {at}") from None
            self.state = "done"
        else:
            raise TreeError(
                f"a label must be one word or stand in quotes, but {word!r:.60} follows one at character {at}"
            )

    def _mark(self, mark: str, at: int) -> None:
        complete = self.state in ("label", "labelled", "done")
        if mark == "(" and self.state == "node":
            self.open_nodes.append(self.grown.add_node(self._above()))
        elif mark == "," and complete and self.open_nodes:
            self.state = "node"
        elif mark == ")" and complete and self.open_nodes:
            self.open_nodes.pop()
            self.state = "label"
        elif mark == ":" and self.state in ("label", "labelled"):
            self.state = "length"
        elif mark == ";" and complete and not self.open_nodes:
            self.state = "end"
        elif self.state == "node":
            raise TreeError(f"every leaf must have a label, but {mark!r} stands in its place at character {at}")
        else:
            raise TreeError(
                f"brackets must balance and siblings be parted by commas, but {mark!r} stands at character {at}"
                f" with {len(self.open_nodes)} brackets open"
            )

    def _above(self) -> int:
        return self.open_nodes[-1] if self.open_nodes else Tree.NO_PARENT

    def _end_of_comment(self, start: int) -> int:
        depth = 0
        for match in _BRACKET.finditer(self.text, start):
            depth += 1 if match.group() == "[" else -1
            if depth == 0:
                return match.end()
        raise TreeError(f"quotes and comments must be paired, but '[' at character {start} is not")
