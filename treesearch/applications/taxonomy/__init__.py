"""Classifiers of documents whose labels have a taxonomy: flat, hierarchical, supervised at all levels, by level."""

from treesearch.applications.taxonomy.classifiers import CLASSIFIERS, ObjectiveSettings
from treesearch.applications.taxonomy.run import (
    compare_classifiers,
    load_task,
    summary_rows,
    taxonomy_notes,
    taxonomy_table,
)
from treesearch.applications.taxonomy.training import TrainingSettings

__all__ = [
    "CLASSIFIERS",
    "ObjectiveSettings",
    "TrainingSettings",
    "compare_classifiers",
    "load_task",
    "summary_rows",
    "taxonomy_notes",
    "taxonomy_table",
]
