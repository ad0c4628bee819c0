"""Syntactic categories of Python's words, against a literal table and the library's own source."""

import keyword
from pathlib import Path

import pytest

from treesearch.data.stdlib import module_tokens
from treesearch.data.syntax import syntax_categories, syntax_category


@pytest.mark.parametrize(
    ("names", "category"),
    [
        ("<num> <str> <indent> <dedent> <eos> <unk>", "placeholder"),
        ("def return None True async", "keyword"),
        ("match case _", "soft keyword"),
        ("+ ** // @ := <= != ~ < >", "operator"),
        ("( ] { , : . ; = -> += ...", "delimiter"),
        ("__init__ __name__ __import__", "dunder"),
        ("len print ValueError NotImplemented", "builtin"),
        ("MAX_SIZE _DEBUG PI __HIDDEN", "constant"),
        ("ClassName _Private T _T Élan", "class"),
        ("_helper __mangled _camelCase", "private"),
        ("assertEqual setUp", "camel case"),
        ("read_text to_2d", "compound"),
        ("self x name2 café type_", "plain"),
        ("__ ____", "private"),
        ("$ 1x a-b <> <=>", "other"),
    ],
)
def test_literal_names(names: str, category: str) -> None:
    assert {name: syntax_category(name) for name in names.split()} == dict.fromkeys(names.split(), category)


def test_every_word_of_a_module_has_a_category() -> None:
    words = sorted(set(module_tokens(Path(keyword.__file__).read_bytes())))
    categories = syntax_categories(words)
    assert len(categories) == len(words)
    assert "other" not in categories
    assert {"placeholder", "delimiter", "dunder", "plain"} <= set(categories)


def test_nothing_but_the_name_counts() -> None:
    assert syntax_categories(["", "x", "x"]) == ("other", "plain", "plain")
