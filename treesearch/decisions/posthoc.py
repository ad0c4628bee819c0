"""`PosthocTree`: the probabilities of any model over the classes, read as decisions on a tree.

Shapes: **B** batch, **C** classes, **E** decisions, **F** features, **M** nodes in all, **L** path length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from treesearch.decisions.branches import NO_NODE, PathBranches, best_others, children, parts, path_table
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError, TreeError
from treesearch.metrics.base import check_classes, check_log_prob
from treesearch.paths import Paths, class_paths
from treesearch.softmax import NodeLogProbs
from treesearch.softmax.checks import check_linear
from treesearch.tree import Tree

Model = Callable[[Tensor], Tensor]


class PosthocTree(nn.Module):
    """A model that knows no tree, seen on one: P(child | node) is the ratio of the sums of their classes.

    What a hierarchical layer decides, this only describes: the model never made these decisions. For `explain` it is
    what a layer is, so that both can be compared node by node.

    Args:
        model: An ``nn.Linear``, whose outputs are logits; or any callable that gives log-probabilities [B, C].
        tree: Over the C classes.

    Raises:
        TreeError: ``tree`` is none.
        DataError: The model is no callable, or a linear one of another number of outputs.
    """

    def __init__(self, model: Model, tree: Tree) -> None:
        super().__init__()
        if not isinstance(tree, Tree):
            raise TreeError(f"tree must be a Tree, but got {type(tree).__name__}; use Tree.load or Tree.from_nested")
        if not callable(model):
            raise DataError(f"model must give log-probabilities when called, but got {type(model).__name__}")
        if isinstance(model, nn.Linear):
            check_linear(model)
            if model.out_features != tree.num_classes:
                raise DataError(
                    f"the flat layer must have one output per class, {tree.num_classes}, but has {model.out_features}"
                )
        self.model = model
        self.tree = tree

    @property
    def num_classes(self) -> int:
        """C."""
        return self.tree.num_classes

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of the classes, [B, C], nats; differentiable as the model is.

        Raises:
            DataError: They are none, or not over C classes.
        """
        scores = self.model(input)
        if isinstance(self.model, nn.Linear):
            scores = scores.log_softmax(-1)
        check_log_prob(scores, self.num_classes)
        return scores

    @torch.no_grad()
    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each example, int64 [B]; of equals the first."""
        return self.log_prob(input).argmax(-1)

    def node_log_probs(self, input: Tensor, target: Tensor) -> NodeLogProbs:
        """Log-probability of each decision on the targets' paths, as `HierarchicalSoftmax` has it; no gradients.

        Args:
            input: [B, F].
            target: int64 [B].

        Raises:
            DataError: Shapes do not fit, or a target is no class.
        """
        found = self.path_branches(input, check_classes(target, self.num_classes), 1)
        missing = (0, self.tree.max_depth - found.node.shape[1])
        return NodeLogProbs(
            nn.functional.pad(found.log_prob, missing), nn.functional.pad(found.node, missing, value=NO_NODE)
        )

    @torch.no_grad()
    def path_branches(self, input: Tensor, target_B: Tensor, num_alternatives: int) -> PathBranches:
        """The decisions on the way to the targets; the model is run, and nodes are summed, in parts of the batch.

        Args:
            input: [B, F].
            target_B: int64 [B], in [0, C).
            num_alternatives: A >= 1.

        Raises:
            DataError: The model gives no probabilities.
        """
        tree = self.tree
        node_BL, branch_BL = path_table(tree, self._paths, target_B)
        found = PathBranches.empty(node_BL.shape[0], node_BL.shape[1], num_alternatives)
        found.node[:] = node_BL
        found.taken[:] = children(tree, node_BL, branch_BL)
        for rows in parts(np.full(len(target_B), 2 * tree.num_nodes)):
            conditional_bM = NodeProbs.of_log_prob(tree, self.log_prob(input[rows])).log_conditional
            row_E, depth_E = (found.node[rows] != NO_NODE).nonzero(as_tuple=True)
            arity_E = tree.arities[node_BL[rows][row_E, depth_E].numpy()] if row_E.numel() else np.zeros(0, np.int32)
            for arity in np.unique(arity_E).tolist():
                own = torch.from_numpy(np.flatnonzero(arity_E == arity))
                row_e, depth_e = row_E[own], depth_E[own]
                at_e = row_e + rows.start, depth_e
                taken_e = branch_BL[at_e]
                child_eK = children(tree, node_BL[at_e][:, None], torch.arange(arity)[None])
                log_prob_eK = conditional_bM[row_e[:, None], child_eK]
                value, branch = best_others(log_prob_eK, taken_e, num_alternatives)
                found.log_prob[at_e] = log_prob_eK.gather(1, taken_e[:, None]).squeeze(1)
                found.alternative[at_e] = children(tree, node_BL[at_e][:, None], branch)
                found.alternative_log_prob[at_e] = value
        return found

    def branch_logit(self, input: Tensor, taken_E: Tensor, rival_E: Tensor) -> Tensor:
        """Log P(taken) - log P(rival) of one decision for each example, [E], nats; differentiable.

        Args:
            input: [E, F].
            taken_E: int64 node ids.
            rival_E: int64 node ids.
        """
        log_prob_EC = self.log_prob(input)
        place_C, first_M, count_M = (torch.from_numpy(array).to(log_prob_EC.device) for array in self._intervals)

        def below(node_E: Tensor) -> Tensor:
            node = node_E.to(log_prob_EC.device)
            offset_EC = place_C - first_M[node][:, None]
            inside_EC = (offset_EC >= 0) & (offset_EC < count_M[node][:, None])
            return log_prob_EC.masked_fill(~inside_EC, -torch.inf).logsumexp(1)

        return below(taken_E) - below(rival_E)

    @cached_property
    def _paths(self) -> Paths:
        return class_paths(self.tree)

    @cached_property
    def _intervals(self) -> tuple[np.ndarray, ...]:
        """Places of the classes in the depth-first order, and the interval of places below each node."""
        first_M, count_M = (array.astype(np.int64) for array in self.tree.leaf_intervals)
        return first_M[self.tree.class_leaf], first_M, count_M
