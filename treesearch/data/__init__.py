"""Corpora: text files, and the Python standard library as the corpus that needs no download."""

from treesearch.data.corpus import Corpus, SmoothedClassWarning
from treesearch.data.stdlib import load_python_stdlib
from treesearch.data.text import load_text

__all__ = ["Corpus", "SmoothedClassWarning", "load_python_stdlib", "load_text"]
