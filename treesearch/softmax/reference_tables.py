"""What the reference kernel wants to know of a tree, as index tensors on one device.

Shapes: **C** classes, **N** internal nodes, **M** all nodes, **P** path entries of all classes, **S** scopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treesearch.paths import class_paths
from treesearch.softmax.layout import SoftmaxLayout


@dataclass(frozen=True, eq=False)
class Tables:
    """Index tensors of one tree on one device, all int64."""

    layout: SoftmaxLayout
    path_ptr: Tensor  # [C+1]
    path_node: Tensor  # [P]
    path_branch: Tensor  # [P]
    node_arity: Tensor  # [N]
    node_width: Tensor  # [N]
    node_row: Tensor  # [N]
    node_scope: Tensor  # [N]
    scope_level: Tensor  # [S]
    scope_parent: Tensor  # [S] scope above, NO_SCOPE for the raw input
    class_scope_ptr: Tensor  # [C+1]
    class_scope: Tensor  # [sum of scopes per class] root first
    edge_child: Tensor  # [M-1] child at the end of each edge, edges grouped by node
    edge_node: Tensor  # [M-1] node at the start of each edge
    edge_row: Tensor  # [M-1] row of the edge's logit, widths one after another (a binary node's two edges share it)
    class_leaf: Tensor  # [C]
    depth_edges: Tensor  # [M-1] edges by depth of their child
    edges_per_depth: tuple[int, ...]

    @classmethod
    def of(cls, layout: SoftmaxLayout, device: torch.device | str | None = None) -> Tables:
        """Build the tables of a layout."""
        tree = layout.tree
        paths = class_paths(tree)
        opens = tree.projection_dim[paths.node] > 0
        opened_scope = layout.node_scope[paths.node[opens]]
        edge_node = np.repeat(np.arange(tree.num_internal), tree.arities)
        position = np.arange(edge_node.size) - tree.child_ptr[edge_node]
        child_depth = tree.node_depths[tree.child_idx]
        arrays = {
            "path_ptr": paths.ptr,
            "path_node": paths.node,
            "path_branch": paths.branch,
            "node_arity": tree.arities,
            "node_width": layout.node_width,
            "node_row": layout.node_row,
            "node_scope": layout.node_scope,
            "scope_level": layout.scope_level,
            "scope_parent": layout.scope_parent,
            "class_scope_ptr": np.concatenate([[0], np.cumsum(opens)])[paths.ptr],
            "class_scope": opened_scope,
            "edge_child": tree.child_idx,
            "edge_node": edge_node,
            "edge_row": layout.first_logit[edge_node] + np.where(tree.arities[edge_node] == 2, 0, position),
            "class_leaf": tree.class_leaf,
            "depth_edges": np.argsort(child_depth, kind="stable"),
        }
        tensors = {name: torch.as_tensor(np.asarray(array, np.int64), device=device) for name, array in arrays.items()}
        return cls(layout, **tensors, edges_per_depth=tuple(np.bincount(child_depth, minlength=1)[1:].tolist()))
