"""Locks of folders: one process works on a study or a sweep, and what it finds there is its own."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.processes import until
from treesearch.errors import RunError
from treesearch.search import locks
from treesearch.search.locks import claimed, is_held

HOLD = """
import sys, time
from pathlib import Path
from treesearch.search.locks import claimed
with claimed(Path(sys.argv[1]), "seed: 1\\n", "study", empty=True):
    print("held", flush=True)
    time.sleep(600)
"""


def claim(folder: Path, text: str = "seed: 1\n", *, empty: bool = True) -> None:
    with claimed(folder, text, "study", empty=empty):
        assert is_held(folder / "config.yaml")
    assert not is_held(folder / "config.yaml")


def test_a_new_folder_says_what_it_is(tmp_path: Path) -> None:
    claim(tmp_path / "deep/study")
    assert tiny.snapshot(tmp_path / "deep/study") == {"config.yaml": b"seed: 1\n"}
    claim(tmp_path / "deep/study")


def test_one_of_another_configuration_is_refused_and_untouched(tmp_path: Path) -> None:
    for content in (b"seed: 2\n", b"\xff"):
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(RunError, match="holds a study of another configuration; choose another --out"):
            claim(tmp_path)
        assert tiny.snapshot(tmp_path) == {"config.yaml": content}


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="must be a new or empty folder, or one of the same study; choose another --out"):
        claim(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]
    claim(tmp_path, empty=False)


def test_one_that_was_ended_before_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    claim(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/study"):
        with pytest.raises(RunError, match=r"cannot be written \(.*\); choose another --out"):
            claim(folder)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However that ends: here it is killed."""
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            assert is_held(tmp_path / "config.yaml")
            with pytest.raises(RunError, match="is being worked on by another process; wait for it or end it"):
                claim(tmp_path)
        finally:
            other.kill()
    until(lambda: not is_held(tmp_path / "config.yaml"), "the end of the lock")
    claim(tmp_path)


def test_what_is_not_there_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "config.yaml")
    with pytest.raises(RunError, match=r"cannot be written .*: no run folder"), locks.held(tmp_path / "x", "run"):
        pass


def over_nfs(descriptor: int, kind: int) -> None:
    """As Linux locks there: shared what can be read, for one alone what can be written (flock(2))."""
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    if kind & fcntl.LOCK_EX and mode == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if kind & fcntl.LOCK_SH and mode == os.O_WRONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def test_folders_on_nfs_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def flock(descriptor: int, kind: int) -> None:
        over_nfs(descriptor, kind)
        asked.append(kind & ~fcntl.LOCK_NB)

    monkeypatch.setattr(fcntl, "flock", flock)
    with claimed(tmp_path, "seed: 1\n", "study", empty=True):
        pass
    assert not is_held(tmp_path / "config.yaml")
    assert asked == [fcntl.LOCK_EX, fcntl.LOCK_SH]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    says = r"config\.yaml cannot be locked \(No locks available\); move the study to a file system with locks"
    with pytest.raises(RunError, match=says):
        claim(tmp_path)
    assert not is_held(tmp_path / "config.yaml"), "nobody can hold it"
