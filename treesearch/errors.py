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

import difflib


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


def did_you_mean(name: str, known: object) -> str:
    """The tail of an error message for an unknown name: the nearest known one, or all of them if they are few."""
    names = [str(entry) for entry in known]  # type: ignore[attr-defined]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(names) > MOST_KNOWN:
        return ""
    return f"; known: {', '.join(names)}" if names else "; it takes none"
