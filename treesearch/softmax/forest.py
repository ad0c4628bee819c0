"""Index tables for the GPU kernel: many trees over the same inputs as one *forest*; a layer is a forest of one tree.

Shapes: **K** trees, **C** classes and **N** internal nodes of all trees together, **E** edges (a tree's nodes, each
standing for the edge from its parent; the root's is never used), **P** path entries of all classes, **G** groups,
**R** columns of dense logits, **S** scopes. Everything here runs on the host, in NumPy, once per forest.

The decisions of a path fall into two kinds. *Dense* ones (the top of each tree, and nodes so wide that fetching their
rows for each target would cost more) take their logit from a matrix product that all inputs share. *Gathered* ones
fetch their rows for each target; they are grouped by input width and arity, so that each group is one rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.paths import class_paths
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree
from treesearch.tree_kernels import branch_index

Array = NDArray[Any]
Device = torch.device | str | None

# Groups are padded to their widest node, so an arity class keeps the padding below 2 (up to 64) or 4.
ARITY_CLASSES = np.array([2, 4, 8, 16, 32, 64, *(64 * 4**i for i in range(1, 13))])
MAX_PAD_EDGES = 1024
MAX_RUNS = 4
MAX_PADDED_ROWS = 256
MAX_COPIED_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ScopeBatch:
    """Projections of one nesting level and shape, computed in one product."""

    level: int
    dim: int
    source_dim: int
    width: int  # index of ``dim`` among the widths
    scopes: tuple[int, ...]
    parents: Tensor | None  # [S] places among the hidden vectors of (level - 1, source_dim); None at level 0


@dataclass(frozen=True, eq=False)
class Product:
    """Dense rows that are multiplied together; their logits are consecutive columns."""

    NOT_A_RANGE: ClassVar[int] = -1

    width: int
    sources: tuple[int, ...]  # [S] places in the width's stack of sources; empty for the raw input
    source_index: Tensor  # [S] the same
    rows: Tensor  # [rows], or [S * rows per source]; short scopes repeat their last row
    first_row: int  # the rows are a slice from here, NOT_A_RANGE where they must be fetched


@dataclass(frozen=True, eq=False)
class Normalisers:
    """Wide dense nodes whose logsumexps are taken together."""

    first_column: int  # of ``nodes`` nodes of ``arity`` columns each, one after the other ..
    nodes: int
    arity: int
    columns: Tensor | None  # .. or [nodes, arity], short nodes padded with their last column,
    padding: Tensor | None  # and bool [nodes, arity], true where they are padded


@dataclass(frozen=True, eq=False)
class DenseNodes:
    """Nodes whose logits come from matrix products."""

    products: tuple[Product, ...]
    normalisers: tuple[Normalisers, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Decisions that are evaluated as one rectangle: ``length`` slots a path."""

    NO_WIDTH: ClassVar[int] = -1

    dense: bool
    width: int  # index among the widths of what the nodes see; NO_WIDTH for dense ones, which may differ
    arity: int  # of the widest node
    ragged: bool  # whether a gathered group has narrower ones too
    scoped: bool  # whether some read a projection
    length: int  # most decisions of the group on any path
    optional: bool  # whether some path has none
    pad_edges: Tensor  # edges of the group, to fill the slots of a path that has none

    @property
    def binary(self) -> bool:
        """Whether all nodes have two children (and so one row)."""
        return self.arity == 2


@dataclass(frozen=True, eq=False)
class EdgeScan:
    """The log-probabilities of the edges below some nodes of one tree, each given its start; here **E** of them."""

    dense: DenseNodes
    columns: Tensor | None  # [E] of each edge's logit (a binary node's two share theirs); None: all in order
    normaliser: Tensor  # [E] of a wide node's edge
    sign: Tensor  # int8 [E] -1 at the second edge of a binary node
    binary: Tensor  # bool [E]
    any_binary: bool
    any_wide: bool


@dataclass(frozen=True, eq=False)
class FullScan:
    """The log-probabilities of all classes of one tree: all logits, then down the levels; edges stand by depth."""

    edges: EdgeScan
    parent: Tensor  # [E-1] place of the edge's start among the nodes of its level
    level_sizes: tuple[int, ...]
    class_place: Tensor | None  # [C] place of each leaf among the edges; None: all in order


