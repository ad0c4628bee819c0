"""napkinXC (Jasinska-Kobus et al. 2020): a line for each node, in a file or as the list that its models take.

A file is what its models keep as ``tree.txt``: a line with the number of labels and of nodes, then for each node its
parent (-1 at the root), its number and, at a leaf, its label. Both its models train a classifier for each child of a
node, binary ones included, against the other examples that reach the node: the hierarchical softmax (`HSM`) decides by
the softmax of their logits, a probabilistic label tree (`PLT`) by the sigmoid of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from treesearch.errors import TreeError
from treesearch.exchange.files import read_text, write_text
from treesearch.tree import Tree
from treesearch.tree_files import reading
from treesearch.tree_links import tree_from_links

Structure = list[tuple[int, int, int]]  # parent, node, label; -1 for none


def tree_structure(tree: Tree) -> Structure:
    """What ``set_tree_structure`` of its models takes: parent, number and label of each node, parents first."""
    label = np.concatenate([np.full(tree.num_internal, -1), tree.leaf_class])
    return list(zip(tree.parent.tolist(), range(tree.num_nodes), label.tolist(), strict=True))


def from_structure(structure: Structure) -> Tree:
    """The tree of such a list, nodes in any order; nodes with a single child are collapsed.

    Raises:
        TreeError: It is not a valid tree.
    """
    if not structure:
        raise TreeError("a tree must have a node, but there is none")
    try:
        parent, node, label = np.array(structure, np.int64).reshape(len(structure), 3).T
    except (TypeError, ValueError, OverflowError):
        raise TreeError("every node must be three integers: parent, number and label") from None
    if not np.array_equal(np.sort(node), np.arange(node.size)):
        raise TreeError(f"nodes must be numbered 0 to {node.size - 1}, each once")
    if parent.max() >= node.size:
        raise TreeError(f"parents must be nodes, 0 to {node.size - 1}, but one is {parent.max()}")
    parent_M = np.empty(node.size, np.int64)
    parent_M[node] = np.maximum(parent, -1)
    leaf = label >= 0
    return tree_from_links(parent_M, node[leaf], label[leaf])


def write_napkinxc(tree: Tree, path: Path) -> None:
    """Write ``tree.txt``; class names have no place in it.

    Raises:
        OSError: It cannot be written.
    """
    lines = [f"{tree.num_classes} {tree.num_nodes}\n"]
    lines += [f"{parent} {node} {'' if label < 0 else label}\n" for parent, node, label in tree_structure(tree)]
    write_text(path, lines)


def read_napkinxc(path: Path) -> Tree:
    """Read what `write_napkinxc` or a model of napkinXC wrote.

    Raises:
        TreeError: The file is missing or damaged, or holds no valid tree.
    """
    with reading(path, "napkinXC tree"):
        header, *lines = read_text(path).splitlines() or [""]
        num_labels, num_nodes = _integers(header, 1, 2)[:2]
        structure = []
        for number, line in enumerate(lines, start=2):
            if line.strip():
                parent, node, *label = _integers(line, number, 2, 3)
                structure.append((parent, node, label[0] if label else -1))
        tree = from_structure(structure)
        if (tree.num_classes, len(structure)) != (num_labels, num_nodes):
            raise TreeError(
                f"the first line promises {num_labels} labels and {num_nodes} nodes, but there are {tree.num_classes}"
                f" and {len(structure)}"
            )
        return tree


def _integers(line: str, number: int, *lengths: int) -> list[int]:
    try:
        found = [int(word) for word in line.split()]
    except ValueError:
        found = []
    if len(found) not in lengths:
        raise TreeError(f"line {number} must have {' or '.join(map(str, lengths))} integers, but is {line!r:.60}")
    return found
