"""Medical coding: from a short diagnostic text to a code of ICD-10-CM, by chapter, block, category and code."""

from treesearch.applications.coding.coder import Coder
from treesearch.applications.coding.narrowing import narrow, narrowing_lines
from treesearch.applications.coding.run import MOST_FLAT, levels_table, safe_table, train_and_score
from treesearch.applications.coding.scores import held_out_scores
from treesearch.applications.coding.task import CodingTask, coding_task
from treesearch.applications.coding.training import train_coder
from treesearch.applications.coding.wordings import Wording, icd10cm_chapters, icd10cm_wordings, taxonomy_below

__all__ = [
    "MOST_FLAT",
    "Coder",
    "CodingTask",
    "Wording",
    "coding_task",
    "held_out_scores",
    "icd10cm_chapters",
    "icd10cm_wordings",
    "levels_table",
    "narrow",
    "narrowing_lines",
    "safe_table",
    "taxonomy_below",
    "train_and_score",
    "train_coder",
]