@dataclass(frozen=True, eq=False)
class ForestTables:
    """Index tensors (int32 where they fit) on one device, and the static structure that the kernel loops over.

    Attributes:
        widths: Sizes of the vectors that decisions see, D first, then falling.
        rows_per_width: Rows of the weight matrix of each width: those of tree 0, then of tree 1, ...
        scope_dim: Output size of each projection; those of tree 0, then of tree 1, ...
        source_dim: Their input sizes.
        tree_rows: For each tree and width, where its rows begin, and the end: [K+1][W].
        tree_scopes: Where each tree's projections begin, and the end: [K+1].
    """

    # Columns of ``edge_facts``.
    ROW: ClassVar[int] = 0  # gathered: first row of the node; dense: column of the logit taken
    BRANCH: ClassVar[int] = 1  # which child
    ARITY: ClassVar[int] = 2
    SOURCE: ClassVar[int] = (
        3  # gathered: place in the width's stack of sources; dense and wide: place of its normaliser
    )
    NODE: ClassVar[int] = 4  # internal node, numbered in its tree
    DEPTH: ClassVar[int] = 5  # of that node

    layouts: tuple[SoftmaxLayout, ...]
    in_features: int
    widths: tuple[int, ...]
    rows_per_width: tuple[int, ...]
    scope_dim: tuple[int, ...]
    source_dim: tuple[int, ...]
    tree_rows: tuple[tuple[int, ...], ...]
    tree_scopes: tuple[int, ...]
    max_depth: int
    scope_batches: tuple[ScopeBatch, ...]
    dense: DenseNodes
    groups: tuple[Group, ...]
    full: FullScan | None  # of a single tree
    num_classes: Tensor  # int64 [K, 1]
    first_class: Tensor  # int64 [K, 1] of each tree, among the classes of all
    class_entry: Tensor  # [C] where the class's path begins in ``path_edge``
    class_pattern: Tensor  # [C] classes with as many decisions in each group share a pattern
    pattern_offset: Tensor  # [patterns, G+1] where each group begins in a path, relative to ``class_entry``
    path_edge: Tensor  # [P] edges by class, then group
    edge_facts: Tensor  # [E, 6]

    @property
    def device(self) -> torch.device:
        """Of all tensors."""
        return self.path_edge.device

    @property
    def num_trees(self) -> int:
        """K."""
        return len(self.tree_scopes) - 1

    @classmethod
    def of(
        cls,
        layouts: Sequence[SoftmaxLayout],
        device: Device = None,
        *,
        dense_rows: int = 256,
        gather_arity: int = 64,
        dense_ratio: int = 256,
    ) -> ForestTables:
        """Build the tables, in O(path entries).

        Args:
            layouts: One or more trees on inputs of one size D.
            device: Of the tensors.
            dense_rows: Nodes at the top of each tree are dense, breadth-first, up to this many rows a tree.
            gather_arity: Nodes of a larger arity are dense too, wherever they are ..
            dense_ratio: .. unless all nodes of their arity class have more than this many times the rows of one: a
                product with so many costs more than to fetch the rows of the one that is needed.

        Raises:
            DataError: There is no layout, or their input sizes differ.
        """
        sizes = {layout.in_features for layout in layouts}
        if len(sizes) != 1:
            raise DataError(f"a forest needs one or more trees on inputs of one size, but got sizes {sorted(sizes)}")
        nodes = ForestNodes.of(layouts)
        dense_N = _choose_dense(nodes, dense_rows, gather_arity, dense_ratio)
        gathered_widths = set(np.unique(nodes.width[~dense_N]).tolist())
        dense, column_N, normaliser_N = _dense_nodes(nodes, dense_N, gathered_widths, device)
        num_classes = np.array([[layout.tree.num_classes] for layout in layouts])
        return cls(
            layouts=tuple(layouts),
            in_features=layouts[0].in_features,
            widths=nodes.widths,
            rows_per_width=nodes.tree_rows[-1],
            scope_dim=tuple(dim for layout in layouts for dim in layout.scope_dim),
            source_dim=tuple(dim for layout in layouts for dim in layout.source_dim),
            tree_rows=nodes.tree_rows,
            tree_scopes=nodes.tree_scopes,
            max_depth=max(layout.tree.max_depth for layout in layouts),
            scope_batches=tuple(nodes.scope_batches(device)),
            dense=dense,
            full=_full_scan(nodes, layouts[0], device) if len(layouts) == 1 else None,
            edge_facts=index_tensor(nodes.edge_facts(dense_N, column_N, normaliser_N), device),
            num_classes=torch.as_tensor(num_classes, device=device),
            first_class=torch.as_tensor(_starts(num_classes), device=device),
            **_paths(nodes, dense_N, device),
        )


