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
    fetched: FetchedNodes | None  # to score the nodes of the beam alone; None where all edges are scored at once

    @property
    def num_edges(self) -> int:
        """E."""
        return self.parent.numel()


@dataclass(frozen=True, eq=False)
class BeamTables:
    """The levels of one tree for a beam of one size."""

    beam: int
    widths: tuple[int, ...]
    scope_batches: tuple[ScopeBatch, ...]
    levels: tuple[Level, ...]
    scan: EdgeScan | None  # all edges of the levels that are scored whole, one level after the other; None: no level

    @classmethod
    def of(cls, layout: SoftmaxLayout, beam: int | None, device: torch.device | str | None = None) -> BeamTables:
        """Build the tables.

        Args:
            layout: Of the tree.
            beam: Nodes that are kept a level, at most, >= 1; None keeps all.
            device: Of the tensors.
        """
        tree, nodes = layout.tree, ForestNodes.of([layout])
        node_depth = tree.node_depths[: tree.num_internal]
        size = np.bincount(node_depth) if tree.num_internal else np.zeros(0, np.int64)
        beam = int(size.max(initial=1)) if beam is None else beam
        # Nodes are numbered breadth-first, internal ones and leaves apart: those of one depth stand together.
        ends = np.cumsum(size)
        levels, scanned_N, edges = [], np.zeros(tree.num_internal, bool), []
        first_leaf = tree.num_internal
        for begin, end in zip(ends - size, ends, strict=True):
            level, children = _level(nodes, layout, slice(int(begin), int(end)), first_leaf, beam, device)
            first_leaf += level.leaf_class.numel()
            levels.append(level)
            if level.fetched is None:
                scanned_N[begin:end] = True
                edges.append(children)
        scan = edge_scan(nodes, tree, np.concatenate(edges), scanned_N, device) if edges else None
        return cls(beam, nodes.widths, tuple(nodes.scope_batches(device)), tuple(levels), scan)


def _level(
    nodes: ForestNodes,
    layout: SoftmaxLayout,
    own: slice,
    first_leaf: int,
    beam: int,
    device: torch.device | str | None,
) -> tuple[Level, NDArray[np.int64]]:
    """The level of the nodes ``own``, whose leaves begin at ``first_leaf``, and the child at the end of each edge."""
    tree = layout.tree
    children = tree.child_idx[tree.child_ptr[own.start] : tree.child_ptr[own.stop]].astype(np.int64)
    is_inner = children < tree.num_internal
    num_inner = int(is_inner.sum())
    place = np.where(is_inner, children - own.stop, num_inner + children - first_leaf)
    edges = np.empty_like(children)
    edges[place] = children
    arity = int(tree.arities[own].max())
    num_widths = np.unique(layout.node_width[own]).size
    num_fetched = min(beam, own.stop - own.start) * (1 if arity == 2 else arity) * num_widths
    fetches = ROWS_PER_FETCHED_ROW * num_fetched < layout.num_rows[own].sum()
    leaf_class = tree.leaf_class[edges[num_inner:] - tree.num_internal].astype(np.int64)
    level = Level(
        num_nodes=own.stop - own.start,
        num_inner=num_inner,
        leaf_class=torch.as_tensor(leaf_class, device=device),
        parent=index_tensor(tree.parent[edges] - own.start, device),
        fetched=_fetched(nodes, layout, own, arity, place, device) if fetches else None,
    )
    return level, edges


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
