"""Syntactic categories of the words of Python code, from the name alone (and the running Python's lists of names).

==================  ====================================================================================
placeholder         in brackets, such as ``<num>`` and ``<eos>`` of `treesearch.data.stdlib`
keyword             reserved words, ``None``, ``True`` and ``False`` included
soft keyword        reserved in places: ``match``, ``case``, ``_`` ..
operator            what the language reference calls so, such as ``+`` and ``:=``
delimiter           all other tokens of punctuation, such as ``(``, ``=`` and ``+=``
dunder              ``__init__``
builtin             names of the module `builtins`, exceptions included
constant            capitals, two letters at least: ``MAX_SIZE``
class               another name whose first letter is a capital: ``ClassName``, ``T``
private             another name that begins with ``_``
camel case          another name with a capital: ``assertEqual``
compound            another name of several words: ``read_text``
plain               another name: ``self``
other               all that is none of these
==================  ====================================================================================
"""

from __future__ import annotations

import builtins
import keyword
import token
from collections.abc import Sequence

from treesearch.data.categories import is_placeholder

_OPERATOR_TEXT = "+ - * ** / // % @ << >> & | ^ ~ := < > <= >= == !="
_OPERATORS = frozenset(_OPERATOR_TEXT.split())
_BUILTINS = frozenset(dir(builtins))


def syntax_category(name: str) -> str:
    """The category of one word; see the module."""
    if is_placeholder(name):
        return "placeholder"
    if keyword.iskeyword(name):
        return "keyword"
    if keyword.issoftkeyword(name):
        return "soft keyword"
    if name in token.EXACT_TOKEN_TYPES:
        return "operator" if name in _OPERATORS else "delimiter"
    return _kind_of_name(name) if name.isidentifier() else "other"


def syntax_categories(class_names: Sequence[str]) -> tuple[str, ...]:
    """The category of each class by its name; see the module."""
    return tuple(map(syntax_category, class_names))


def _kind_of_name(name: str) -> str:
    bare = name.strip("_")
    if len(bare) > 0 and name.startswith("__") and name.endswith("__"):
        return "dunder"
    if name in _BUILTINS:
        return "builtin"
    if bare.isupper() and sum(map(str.isalpha, bare)) > 1:
        return "constant"
    if bare[:1].isupper():
        return "class"
    if name.startswith("_"):
        return "private"
    if any(map(str.isupper, bare)):
        return "camel case"
    return "compound" if "_" in bare else "plain"
