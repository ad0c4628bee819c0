"""The answer of least expected cost (Bayes risk), over all nodes.

Shapes: **A** actions, **B** batch, **C** classes, **M** nodes in all.

"Conditional risk minimisation", CRM: Karthik, Prabhu, Dokania and Gandhi 2021, "No Cost Likelihood Manipulation at Test
Time for Making Better Mistakes in Deep Networks" (there over classes; here inner nodes may be answered too, and the
truth may be out of scope). The expected cost of `NodeCosts` is a sum over the path of the answer, so that all M of an
example take O(M). With S = Σ c_fn(n) P(n) over all nodes, the cost of answering at the root:

    every:  cost(a) = S + Σ over the path of a of  c_fp(n) (1 - P(n))          - c_fn(n) P(n)
    once:   cost(a) = S + Σ over the path of a of  c_fp(n) (P(parent) - P(n))  - c_fn(n) P(n)

where P(n) is the probability that the truth is n or below. The wrong turn is at n if the truth is at the parent or
below it but not at n or below.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from treesearch.decisions.cascade import check_tree
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError
from treesearch.metrics.base import check_classes
from treesearch.softmax.tree_sums import sums_down


def minimise_expected_cost(
    probs: NodeProbs,
    costs: NodeCosts | Tensor,
    *,
    actions: Tensor | None = None,
    root_probability: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The action of least expected cost of each example, and that cost.

    Args:
        probs: Of B examples.
        costs: Costs of nodes; or any matrix [A, C], the cost of each action under each class, with one more column,
            [A, C + 1], for truths out of scope.
        actions: The nodes that may be answered, integers [A]; None for all M. They are the rows of a matrix.
        root_probability: [B] in [0, 1], the probability that the truth is the root, out of scope; the probabilities of
            the classes are scaled by the rest. None for 0.

    Returns:
        Nodes int64 [B], of equals the first of the actions (of all nodes the smallest id), and expected costs
        float64 [B].

    Raises:
        DataError: Shapes do not fit, costs are of another tree or not finite, actions are no nodes, or probabilities
            are none.
    """
    node_A = torch.arange(probs.tree.num_nodes)
    if actions is not None:
        node_A = check_classes(actions, probs.tree.num_nodes, "actions").cpu()
        if node_A.dim() != 1 or not node_A.numel():
            raise DataError(f"actions must be a list of at least one node, but got shape {tuple(node_A.shape)}")
    cost_BA = expected_costs(probs, costs, actions=node_A, root_probability=root_probability)
    best_B = cost_BA.min(1)
    return node_A[best_B.indices], best_B.values


def expected_costs(
    probs: NodeProbs, costs: NodeCosts | Tensor, *, actions: Tensor, root_probability: Tensor | None = None
) -> Tensor:
    """The expected cost of each action, float64 [B, A]; arguments and errors as in `minimise_expected_cost`."""
    outside_B = _root_probability(len(probs), root_probability)
    if isinstance(costs, NodeCosts):
        check_tree(probs, costs.tree, "costs")
        return _all_costs(probs, costs, outside_B)[:, actions]
    num_classes = probs.tree.num_classes
    widths = (num_classes + 1,) if root_probability is not None else (num_classes, num_classes + 1)
    if not isinstance(costs, Tensor) or costs.dim() != 2 or costs.shape[0] != len(actions):
        raise DataError(f"costs must be NodeCosts or a matrix with one row per action, {len(actions)}")
    if costs.shape[1] not in widths:
        raise DataError(
            f"costs must have a column per class and, where truths may be out of scope, one more, {num_classes} + 1,"
            f" but have {costs.shape[1]}"
        )
    cost_AC = costs.detach().to("cpu", torch.float64)
    if not bool(cost_AC.isfinite().all()):
        raise DataError("costs must be finite, but the matrix holds nan or inf")
    prob_BC = probs.class_log_prob.exp() * (1 - outside_B[:, None])
    inside_BA = prob_BC @ cost_AC[:, :num_classes].T
    if cost_AC.shape[1] == num_classes:
        return inside_BA
    return inside_BA + outside_B[:, None] * cost_AC[:, num_classes]


def _all_costs(probs: NodeProbs, costs: NodeCosts, outside_B: Tensor) -> Tensor:
    tree = probs.tree
    prob_MB = probs.prob.T * (1 - outside_B)
    prob_MB[0] = 1  # of any truth, out of scope or not
    missed_MB = costs.false_negative[:, None] * prob_MB
    if costs.charge == "once":
        parent_M = torch.from_numpy(np.maximum(tree.parent, 0).astype(np.int64))
        wrong_MB = prob_MB[parent_M] - prob_MB
    else:
        wrong_MB = 1 - prob_MB
    change_MB = costs.false_positive[:, None] * wrong_MB - missed_MB
    change_MB[0] = missed_MB.sum(0)  # the root's own costs are 0
    cost_MB = sums_down(tree, np.ones(tree.num_nodes), change_MB)
    return cost_MB.T.clamp(min=0)  # a difference of sums may round to just below


def _root_probability(num: int, given: Tensor | None) -> Tensor:
    if given is None:
        return torch.zeros(num, dtype=torch.float64)
    if not isinstance(given, Tensor) or given.shape != (num,):
        raise DataError(f"root_probability must be a tensor of one number per example, {num}")
    outside_B = given.detach().to("cpu", torch.float64)
    if not bool(((outside_B >= 0) & (outside_B <= 1)).all()):
        raise DataError("root_probability must lie in [0, 1]; it is the probability that a truth is out of scope")
    return outside_B
