"""Class names from a file."""

from __future__ import annotations

from pathlib import Path

from treesearch.errors import DataError


def read_names(path: Path) -> tuple[str, ...]:
    """A name a line, in the order of the class ids; an empty last line is none.

    Raises:
        DataError: The file cannot be read, holds nothing, or has a name twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"names file {path} cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"names file {path} must be UTF-8 text, a name a line; convert it") from None
    if not text:
        raise DataError(f"names file {path} is empty; give one name a line")
    names = tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number:
            raise DataError(
                f"class names must differ, but names file {path} has {name!r:.60} in lines {first[name]} and {number}"
            )
    return names
