"""Cascades: go down a tree as long as it is safe, and answer at the deepest safe node.

Shapes: **B** batch, **C** classes, **M** nodes in all.

With thresholds t = c_fp / (c_fp + c_fn) of `NodeCosts`:

- Each step on the *conditional* probability, P(n | parent) > t(n), is the Bayes rule of that step where a wrong turn is
  paid once: to go costs (1 - p) c_fp, to stop p c_fn. It looks one step ahead: what lies further down is not weighed.
- On the *marginal* probability, P(n) > t(n), where every wrong node is paid: the cost is then a sum of one binary
  decision a node, and the rule is the exact optimum where thresholds do not fall on the way down and are >= 1/2 (nodes
  worth entering then form one path from the root).

Elsewhere `minimise_expected_cost` is exact. All of them are optimal for calibrated probabilities only.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from treesearch.decisions import cascade_kernels
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError
from treesearch.metrics.base import check_log_prob, check_whole
from treesearch.tree import Tree

Probability = Literal["conditional", "marginal"]


def cascade(
    probs: NodeProbs,
    thresholds: NodeCosts | Tensor | float,
    *,
    probability: Probability = "conditional",
    flag_below_level: int = 0,
) -> Tensor:
    """The deepest safe node of each example, int64 [B]; 0, the root, is a flag.

    From the root, go down to the child whose probability exceeds its threshold, the likelier where several do (of
    equals that of the smaller id), until none does.

    Args:
        probs: Of B examples.
        thresholds: Costs; or thresholds in [0, 1], one per node [M] (the root's is not used) or one for all.
        probability: Compared are P(node | parent), or P(node).
        flag_below_level: Answers at inner nodes above this depth become flags. A class is never too shallow.

    Raises:
        DataError: Thresholds are outside [0, 1] or not one per node, costs are of another tree, or a setting is
            unknown.
    """
    if probability not in get_args(Probability):
        raise DataError(f"probability must be 'conditional' or 'marginal', but got {probability!r:.40}")
    threshold_M = _thresholds(probs.tree, thresholds)
    score_BM = probs.conditional if probability == "conditional" else probs.prob
    return flag_shallow(
        probs.tree, descend(probs.tree, score_BM, threshold_M), flag_below_level, name="flag_below_level"
    )


def flat_threshold(probs: NodeProbs | Tensor, threshold: float, *, tree: Tree | None = None) -> Tensor:
    """The rival without a tree: the leaf of the most probable class if its probability exceeds the threshold, else 0.

    Args:
        probs: Of B examples, or log-probabilities of the classes [B, C].
        threshold: In [0, 1].
        tree: Whose leaves are returned; needed for log-probabilities alone.

    Returns:
        Nodes int64 [B]; of equally probable classes the first.

    Raises:
        DataError: The threshold is outside [0, 1], or there is no tree.
    """
    if isinstance(probs, NodeProbs):
        class_log_prob_BC, tree = probs.class_log_prob, probs.tree
    elif tree is None:
        raise DataError("log-probabilities of classes need the tree whose leaves are meant; pass tree= or NodeProbs")
    else:
        class_log_prob_BC = check_log_prob(probs, tree.num_classes).cpu().double()
    limit = float(_thresholds(tree, threshold)[0])
    best_B = class_log_prob_BC.max(1)
    leaf_C = torch.from_numpy(tree.class_leaf.astype(np.int64))
    return torch.where(best_B.values.exp() > limit, leaf_C[best_B.indices], 0)


def descend(tree: Tree, score_BM: Tensor, threshold_M: Tensor) -> Tensor:
    """The nodes where a walk to the best child above its threshold ends, int64 [B]; arguments are not checked."""
    score = score_BM.contiguous().numpy()
    return torch.from_numpy(cascade_kernels.descend(score, threshold_M.numpy(), tree.child_ptr, tree.child_idx))


def flag_shallow(tree: Tree, node_B: Tensor, level: int, *, name: str) -> Tensor:
    """The nodes, with 0 for inner nodes above a depth.

    Raises:
        DataError: The tree is not so deep.
    """
    check_whole(name, level, 0, max(tree.max_depth, 1))  # a tree of one class has the level of classes too
    shallow_M = tree.node_depths < level
    shallow_M[tree.num_internal :] = False
    return torch.where(torch.from_numpy(shallow_M)[node_B], 0, node_B)


def check_tree(probs: NodeProbs, tree: Tree, what: str) -> None:
    """Check that probabilities are of a tree.

    Raises:
        DataError: They are of another.
    """
    if probs.tree != tree:
        raise DataError(f"the probabilities must be of the tree of the {what}, {tree!r}, but are of {probs.tree!r}")


def _thresholds(tree: Tree, thresholds: NodeCosts | Tensor | Any) -> Tensor:
    if isinstance(thresholds, NodeCosts):
        if thresholds.tree != tree:
            raise DataError(f"the costs must be of the tree of the probabilities, {tree!r}, but are {thresholds!r}")
        return thresholds.thresholds
    try:
        threshold_M = torch.as_tensor(thresholds).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"thresholds must be numbers or NodeCosts, but got {type(thresholds).__name__}") from None
    if threshold_M.dim() == 0:
        threshold_M = threshold_M.expand(tree.num_nodes)
    if threshold_M.shape != (tree.num_nodes,):
        raise DataError(
            f"thresholds must be one for all or one per node, {tree.num_nodes}, but got {tuple(threshold_M.shape)}"
        )
    bad = (~((threshold_M >= 0) & (threshold_M <= 1))).nonzero()
    if bad.numel():
        node = int(bad[0])
        raise DataError(f"thresholds must lie in [0, 1], but node {node} has {float(threshold_M[node]):g}")
    return threshold_M.contiguous()
