"""What a terminal would obey is spelled; what people write with is left alone."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treesearch.visible import visible

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc\rd\x00\x7f", r"a\nb\tc\rd\x00\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),  # C1: CSI in one character, next line
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("user\u202etxt.exe\u2066\u200f\u061c", r"user\u202etxt.exe\u2066\u200f\u061c"),
        ("pay\u200bpal\u200d\ufeff", r"pay\u200bpal\u200d\ufeff"),
        ("x\U000e0041", r"x\U000e0041"),
        ("\ud800\udc00", r"\ud800\udc00"),  # not joined to one character either
        ("\ufffe", r"\ufffe"),
    ],
)
def test_what_steers_reorders_or_hides_is_spelled_as_repr_does(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain [bold] <b> \\alpha",
        "שלום עולם",
        "می\u200cخواهم",  # Persian needs the non-joiner
        "क्\u200dष",  # and Devanagari the joiner
        "漢字\u3000かな",
        "1\xa0000",
        "👩\u200d👩\u200d👧 👍🏽 ❤\ufe0f 🇩🇪",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England
        "e\u0301",
    ],
)
def test_what_people_write_stays(text):
    assert visible(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_left_does_nothing(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in shown} & BIDI
    assert len((shown + ".").splitlines()) == 1
    assert visible(shown) == shown
