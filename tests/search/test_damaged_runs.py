"""Whatever is damaged in the files of a run: a command works all the same, or says so in one line and ends with 2."""

import json
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.search.damage import DAMAGES, DELETED, Place, damaged, places
from treesearch import cli
from treesearch.errors import RunError
from treesearch.report.page.document import run_page
from treesearch.report.page.run_view import RunView, load_run
from treesearch.report.runs import shared_settings
from treesearch.search.comparison_file import checked
from treesearch.search.run_folder import RunFolder


class Told(NamedTuple):
    """How a command ended."""

    code: int
    err: str


Command = Callable[..., Told]


@pytest.fixture
def run(local_run: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(local_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run ``treesearch ARGUMENTS`` in this process; anything but an exit is a failure of the test."""

    def call(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["treesearch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return Told(ended.value.code, capsys.readouterr().err)

    with warnings.catch_warnings():  # `main` shows them its own way
        yield call


def works_or_refuses(told: Told, file: Path) -> bool:
    """Whether a command did what it should, or refused in one line that names the file."""
    first, *rest = told.err.splitlines() or [""]
    return told.code == 0 or (told.code == 2 and not rest and first.startswith("error: ") and str(file) in first)


@pytest.mark.slow
def test_the_comparison(run: RunFolder, command: Command, tmp_path: Path) -> None:
    """Every command reads it in one place; some of what passes there is shown by each of them, and by the page."""
    whole = json.loads(run.comparison_file.read_text())
    other, view, rng = shutil.copytree(run.path, tmp_path / "other"), load_run(run.path), np.random.default_rng(0)
    pairs = [(place, damage) for place in places(whole) for damage in DAMAGES]
    passed, refused = [], []
    for pair in pairs:
        try:
            checked(damaged(whole, *pair))
        except ValueError as error:
            refused.append(str(error))
        else:
            passed.append(pair)
    assert min(len(passed), len(refused)) > 300
    assert all(map(str.isprintable, refused))
    export = ("export", run.path, "--format", "nested", "--out", tmp_path / "x.json", "--lambda", 1)
    commands = (("compare", run.path, "--json"), ("compare", run.path, "--front"), ("compare", other, run.path), export)
    for number in rng.permutation(len(passed))[:20]:
        run.comparison_file.write_text(json.dumps(damaged(whole, *passed[number])))
        for arguments in (("compare", run.path), commands[number % 4]):
            assert works_or_refuses(command(*arguments), run.path), (passed[number], arguments)
        if number % 5 == 0:
            assert works_or_refuses(command("report", run.path), run.path), passed[number]
    for number in rng.permutation(len(pairs))[:10]:
        run.comparison_file.write_text(json.dumps(damaged(whole, *pairs[number])))
        assert works_or_refuses(command("compare", run.path), run.comparison_file), pairs[number]
    assert view.comparison == whole


@pytest.mark.parametrize(
    ("place", "damage", "code"),
    [
        (("rows", 0, "name"), "", 2),
        (("rows", 0, "tree"), "none", 2),
        (("rows", 0, "head_us"), DELETED, 2),
        (("rows", 1, "perplexity_change", "low"), float("nan"), 2),
        (("gains",), None, 0),
        (("rows",), [], 0),
    ],
)
def test_the_page_of_a_damaged_comparison(
    run: RunFolder, place: Place, damage: object, code: int, command: Command
) -> None:
    """Of what some sentence of it rests on."""
    whole = json.loads(run.comparison_file.read_text())
    run.comparison_file.write_text(json.dumps(damaged(whole, place, damage)))
    told = command("report", run.path)
    assert told.code == code
    assert works_or_refuses(told, run.path)


COLUMNS = {"metrics": ("batches", "batch"), "position": ("batches", "batch")}
COLUMNS |= {"actions": ("evaluations", "id"), "decisions": ("evaluations", "id")}
META = (
    "class_names",
    "complete",
    "corpus",
    "correction",
    "counts",
    "encoder",
    "policy",
    "run_id",
    "schema",
    "sessions",
)


def entry(file: Path, name: str) -> tuple[str, Any]:
    """The statement that changes an entry of meta, or the last of a column, and its value."""
    with closing(sqlite3.connect(file)) as db:
        if name in META:
            ((text,),) = db.execute("SELECT value FROM meta WHERE key = ?", (name,))
            return f"UPDATE meta SET value = ? WHERE key = '{name}'", json.loads(text)
        table, key = COLUMNS[name]
        query = f"SELECT {key}, {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY {key} DESC LIMIT 1"
        ((number, text),) = db.execute(query)
    return f"UPDATE {table} SET {name} = ? WHERE {key} = {number}", json.loads(text)


def test_these_are_the_entries_of_a_ledger(local_run: Path) -> None:
    with closing(sqlite3.connect(local_run / "search.db")) as db:
        assert {key for (key,) in db.execute("SELECT key FROM meta")} == set(META)


def read(run: RunFolder) -> RunView:
    """All of a ledger that is read anywhere."""
    with run.read() as ledger:
        for name in META:
            ledger.meta(name)
        ledger.last_batch()
    shared_settings(run)
    return load_run(run.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*META, *COLUMNS])
def test_the_ledger(run: RunFolder, name: str, command: Command) -> None:
    """The page is made of all that it holds; what commands show is part of that."""
    statement, value = entry(run.ledger_file, name)
    rng = np.random.default_rng(0)
    texts = ["{", "", *(json.dumps(damage) for damage in DAMAGES if damage is not DELETED)]
    below = [json.dumps(damaged(value, place, damage)) for place in places(value) for damage in DAMAGES]
    texts += [below[number] for number in rng.permutation(len(below))[:30]]
    views, refused, shown = [], [], set(rng.permutation(len(texts))[:3])
    with closing(sqlite3.connect(run.ledger_file)) as db:
        for number, text in enumerate(texts):
            with db:
                db.execute(statement, (text,))
            if number in shown:
                for arguments in (("show", run.path), ("compare", run.path, "--evaluations")):
                    assert works_or_refuses(command(*arguments), run.path), (text, arguments)
            try:
                views.append(read(run))
            except RunError as error:
                refused.append(str(error))
    assert all(one.startswith(str(run.ledger_file)) and one.isprintable() for one in refused)
    assert len(refused) >= 2, "what is no JSON, at least"
    for number in rng.permutation(len(views))[:3]:
        assert run_page(views[number])


@pytest.mark.parametrize("column", ["valid_nll", "status", "num_nodes", "finished_at"])
def test_a_column_of_another_type(run: RunFolder, column: str, command: Command) -> None:
    with closing(sqlite3.connect(run.ledger_file)) as db, db:
        db.execute(f"UPDATE evaluations SET {column} = 'text' WHERE id = 5")
        before = list(db.iterdump())
    for arguments in (("compare", run.path, "--evaluations"), ("report", run.path), ("resume", run.path)):
        told = command(*arguments)
        assert told.code == 2
        assert told.err.splitlines()[-1].startswith(
            f"error: {run.ledger_file} is damaged: {column} of evaluation 5 must be "
        )
    with closing(sqlite3.connect(run.ledger_file)) as db:
        assert list(db.iterdump()) == before


@pytest.mark.parametrize("name", ["actions", "complete", "corpus", "position", "schema", "sessions"])
def test_resuming_a_damaged_ledger(run: RunFolder, name: str, command: Command) -> None:
    statement, _ = entry(run.ledger_file, name)
    with closing(sqlite3.connect(run.ledger_file)) as db, db:
        db.execute(statement, ('{"x": 1}',))
    told = command("resume", run.path)
    last = told.err.splitlines()[-1]  # after what it does until it reads that
    if name == "complete":  # which resuming says anew
        assert told.code == 0
    else:
        assert told.code == 2
        assert last.startswith(f"error: {run.ledger_file} ")


def test_without_the_file_that_locks_the_run(run: RunFolder, command: Command) -> None:
    run.environment_file.unlink()
    assert command("report", run.path).code == 0
    told = command("resume", run.path)
    assert told.code == 2
    assert told.err.splitlines()[-1].startswith(
        f"error: {run.path} holds no environment.json, by which a run is locked; bring it back, or make"
    )
    run.environment_file.write_text("{}")
    assert command("resume", run.path).code == 0
    assert command("report", run.path).code == 0


def test_the_best_tree_is_exported_without_the_ledger(run: RunFolder, command: Command, tmp_path: Path) -> None:
    run.ledger_file.unlink()
    export = ("export", run.path, "--format", "newick", "--drop-projections", "--out")
    assert command(*export, tmp_path / "x.nwk").code == 0
    assert (tmp_path / "x.nwk").read_text().rstrip().endswith(";")
    told = command(*export, tmp_path / "y.nwk", "--binarize")  # by the counts of the run
    assert works_or_refuses(told, run.ledger_file)
    assert told.code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty; wait for the search to begin, or bring back an intact copy of it"),
        (b"this is no database" * 100, "file is not a database; bring back an intact copy of it, or start a new"),
        (None, "it has no table batches, so no search has written it; give the folder of a search"),
    ],
)
def test_what_is_no_ledger(run: RunFolder, content: bytes | None, says: str, command: Command) -> None:
    run.ledger_file.unlink()
    if content is None:
        with closing(sqlite3.connect(run.ledger_file)) as db:
            db.execute("CREATE TABLE notes(text)")
    else:
        run.ledger_file.write_bytes(content)
    for name in ("show", "report", "resume", "compare"):
        told = command(name, run.path, *(["--evaluations"] if name == "compare" else []))
        assert told.code == 2
        *before, last = told.err.splitlines()
        assert last.startswith(f"error: {run.ledger_file} cannot be used as a ledger: {says}")
        assert all(line.startswith(f"{cli.LOADING}: ") for line in before)
