"""The internal nodes of a tree depth by depth, as a beam of fixed size goes through them.

Shapes: **N** internal nodes of one depth, **E** edges below them, **A** children of the widest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.softmax.forest import EdgeScan, ForestNodes, ScopeBatch, edge_scan, index_tensor
from treesearch.softmax.layout import SoftmaxLayout

# A level is scored whole, by products that all examples share, up to this many times the rows that its beam fetches.
ROWS_PER_FETCHED_ROW = 8


@dataclass(frozen=True, eq=False)
class FetchedNodes:
    """Nodes of one level whose rows are fetched for each example."""

    arity: int  # A
    width: Tensor  # [N] index among the widths of what the node sees
    row: Tensor  # [N] first row in that width's matrix
    source: Tensor  # [N] place in that width's stack of sources
    num_children: Tensor  # [N]
    first_child: Tensor  # [N] place in ``child``
    child: Tensor  # [E] place of each child among the ends of the level's edges, by node
    widths: tuple[tuple[int, bool], ...]  # widths that occur, and whether some node of it reads a projection


@dataclass(frozen=True, eq=False)
class Level:
    """The internal nodes of one depth; edges stand by child, those that end at internal nodes first."""

    num_nodes: int  # N
    num_inner: int  # edges that end at an internal node, which is the next level's node of the same place
    leaf_class: Tensor  # int64 [E - num_inner] class at the end of each other edge
    parent: Tensor  # [E] place of each edge's start among the nodes
    scan: EdgeScan | None  # all edges at once ..
    fetched: FetchedNodes | None  # .. or those of the beam alone


@dataclass(frozen=True, eq=False)
class BeamTables:
    """The levels of one tree for a beam of one size."""

    beam: int
    widths: tuple[int, ...]
    scope_batches: tuple[ScopeBatch, ...]
    levels: tuple[Level, ...]

    @classmethod
    def of(cls, layout: SoftmaxLayout, beam: int | None, device: torch.device | str | None = None) -> BeamTables:
        """Build the tables.

        Args:
            layout: Of the tree.
            beam: Nodes that are kept a level, at most, >= 1; None keeps all.
            device: Of the tensors.
        """
        tree = layout.tree
        # Nodes are numbered breadth-first, internal ones and leaves apart: those of one depth stand together.
        inner_per_depth = np.bincount(tree.node_depths[: tree.num_internal], minlength=1)
        if not tree.num_internal:
            inner_per_depth = inner_per_depth[:0]
        if beam is None:
            beam = int(inner_per_depth.max(initial=1))
        nodes = ForestNodes.of([layout])
        ends = np.cumsum(inner_per_depth)
        levels = []
        first_leaf = tree.num_internal
        for begin, end in zip(ends - inner_per_depth, ends, strict=True):
            level = _level(nodes, layout, int(begin), int(end), first_leaf, beam, device)
            first_leaf += level.leaf_class.numel()
            levels.append(level)
        return cls(beam, nodes.widths, tuple(nodes.scope_batches(device)), tuple(levels))


def _level(
    nodes: ForestNodes,
    layout: SoftmaxLayout,
    begin: int,
    end: int,
    first_leaf: int,
    beam: int,
    device: torch.device | str | None,
) -> Level:
    tree = layout.tree
    children = tree.child_idx[tree.child_ptr[begin] : tree.child_ptr[end]].astype(np.int64)
    num_inner = int((children < tree.num_internal).sum())
    place = np.where(children < tree.num_internal, children - end, num_inner + children - first_leaf)
    edges = np.empty_like(children)
    edges[place] = children
    own = slice(begin, end)
    widths = np.unique(layout.node_width[own])
    arity = int(tree.arities[own].max())
    num_fetched = min(beam, end - begin) * (1 if arity == 2 else arity) * widths.size
    fetches = ROWS_PER_FETCHED_ROW * num_fetched < layout.num_rows[own].sum()
    return Level(
        num_nodes=end - begin,
        num_inner=num_inner,
        leaf_class=torch.as_tensor(tree.leaf_class[edges[num_inner:] - tree.num_internal].astype(np.int64)).to(device),
        parent=index_tensor(tree.parent[edges] - begin, device),
        scan=None if fetches else _scan(nodes, layout, edges, own, device),
        fetched=_fetched(nodes, layout, own, arity, place, device) if fetches else None,
    )


def _scan(
    nodes: ForestNodes, layout: SoftmaxLayout, edges: NDArray[np.int64], own: slice, device: torch.device | str | None
) -> EdgeScan:
    own_N = np.zeros(layout.tree.num_internal, bool)
    own_N[own] = True
    return edge_scan(nodes, layout.tree, edges, own_N, device)


def _fetched(
    nodes: ForestNodes,
    layout: SoftmaxLayout,
    own: slice,
    arity: int,
    place: NDArray[np.int64],
    device: torch.device | str | None,
) -> FetchedNodes:
    tree = layout.tree
    scope, width = layout.node_scope[own], layout.node_width[own]
    scoped = scope != layout.NO_SCOPE
    source = np.zeros(scope.size, np.int64)
    source[scoped] = nodes.scope_place[scope[scoped]]
    return FetchedNodes(
        arity=arity,
        width=index_tensor(width, device),
        row=index_tensor(layout.node_row[own], device),
        source=index_tensor(source, device),
        num_children=index_tensor(tree.arities[own], device),
        first_child=index_tensor(tree.child_ptr[:-1][own] - tree.child_ptr[own.start], device),
        child=index_tensor(place, device),
        widths=tuple((int(each), bool(scoped[width == each].any())) for each in np.unique(width)),
    )
