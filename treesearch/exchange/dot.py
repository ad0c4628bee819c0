"""Graphviz: one statement per node and edge."""

from __future__ import annotations

from pathlib import Path

from treesearch.exchange.files import write_text
from treesearch.tree import Tree
from treesearch.visible import visible


def write_dot(tree: Tree, path: Path) -> None:
    """Write a digraph with nodes ``n0 ...``; leaves carry class names (ids without any), inner nodes theirs, if any.

    Raises:
        OSError: The file cannot be written.
    """
    own = [""] * tree.num_internal if tree.node_names is None else _escaped(tree.node_names)
    labels = [
        name + ("\\n" if name and dim else "") + (f"projection {dim}" if dim else "")
        for name, dim in zip(own, tree.projection_dim.tolist(), strict=True)
    ]
    inner = [
        f'  n{node} [shape={"ellipse" if label else "point"}, label="{label}"];' for node, label in enumerate(labels)
    ]
    names = None if tree.class_names is None else _escaped(tree.class_names)
    leaves = [
        f'  n{leaf} [label="{cls if names is None else names[cls]}"];'
        for leaf, cls in enumerate(tree.leaf_class.tolist(), start=tree.num_internal)
    ]
    ends = zip(tree.parent[tree.child_idx].tolist(), tree.child_idx.tolist(), strict=True)
    edges = [f"  n{above} -> n{node};" for above, node in ends]
    lines = ["digraph tree {", "  node [shape=box];", *inner, *leaves, *edges, "}", ""]
    write_text(path, ("\n".join(lines),))


def _escaped(names: tuple[str, ...]) -> list[str]:
    # visible() spells a line break with a backslash of its own, which is doubled here like any other.
    return [visible(name).replace("\\", "\\\\").replace('"', '\\"') for name in names]
