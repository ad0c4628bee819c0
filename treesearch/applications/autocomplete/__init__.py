"""Query autocomplete: the most probable completions of a prefix, exactly, by best-first search down a tree."""

from treesearch.applications.autocomplete.completion_index import Completion, CompletionIndex
from treesearch.applications.autocomplete.completions import Completions, load_completions
from treesearch.applications.autocomplete.context_model import ContextIndex, ContextModel
from treesearch.applications.autocomplete.context_training import ContextSettings, train_context_model
from treesearch.applications.autocomplete.contexts import load_contexts
from treesearch.applications.autocomplete.prompt import (
    answer_lines,
    completion_rows,
    completion_table,
    typed_lines,
)
from treesearch.applications.autocomplete.trees import completion_tree, size_rows, size_table

__all__ = [
    "Completion",
    "CompletionIndex",
    "Completions",
    "ContextIndex",
    "ContextModel",
    "ContextSettings",
    "answer_lines",
    "completion_rows",
    "completion_table",
    "completion_tree",
    "load_completions",
    "load_contexts",
    "size_rows",
    "size_table",
    "train_context_model",
    "typed_lines",
]
