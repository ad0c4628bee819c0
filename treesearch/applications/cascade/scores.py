"""`Scores`: what a classifier says of the documents of a split; `Known`: with what is true of them.

Shapes: **B** documents, **C** classes, **M** nodes in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from treesearch.applications.cascade.task import ROOT_NODE, CascadeTask
from treesearch.decisions.node_probs import NodeProbs

ALMOST_ONE = 1 - 1e-12  # a probability of 1 to be out of scope would leave nothing known of the rest


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities of all nodes, one of which stands for documents out of scope."""

    probs: NodeProbs
    out_of_scope_leaf: int | None  # right under the root; None: there are no such documents
    is_trained: bool  # whether the classifier has learned it; else its probability is 0

    @classmethod
    def of(cls, task: CascadeTask, log_prob: Tensor) -> Scores:
        """Log-probabilities of the classes that were trained, [B, C], as scores."""
        probs = NodeProbs.of_log_prob(task.tree, task.all_classes(log_prob))
        return cls(probs, task.out_of_scope_leaf, task.is_trained)

    def __len__(self) -> int:
        return len(self.probs)

    def __getitem__(self, rows: Tensor) -> Scores:
        """Those of some documents."""
        return replace(self, probs=self.probs[rows])

    @cached_property
    def root_probability(self) -> Tensor:
        """Of a document to be out of scope, [B]."""
        if self.out_of_scope_leaf is None:
            return torch.zeros(len(self), dtype=torch.float64)
        return self.probs.prob[:, self.out_of_scope_leaf]

    @cached_property
    def in_scope(self) -> NodeProbs:
        """The probabilities given that the document is in scope."""
        return self.with_root_probability(torch.zeros(len(self), dtype=torch.float64)).probs

    def with_root_probability(self, outside_B: Tensor) -> Scores:
        """The same but for the probability of being out of scope, which the others make room for."""
        if self.out_of_scope_leaf is None:
            return self
        log_conditional_BM = self.probs.log_conditional.clone()
        top_n = self.top_nodes
        outside_B = outside_B.clamp(max=ALMOST_ONE)
        log_conditional_BM[:, self.out_of_scope_leaf] = -torch.inf
        inside_Bn = log_conditional_BM[:, top_n].log_softmax(1) + torch.log1p(-outside_B)[:, None]
        log_conditional_BM[:, top_n] = inside_Bn
        log_conditional_BM[:, self.out_of_scope_leaf] = outside_B.log()
        return replace(self, probs=NodeProbs.of_conditional(self.probs.tree, log_conditional_BM))

    @property
    def top_nodes(self) -> Tensor:
        """The children of the root."""
        return torch.from_numpy(self.probs.tree.children(ROOT_NODE).astype(np.int64))

    def flagged(self, node_B: Tensor) -> Tensor:
        """The nodes, with the root for the leaf that stands for documents out of scope: both are a flag."""
        if self.out_of_scope_leaf is None:
            return node_B
        return torch.where(node_B == self.out_of_scope_leaf, ROOT_NODE, node_B)


@dataclass(frozen=True, eq=False)
class Known:
    """Scores of documents whose true nodes are known, and what each document counts."""

    scores: Scores
    truth: Tensor  # int64 [B], the root where out of scope
    weight: Tensor  # float64 [B]

    @classmethod
    def of(cls, scores: Scores, truth: Tensor, *, out_of_scope_share: float | None = None) -> Known:
        """Equal weights, or such that documents out of scope have a share."""
        weight_B = torch.ones(len(scores), dtype=torch.float64)
        outside_B = truth == ROOT_NODE
        if out_of_scope_share is not None and 0 < outside_B.sum() < len(outside_B):
            weight_B[outside_B] = out_of_scope_share / outside_B.double().mean()
            weight_B[~outside_B] = (1 - out_of_scope_share) / (~outside_B).double().mean()
        return cls(scores, truth, weight_B)

    def __getitem__(self, rows: Tensor) -> Known:
        """Those of some documents."""
        return Known(self.scores[rows], self.truth[rows], self.weight[rows])

    @property
    def learned(self) -> Tensor:
        """The true nodes as the classifier has learned them: the leaf for documents out of scope, if it is trained."""
        leaf = self.scores.out_of_scope_leaf
        if leaf is None or not self.scores.is_trained:
            return self.truth
        return torch.where(self.truth == ROOT_NODE, leaf, self.truth)

    def mean(self, cost_B: Tensor) -> float:
        """The weighted mean of one number per document."""
        return float((self.weight * cost_B).sum() / self.weight.sum())
