"""Where a tree's decisions keep their parameters, and what each of them sees.

Shapes: **C** classes, **N** internal nodes, **R** logit rows, **S** scopes, **W** widths.

A *scope* is what one projection feeds: the node that carries it and everything below, down to the next projection.
Rows are kept in one matrix per *width*: the distinct sizes of the vectors that decisions see, the layer's own first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.paths import input_dims, projection_scopes, row_ptr
from treesearch.tree import Tree

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SoftmaxLayout:
    """The parameters that `HierarchicalSoftmax` keeps for one tree; arrays on the host, O(N)."""

    tree: Tree = field(repr=False)
    in_features: int  # D
    widths: tuple[int, ...]  # [W] sizes of the vectors that decisions see, D first, then falling
    rows_per_width: tuple[int, ...]  # [W]
    node_width: IntArray  # [N] index into ``widths``
    node_row: IntArray  # [N] first row within its width's matrix
    node_scope: IntArray  # [N] scope whose vectors the node sees, NO_SCOPE for the raw input
    scope_parent: tuple[int, ...]  # [S] scope that the projection reads, NO_SCOPE for the raw input
    scope_dim: tuple[int, ...]  # [S] output size of the projection
    source_dim: tuple[int, ...]  # [S] its input size

    NO_SCOPE: ClassVar[int] = -1

    @classmethod
    def of(cls, tree: Tree, in_features: int) -> SoftmaxLayout:
        """The layout of ``tree`` on inputs of size D.

        Raises:
            TreeError: A projection is larger than ``in_features``.
        """
        if tree.projection_dim.size and tree.projection_dim.max() > in_features:
            raise TreeError(
                f"projections must be at most in_features = {in_features}, but one is {tree.projection_dim.max()}"
            )
        dims = input_dims(tree, in_features)
        widths = tuple(sorted({in_features, *np.unique(dims).tolist()}, reverse=True))
        node_width = np.searchsorted(-np.array(widths), -dims.astype(np.int64)).astype(np.int64)
        rows = np.diff(row_ptr(tree))
        node_row = np.zeros(tree.num_internal, np.int64)
        rows_per_width = []
        for index in range(len(widths)):
            own = node_width == index
            node_row[own] = np.cumsum(rows[own]) - rows[own]
            rows_per_width.append(int(rows[own].sum()))

        openers = np.flatnonzero(tree.projection_dim)
        scope_of_node = np.full(tree.num_internal + 1, cls.NO_SCOPE, np.int64)  # the last entry stands for "none"
        scope_of_node[openers] = np.arange(openers.size)
        node_scope = scope_of_node[projection_scopes(tree)]
        above = tree.parent[openers]
        scope_parent = np.where(above >= 0, node_scope[above] if tree.num_internal else above, cls.NO_SCOPE).tolist()
        scope_dim = tree.projection_dim[openers].tolist()
        return cls(
            tree=tree,
            in_features=in_features,
            widths=widths,
            rows_per_width=tuple(rows_per_width),
            node_width=node_width,
            node_row=node_row,
            node_scope=node_scope,
            scope_parent=tuple(scope_parent),
            scope_dim=tuple(scope_dim),
            source_dim=tuple(in_features if p < 0 else scope_dim[p] for p in scope_parent),
        )

    def parameter_shapes(self, bias: bool) -> tuple[list[tuple[int, ...]], ...]:
        """Shapes of the weights of each width, of the biases of each width, and of the projection of each scope."""
        weights: list[tuple[int, ...]] = list(zip(self.rows_per_width, self.widths, strict=True))
        biases: list[tuple[int, ...]] = [(rows,) for rows in self.rows_per_width if bias]
        return weights, biases, list(zip(self.scope_dim, self.source_dim, strict=True))

    @cached_property
    def num_rows(self) -> IntArray:
        """Logit rows of each node, [N]: one for a binary node, else its arity."""
        return np.where(self.tree.arities == 2, 1, self.tree.arities).astype(np.int64)

    @cached_property
    def scope_level(self) -> IntArray:
        """Number of scopes above each scope, [S]."""
        level = np.zeros(len(self.scope_parent), np.int64)
        for scope, parent in enumerate(self.scope_parent):
            level[scope] = 0 if parent < 0 else level[parent] + 1
        return level

    @cached_property
    def row_order(self) -> IntArray:
        """Canonical row (`treesearch.paths.row_ptr`) of each row of the widths' matrices, one after the other, [R]."""
        return np.argsort(self.node_width[self._canonical_row_node], kind="stable")

    @cached_property
    def row_node(self) -> IntArray:
        """Node of each row of the widths' matrices, one after the other, [R]."""
        return self._canonical_row_node[self.row_order]

    @cached_property
    def first_logit(self) -> IntArray:
        """First row of each node where the widths' matrices stand one after the other, [N]."""
        rows = np.array(self.rows_per_width, np.int64)
        return (np.cumsum(rows) - rows)[self.node_width] + self.node_row

    @cached_property
    def scope_rows(self) -> tuple[tuple[tuple[int, IntArray], ...], ...]:
        """For each width the scopes that its rows read (NO_SCOPE first), each with its rows in rising order."""
        row_scope = self.node_scope[self.row_node]
        result = []
        for scope_R in np.split(row_scope, np.cumsum(self.rows_per_width)[:-1]):
            order_R = np.argsort(scope_R, kind="stable")
            scopes, first = np.unique(scope_R[order_R], return_index=True)
            result.append(tuple(zip(scopes.tolist(), np.split(order_R, first[1:]), strict=True)) if scopes.size else ())
        return tuple(result)

    @property
    def _canonical_row_node(self) -> IntArray:
        return np.repeat(np.arange(self.tree.num_internal), self.num_rows)
