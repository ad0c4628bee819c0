"""The ledgers of a study: one for each of its searches, in a folder for each variant.

VARIANT/seed-N.db               of a search that has finished
VARIANT/seed-N.partial-TOKEN    of one that goes on, or was stopped

Elsewhere a search goes by the first name, from its beginning on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from treesearch.errors import RunError
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import STOPPED_BY
from treesearch.search.ledger_file import files_of

_PARTIAL = ".partial-"  # how the suffix of a ledger begins while its search goes on; another token for each search
_COPY = "-copy"  # appended to that while the ledger gets its name


def ledger_file(folder: Path, variant: str, seed: int) -> Path:
    """Where the ledger of a search is once the search has finished."""
    return folder / variant / f"seed-{seed}.db"


def ledger_files(folder: Path) -> list[Path]:
    """The searches of a study that have finished or begun, by variant and seed."""
    found = set(folder.glob("*/seed-*.db"))
    for partial in folder.glob(f"*/seed-*{_PARTIAL}*"):
        file = _final(partial)
        if file is not None and _written(partial):
            found.add(file)
    return sorted(found, key=_variant_and_seed)


def read(file: Path) -> Ledger:
    """The ledger of a search, to look at; it may be worked on, and may finish, at the same time.

    Raises:
        RunError: There is none, or it cannot be read.
    """
    partials = [partial for partial in file.parent.glob(f"*{_PARTIAL}*") if _final(partial) == file]
    latest = max(partials, key=_written, default=file)
    try:
        return Ledger(file if file.is_file() else latest, read_only=True)
    except RunError:
        if latest == file or not file.is_file():
            raise
        return Ledger(file, read_only=True)  # the search has finished meanwhile


@contextmanager
def recorded(file: Path) -> Iterator[Ledger]:
    """A new ledger for a search, which has finished when the block ends without an error.

    It never changes its name: SQLite finds the log beside a ledger by name, and who reads it meanwhile would be
    left with a wrong one. What gets the final name is a copy. After an error the ledger says so, and stays.

    Raises:
        RunError: The file cannot be made, or the study was started anew meanwhile and has removed it.
    """
    partial = file.with_suffix(f"{_PARTIAL}{secrets.token_hex(4)}")
    copy = partial.with_name(f"{partial.name}{_COPY}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Ledger(partial, create=True) as ledger:
            try:
                yield ledger
                ledger.copy_to(copy)
            except BaseException as error:
                with suppress(RunError):
                    ledger.set_meta(STOPPED_BY, type(error).__name__)
                raise
        try:
            partial.stat()  # `remove_unfinished` removes this first and the copy next: the copy cannot outlive it
            copy.rename(file)
        except FileNotFoundError:
            raise RunError(f"{partial} has gone: the study was started anew meanwhile; wait for that one") from None
        for one in files_of(partial):
            one.unlink(missing_ok=True)
    finally:
        copy.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what searches have left that did not finish, and logs that readers have left.

    Whoever still works on such a search cannot finish it any more.
    """
    for file in sorted(folder.glob(f"*/seed-*{_PARTIAL}*")):  # a ledger before its copy
        file.unlink(missing_ok=True)


def _final(file: Path) -> Path | None:
    """What a ledger is called once its search has finished; None for what is none, such as a log beside it."""
    named = re.fullmatch(rf"(seed-.+){re.escape(_PARTIAL)}[0-9a-f]+", file.name)
    return None if named is None else file.with_name(f"{named[1]}.db")


def _written(partial: Path) -> float:
    """When a ledger or its log was written last, Unix time; 0 for one that is gone or, as at first, empty."""
    times = []
    for file in files_of(partial):
        with suppress(OSError):
            stat = file.stat()
            times.append(stat.st_mtime if stat.st_size else 0.0)
    return max(times, default=0.0)


def _variant_and_seed(file: Path) -> tuple[str, int]:
    number = file.stem.removeprefix("seed-")
    return file.parent.name, int(number) if number.isdigit() else -1