@dataclass(frozen=True, eq=False)
class ForestNodes:
    """The trees' nodes, one tree after the other, with rows, scopes and widths counted through the forest."""

    layouts: Sequence[SoftmaxLayout]
    widths: tuple[int, ...]
    tree_rows: tuple[tuple[int, ...], ...]  # [K+1][W]
    tree_scopes: tuple[int, ...]  # [K+1]
    tree_edges: Array  # [K+1]
    tree: Array  # [N]
    arity: Array  # [N]
    rows: Array  # [N] number of rows
    width: Array  # [N] index among ``widths``
    row: Array  # [N] first row in the width's matrix
    scope: Array  # [N] NO_SCOPE for the raw input
    scope_level: Array  # [S]
    scope_parent: Array  # [S]
    scope_width: Array  # [S]
    scope_source: Array  # [S] size of what the projection reads
    scope_batch: Array  # [S] batches of (level, shape), in the order in which they are computed
    scope_place: Array  # [S] place in the stack of sources of the scope's width; the raw input is the first of width 0

    @classmethod
    def of(cls, layouts: Sequence[SoftmaxLayout]) -> ForestNodes:
        """The nodes of some trees on inputs of one size."""
        widths = tuple(sorted({width for layout in layouts for width in layout.widths}, reverse=True))
        index_of = {width: index for index, width in enumerate(widths)}
        counts = np.zeros((len(layouts) + 1, len(widths)), np.int64)
        for tree, layout in enumerate(layouts):
            counts[tree + 1, [index_of[width] for width in layout.widths]] = layout.rows_per_width
        tree_rows = counts.cumsum(0)
        tree_scopes = np.cumsum([0, *(len(layout.scope_dim) for layout in layouts)])
        width, row, scope, parent = [], [], [], []
        for tree, layout in enumerate(layouts):
            own = np.array([index_of[width] for width in layout.widths])[layout.node_width]
            width.append(own)
            row.append(layout.node_row + tree_rows[tree, own])
            scope.append(np.where(layout.node_scope < 0, layout.node_scope, layout.node_scope + tree_scopes[tree]))
            above = np.array(layout.scope_parent, np.int64)
            parent.append(np.where(above < 0, above, above + tree_scopes[tree]))

        level = np.concatenate([layout.scope_level for layout in layouts])
        dims = np.array([dim for layout in layouts for dim in layout.scope_dim], np.int64)
        sources = np.array([dim for layout in layouts for dim in layout.source_dim], np.int64)
        scope_width = np.array([index_of[dim] for dim in dims.tolist()], np.int64)
        _, batch = np.unique(np.stack([level, scope_width, sources], 1), axis=0, return_inverse=True)
        place = np.zeros(level.size, np.int64)
        for index in range(len(widths)):
            stacked = np.flatnonzero(scope_width == index)
            place[stacked[np.argsort(batch[stacked], kind="stable")]] = np.arange(stacked.size) + (index == 0)
        return cls(
            layouts=layouts,
            widths=widths,
            tree_rows=tuple(map(tuple, tree_rows.tolist())),
            tree_scopes=tuple(tree_scopes.tolist()),
            tree_edges=np.cumsum([0, *(layout.tree.num_nodes for layout in layouts)]),
            tree=np.repeat(np.arange(len(layouts)), [layout.tree.num_internal for layout in layouts]),
            arity=np.concatenate([layout.tree.arities for layout in layouts]).astype(np.int64),
            rows=np.concatenate([layout.num_rows for layout in layouts]),
            width=np.concatenate(width).astype(np.int64),
            row=np.concatenate(row),
            scope=np.concatenate(scope),
            scope_level=level,
            scope_parent=np.concatenate(parent),
            scope_width=scope_width,
            scope_source=sources,
            scope_batch=batch.reshape(-1),
            scope_place=place,
        )

    def scope_batches(self, device: Device) -> list[ScopeBatch]:
        """The projections in the order in which they are computed."""
        batches = []
        for batch in range(int(self.scope_batch.max(initial=-1)) + 1):
            scopes = np.flatnonzero(self.scope_batch == batch)
            first = scopes[0]
            level, source = int(self.scope_level[first]), int(self.scope_source[first])
            width = int(self.scope_width[first])
            parents = None
            if level:
                # What one level above has this size stands together in the stack: places count from its first.
                above = self.scope_parent[scopes]
                peers = (self.scope_level == level - 1) & (self.scope_width == self.scope_width[above[0]])
                parents = index_tensor(self.scope_place[above] - self.scope_place[peers].min(), device)
            batches.append(
                ScopeBatch(level, self.widths[width], source, width, tuple(scopes.tolist()), parents),
            )
        return batches

    def edge_facts(self, dense_N: Array, column_N: Array, normaliser_N: Array) -> Array:
        """`ForestTables.edge_facts`."""
        facts = np.zeros((self.tree_edges[-1], 6), np.int64)
        first_node = _starts(np.array([layout.tree.num_internal for layout in self.layouts]))
        wide_N = self.arity > 2
        source_N = np.where(self.scope < 0, 0, _at(self.scope_place, self.scope))
        for start, first, layout in zip(self.tree_edges, first_node, self.layouts, strict=False):
            tree = layout.tree
            own = np.repeat(np.arange(tree.num_internal), tree.arities)
            branch = np.arange(own.size) - tree.child_ptr[own]
            node = first + own
            taken = column_N[node] + np.where(wide_N[node], branch, 0)
            facts[start + tree.child_idx] = np.stack(
                [
                    np.where(dense_N[node], taken, self.row[node]),
                    branch,
                    self.arity[node],
                    np.where(dense_N[node], normaliser_N[node], source_N[node]),
                    own,
                    tree.node_depths[own],
                ],
                axis=1,
            )
        return facts


