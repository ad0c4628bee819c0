"""`NodeProbs`: the probabilities of all nodes of a tree, whatever model they are from.

Shapes: **B** batch, **C** classes, **D** features, **M** nodes in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.metrics.base import check_log_prob
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.tree_sums import log_sums_up, sums_down
from treesearch.tree import Tree

ROUNDING = 1e-3  # probabilities of all classes may sum to so much more or less than 1


@dataclass(frozen=True, eq=False)
class NodeProbs:
    """P(node) and P(node | parent) for a batch, float64 on the CPU; both are 1 at the root, node 0.

    The probability of a node is that of its classes together. A flat softmax has such probabilities on any tree just as
    a hierarchical one: every policy and calibration works on both. All nodes of all examples are held: pass large
    vocabularies in parts.

    Do not call the constructor; `of_layer`, `of_log_prob` and `of_conditional` check what they are given.
    """

    tree: Tree
    log_conditional: Tensor  # [B, M] log P(node | parent), nats

    @classmethod
    def of_layer(cls, layer: HierarchicalSoftmax, input: Tensor) -> NodeProbs:
        """Those of a layer.

        Args:
            layer: Over C classes.
            input: [B, D].

        Raises:
            DataError: The input does not fit.
        """
        with torch.no_grad():
            return cls.of_log_prob(layer.tree, layer.log_prob(input))

    @classmethod
    def of_log_prob(cls, tree: Tree, log_prob: Tensor) -> NodeProbs:
        """Those of any model's log-probabilities of the classes, which are summed up the tree.

        Below a node whose probability is 0 nothing is known: its children share 1 equally.

        Args:
            tree: Over C classes.
            log_prob: [B, C], nats; each row's probabilities sum to 1.

        Raises:
            DataError: Shapes do not fit, or a row holds no probabilities of all classes.
        """
        log_prob_BC = check_log_prob(log_prob, tree.num_classes).cpu().double()
        total_B = log_prob_BC.logsumexp(1)
        if total_B.numel() and not float(total_B.abs().max()) <= ROUNDING:
            worst = int(total_B.abs().nan_to_num(nan=torch.inf).argmax())
            raise DataError(
                f"probabilities of a row must sum to 1, but those of row {worst} sum to"
                f" {float(total_B[worst].exp()):g}; use log_softmax on logits"
            )
        log_MB = log_prob_BC.new_empty(tree.num_nodes, log_prob_BC.shape[0])
        log_MB[torch.from_numpy(tree.class_leaf.astype(np.int64))] = (log_prob_BC - total_B[:, None]).T
        log_sums_up(tree.parent, tree.num_internal, log_MB.numpy())
        parent_M = np.maximum(tree.parent, 0)
        above_MB = log_MB[torch.from_numpy(parent_M.astype(np.int64))]
        arity_M = tree.arities[parent_M] if tree.num_internal else np.ones(1, np.int32)
        even_M1 = -torch.from_numpy(arity_M).double().log()[:, None]
        log_conditional_BM = torch.where(above_MB == -torch.inf, even_M1, log_MB - above_MB).T.contiguous()
        log_conditional_BM[:, 0] = 0
        return cls(tree, log_conditional_BM.clamp(max=0))

    @classmethod
    def of_conditional(cls, tree: Tree, log_conditional: Tensor) -> NodeProbs:
        """Those of decisions: what each node's decision gives its children.

        Args:
            tree: Of M nodes.
            log_conditional: [B, M], nats; those of a node's children sum to 1 (as probabilities), the root's is 0.

        Raises:
            DataError: Shapes do not fit, or the children of a node do not share 1.
        """
        if not isinstance(log_conditional, Tensor) or log_conditional.dim() != 2:
            raise DataError("log_conditional must be a tensor [B, M]")
        if log_conditional.shape[1] != tree.num_nodes:
            raise DataError(
                f"log_conditional must have one column per node, {tree.num_nodes}, but has {log_conditional.shape[1]}"
            )
        log_conditional_BM = log_conditional.detach().cpu().double()
        shares_MB = log_conditional_BM.exp().T
        total_NB = shares_MB.new_zeros(tree.num_internal, shares_MB.shape[1])
        total_NB.index_add_(0, torch.from_numpy(tree.parent[1:].astype(np.int64)), shares_MB[1:])
        worst = float((total_NB - 1).abs().max()) if total_NB.numel() else 0.0
        if not worst <= ROUNDING or not bool((log_conditional_BM[:, 0] == 0).all()):
            raise DataError(f"the children of every node must share 1, but the shares of one are off by {worst:g}")
        return cls(tree, log_conditional_BM)

    def __len__(self) -> int:
        return int(self.log_conditional.shape[0])

    def __getitem__(self, rows: slice | Tensor) -> NodeProbs:
        """Those of some examples."""
        return NodeProbs(self.tree, self.log_conditional[rows])

    @cached_property
    def log_prob(self) -> Tensor:
        """Log P(node), [B, M], nats."""
        return sums_down(self.tree, np.ones(self.tree.num_nodes), self.log_conditional.T.contiguous()).T.contiguous()

    @cached_property
    def prob(self) -> Tensor:
        """P(node), [B, M]."""
        return self.log_prob.exp()

    @cached_property
    def conditional(self) -> Tensor:
        """P(node | parent), [B, M]."""
        return self.log_conditional.exp()

    @cached_property
    def class_log_prob(self) -> Tensor:
        """Log-probabilities of the classes, [B, C], nats."""
        return self.log_prob[:, torch.from_numpy(self.tree.class_leaf.astype(np.int64))]

    @cached_property
    def best_leaf(self) -> Tensor:
        """The leaf of the most probable class, int64 [B]; of equals that of the first."""
        return torch.from_numpy(self.tree.class_leaf.astype(np.int64))[self.class_log_prob.argmax(1)]
