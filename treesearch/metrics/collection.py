"""`HierarchicalMetrics`: all metrics of hierarchical predictions in one pass.

Shapes: **B** batch, **C** classes, **L** levels below the root, **K** buckets of training counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from numpy.typing import ArrayLike
from torch import Tensor

from treesearch.errors import DataError
from treesearch.metrics.accuracy import LevelAccuracy, MarginalAccuracy
from treesearch.metrics.base import Metric, check_scores, check_whole, top_classes
from treesearch.metrics.calibration import LevelCalibration
from treesearch.metrics.hierarchical import HierarchicalF1, MistakeSeverity
from treesearch.metrics.levels import Levels
from treesearch.metrics.likelihood import EDGES, CountBuckets, MeanNLL
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


class HierarchicalMetrics:
    """All metrics of this package from the log-probabilities of all classes.

    Predictions are the most probable classes, of equals the smallest id.

    Args:
        hierarchy: A taxonomy, a tree (its own nodes), or levels.
        counts: [C] training counts, for the buckets; None leaves them out.
        ks: Lengths of the lists of most probable classes; one longer than C is an error.
        num_bins: Of the calibration errors.
        edges: Of the buckets; see `CountBuckets`.

    Raises:
        DataError: The counts do not fit the hierarchy, or a setting is out of range.
    """

    def __init__(
        self,
        hierarchy: Taxonomy | Tree | Levels,
        *,
        counts: ArrayLike | None = None,
        ks: Sequence[int] = (1, 5),
        num_bins: int = 15,
        edges: Sequence[int] = EDGES,
    ) -> None:
        self.levels = Levels.of(hierarchy)
        self.ks = tuple(sorted({check_whole("each of ks", k, 1, self.levels.num_classes) for k in ks}))
        self.nll = MeanNLL(self.levels.num_classes)
        self.marginal = MarginalAccuracy(self.levels)
        self.calibration = LevelCalibration(self.levels, num_bins=num_bins)
        self.f1 = HierarchicalF1(self.levels)
        self.first = LevelAccuracy(self.levels)
        self.severity = MistakeSeverity(self.levels)
        self.lists = {k: (LevelAccuracy(self.levels, k=k), MistakeSeverity(self.levels, k=k)) for k in self.ks if k > 1}
        self.buckets = None if counts is None else CountBuckets(counts, edges=edges)
        if self.buckets is not None and self.buckets.num_classes != self.levels.num_classes:
            raise DataError(
                f"counts must have one number per class, but got {self.buckets.num_classes} for"
                f" {self.levels.num_classes} classes"
            )

    def update(self, log_prob: Tensor, target: Tensor) -> None:
        """Add a batch; O(B T) for T nodes of the hierarchy.

        Args:
            log_prob: [B, C] log-probabilities of the classes, nats.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or values are no log-probabilities or classes; nothing is added then.
        """
        log_prob_BC, target_B = check_scores(log_prob, target, self.levels.num_classes)
        top_Bk = top_classes(log_prob_BC, max(self.ks, default=1))
        for scored in (self.nll, self.marginal, self.calibration):
            scored.update(log_prob_BC, target_B)
        if self.buckets is not None:
            self.buckets.update(log_prob_BC, target_B)
        for listed in (self.f1, self.first, self.severity):
            listed.update(top_Bk, target_B)
        for hits, distance in self.lists.values():
            hits.update(top_Bk, target_B)
            distance.update(top_Bk, target_B)

    def compute(self) -> dict[str, float | list[float]]:
        """Everything by name, lists by level 1 to L or by bucket; NaN where there is nothing to take a mean of.

        ``nll``, ``accuracy``, ``level_accuracy``, ``marginal_accuracy``, ``hierarchical_precision``, ``.._recall``,
        ``.._f1``, ``mistake_severity`` (over mistakes), ``mean_distance`` (over all), ``calibration_error``; for each
        k > 1 ``top{k}_level_accuracy`` and ``top{k}_distance``; with counts ``bucket_num``, ``bucket_accuracy``,
        ``bucket_nll`` (see ``buckets.labels``), ``rare_accuracy`` and ``rare_nll``.
        """
        scores, severity = self.f1.compute(), self.severity.compute()
        values: dict[str, float | list[float]] = {
            "nll": self.nll.compute(),
            "accuracy": 1 - severity.mistakes,
            "level_accuracy": self.first.compute(),
            "marginal_accuracy": self.marginal.compute(),
            "hierarchical_precision": scores.precision,
            "hierarchical_recall": scores.recall,
            "hierarchical_f1": scores.f1,
            "mistake_severity": severity.over_mistakes,
            "mean_distance": severity.over_all,
            "calibration_error": self.calibration.compute(),
        }
        for k, (hits, distance) in self.lists.items():
            values[f"top{k}_level_accuracy"] = hits.compute()
            values[f"top{k}_distance"] = distance.compute().over_lists
        if self.buckets is not None:
            buckets = self.buckets.compute()
            values |= {"bucket_num": buckets.num, "bucket_accuracy": buckets.accuracy, "bucket_nll": buckets.nll}
            values |= {"rare_accuracy": buckets.rare_accuracy, "rare_nll": buckets.rare_nll}
        return values

    def reset(self) -> None:
        """Forget all examples."""
        for metric in self._metrics():
            metric.reset()

    def merge(self, other: Self) -> None:
        """Add the examples that another collection has seen; it stays as it is.

        Raises:
            DataError: It has other settings or another hierarchy; nothing is added then.
        """
        own, theirs = self._metrics(), other._metrics()
        for metric, another in zip(own, theirs, strict=False):
            metric.check_alike(another)
        if len(own) != len(theirs):
            raise DataError(f"merge needs the same ks and counts on both sides, but got {other.ks} for {self.ks}")
        for metric, another in zip(own, theirs, strict=True):
            metric.merge(another)

    def _metrics(self) -> list[Metric]:
        metrics: list[Metric] = [self.nll, self.marginal, self.calibration, self.f1, self.first, self.severity]
        metrics += [metric for pair in self.lists.values() for metric in pair]
        return metrics + ([self.buckets] if self.buckets is not None else [])
