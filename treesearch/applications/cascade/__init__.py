"""Cascades on documents some of which are of no class: policies of answering, their costs side by side."""

from treesearch.applications.cascade.comparison import PolicySettings, Predictions, compare_policies
from treesearch.applications.cascade.run import (
    MODELS,
    cascade_notes,
    cascade_table,
    parse_ratios,
    task_notes,
    train_models,
)
from treesearch.applications.cascade.task import CascadeTask, load_cascade_task

__all__ = [
    "MODELS",
    "CascadeTask",
    "PolicySettings",
    "Predictions",
    "cascade_notes",
    "cascade_table",
    "compare_policies",
    "load_cascade_task",
    "parse_ratios",
    "task_notes",
    "train_models",
]
