"""What the JSON in a ledger holds, and the check that it does: the file may be old, cut off, or edited by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONFIG = "config"  # key in meta: the configuration of a search of a study
POLICY = "policy"  # key in meta: where the agent's policy comes from
STOPPED_BY = "stopped_by"  # key in meta: the kind of error by which a search of a study ended
COMPLETE = "complete"  # key in meta: whether comparison.json is of the latest session
LARGEST = 1 << 53  # of whole numbers, and of counts: what a float holds exactly


@dataclass(frozen=True)
class Kind:
    """What an entry must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]

    def parse(self, text: Any) -> Any:
        """The value of a JSON text.

        Raises:
            ValueError: It is no JSON, or holds something else.
        """
        if not isinstance(text, str):
            raise ValueError(f"must be a JSON text, but is {text!r:.60}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"must be JSON, but is {text!r:.60} ({error})") from None
        if not self.holds(value):
            raise ValueError(f"must be {self.words}, but is {text!r:.60}")
        return value


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_whole(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= LARGEST


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_count(value[0]) and _is_count(value[1])


def _is_position(value: Any) -> bool:
    keys = {"encoder": _is_text, "spent": _is_whole, "began": _is_whole, "proposed": _is_whole}
    return isinstance(value, dict) and value.keys() == keys.keys() and all(keys[key](value[key]) for key in keys)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _or_null(kind: Kind) -> Kind:
    return Kind(kind.words, lambda value: value is None or kind.holds(value))


def one_of(*texts: str) -> Kind:
    """One of these."""
    return Kind(f"one of {', '.join(texts)}", lambda value: value in texts)


def column_kind(annotation: str) -> Kind:
    """What a column of the ledger must hold whose field is annotated so: ``int``, ``float | None``."""
    name, *rest = annotation.split(" | ")
    kind = {"int": WHOLE, "float": NUMBER, "str": TEXT}[name]
    return _or_null(kind) if rest == ["None"] else kind


ANYTHING = Kind("anything", lambda value: True)
TEXT = Kind("a text", _is_text)
WHOLE = Kind("a whole number", lambda value: type(value) is int)  # of SQLite, so of 64 bits
NUMBER = Kind("a number", _is_number)
TIME = Kind("a time", _is_count)
TEXTS = Kind("a list of texts", _list_of(_is_text))
NUMBERS = Kind("a list of numbers", _list_of(_is_number))
COUNTS = Kind("a list of numbers from 0 on", lambda value: bool(value) and _list_of(_is_count)(value))
TIMES = Kind("a list of times", _list_of(_is_count))
FIGURES = Kind("an object of numbers", lambda value: isinstance(value, dict) and all(map(_is_number, value.values())))
PLACES = Kind("a list of pairs of numbers from 0 on", _list_of(_is_pair))
POSITION = Kind("an object of encoder, spent, began and proposed", _is_position)
SETTINGS = Kind("an object", lambda value: isinstance(value, dict))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
CORPUS = Kind("an object with a hash", lambda value: isinstance(value, dict) and _is_text(value.get("hash")))

# By key of the table meta; null stands for no entry. What is not listed here is not read where it could do harm.
META = {
    key: _or_null(kind)
    for key, kind in {
        "class_names": TEXTS,
        COMPLETE: FLAG,
        CONFIG: SETTINGS,
        "corpus": CORPUS,
        "counts": COUNTS,
        "encoder": TEXT,
        POLICY: TEXT,
        "rewards": NUMBERS,
        "run_id": TEXT,
        "sessions": TIMES,
        STOPPED_BY: TEXT,
    }.items()
}
