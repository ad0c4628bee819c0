"""What a search reads: text, features of another model, labels, interactions.

Text is that of files, or of the Python standard library, which needs no download.
"""

from treesearch.data.corpus import Corpus
from treesearch.data.dataset import Dataset, InputSpec, Seen, SmoothedClassWarning, Split
from treesearch.data.features import SortedExamplesWarning, load_features
from treesearch.data.interactions import load_interactions
from treesearch.data.labels import CutDocumentsWarning, load_documents, load_labelled_features
from treesearch.data.stdlib import load_python_stdlib
from treesearch.data.text import load_text

__all__ = [
    "Corpus",
    "CutDocumentsWarning",
    "Dataset",
    "InputSpec",
    "Seen",
    "SmoothedClassWarning",
    "SortedExamplesWarning",
    "Split",
    "load_documents",
    "load_features",
    "load_interactions",
    "load_labelled_features",
    "load_python_stdlib",
    "load_text",
]
