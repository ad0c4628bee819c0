"""Ledgers of a study: they get their name when the search has finished, and can be read all the time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from treesearch import Tree
from treesearch.errors import RunError
from treesearch.search import study_ledgers
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow
from treesearch.search.ledger import Ledger
from treesearch.search.study_ledgers import ledger_file, ledger_files, read, recorded, remove_unfinished

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
    """A search that goes on while its study is started anew."""
    with recorded(file) as ledger:
        record(ledger, 7)
        for path in file.parent.glob("*.partial-2"):
            path.unlink()


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


def processes(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Of searches that begin from now on, one after another."""
    rest = iter(numbers)
    monkeypatch.setattr(study_ledgers.os, "getpid", lambda: next(rest))


def test_a_search_that_has_outlived_its_study(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot finish, and does no harm to the same search of the study that was started again."""
    processes(monkeypatch, 1, 2)
    with recorded(file) as new:  # numbers only tell them apart
        record(new, 1)
        with pytest.raises(RunError, match=r"seed-3\.partial-2 has gone: .*; wait for that one"):
            outlived(file)
        record(new, 2)
        assert num_rows(file) == 2
    assert names(tmp_path) == ["hybrid/seed-3.db"]
    with read(file) as ledger:
        assert [row.valid_nll for row in ledger.rows()] == [1, 2]


def test_the_ledger_that_is_worked_on_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, 5, 4)
    with pytest.raises(ZeroDivisionError):
        stopped(file)
    stale = file.with_name("seed-3.partial-5")
    os.utime(stale, (1.0, 1.0))
    with recorded(file) as ledger:
        record(ledger, 1)
        record(ledger, 2)
        assert num_rows(file) == 2
    assert num_rows(file) == 2
    assert stale.exists()


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
    """Somebody looks again and again while it is written and finishes, and always sees what is there."""
    over = threading.Event()

    def look() -> list[int]:
        seen = []
        while not over.is_set():
            seen.append(num_rows(file))
        return [*seen, num_rows(file)]

    with ThreadPoolExecutor(2) as pool:
        try:
            with recorded(file) as ledger:
                readers = [pool.submit(look) for _ in range(2)]
                for number in range(1, 101):
                    record(ledger, number)
        finally:
            over.set()
    for reader in readers:
        seen = reader.result()
        assert seen == sorted(seen)
        assert seen[-1] == 100
    assert names(tmp_path) == ["hybrid/seed-3.db"]


def test_no_room_for_the_copy(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"could not be written: .*; free space or mend its folder"), recorded(file):
        (tmp_path / f"hybrid/seed-3.partial-{os.getpid()}-copy").mkdir()
    assert not file.exists()
