"""Foreign formats on disk: text, JSON and folders, each read whole or refused, and written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from os import replace
from pathlib import Path

from treesearch.errors import ConfigError, TreeError
from treesearch.tree_files import current_umask, limited_bytes, write_atomically


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Write UTF-8 text that comes in parts; an existing file is replaced whole.

    Raises:
        TreeError: The text has a lone surrogate, which UTF-8 cannot hold.
        OSError: The file cannot be written.
    """
    try:
        data = "".join(parts).encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start]
        raise TreeError(
            f"class names must be valid Unicode, but one has the lone surrogate {bad!r}; rename it"
        ) from None
    write_atomically(path, lambda file: file.write(data))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, line ends as they are; call it inside `treesearch.tree_files.reading`."""
    try:
        return limited_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TreeError(f"the file must be UTF-8 text, but byte {error.start} is not") from None


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a folder beside ``path`` and move it there, so that nobody sees half of it.

    Raises:
        ConfigError: There is something at ``path`` already, other than an empty folder.
        OSError: The folder cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"a folder must be new or empty, but there is something at {path}; choose another one")
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o777 & ~current_umask())
        write(temporary)
        replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary)
        raise
