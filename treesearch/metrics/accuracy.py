"""Accuracy at each level of a hierarchy: of predicted classes, of the k best, of the most probable nodes.

Shapes: **B** batch, **C** classes, **L** levels below the root, **k** classes of a list, **n** nodes of one level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.metrics.base import Metric, check_classes, check_log_prob, check_scores, check_whole, ratio
from treesearch.metrics.levels import Levels
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


class _LevelHits(Metric):
    """Hits at each level, over the examples whose target has a node there."""

    def __init__(self, hierarchy: Taxonomy | Tree | Levels, settings: tuple[object, ...] = ()) -> None:
        self.levels = Levels.of(hierarchy)
        shape = (self.levels.num_levels,)
        super().__init__((self.levels.key, *settings), {"hits": shape, "num": shape})

    def compute(self) -> list[float]:
        """Accuracy at levels 1 to L; NaN at a level at which no target so far has a node."""
        accuracies: list[float] = ratio(self._sums["hits"], self._sums["num"])
        return accuracies

    def at(self, level: int) -> float:
        """Accuracy at one level, 1 to L; NaN as in `compute`.

        Raises:
            DataError: The hierarchy has no such level.
        """
        return self.compute()[check_whole("level", level, 1, self.levels.num_levels) - 1]

    def _count(self, hit_LB: Tensor, known_LB: Tensor) -> None:
        self._add(hits=(hit_LB & known_LB).sum(1), num=known_LB.sum(1))


class LevelAccuracy(_LevelHits):
    """Accuracy at each level from predicted classes, or whether one of k is right there.

    A prediction is right at a level if its ancestor there (or itself) is the target's. Only examples whose target has a
    node at the level count; a prediction whose path ends above it is wrong. With k classes an example is a hit if any
    of them is right. `update_nodes` takes a node for each level instead, from any model.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
        k: The length of the lists; longer ones are cut.

    Raises:
        DataError: k is no whole number >= 1.
    """

    def __init__(self, hierarchy: Taxonomy | Tree | Levels, *, k: int = 1) -> None:
        self.k = check_whole("k", k, 1)
        super().__init__(hierarchy, (k,))

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
        path_LB = levels.path[1:, target_B]
        hit_LBk = levels.path[1:, class_Bk[:, : self.k]] == path_LB[:, :, None]
        self._count(hit_LBk.any(2), path_LB != Taxonomy.NO_NODE)

    def update_nodes(self, nodes: Tensor, target: Tensor) -> None:
        """Add a batch of predicted nodes, which need not be those of one path.

        Args:
            nodes: [B, L] a node for levels 1 to L, `Taxonomy.NO_NODE` (or a node of lesser depth) where the path ends.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or a target is no class.
        """
        levels = self.levels.on(target.device)
        target_B = check_classes(target, levels.num_classes)
        if nodes.shape != (*target.shape, levels.num_levels):
            raise DataError(
                f"nodes must have shape {(*target.shape, levels.num_levels)}, targets by levels, but got"
                f" {tuple(nodes.shape)}"
            )
        path_LB = levels.path[1:, target_B.reshape(-1)]
        self._count(path_LB == nodes.reshape(target.numel(), levels.num_levels).T, path_LB != Taxonomy.NO_NODE)


class MarginalAccuracy(_LevelHits):
    """Accuracy at each level of the most probable node there: the argmax of marginals.

    The probability of a node is the sum over the classes below it. The most probable node need not lie above the most
    probable class, so this may differ from `LevelAccuracy` either way. Where a class that ends above the level is more
    probable than each of its nodes, the prediction is that end, and wrong. The same examples count.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
    """

    def update(self, log_prob: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            log_prob: [B, C] log-probabilities of the classes, nats. Of all nodes [B, M] of a tree, those of the leaves
                are enough: ``log_prob_BM[:, tree.class_leaf]``.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or values are no log-probabilities or classes.
        """
        log_prob_BC, target_B = check_scores(log_prob, target, self.levels.num_classes)
        levels = self.levels.on(log_prob.device)
        path_LB = levels.path[1:, target_B]
        self._count(path_LB == _marginal_levels(log_prob_BC, levels).T, path_LB != Taxonomy.NO_NODE)


def class_levels(classes: Tensor, hierarchy: Taxonomy | Tree | Levels) -> Tensor:
    """The node of each class's path at levels 1 to L, int64 [B, L]; `Taxonomy.NO_NODE` below its end.

    Args:
        classes: [B], the predictions of a hierarchical softmax say: its levels are those of one path, always.
        hierarchy: A taxonomy, a tree (its own nodes), or levels.

    Raises:
        DataError: An entry is no class.
    """
    levels = Levels.of(hierarchy).on(classes.device)
    return levels.path[1:, check_classes(classes, levels.num_classes, "classes")].T


def marginal_levels(log_prob: Tensor, hierarchy: Taxonomy | Tree | Levels) -> Tensor:
    """The most probable outcome of each level 1 to L on its own, int64 [B, L]: a node of the level, or an end above it.

    An end is the node of its class, of lesser depth than the level. Of equals a node of the level comes first, and
    among those the smaller number; neighbouring levels need not be parent and child (`consistency_violations`).

    Args:
        log_prob: [B, C] log-probabilities of the classes, nats.
        hierarchy: A taxonomy, a tree (its own nodes), or levels.

    Raises:
        DataError: Values are no log-probabilities, or not of C classes.
    """
    levels = Levels.of(hierarchy)
    return _marginal_levels(check_log_prob(log_prob, levels.num_classes), levels.on(log_prob.device))


def _marginal_levels(log_prob_BC: Tensor, levels: Levels) -> Tensor:
    prob_BC = log_prob_BC.exp()
    best_end, end = prob_BC.new_full((len(prob_BC),), -1.0), levels.class_node.new_zeros(len(prob_BC))
    ends: list[tuple[Tensor, Tensor]] = []  # the best of the classes that end above each level
    for classes in levels.classes[:-1]:
        if classes.numel():
            best, place = prob_BC[:, classes].max(1)
            end = torch.where(best > best_end, levels.class_node[classes[place]], end)
            best_end = torch.maximum(best, best_end)
        ends.append((best_end, end))
    found: list[Tensor] = []
    for level, mass_Bn in levels.masses(prob_BC):
        best, place = mass_Bn.max(1)
        best_end, end = ends[level - 1]
        found.append(torch.where(best >= best_end, levels.nodes[level][place], end))
    return torch.stack(found[::-1], 1) if found else end.new_zeros(len(prob_BC), 0)


def check_lists(predicted: Tensor, target: Tensor, num_classes: int, k: int) -> tuple[Tensor, Tensor]:
    """Predicted classes as int64 [B, at least k] and targets as int64 [B].

    Raises:
        DataError: Shapes do not fit, a list is too short, or an entry is no class.
    """
    target_B, class_Bk = check_classes(target, num_classes), check_classes(predicted, num_classes, "predicted")
    if predicted.shape == target.shape:
        class_Bk = class_Bk[..., None]
    if class_Bk.shape[:-1] != target.shape or class_Bk.shape[-1] < k:
        raise DataError(
            f"predicted must have the shape {tuple(target.shape)} of target, and one more dimension of at least {k} for"
            f" lists of {k}, but got {tuple(predicted.shape)}"
        )
    return class_Bk.reshape(target.numel(), class_Bk.shape[-1]).to(target.device), target_B.reshape(-1)