def _choose_dense(nodes: ForestNodes, dense_rows: int, gather_arity: int, dense_ratio: int) -> Array:
    """Which nodes are dense, bool [N]."""
    arity_class = np.searchsorted(ARITY_CLASSES, nodes.arity)
    kinds, kind_N = np.unique(np.stack([nodes.tree, nodes.width, arity_class], 1), axis=0, return_inverse=True)
    kind_N = kind_N.reshape(-1)
    total = np.bincount(kind_N, weights=nodes.rows, minlength=len(kinds))
    widest = np.zeros(len(kinds), np.int64)
    np.maximum.at(widest, kind_N, nodes.arity)
    wide_N: Array = (nodes.arity > gather_arity) & (total <= dense_ratio * widest)[kind_N]
    dense_N = wide_N.copy()
    for tree in range(len(nodes.layouts)):
        own = np.flatnonzero(nodes.tree == tree)
        dense_N[own] |= np.cumsum(np.where(wide_N[own], 0, nodes.rows[own])) <= dense_rows
    return dense_N


def _dense_nodes(
    nodes: ForestNodes, dense_N: Array, gathered_widths: set[int], device: Device
) -> tuple[DenseNodes, Array, Array]:
    """Products and normalisers of some nodes; the first column and the normaliser of each of them, [N] and [N]."""
    column_N = np.zeros(dense_N.size, np.int64)
    products = []
    num_columns = 0
    raw = np.flatnonzero(dense_N & (nodes.scope < 0))
    if raw.size:
        column_N[raw] = _starts(nodes.rows[raw])
        rows = _ranges(nodes.row[raw], nodes.rows[raw])
        products.append(_product(0, (), rows, gathered_widths, device))
        num_columns = rows.size
    scoped = np.flatnonzero(dense_N & (nodes.scope >= 0))
    scoped = scoped[np.argsort(nodes.scope[scoped], kind="stable")]
    scopes, first = np.unique(nodes.scope[scoped], return_index=True)
    rows = _ranges(nodes.row[scoped], nodes.rows[scoped])
    before = _starts(nodes.rows[scoped])
    start = before[first]
    count = np.diff([*start, rows.size])
    # A power of two lets scopes of similar size share a product.
    padded = np.where(count <= MAX_PADDED_ROWS, 1 << np.ceil(np.log2(np.maximum(count, 1))).astype(np.int64), count)
    column_of_scope = np.zeros(scopes.size, np.int64)
    for width, size in sorted(set(zip(nodes.scope_width[scopes].tolist(), padded.tolist(), strict=True))):
        own = np.flatnonzero((nodes.scope_width[scopes] == width) & (padded == size))
        size = size if own.size > 1 else int(count[own[0]])
        column_of_scope[own] = num_columns + size * np.arange(own.size)
        num_columns += size * own.size
        entry = start[own, None] + np.minimum(np.arange(size), count[own, None] - 1)
        sources = tuple(nodes.scope_place[scopes[own]].tolist())
        products.append(_product(width, sources, rows[entry].reshape(-1), gathered_widths, device))
    which = np.searchsorted(scopes, nodes.scope[scoped])
    column_N[scoped] = column_of_scope[which] + before - start[which]
    normalisers, normaliser_N = _normalisers(nodes, np.flatnonzero(dense_N & (nodes.arity > 2)), column_N, device)
    return DenseNodes(tuple(products), tuple(normalisers)), column_N, normaliser_N


