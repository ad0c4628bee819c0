"""Supervision at several levels of a taxonomy at once, with labels of any depth.

Shapes: **B** batch, **C** classes, **T** nodes of the taxonomy, **D** features, **E** decisions, **Q** their children.

The NLL of a node is the sum of the decisions above it, so losses at many levels are one pass down the path with a
weight for each decision: the sum of the weights of all losses that the decision is part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch import tree_kernels
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.node_targets import NodeTargets
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree

Weight = float | tuple[float, float]


class MultiLevelLoss:
    """A weighted sum of the NLLs of an example's label and of the nodes above it.

    Labels are ids of `label_ids`: a class, or a coarse label, *node n or anything below it*, whose NLL is that of its
    subtree. A level that lies below a label adds nothing for it. The mean is over the examples that have a label.

    A weight is a number >= 0, or a pair (at the start, at the end) between which it goes linearly with ``progress``.

    Args:
        taxonomy: Of the labels.
        label_weight: Of the NLL of the label itself.
        level_weights: By level, from 1, below the root: of the NLL of the label's ancestor there.
        node_weights: By name of a node: of the decision among its children, for labels below it. A node that has no
            decision of its own, since it has a single child, is refused.
        tree: Of the layer: the taxonomy's own, or one that refines it. None: its own.

    Raises:
        DataError: An unknown level or node, a negative weight, or nothing but zeros; or the tree lacks a node of the
            taxonomy.
    """

    IGNORED = -100

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        label_weight: Weight = 1.0,
        level_weights: Mapping[int, Weight] | None = None,
        node_weights: Mapping[str, Weight] | None = None,
        tree: Tree | None = None,
    ) -> None:
        self.taxonomy = taxonomy
        self.tree = taxonomy.tree if tree is None else tree
        node_T = taxonomy.nodes_in(self.tree)
        if (node_T < 0).any():
            name = taxonomy.names[int((node_T < 0).argmax())]
            raise DataError(f"the tree must have all nodes of the taxonomy, but {name!r:.60} is none of its; refine it")
        self._end = np.concatenate([self.tree.class_leaf, node_T])  # node of the tree at which each label's path ends
        depth_end = self.tree.node_depths[self._end]
        self._ptr = np.concatenate([[0], np.cumsum(depth_end)]).astype(np.int64)
        branch = tree_kernels.branch_index(self.tree.child_ptr, self.tree.child_idx)
        self._node, self._branch = tree_kernels.fill_paths(self.tree.parent, branch, self._end, self._ptr)
        label_P = np.repeat(np.arange(self._end.size), depth_end)
        depth_P = np.arange(self._node.size) - self._ptr[label_P]
        start_P, change_P = np.zeros((2, self._node.size))

        def add(weight: Weight, chosen_P: NDArray[np.bool_]) -> None:
            start, end = _checked(weight)
            start_P[chosen_P] += start
            change_P[chosen_P] += end - start

        add(label_weight, np.ones(self._node.size, np.bool_))
        above = np.concatenate([taxonomy.class_node, np.arange(taxonomy.num_nodes, dtype=np.int32)])
        for level, weight in (level_weights or {}).items():
            if type(level) is not int or not 1 <= level <= taxonomy.num_levels:
                raise DataError(f"levels must be whole numbers in [1, {taxonomy.num_levels}], but got {level!r:.40}")
            ends_at = taxonomy.node_ancestors(level)[above]
            depth = np.where(ends_at >= 0, self.tree.node_depths[node_T[ends_at]], 0)
            add(weight, depth_P < depth[label_P])
        for name, weight in (node_weights or {}).items():
            own = taxonomy.node(name)
            level = int(taxonomy.depth[own])
            below = taxonomy.node_ancestors(level + 1)[above]
            inside = taxonomy.node_ancestors(level)[above] == own
            # A class at the node itself ends in a leaf of its own, a label of the node above all of its decisions.
            until = np.where(below >= 0, self.tree.node_depths[node_T[below]], depth_end)
            chosen_P = inside[label_P] & (depth_P >= self.tree.node_depths[node_T[own]]) & (depth_P < until[label_P])
            if not chosen_P.any():
                raise DataError(f"node_weights need a node with a decision of its own, but {name!r:.60} has none")
            add(weight, chosen_P)
        if not (start_P.any() or change_P.any()) and self._node.size:
            raise DataError("at least one weight must be > 0, but all are 0")
        self._start, self._change = start_P.astype(np.float32), change_P.astype(np.float32)

    def label_ids(self, names: Sequence[str | None]) -> Tensor:
        """Labels of examples, int64 [B]: classes have ids below C, nodes that are no class C + their number.

        None is no label, and ignored. A name that is a class means the class; for the subtree below a class at an
        inner node give C + ``taxonomy.node(name)`` yourself.

        Raises:
            DataError: A name is no node of the taxonomy.
        """
        num_classes, class_at = self.taxonomy.num_classes, self.taxonomy.class_at
        ids: dict[str | None, int] = {None: self.IGNORED}
        for name in dict.fromkeys(names):
            if name is not None:
                node = self.taxonomy.node(name)
                ids[name] = int(class_at[node]) if class_at[node] >= 0 else num_classes + node
        return torch.tensor([ids[name] for name in names], dtype=torch.int64)

    def node_targets(self, label: Tensor, *, progress: float = 0.0) -> NodeTargets:
        """The decisions of each label's path, the weight of each as the mass of the child taken.

        Args:
            label: int64 [B]; `IGNORED` for none.
            progress: Of the training, from 0 to 1, for weights that change.

        Raises:
            DataError: A label is neither a class nor a node, or ``progress`` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise DataError(f"progress must lie in [0, 1], but got {progress}")
        if label.dim() != 1 or label.is_floating_point() or label.dtype == torch.bool:
            raise DataError(f"labels must be integer ids [B], but got {label.dtype} {tuple(label.shape)}")
        label_B = label.detach().cpu().numpy().astype(np.int64)
        known = label_B != self.IGNORED
        wrong = known & ((label_B < 0) | (label_B >= self._end.size))
        if wrong.any():
            raise DataError(
                f"labels must be classes in [0, {self.taxonomy.num_classes}), {self.taxonomy.num_classes} + a node of"
                f" the taxonomy below {self.taxonomy.num_nodes}, or {self.IGNORED}, but one is {label_B[wrong][0]}"
            )
        of_B = np.where(known, label_B, 0)
        length_B = np.where(known, self._ptr[of_B + 1] - self._ptr[of_B], 0)
        row_E = np.repeat(np.arange(label_B.size), length_B)
        entry_E = np.arange(row_E.size) - np.repeat(np.cumsum(length_B) - length_B - self._ptr[of_B], length_B)
        node_E = self._node[entry_E].astype(np.int64)
        ptr = np.concatenate([[0], np.cumsum(self.tree.arities[node_E], dtype=np.int64)])
        mass_Q = np.zeros(ptr[-1], np.float32)
        mass_Q[ptr[:-1] + self._branch[entry_E]] = self._start[entry_E] + progress * self._change[entry_E]
        row, node, starts, mass = map(torch.from_numpy, (row_E, node_E, ptr, mass_Q))
        return NodeTargets(row, node, starts, mass, label_B.size).to(label.device)

    def __call__(self, layer: HierarchicalSoftmax, input: Tensor, label: Tensor, *, progress: float = 0.0) -> Tensor:
        """Mean loss in nats over the examples with a label; 0 without any.

        Args:
            layer: Over the tree.
            input: [B, D].
            label: int64 [B] of `label_ids`.
            progress: As in `node_targets`.

        Raises:
            DataError: As there, or shapes do not fit, or the layer is over another tree.
        """
        if layer.tree != self.tree:
            raise DataError("the layer must be over the tree of the loss, but is over another; pass tree=layer.tree")
        loss_B = layer.node_cross_entropy(input, self.node_targets(label, progress=progress))
        return loss_B.sum() / (label != self.IGNORED).sum().clamp(min=1)


def _checked(weight: Weight) -> tuple[float, float]:
    ends = weight if isinstance(weight, tuple | list) else (weight, weight)
    if len(ends) != 2 or not all(isinstance(end, int | float) and np.isfinite(end) and end >= 0 for end in ends):
        raise DataError(f"a weight must be a number >= 0, or a pair (start, end) of such, but got {weight!r:.60}")
    return float(ends[0]), float(ends[1])
