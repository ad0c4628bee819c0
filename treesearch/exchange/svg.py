"""A drawing of a tree as SVG: root at the left, leaves at the right, one below the other; needs no Graphviz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from treesearch.exchange.files import write_text
from treesearch.tree import Tree
from treesearch.visible import visible

MAX_NODES = 2000  # drawn; a larger tree is cut below the deepest level that fits
MAX_NAME = 60  # characters of a label

_ROW, _MARGIN, _NAME_WIDTH = 18, 20, 8 * MAX_NAME  # pixels; 8 a character
_MAX_STEP, _MAX_BODY = 90, 4000  # pixels between two levels, and between the first and the last
_STYLE = (
    "svg{background:#fff}text{font:12px sans-serif;fill:#1b1b1b;dominant-baseline:middle}.note{font-style:italic}"
    "path{fill:none;stroke:#8a8a8a}circle{fill:#8a8a8a}.projected{fill:#c2571a}"
    "@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e6e6e6}}"
)


class _Drawn(NamedTuple):
    """The top of a tree: D nodes down to some level, parents first."""

    nodes: NDArray[np.intp]  # [D] ids
    x: NDArray[np.int64]  # [D] pixels
    y: NDArray[np.float64]  # [D] pixels
    ends: NDArray[np.bool_]  # [D] has no drawn children
    levels: int  # below the root


def write_svg(tree: Tree, path: Path) -> None:
    """Write a drawing; class names stand at the leaves, ids where there are none.

    At most `MAX_NODES` nodes are drawn: of a larger tree the top levels, with the number of classes below at each node
    that is cut, and a line in the picture that says so. Nodes with a projection are orange; a title holds its size.

    Raises:
        OSError: The file cannot be written.
    """
    drawn = _layout(tree)
    note = ""
    if drawn.nodes.size < tree.num_nodes:
        note = f"The top {drawn.levels} of {tree.max_depth} levels: {drawn.nodes.size} of {tree.num_nodes} nodes."
    width = int(drawn.x.max()) + _NAME_WIDTH
    height = int(drawn.y.max()) + _ROW + (2 * _ROW if note else _MARGIN)
    write_text(path, _elements(tree, drawn, note, width, height))


def _elements(tree: Tree, drawn: _Drawn, note: str, width: int, height: int) -> Iterator[str]:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{_STYLE}</style>\n'
    yield f"<title>Tree of {tree.num_classes} classes</title>\n"
    place = {node: (x, y) for node, x, y in zip(drawn.nodes.tolist(), drawn.x.tolist(), drawn.y.tolist(), strict=True)}
    below = tree.leaf_intervals[1]
    for node, end in zip(drawn.nodes.tolist(), drawn.ends.tolist(), strict=True):
        x, y = place[node]
        if node > 0:
            from_x, from_y = place[int(tree.parent[node])]
            yield f'<path d="M{from_x} {from_y:g}V{y:g}H{x}"/>\n'
        if node >= tree.num_internal:
            yield f'<text x="{x + 6}" y="{y:g}">{_label(tree, int(tree.leaf_class[node - tree.num_internal]))}</text>\n'
            continue
        dim = int(tree.projection_dim[node])
        circle = f'<circle cx="{x}" cy="{y:g}" r="3"'
        yield f'{circle} class="projected"><title>projection {dim}</title></circle>\n' if dim else f"{circle}/>\n"
        if end:
            yield f'<text class="note" x="{x + 6}" y="{y:g}">… {int(below[node])} classes</text>\n'
    if note:
        yield f'<text class="note" x="{_MARGIN}" y="{height - _ROW}">{escape(note)}</text>\n'
    yield "</svg>\n"


def _layout(tree: Tree) -> _Drawn:
    depths = tree.node_depths
    per_level = np.cumsum(np.bincount(depths))
    levels = int(np.searchsorted(per_level, MAX_NODES, side="right")) - 1
    nodes = np.flatnonzero(depths <= levels)
    first, _ = tree.leaf_intervals
    ends = (nodes >= tree.num_internal) | (depths[nodes] == levels)
    rows = np.zeros(tree.num_nodes)
    end_nodes = nodes[ends]
    rows[end_nodes[np.argsort(first[end_nodes])]] = np.arange(end_nodes.size)
    # An inner node stands in the middle between its first and its last child, which are numbered after it.
    for node in nodes[~ends][::-1].tolist():
        children = tree.children(node)
        rows[node] = (rows[children[0]] + rows[children[-1]]) / 2
    step = min(_MAX_STEP, max(2, _MAX_BODY // max(levels, 1)))
    return _Drawn(nodes, _MARGIN + step * depths[nodes].astype(np.int64), _MARGIN + _ROW * rows[nodes], ends, levels)


def _label(tree: Tree, cls: int) -> str:
    if tree.class_names is None:
        return str(cls)
    name = visible(tree.class_names[cls])
    return escape(name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…")
