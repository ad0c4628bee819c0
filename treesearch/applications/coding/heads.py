"""Heads for labels of any depth: a hierarchical softmax on the taxonomy, and a flat one beside it.

Shapes: **B** batch, **C** classes, **D** features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from treesearch.applications.taxonomy.classifiers import Classifier, FlatClassifier, TreeClassifier
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.taxonomy import Taxonomy


class CodingHead(Classifier):
    """A classifier whose labels are those of `CodingTask`."""

    @abstractmethod
    def calibrated(self, label_B: Tensor) -> Iterator[tuple[list[Tensor], Tensor, int]]:
        """Rows of parameters that share a temperature, from the root down, and how many labels these rows decide on."""


class CodingTree(TreeClassifier, CodingHead):
    """A hierarchical softmax; a label at an inner node trains the decisions down to it."""

    def __init__(self, in_features: int, taxonomy: Taxonomy) -> None:
        self._label_loss = MultiLevelLoss(taxonomy)
        super().__init__(in_features, taxonomy, multi_level=self._label_loss, sparse=True)

    def nll(self, hidden_BD: Tensor, target_B: Tensor) -> Tensor:
        """See `Classifier`; labels are ids of `CodingTask`."""
        return self.layer.node_cross_entropy(hidden_BD, self._label_loss.node_targets(target_B))

    def calibrated(self, label_B: Tensor) -> Iterator[tuple[list[Tensor], Tensor, int]]:
        """The decisions of each depth of the tree."""
        tree = self.taxonomy.tree
        depth_R = torch.from_numpy(tree.node_depths[self.layer.layout.row_node].astype(np.int64))
        targets = self._label_loss.node_targets(label_B)
        depth_E = tree.node_depths[targets.node.numpy()]
        for depth in range(int(depth_R.max()) + 1):
            parameters = [self.layer.weights[0], self.layer.biases[0]]
            yield parameters, (depth_R == depth).nonzero()[:, 0], int((depth_E == depth).sum())


class CodingFlat(FlatClassifier, CodingHead):
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

    def calibrated(self, label_B: Tensor) -> Iterator[tuple[list[Tensor], Tensor, int]]:
        """All rows together."""
        yield [self.linear.weight, self.linear.bias], torch.arange(self.taxonomy.num_classes), label_B.numel()
