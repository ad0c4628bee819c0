"""Metrics of hierarchical predictions, streaming: `update`, `compute`, `reset`, `merge`."""

from treesearch.metrics.accuracy import LevelAccuracy, MarginalAccuracy, class_levels, marginal_levels
from treesearch.metrics.base import Metric
from treesearch.metrics.calibration import LevelCalibration
from treesearch.metrics.collection import HierarchicalMetrics
from treesearch.metrics.consistency import (
    MassViolations,
    consistency_violations,
    level_log_probs,
    mass_violations,
)
from treesearch.metrics.hierarchical import HierarchicalF1, HierarchicalScores, MistakeSeverity, Severity
from treesearch.metrics.levels import Levels, tree_levels
from treesearch.metrics.likelihood import BucketScores, CountBuckets, MeanNLL

__all__ = [
    "BucketScores",
    "CountBuckets",
    "HierarchicalF1",
    "HierarchicalMetrics",
    "HierarchicalScores",
    "LevelAccuracy",
    "LevelCalibration",
    "Levels",
    "MarginalAccuracy",
    "MassViolations",
    "MeanNLL",
    "Metric",
    "MistakeSeverity",
    "Severity",
    "class_levels",
    "consistency_violations",
    "level_log_probs",
    "marginal_levels",
    "mass_violations",
    "tree_levels",
]
