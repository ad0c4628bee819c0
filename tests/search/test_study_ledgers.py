"""Ledgers of a study: they get their name when the search has finished, and can be read all the time."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import full_disk
from treesearch import Tree
from treesearch.errors import RunError
from treesearch.search import study_ledgers
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import STOPPED_BY
from treesearch.search.study_ledgers import ledger_file, ledger_files, read, recorded, remove_unfinished

ROOT = Path(__file__).parents[2]
TREE = Tree.from_nested([[0, 1], [2, 3]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return ledger_file(tmp_path, "hybrid", 3)


def record(ledger: Ledger, number: int) -> None:
    row = EvaluationRow(id=number, rung=FROZEN, batch=0, agent="a", label=None, tree_hash=TREE.hash, status=OK)
    ledger.record(replace(row, valid_nll=float(number)), TREE)


def stopped(file: Path) -> None:
    """A search that fails after its first evaluation."""
    with recorded(file) as ledger:
        record(ledger, 1)
        raise ZeroDivisionError


def outlived(file: Path) -> None:
    """A search that goes on while its study is started anew, but for what others have there by now."""
    others = {path: path.read_bytes() for path in file.parent.glob("*")}
    with recorded(file) as ledger:
        record(ledger, 7)
        remove_unfinished(file.parent.parent)
        for path, content in others.items():
            path.write_bytes(content)


def without_room(file: Path, disk: ExitStack) -> None:
    """A search whose disk is full at its end."""
    with recorded(file) as ledger:
        for number in (1, 2, 3):
            record(ledger, number)
        disk.enter_context(full_disk(5000))


def num_rows(file: Path) -> int:
    with read(file) as ledger:
        return len(ledger.rows())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_it_goes_by_one_name_from_the_beginning(file: Path, tmp_path: Path) -> None:
    assert file == tmp_path / "hybrid/seed-3.db"
    with recorded(file) as ledger:
        assert ledger_files(tmp_path) == [file]
        assert not file.exists()
        record(ledger, 1)
        assert num_rows(file) == 1
        record(ledger, 2)
        reader = read(file)  # from before it finishes until after it
        expected = ledger.rows()
    assert names(tmp_path) == ["hybrid/seed-3.db"]
    assert ledger_files(tmp_path) == [file]
    with reader:
        assert reader.rows() == expected
    with read(file) as ledger:
        assert ledger.rows() == expected
        assert ledger.tree(TREE.hash) == TREE
        with pytest.raises(RunError, match="could not be written"):
            ledger.set_meta("key", 1)
    assert names(tmp_path) == ["hybrid/seed-3.db"]


def test_order(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for variant, seed in (("b", 1), ("a", 10), ("a.partial-7", 2), ("a", 9)):
            with recorded(ledger_file(tmp_path, variant, seed)):
                pass
        stack.enter_context(recorded(ledger_file(tmp_path, "a", 2)))
        (tmp_path / "a/seed-3.partial-9").touch()  # a ledger at its very beginning
        (tmp_path / "a/notes.txt").touch()
        found = [path.relative_to(tmp_path).as_posix() for path in ledger_files(tmp_path)]
    assert found == ["a/seed-2.db", "a/seed-9.db", "a/seed-10.db", "a.partial-7/seed-2.db", "b/seed-1.db"]


def test_a_search_that_fails_has_not_finished(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stopped(file)
    assert not file.exists()
    assert num_rows(file) == 1
    remove_unfinished(tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(RunError, match=r"no ledger at .*seed-3\.db"):
        read(file)


def test_a_search_that_has_outlived_its_study(file: Path, tmp_path: Path) -> None:
    """It cannot finish, and leaves the same search of the study that was started again alone."""
    with pytest.raises(RunError, match=r"seed-3\.partial-[0-9a-f]+ has gone: .*; wait for that one"):
        outlived(file)
    assert names(tmp_path) == []
    with recorded(file) as new:
        record(new, 1)
    with pytest.raises(RunError, match="has gone"):
        outlived(file)
    assert names(tmp_path) == ["hybrid/seed-3.db"]
    with read(file) as ledger:
        assert [row.valid_nll for row in ledger.rows()] == [1]


def test_the_ledger_that_was_written_last_is_read(file: Path) -> None:
    """In its log, that is: the file itself may be older than another's."""
    with recorded(file) as ledger:
        record(ledger, 1)
        with pytest.raises(ZeroDivisionError):
            stopped(file)
        time.sleep(0.02)
        record(ledger, 2)
        assert num_rows(file) == 2


def test_why_a_search_was_stopped(file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stopped(file)
    with read(file) as ledger:
        assert ledger.meta(STOPPED_BY) == "ZeroDivisionError"


@pytest.mark.parametrize("name", ["a b#c?d%41&=;'\"é", os.fsdecode(b"n\xe4me"), "file:st"])
def test_any_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ledger_file(Path(name), "hybrid", 1)
    with recorded(file) as ledger:
        record(ledger, 1)
        assert num_rows(file) == 1
    assert num_rows(file) == 1
    assert names(tmp_path) == [f"{name}/hybrid/seed-1.db"]


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root becomes nobody for a while; skips where it may not."""
    try:
        os.setresuid(65534, 65534, 0)
    except OSError:
        pytest.skip("only root can become somebody else")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_somebody_else_may_look() -> None:
    """Who may write nothing there, while the search goes on and after."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        file = ledger_file(Path(folder), "hybrid", 1)
        with recorded(file) as ledger:
            for number in (1, 2):
                record(ledger, number)
                with somebody_else():
                    assert not os.access(file.parent, os.W_OK)
                    assert num_rows(file) == number
        with somebody_else():
            assert num_rows(file) == 2
        assert names(Path(folder)) == ["hybrid/seed-1.db"]


def test_it_finishes_between_the_look_for_it_and_the_look_at_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as search:
        record(search.enter_context(recorded(file)), 1)

        def opened(path: Path, **options: bool) -> Ledger:
            search.close()
            return Ledger(path, **options)

        monkeypatch.setattr(study_ledgers, "Ledger", opened)
        assert num_rows(file) == 1
    assert names(file.parent) == ["seed-3.db"]


def test_readers_never_disturb(file: Path, tmp_path: Path) -> None:
    """Another process looks again and again while it is written and finishes, and always sees what is there."""
    script = f"""
import sys
from pathlib import Path
from treesearch.search.study_ledgers import ledger_files, read
file, seen = Path({str(file)!r}), [0]
while seen[-1] < 100 or not file.exists():
    if file in ledger_files(file.parent.parent):
        with read(file) as ledger:
            seen.append(len(ledger.rows()))
        if len(seen) == 2:
            print("began", flush=True)
print(seen == sorted(seen), len(set(seen)) > 3)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as reader:
        assert reader.stdout is not None
        with recorded(file) as ledger:
            record(ledger, 1)
            assert reader.stdout.readline() == "began\n"
            for number in range(2, 101):
                record(ledger, number)
                time.sleep(0.002)
        out, err = reader.communicate(timeout=60)
    assert (out, err) == ("True True\n", "")
    assert names(tmp_path) == ["hybrid/seed-3.db"]


def test_no_room_for_the_copy(file: Path, tmp_path: Path) -> None:
    """What was recorded stays to be looked at, and nothing else."""
    with ExitStack() as disk, pytest.raises(RunError, match=r"could not be written: .*; free space or mend its folder"):
        without_room(file, disk)
    assert not file.exists()
    assert not any("copy" in name for name in names(tmp_path))
    assert num_rows(file) == 3
