"""Graphviz: one statement per node and edge."""

from __future__ import annotations

from pathlib import Path

from treesearch.tree import Tree
from treesearch.tree_files import write_atomically


def write_dot(tree: Tree, path: Path) -> None:
    """Write a digraph; internal nodes are ``n0 ...``, leaves carry class names (ids where there are none)."""
    lines = ["digraph tree {", "  node [shape=box];"]
    for node in range(tree.num_internal):
        dim = tree.projection_dim[node]
        label = f"projection {dim}" if dim else ""
        lines.append(f'  n{node} [shape={"ellipse" if dim else "point"}, label="{label}"];')
    for leaf, cls in enumerate(tree.leaf_class.tolist()):
        name = str(cls) if tree.class_names is None else tree.class_names[cls]
        lines.append(f"  n{tree.num_internal + leaf} [label={_quote(name)}];")
    for node in range(tree.num_internal):
        lines.extend(f"  n{node} -> n{child};" for child in tree.children(node).tolist())
    lines.append("}")
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def _quote(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    printable = "".join(c if c.isprintable() else f"\\\\x{ord(c):02x}" for c in escaped)
    return f'"{printable}"'
