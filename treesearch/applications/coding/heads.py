"""Heads for labels of any depth: a hierarchical softmax on the taxonomy, and a flat one beside it.

Shapes: **B** batch, **C** classes, **D** features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from treesearch.applications.taxonomy.classifiers import FlatClassifier, TreeClassifier
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.taxonomy import Taxonomy


class CodingTree(TreeClassifier):
    """A hierarchical softmax; a label at an inner node trains the decisions down to it."""

    def __init__(self, in_features: int, taxonomy: Taxonomy, *, level_weight: float = 0.0) -> None:
        levels = range(1, taxonomy.num_levels) if level_weight else ()
        loss = MultiLevelLoss(taxonomy, level_weights=dict.fromkeys(levels, level_weight))
        super().__init__(in_features, taxonomy, multi_level=loss, sparse=True)
        self._label_loss = MultiLevelLoss(taxonomy)

    def nll(self, hidden_BD: Tensor, target_B: Tensor) -> Tensor:
        """See `Classifier`; labels are ids of `CodingTask`."""
        return self.layer.node_cross_entropy(hidden_BD, self._label_loss.node_targets(target_B))


class CodingFlat(FlatClassifier):
    """One softmax over the codes; the probability of a label at an inner node is that of the codes below it."""

    def __init__(self, in_features: int, taxonomy: Taxonomy) -> None:
        super().__init__(in_features, taxonomy)
        tree = taxonomy.tree
        first_M, count_M = tree.leaf_intervals
        end_M = first_M + count_M
        node_L = np.concatenate([tree.class_leaf, taxonomy.tree_node])  # of each label
        place_C = first_M[tree.class_leaf]
        self._first, self._end, self._place = (
            torch.from_numpy(values.astype(np.int64)) for values in (first_M[node_L], end_M[node_L], place_C)
        )

    def nll(self, hidden_BD: Tensor, target_B: Tensor) -> Tensor:
        """See `Classifier`; labels are ids of `CodingTask`."""
        logits_BC = self.linear(hidden_BD)
        inside_BC = (self._place >= self._first[target_B, None]) & (self._place < self._end[target_B, None])
        below_B = logits_BC.masked_fill(~inside_BC, -torch.inf).logsumexp(1)
        nll_B: Tensor = logits_BC.logsumexp(1) - below_B
        return nll_B

    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """The mean of `nll`."""
        return self.nll(hidden_BD, target_B).mean()
