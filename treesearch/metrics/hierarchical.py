"""How far wrong predictions are: precision and recall of ancestors, height of the lowest common ancestor.

Shapes: **B** batch, **L** levels below the root, **k** classes of a list.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from treesearch.metrics.accuracy import check_lists
from treesearch.metrics.base import Metric, check_whole, ratio
from treesearch.metrics.levels import Levels
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


class HierarchicalScores(NamedTuple):
    """What `HierarchicalF1` computes."""

    precision: float
    recall: float
    f1: float


class HierarchicalF1(Metric):
    """Precision, recall and F1 of sets of ancestors (Kiritchenko, Matwin & Famili 2005).

    The set of a class is its node and all nodes above it but the root. Micro-averaged: with P the set of the predicted
    class and T that of the target, precision = Σ|P ∩ T| / Σ|P|, recall = Σ|P ∩ T| / Σ|T| and
    F1 = 2 Σ|P ∩ T| / (Σ|P| + Σ|T|), sums over all examples. NaN where a denominator is 0: no example so far, or all
    of a class at the root.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
    """

    def __init__(self, hierarchy: Taxonomy | Tree | Levels) -> None:
        self.levels = Levels.of(hierarchy)
        super().__init__((self.levels.key,), {"common": (), "predicted": (), "target": ()})

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: Classes [B]; of lists [B, k] the first.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or an entry is no class.
        """
        levels = self.levels.on(target.device)
        class_Bk, target_B = check_lists(predicted, target, levels.num_classes, 1)
        predicted_B = class_Bk[:, 0]
        self._add(
            common=_common_depth(levels, predicted_B, target_B).sum(),
            predicted=levels.depth[levels.class_node[predicted_B]].sum(),
            target=levels.depth[levels.class_node[target_B]].sum(),
        )

    def compute(self) -> HierarchicalScores:
        """Precision, recall and F1."""
        common, predicted, target = (self._sums[name] for name in ("common", "predicted", "target"))
        return HierarchicalScores(
            ratio(common, predicted), ratio(common, target), ratio(2 * common, predicted + target)
        )


class Severity(NamedTuple):
    """What `MistakeSeverity` computes, heights in edges."""

    over_mistakes: float
    over_all: float
    over_lists: float
    mistakes: float  # share of the examples whose prediction is wrong


class MistakeSeverity(Metric):
    """Height of the lowest common ancestor of prediction and target (Bertinetto et al. 2020).

    The height of a node is the number of edges down to the deepest node below it; that of a right prediction is taken
    as 0. ``over_mistakes`` is the mean over wrong predictions alone, ``over_all`` that over all examples, and
    ``over_lists`` the mean over the first k classes of each list, right or not (their hierarchical distance of top-k).
    NaN where there is no example to take the mean of; ``over_mistakes`` therefore also if all are right.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
        k: The length of the lists; longer ones are cut.

    Raises:
        DataError: k is no whole number >= 1.
    """

    def __init__(self, hierarchy: Taxonomy | Tree | Levels, *, k: int = 1) -> None:
        self.levels = Levels.of(hierarchy)
        self.k = check_whole("k", k, 1)
        super().__init__((self.levels.key, k), {"num": (), "mistakes": (), "first": (), "lists": ()})

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: Classes [B], or [B, k] best first.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or an entry is no class.
        """
        levels = self.levels.on(target.device)
        class_Bk, target_B = check_lists(predicted, target, levels.num_classes, self.k)
        class_Bk = class_Bk[:, : self.k]
        wrong_Bk = class_Bk != target_B[:, None]
        common_Bk = _common_depth(levels, class_Bk, target_B[:, None])
        height_Bk = levels.heights[levels.path[common_Bk, target_B[:, None]]] * wrong_Bk
        self._add(num=len(target_B), mistakes=wrong_Bk[:, 0].sum(), first=height_Bk[:, 0].sum(), lists=height_Bk.sum())

    def compute(self) -> Severity:
        """The means, and the share of mistakes."""
        num, mistakes, first, lists = (self._sums[name] for name in ("num", "mistakes", "first", "lists"))
        return Severity(ratio(first, mistakes), ratio(first, num), ratio(lists, num * self.k), ratio(mistakes, num))


def _common_depth(levels: Levels, first: Tensor, second: Tensor) -> Tensor:
    """Depth of the lowest common ancestor of pairs of classes: paths agree down to it and nowhere below."""
    path, other = levels.path[1:, first], levels.path[1:, second]
    return ((path == other) & (path != Taxonomy.NO_NODE)).sum(0)