def _product(width: int, sources: tuple[int, ...], rows: Array, gathered: set[int], device: Device) -> Product:
    # A slice saves a copy of the rows; a fetch saves the parameter a second gradient where it has one already.
    is_range = bool((np.diff(rows) == 1).all()) and (width not in gathered or rows.size > MAX_COPIED_ROWS)
    first_row = int(rows[0]) if is_range else Product.NOT_A_RANGE
    return Product(
        width, sources, index_tensor(np.array(sources, np.int64), device), index_tensor(rows, device), first_row
    )


def _normalisers(nodes: ForestNodes, wide: Array, column_N: Array, device: Device) -> tuple[list[Normalisers], Array]:
    """Normalisers of the nodes ``wide`` and, for each node, its place among them, [N]."""
    normaliser_N = np.zeros(column_N.size, np.int64)
    normalisers: list[Normalisers] = []
    num_nodes = 0
    wide = wide[np.argsort(column_N[wide], kind="stable")]
    arity_class = np.searchsorted(ARITY_CLASSES, nodes.arity[wide])
    for index in np.unique(arity_class):
        own = wide[arity_class == index]
        normaliser_N[own] = num_nodes + np.arange(own.size)
        num_nodes += own.size
        column, arity = column_N[own], nodes.arity[own]
        breaks = np.flatnonzero((np.diff(column) != arity[:-1]) | (np.diff(arity) != 0)) + 1
        if breaks.size < MAX_RUNS:
            normalisers += [
                Normalisers(int(column[run[0]]), run.size, int(arity[run[0]]), None, None)
                for run in np.split(np.arange(own.size), breaks)
            ]
            continue
        slot = np.arange(arity.max())
        columns = index_tensor(column[:, None] + np.minimum(slot, arity[:, None] - 1), device)
        padding = torch.as_tensor(slot >= arity[:, None], device=device)
        normalisers.append(Normalisers(0, own.size, int(arity.max()), columns, padding))
    return normalisers, normaliser_N


def _paths(nodes: ForestNodes, dense_N: Array, device: Device) -> dict[str, Any]:
    """The fields of `ForestTables` that hold the groups, and the paths by group."""
    keys = np.stack(
        [
            np.where(dense_N, 0, 1),
            np.where(dense_N, Group.NO_WIDTH, nodes.width),
            np.where(dense_N, np.minimum(nodes.arity, 3), np.searchsorted(ARITY_CLASSES, nodes.arity)),
        ],
        axis=1,
    )
    kinds, group_N = np.unique(keys, axis=0, return_inverse=True)
    group_N = group_N.reshape(-1).astype(np.int16)
    paths = [class_paths(layout.tree) for layout in nodes.layouts]
    first_node = _starts(np.array([layout.tree.num_internal for layout in nodes.layouts]))
    length_C = np.concatenate([np.diff(path.ptr) for path in paths])
    entry_C = _starts(length_C)
    group_P = np.concatenate([group_N[first + path.node] for first, path in zip(first_node, paths, strict=True)])
    edge_P = np.concatenate(
        [
            np.asarray(start + layout.tree.child_idx[layout.tree.child_ptr[path.node] + path.branch], np.int64)
            for start, layout, path in zip(nodes.tree_edges, nodes.layouts, paths, strict=False)
        ]
    ).astype(np.int32 if nodes.tree_edges[-1] < 1 << 31 else np.int64)
    class_P = np.repeat(np.arange(length_C.size, dtype=np.int32), length_C)

    groups = []
    path_edge = np.empty_like(edge_P)
    offset_C = np.zeros(length_C.size, np.int64)
    offsets: list[Array] = [offset_C]
    for group in range(len(kinds)):
        entries = np.flatnonzero(group_P == group)
        count_C = np.bincount(class_P[entries], minlength=length_C.size)
        path_edge[np.repeat(entry_C + offset_C - _starts(count_C), count_C) + np.arange(entries.size)] = edge_P[entries]
        offset_C = offset_C + count_C
        offsets.append(offset_C)
        groups.append(_group(nodes, np.flatnonzero(group_N == group), dense_N, edge_P[entries], count_C, device))
    pattern_C = np.zeros(length_C.size, np.int64)
    for offset in offsets[1:]:
        _, pattern_C = np.unique(pattern_C * (offset.max() + 1) + offset, return_inverse=True)
    _, example = np.unique(pattern_C, return_index=True)
    return {
        "groups": tuple(groups),
        "class_entry": index_tensor(entry_C, device),
        "class_pattern": index_tensor(pattern_C, device),
        "pattern_offset": index_tensor(np.stack([offset[example] for offset in offsets], 1), device),
        "path_edge": index_tensor(path_edge, device),
    }


