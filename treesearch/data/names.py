"""Class names from a file."""

from __future__ import annotations

from pathlib import Path

from treesearch.errors import DataError
from treesearch.text_files import read_lines


def read_names(path: Path) -> tuple[str, ...]:
    """A name a line, in the order of the class ids; an empty last line is none.

    Raises:
        DataError: The file cannot be read, holds nothing, or has a name twice.
    """
    lines = read_lines(path, f"names file {path}", DataError)
    if not lines:
        raise DataError(f"names file {path} is empty; give one name a line")
    first: dict[str, int] = {}
    for number, name in lines:
        if first.setdefault(name, number) != number:
            raise DataError(
                f"class names must differ, but names file {path} has {name!r:.60} in lines {first[name]} and {number}"
            )
    return tuple(first)
