"""UTF-8 text files, whole or in numbered lines."""

from __future__ import annotations

from pathlib import Path

from treesearch.errors import TreeSearchError


def read_text(path: Path, what: str, error: type[TreeSearchError]) -> str:
    """The text of a UTF-8 file without a byte order mark; line ends as they are.

    Args:
        path: The file.
        what: It stands for the file in messages: ``names file a.txt``.
        error: What is raised.

    Raises:
        TreeSearchError: An ``error``: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as reason:
        raise error(f"{what} cannot be read ({reason.strerror}); check the path") from None
    except UnicodeDecodeError as reason:
        raise error(f"{what} must be UTF-8 text, but is not ({reason.reason}); convert it") from None


def read_lines(path: Path, what: str, error: type[TreeSearchError]) -> list[tuple[int, str]]:
    r"""The lines of `read_text`, numbered from 1, blank ones included.

    Lines end at ``\n``, with a ``\r`` before it or not, and nowhere else: U+2028 and the like occur inside names.
    """
    text = read_text(path, what, error)
    lines = text.removesuffix("\n").split("\n") if text else []
    return [(number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1)]