def _group(nodes: ForestNodes, members: Array, dense_N: Array, edges: Array, count_C: Array, device: Device) -> Group:
    arity = nodes.arity[members]
    dense = bool(dense_N[members[0]])
    spread = np.linspace(0, edges.size - 1, min(edges.size, MAX_PAD_EDGES)).astype(np.int64)
    return Group(
        dense=dense,
        width=Group.NO_WIDTH if dense else int(nodes.width[members[0]]),
        arity=int(arity.max()),
        ragged=bool(arity.min() < arity.max()),
        scoped=bool((nodes.scope[members] >= 0).any()),
        length=int(count_C.max()),
        optional=bool(count_C.min() == 0),
        pad_edges=index_tensor(edges[spread], device),
    )


def _full_scan(nodes: ForestNodes, layout: SoftmaxLayout, device: Device) -> FullScan:
    tree = layout.tree
    edges = np.argsort(tree.node_depths[1:], kind="stable") + 1  # an edge bears the number of its child
    above = tree.parent[edges]
    level_sizes = np.bincount(tree.node_depths[edges], minlength=1)[1:]
    place = np.zeros(tree.num_nodes, np.int64)
    place[edges] = np.arange(edges.size)
    in_level = np.zeros(tree.num_nodes, np.int64)
    in_level[edges] = np.arange(edges.size) - np.repeat(_starts(level_sizes), level_sizes)
    return FullScan(
        edges=edge_scan(nodes, tree, edges, np.ones(tree.num_internal, bool), device),
        parent=index_tensor(in_level[above], device),
        level_sizes=tuple(level_sizes.tolist()),
        class_place=_unless_in_order(place[tree.class_leaf], edges.size, device),
    )


def edge_scan(nodes: ForestNodes, tree: Tree, edges: Array, own_N: Array, device: Device) -> EdgeScan:
    """The scan of ``edges``, in this order: all those below the nodes ``own_N``, bool [N], of the only tree."""
    dense, column_N, normaliser_N = _dense_nodes(nodes, own_N, set(), device)
    above = tree.parent[edges]
    branch = branch_index(tree.child_ptr, tree.child_idx)[edges]
    binary = tree.arities[above] == 2
    columns = column_N[above] + np.where(binary, 0, branch)
    num_columns = sum(product.rows.numel() for product in dense.products)
    return EdgeScan(
        dense=dense,
        columns=_unless_in_order(columns, num_columns, device),
        normaliser=index_tensor(normaliser_N[above], device),
        sign=torch.as_tensor((1 - 2 * (binary & (branch == 1))).astype(np.int8), device=device),
        binary=torch.as_tensor(binary, device=device),
        any_binary=bool(binary.any()),
        any_wide=not bool(binary.all()),
    )


def _unless_in_order(index: Array, size: int, device: Device) -> Tensor | None:
    in_order = index.size == size and bool((index == np.arange(size)).all())
    return None if in_order else index_tensor(index, device)


def index_tensor(values: Array, device: Device) -> Tensor:
    """An index tensor, int32 where the values fit."""
    fits = values.max(initial=0) < 1 << 31
    return torch.as_tensor(np.ascontiguousarray(values, np.int32 if fits else np.int64), device=device)


def _starts(counts: Array) -> Array:
    """Where each begins when they stand one after the other."""
    return np.cumsum(counts, 0) - counts


def _ranges(start: Array, count: Array) -> Array:
    """``start[i] .. start[i] + count[i]`` for every i, one after the other."""
    return np.repeat(start - _starts(count), count) + np.arange(count.sum())


def _at(values: Array, index: Array) -> Array:
    """``values[index]``, where a negative index gives anything."""
    return values[np.maximum(index, 0)] if values.size else np.zeros_like(index)
