"""How a tree's paths, logit rows and projections are laid out for tensor operations.

Shapes: **C** classes, **N** internal nodes, **M** all nodes, **P** path entries, **R** logit rows, **S** scopes (what
one projection feeds). Rows are kept in one matrix per *width*: the distinct sizes of the vectors that decisions see,
the layer's own size first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treesearch.errors import TreeError
from treesearch.paths import class_paths, input_dims, projection_scopes, row_ptr
from treesearch.tree import Tree


class SoftmaxLayout(nn.Module):
    """Index tensors of one tree; buffers only, so that they follow the layer from device to device."""

    path_ptr: Tensor  # int64 [C+1]
    path_node: Tensor  # int64 [P]
    path_branch: Tensor  # int64 [P]
    node_arity: Tensor  # int64 [N]
    node_width: Tensor  # int64 [N] index into ``widths``
    node_row: Tensor  # int64 [N] first row within its width's matrix
    node_scope: Tensor  # int64 [N], NO_SCOPE for the raw input
    scope_level: Tensor  # int64 [S] number of scopes above
    class_scope_ptr: Tensor  # int64 [C+1]
    class_scope: Tensor  # int64 [sum of scopes per class], root first
    edge_child: Tensor  # int64 [M-1] child at the end of each edge, edges grouped by node
    edge_node: Tensor  # int64 [M-1] node at the start of each edge
    edge_row: Tensor  # int64 [M-1] global row of the edge's logit (a binary node's two edges share theirs)
    class_leaf: Tensor  # int64 [C]
    row_order: Tensor  # int64 [R] global row of each row of the widths' matrices, one width after the other
    row_scope: Tensor  # int64 [R] the scope that it reads, NO_SCOPE for the raw input
    depth_edges: Tensor  # int64 [M-1] edges by depth of their child

    NO_SCOPE = -1

    def __init__(self, tree: Tree, in_features: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        if tree.projection_dim.size and tree.projection_dim.max() > in_features:
            raise TreeError(
                f"projections must be at most in_features = {in_features}, but one is {tree.projection_dim.max()}"
            )
        paths = class_paths(tree)
        dims = input_dims(tree, in_features)
        self.widths: tuple[int, ...] = tuple(sorted({in_features, *dims.tolist()}, reverse=True))
        width_index = {width: index for index, width in enumerate(self.widths)}
        node_width = np.array([width_index[int(d)] for d in dims], np.int64).reshape(-1)
        rows = np.diff(row_ptr(tree))
        node_row = np.zeros(tree.num_internal, np.int64)
        self.rows_per_width: list[int] = []
        for index in range(len(self.widths)):
            own = node_width == index
            node_row[own] = np.cumsum(rows[own]) - rows[own]
            self.rows_per_width.append(int(rows[own].sum()))

        openers = np.flatnonzero(tree.projection_dim)
        scope_of_node = np.full(tree.num_internal + 1, self.NO_SCOPE, np.int64)
        scope_of_node[openers] = np.arange(openers.size)
        node_scope = scope_of_node[projection_scopes(tree)]
        above = tree.parent[openers]
        self.scope_parent: list[int] = np.where(above >= 0, node_scope[above], self.NO_SCOPE).tolist()
        self.scope_dim: list[int] = tree.projection_dim[openers].tolist()
        self.source_dim: list[int] = [in_features if p < 0 else self.scope_dim[p] for p in self.scope_parent]
        level = np.zeros(openers.size, np.int64)
        for scope, parent in enumerate(self.scope_parent):
            level[scope] = 0 if parent < 0 else level[parent] + 1

        opens = tree.projection_dim[paths.node] > 0
        class_scope_ptr = np.concatenate([[0], np.cumsum(opens)])[paths.ptr]
        edge_node = np.repeat(np.arange(tree.num_internal), tree.arities)
        position = np.arange(edge_node.size) - tree.child_ptr[edge_node]
        edge_row = row_ptr(tree)[edge_node] + np.where(tree.arities[edge_node] == 2, 0, position)
        class_leaf = np.empty(tree.num_classes, np.int64)
        class_leaf[tree.leaf_class] = np.arange(tree.num_internal, tree.num_nodes)

        row_node = np.repeat(np.arange(tree.num_internal), rows)
        row_order = np.argsort(node_width[row_node], kind="stable")
        child_depth = tree.node_depths[tree.child_idx]
        self.edges_per_depth: list[int] = np.bincount(child_depth, minlength=1)[1:].tolist()

        buffers: dict[str, Any] = {
            "path_ptr": paths.ptr,
            "path_node": paths.node,
            "path_branch": paths.branch,
            "node_arity": tree.arities,
            "node_width": node_width,
            "node_row": node_row,
            "node_scope": node_scope,
            "scope_level": level,
            "class_scope_ptr": class_scope_ptr,
            "class_scope": scope_of_node[paths.node[opens]],
            "edge_child": tree.child_idx,
            "edge_node": edge_node,
            "edge_row": edge_row,
            "class_leaf": class_leaf,
            "row_order": row_order,
            "row_scope": node_scope[row_node[row_order]],
            "depth_edges": np.argsort(child_depth, kind="stable"),
        }
        for name, array in buffers.items():
            tensor = torch.as_tensor(np.asarray(array, np.int64), device=device)
            self.register_buffer(name, tensor, persistent=False)
        self.num_nodes = tree.num_nodes
        self.num_rows = int(rows.sum())
