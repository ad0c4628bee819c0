"""Exceptions of treesearch.

Every error that a user can cause is one of these, and its message is one line: the rule, the value, the way out.

    TreeSearchError
    ├── ConfigError      a setting is unknown, missing, of the wrong type or out of range
    ├── DataError        a corpus, a count vector or a feature matrix cannot be used
    ├── TreeError        arrays or a file that do not describe a valid tree
    ├── RunError         a run folder is missing, occupied or incomplete
    ├── ExecutionError   workers could not be started or kept failing
    └── MissingExtraError  an optional dependency is not installed
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable


class TreeSearchError(Exception):
    """Root of all errors that treesearch raises on purpose."""


class ConfigError(TreeSearchError):
    """A setting is unknown, missing, of the wrong type or out of range."""


class DataError(TreeSearchError):
    """A corpus, a count vector or a feature matrix cannot be used."""


class TreeError(TreeSearchError):
    """Arrays or a file that do not describe a valid tree."""


class RunError(TreeSearchError):
    """A run folder is missing, occupied or incomplete."""


class ExecutionError(TreeSearchError):
    """Workers could not be started, or evaluations kept failing."""


class MissingExtraError(TreeSearchError):
    """An optional dependency is not installed.

    Args:
        package: The import name that is missing.
        extra: The extra of the treesearch distribution that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed; run: pip install 'treesearch[{extra}]'"
        )


MOST_KNOWN = 100  # names in a message
MOST_COMPARED = 1000  # names that are compared in full
NEIGHBOURS = 50


def did_you_mean(name: str, known: object) -> str:
    """The tail of an error message for an unknown name: the nearest known one, or all of them if they are few."""
    names = [str(entry) for entry in known]  # type: ignore[attr-defined]
    compared = names if len(names) <= MOST_COMPARED else _neighbours(name, names)
    close = difflib.get_close_matches(name, compared, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(names) > MOST_KNOWN:
        return ""
    return f"; known: {', '.join(names)}" if names else "; it takes none"


def _neighbours(name: str, known: Iterable[str]) -> list[str]:
    """Those of many names that share the longest beginnings or the longest ends with a name."""
    near: dict[str, None] = {}
    for step in (1, -1):
        ordered = sorted(one[::step] for one in known)
        place = bisect.bisect(ordered, name[::step])
        near |= dict.fromkeys(one[::step] for one in ordered[max(0, place - NEIGHBOURS) : place + NEIGHBOURS])
    return list(near)
