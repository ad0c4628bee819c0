"""Whether confidence at each level of a hierarchy is what it says.

Shapes: **B** batch, **C** classes, **L** levels below the root, **K** bins, **n** nodes of one level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treesearch.metrics.base import Metric, check_scores, check_whole, ratio
from treesearch.metrics.levels import Levels
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


class LevelCalibration(Metric):
    """Expected calibration error at each level, with bins of equal width (Naeini et al. 2015, Guo et al. 2017).

    The prediction at a level is the ancestor of the most probable class, its confidence the sum of the probabilities of
    the classes below that ancestor. Where the class ends above the level, the prediction is that end, with the
    probability of the class. The error is Σ |hits of a bin - sum of its confidences| / examples, over the bins.

    Unlike in `LevelAccuracy` every example counts at every level, and an end is right where the target ends there too:
    which examples count must not depend on the target, or a model that is calibrated would seem not to be. At the
    deepest level this is the calibration error of the classes.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
        num_bins: K, of width 1 / K; a confidence on the border is in the upper one.

    Raises:
        DataError: ``num_bins`` is no whole number >= 1.
    """

    def __init__(self, hierarchy: Taxonomy | Tree | Levels, *, num_bins: int = 15) -> None:
        self.levels = Levels.of(hierarchy)
        self.num_bins = check_whole("num_bins", num_bins, 1)
        shape = (self.levels.num_levels, num_bins)
        super().__init__((self.levels.key, num_bins), {"num": shape, "hits": shape, "confidence": shape})

    def update(self, log_prob: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            log_prob: [B, C] log-probabilities of the classes, nats.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or values are no log-probabilities or classes.
        """
        log_prob_BC, target_B = check_scores(log_prob, target, self.levels.num_classes)
        levels = self.levels.on(log_prob.device)
        prob_BC = log_prob_BC.exp()
        best_B, class_B = prob_BC.max(1)
        for level, mass_Bn in levels.masses(prob_BC):
            node_B, right_B = levels.path[level, class_B], levels.path[level, target_B]
            ended_B = node_B == Taxonomy.NO_NODE
            mass_B = mass_Bn.gather(1, levels.place[node_B.clamp(min=0)][:, None])[:, 0]
            confidence_B = torch.where(ended_B, best_B, mass_B).clamp(max=1.0)
            hit_B = torch.where(ended_B, class_B == target_B, node_B == right_B)
            self._add_bins(level, confidence_B.to(torch.float64), hit_B)

    def _add_bins(self, level: int, confidence_B: Tensor, hit_B: Tensor) -> None:
        bin_B = (confidence_B * self.num_bins).long().clamp(0, self.num_bins - 1).cpu()
        for name, value in (("num", torch.ones_like(hit_B)), ("hits", hit_B), ("confidence", confidence_B)):
            self._sums[name][level - 1].index_add_(0, bin_B, value.cpu().to(torch.float64))

    def compute(self) -> list[float]:
        """The error at levels 1 to L, 0 to 1; NaN if there is no example so far."""
        gap_L = (self._sums["hits"] - self._sums["confidence"]).abs().sum(1)
        errors: list[float] = ratio(gap_L, self._sums["num"].sum(1))
        return errors

    def bins(self, level: int) -> dict[str, list[float]]:
        """For a reliability diagram: ``num`` examples, mean ``confidence`` and ``accuracy`` of each bin, [K] each.

        Means of an empty bin are NaN.

        Raises:
            DataError: The hierarchy has no such level.
        """
        row = check_whole("level", level, 1, self.levels.num_levels) - 1
        num_K = self._sums["num"][row]
        return {
            "num": num_K.tolist(),
            "confidence": ratio(self._sums["confidence"][row], num_K),
            "accuracy": ratio(self._sums["hits"][row], num_K),
        }
