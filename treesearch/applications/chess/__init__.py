"""Openings of chess by volume and family: are decisions right, and for an expert's reasons?"""

from treesearch.applications.chess.board import chess_package, positions_after
from treesearch.applications.chess.openings import Openings
from treesearch.applications.chess.records import record_lines
from treesearch.applications.chess.study import compare_models, explain_moves, export_splits, study_table
from treesearch.applications.chess.training import TrainingSettings

__all__ = [
    "Openings",
    "TrainingSettings",
    "chess_package",
    "compare_models",
    "explain_moves",
    "export_splits",
    "positions_after",
    "record_lines",
    "study_table",
]
