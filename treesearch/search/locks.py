"""Locks of folders that one process works on: advisory, on a file that is never replaced, and gone with the process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treesearch.errors import RunError

CONFIG_FILE = "config.yaml"  # of a study or a sweep: what its searches have in common
PATIENCE = 0.3  # seconds: who only asks whether a folder is locked holds its lock for a moment


@contextmanager
def held(file: Path, what: str) -> Iterator[None]:
    """Keep other processes off the folder of a file.

    Args:
        file: In the folder; whoever replaces it breaks the lock.
        what: The folder holds, as messages say it: "run", "study" or "sweep".

    Raises:
        RunError: Another process works there, there is no such file, or it cannot be written or locked.
    """
    try:
        descriptor = os.open(file, os.O_RDWR)  # NFS locks for one alone only what may be written
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}): no {what} folder, or a read-only one") from None
    try:
        try:
            locked = _locked_within(descriptor, PATIENCE)
        except OSError as error:
            raise RunError(
                f"{file} cannot be locked ({error.strerror}); move the {what} to a file system with locks"
            ) from None
        if not locked:
            raise RunError(f"{file.parent} is being worked on by another process; wait for it or end it")
        yield
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Whether a process works on the folder of a file; not where there is no such file, or nothing can be locked."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked_within(descriptor, 0.0, fcntl.LOCK_SH)  # shared: two who ask do not see each other
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _locked_within(descriptor: int, seconds: float, kind: int = fcntl.LOCK_EX) -> bool:
    """Try to lock a file for so long.

    Raises:
        OSError: Its file system has no locks.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


@contextmanager
def claimed(folder: Path, text: str, what: str, *, empty: bool) -> Iterator[None]:
    """Make the folder of a study or a sweep, or see that it is of the same one, and keep other processes off it.

    Args:
        folder: Of all of its searches.
        text: Of its ``config.yaml``, which says what it is, is written once and carries the lock.
        what: "study" or "sweep".
        empty: Whether a folder without that file must have nothing else in it either.

    Raises:
        RunError: It is taken, another process works on it, or it cannot be written.
    """
    file = folder / CONFIG_FILE
    try:
        if empty and not file.exists() and folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder} must be a new or empty folder, or one of the same {what}; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise _unwritten(folder, error) from None
    with held(file, what):
        try:
            present = file.read_bytes()
            if not present:  # of one that was ended before it was written, too
                file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritten(folder, error) from None
        if present and present != text.encode():
            raise RunError(f"{folder} holds a {what} of another configuration; choose another --out")
        yield


def _unwritten(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder} cannot be written ({error.strerror}); choose another --out")
