"""Class names from a file."""

from __future__ import annotations

from pathlib import Path

from treesearch.errors import DataError


def read_names(path: Path) -> tuple[str, ...]:
    """A name a line, in the order of the class ids; an empty last line is none.

    Raises:
        DataError: The file cannot be read, or two classes have the same name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"class names {str(path)!r} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"class names must be UTF-8 text, but {str(path)!r} is not; convert it") from None
    names = tuple(text.removesuffix("\n").split("\n")) if text else ()
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number:
            raise DataError(f"class names must differ, but {str(path)!r} has {name!r} in lines {first[name]}, {number}")
    return names
