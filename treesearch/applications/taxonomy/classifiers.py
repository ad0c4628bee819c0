"""Five ways to train a classifier whose labels have a taxonomy, behind one interface.

Shapes: **B** batch, **C** classes, **D** features, **L** levels of the taxonomy below the root.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from treesearch.metrics import class_levels
from treesearch.objectives.distillation import distillation_loss
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.objectives.separate_heads import SeparateHeads
from treesearch.objectives.smoothing import HierarchicalSmoothing
from treesearch.softmax import HierarchicalSoftmax
from treesearch.taxonomy import Taxonomy


@dataclass(frozen=True)
class ObjectiveSettings:
    """Strengths of what the classifiers add to their loss."""

    smoothing: float = 0.1
    beta: float = 1.0  # per edge
    level_weight: float = 1.0  # of the NLL of each level above the classes
    penalty: float = 1.0  # of heads that disagree


class Classifier(nn.Module, ABC):
    """From features to the classes of a taxonomy."""

    @abstractmethod
    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """What training minimises, a scalar in nats, for documents with these features, classes and words."""

    @abstractmethod
    def log_prob(self, hidden_BD: Tensor) -> Tensor:
        """Log-probabilities of the classes, [B, C]."""

    def nll(self, hidden_BD: Tensor, target_B: Tensor) -> Tensor:
        """Negative log-likelihood of each label, [B], nats: what epochs are compared by."""
        return nn.functional.nll_loss(self.log_prob(hidden_BD), target_B, reduction="none")

    def row_sparse_parameters(self) -> list[Tensor]:
        """Parameters whose gradients hold the rows that a batch has used; none by default."""
        return []

    @abstractmethod
    def levels(self, hidden_BD: Tensor, predicted_B: Tensor) -> Tensor:
        """The predicted node of each level, int64 [B, L]; `Taxonomy.NO_NODE` where the predicted path has ended."""


class FlatClassifier(Classifier):
    """One softmax over the classes, with or without hierarchical smoothing; levels are those above the best class."""

    def __init__(self, in_features: int, taxonomy: Taxonomy, *, smoothing: HierarchicalSmoothing | None = None) -> None:
        super().__init__()
        self.taxonomy, self._smoothing = taxonomy, smoothing
        self.linear = nn.Linear(in_features, taxonomy.num_classes)

    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """Cross-entropy."""
        logits_BC = self.linear(hidden_BD)
        if self._smoothing is None:
            return nn.functional.cross_entropy(logits_BC, target_B)
        return self._smoothing.flat_loss(logits_BC, target_B)

    def log_prob(self, hidden_BD: Tensor) -> Tensor:
        """See `Classifier`."""
        scores: Tensor = self.linear(hidden_BD).log_softmax(-1)
        return scores

    def levels(self, hidden_BD: Tensor, predicted_B: Tensor) -> Tensor:
        """See `Classifier`."""
        return class_levels(predicted_B, self.taxonomy)


class TreeClassifier(Classifier):
    """A hierarchical softmax on the taxonomy's tree, supervised at the classes alone or at all levels."""

    def __init__(
        self, in_features: int, taxonomy: Taxonomy, *, multi_level: MultiLevelLoss | None = None, sparse: bool = False
    ) -> None:
        super().__init__()
        self.taxonomy, self._multi_level = taxonomy, multi_level
        self.layer = HierarchicalSoftmax(in_features, taxonomy.tree, sparse=sparse)

    def row_sparse_parameters(self) -> list[Tensor]:
        """Those of a sparse layer."""
        return list(self.layer.parameters()) if self.layer.sparse else []

    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """Negative log-likelihood, of the classes or of all levels."""
        if self._multi_level is None:
            return self.layer(hidden_BD, target_B).loss
        return self._multi_level(self.layer, hidden_BD, target_B)

    def log_prob(self, hidden_BD: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.layer.log_prob(hidden_BD)

    def levels(self, hidden_BD: Tensor, predicted_B: Tensor) -> Tensor:
        """See `Classifier`."""
        return class_levels(predicted_B, self.taxonomy)


class DistilledClassifier(TreeClassifier):
    """A hierarchical softmax that learns the probabilities of a trained classifier beside the classes."""

    def __init__(
        self, in_features: int, taxonomy: Taxonomy, *, teacher: Callable[[Tensor], Tensor], hard_weight: float = 0.5
    ) -> None:
        super().__init__(in_features, taxonomy)
        self._teacher, self._hard_weight = teacher, hard_weight

    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """See `distillation_loss`; the teacher, from words to log-probabilities [B, C], reads all of them."""
        with torch.no_grad():
            teacher_BC = self._teacher(ids_Bn).exp()
        return distillation_loss(self.layer, hidden_BD, teacher_BC, target=target_B, hard_weight=self._hard_weight)


class HeadsClassifier(Classifier):
    """A softmax of its own for each level, and a penalty where they disagree."""

    def __init__(self, in_features: int, taxonomy: Taxonomy, *, penalty: float) -> None:
        super().__init__()
        self.heads = SeparateHeads(in_features, taxonomy, penalty=penalty)

    def loss(self, hidden_BD: Tensor, target_B: Tensor, ids_Bn: Tensor) -> Tensor:
        """Cross-entropies of all levels and the penalty."""
        return self.heads(hidden_BD, target_B).loss

    def log_prob(self, hidden_BD: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.heads.class_log_prob(hidden_BD)

    def levels(self, hidden_BD: Tensor, predicted_B: Tensor) -> Tensor:
        """The best node of each head, whatever the others say."""
        return self.heads.predict(hidden_BD)


Maker = Callable[[int, Taxonomy, ObjectiveSettings], Classifier]


def _with_smoothing(taxonomy: Taxonomy, settings: ObjectiveSettings) -> HierarchicalSmoothing:
    return HierarchicalSmoothing(taxonomy.tree, smoothing=settings.smoothing, beta=settings.beta)


def _all_levels(taxonomy: Taxonomy, settings: ObjectiveSettings) -> MultiLevelLoss:
    return MultiLevelLoss(taxonomy, level_weights=dict.fromkeys(range(1, taxonomy.num_levels), settings.level_weight))


FLAT = "flat"
CLASSIFIERS: dict[str, Maker] = {
    FLAT: lambda features, taxonomy, own: FlatClassifier(features, taxonomy),
    "flat + smoothing": lambda features, taxonomy, own: FlatClassifier(
        features, taxonomy, smoothing=_with_smoothing(taxonomy, own)
    ),
    "hs": lambda features, taxonomy, own: TreeClassifier(features, taxonomy),
    "hs + multi-level": lambda features, taxonomy, own: TreeClassifier(
        features, taxonomy, multi_level=_all_levels(taxonomy, own)
    ),
    "separate heads + penalty": lambda features, taxonomy, own: HeadsClassifier(
        features, taxonomy, penalty=own.penalty
    ),
}


@torch.no_grad()
def reset(classifier: Classifier, generator: torch.Generator) -> None:
    """Draw all weights as `nn.Linear` does and set biases to zero, in one order from one generator."""
    for parameter in classifier.parameters():
        if parameter.dim() < 2:
            parameter.zero_()
        else:
            bound = 1 / np.sqrt(parameter.shape[1])
            parameter.uniform_(-bound, bound, generator=generator)
