"""What the report reads of a run: where it looks for runs, times with pauses, costs, ledgers of earlier versions."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.page import runs
from treesearch.config import make_config, with_overrides
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.errors import RunError
from treesearch.launch.records import record_config
from treesearch.report.page import run_view
from treesearch.report.page.run_view import Batch, RunView, find_runs, load_run
from treesearch.search.ledger import Ledger


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.large(tmp_path_factory.mktemp("view") / "run", num_evaluations=30, num_classes=40).path


def copied(run: Path, *targets: Path) -> None:
    for target in targets:
        shutil.copytree(run, target)


def test_a_run_folder(run: Path) -> None:
    (view,) = find_runs([run])
    assert (view.name, view.group, view.path, view.running) == ("run", "run", run, False)
    assert (len(view.frozen), view.agent) == (30, "hybrid")
    assert view.class_names == tuple(f"w{c:05}" for c in range(40))
    assert view.class_vectors is not None
    assert view.class_vectors.shape == (40, view.config.encoder.features)
    assert view.environment is not None
    assert view.best_tree is not None
    assert {row.rung for row in view.rows} == {"frozen", "joint"}


def test_folders_of_runs(run: Path, tmp_path: Path) -> None:
    """As a sweep leaves them; one level deep and two."""
    copied(run, tmp_path / "sweep/b", tmp_path / "sweep/deep/a")
    (tmp_path / "sweep/notes.txt").write_text("no run")
    assert [view.name for view in find_runs([tmp_path / "sweep"])] == ["b", "deep/a"]
    names = [view.name for view in find_runs([tmp_path / "sweep", run])]
    assert names == ["sweep/b", "sweep/deep/a", "run"]


def test_a_study(run: Path, tmp_path: Path) -> None:
    for seed in (10, 9):
        for variant in ("hybrid", "random_search"):
            file = tmp_path / variant / f"seed-{seed}.db"
            file.parent.mkdir(exist_ok=True)
            shutil.copy(run / "search.db", file)
    shutil.copy(run / "config.yaml", tmp_path)
    views = find_runs([tmp_path])
    assert [view.name for view in views] == [
        "hybrid, seed 9",
        "hybrid, seed 10",
        "random_search, seed 9",
        "random_search, seed 10",
    ]
    assert [view.group for view in views] == ["hybrid"] * 2 + ["random_search"] * 2
    assert all(view.comparison is None and not view.running and len(view.frozen) == 30 for view in views)


def test_a_study_that_ends_while_it_is_looked_at(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last search has finished then, and was not stopped."""
    shutil.copy(run / "config.yaml", tmp_path)
    (tmp_path / "hybrid").mkdir()
    partial = tmp_path / "hybrid/seed-1.partial-1a"
    shutil.copy(run / "search.db", partial)

    asked: list[Path] = []

    def is_held(file: Path) -> bool:
        asked.append(file)
        if len(asked) == 2:  # first of the folder, then of the search
            partial.rename(tmp_path / "hybrid/seed-1.db")
        return False

    monkeypatch.setattr(run_view, "is_held", is_held)
    (view,) = find_runs([tmp_path])
    assert (view.finished, view.running) == (True, False)


def test_a_variant_has_settings_of_its_own(run: Path, tmp_path: Path) -> None:
    """In its ledger; one of an earlier version has what all variants have in common."""
    shutil.copy(run / "config.yaml", tmp_path)
    common = load_run(run).config
    own = with_overrides(common, ["search.agent=evolution", "search.evaluations=77"])
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        shutil.copy(run / "search.db", tmp_path / name / "seed-1.db")
    with Ledger(tmp_path / "new/seed-1.db") as ledger:
        record_config(ledger, own)
    assert [view.config for view in find_runs([tmp_path])] == [own, common]
    with Ledger(tmp_path / "new/seed-1.db") as ledger:
        ledger.set_meta("config", ["evolution"])
    with pytest.raises(RunError, match="config in its table meta must be an object, but is"):
        find_runs([tmp_path])


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    file = run / "search.db"
    with pytest.raises(RunError, match=r"search\.db is no folder; give the folder of a search, a study or a sweep"):
        find_runs([file])
    with pytest.raises(RunError, match=r"holds no search\.db and no study"):
        find_runs([tmp_path])
    with pytest.raises(RunError, match="is no folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(RunError, match=r"is given twice among .*; give each run once"):
        find_runs([run, run / ".." / run.name])
    with pytest.raises(RunError, match="is given twice among"):
        find_runs([run.parent, run])


def test_a_folder_that_ends_in_dots_has_its_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert load_run(Path()).name == find_runs([Path()])[0].name == "run"


def with_times(view: RunView, sessions: list[float], ends: list[float]) -> RunView:
    rows = tuple(replace(view.frozen[0], id=i, batch=1, finished_at=end) for i, end in enumerate(ends))
    return replace(view, rows=rows, batches=(), sessions=tuple(sessions))


@pytest.mark.parametrize("seed", range(5))
def test_elapsed_leaves_pauses_out(run: Path, seed: int) -> None:
    """Against a clock that only ticks while a process works: from its start to its last result."""
    rng = np.random.default_rng(seed)
    sessions, ends, working, clock = [], [], [], 100.0
    for _ in range(4):
        sessions.append(clock)
        last = clock
        for _ in range(int(rng.integers(1, 6))):
            last += float(rng.integers(1, 9))
            ends.append(last)
        working += [(t, t + 1) for t in range(int(clock), int(last))]
        clock = last + float(rng.integers(1, 50))
    view = with_times(load_run(run), sessions, ends)
    for end in ends:
        assert view.elapsed(end) == pytest.approx(sum(begin < end for begin, _ in working))
    assert view.elapsed(99.0) == 0


def test_a_session_without_a_result_takes_no_time(run: Path) -> None:
    view = with_times(load_run(run), [0.0, 100.0, 200.0], [10.0, 210.0])
    assert [view.elapsed(at) for at in (10.0, 210.0)] == [10.0, 20.0]


def test_elapsed_without_sessions_begins_with_the_first_result(run: Path) -> None:
    view = with_times(load_run(run), [], [50.0, 60.0])
    assert [view.elapsed(at) for at in (50.0, 60.0)] == [0.0, 10.0]


def test_measured_cost_is_in_the_units_of_the_cost_model(run: Path) -> None:
    view = load_run(run)
    rows = tuple(
        replace(row, cost_measured_us=3.0 + row.id, expected_depth=7.5 if row.label == "huffman" else 2.0)
        for row in view.rows
    )
    measured = replace(view, rows=rows, config=make_config({"cost": {"kind": "measured"}}))
    huffman = next(row for row in rows if row.label == "huffman")
    assert huffman.cost_measured_us is not None
    table = CostTable.__new__(CostTable)  # any: what is charged depends on the unit alone
    model = CostModel(8, 0.005, table=table, unit_us=huffman.cost_measured_us / 7.5)
    for row in rows:
        assert measured.units(row) == pytest.approx(row.units(model))
        if row.valid_nll is not None:
            assert measured.reward(row) == pytest.approx(row.validation_reward(model))
    assert measured.units(huffman) == pytest.approx(7.5)
    assert view.units(rows[5]) == rows[5].cost
    alone = replace(measured, rows=tuple(row for row in rows if row.label != "huffman"))
    assert alone.units(rows[5]) is None
    assert alone.reward(rows[5]) is None


def test_rows_of_other_features_are_not_compared(run: Path) -> None:
    view = load_run(run)
    other = replace(view.frozen[0], id=99, encoder="older")
    mixed = replace(view, rows=(other, *view.rows))
    assert len(mixed.frozen) == 31
    assert other not in mixed.scored
    assert mixed.huffman == view.huffman


def test_times_of_earlier_ledgers_are_those_of_batches(run: Path) -> None:
    view = load_run(run)
    row = replace(view.frozen[-1], finished_at=None)
    old = replace(view, batches=(Batch(row.batch, 123.0, {}),))
    assert old.finished_at(row) == 123.0
    assert old.finished_at(replace(row, rung="joint")) is None
    assert old.finished_at(replace(row, finished_at=5.0)) == 5.0


def test_a_ledger_of_an_earlier_version(run: Path, tmp_path: Path) -> None:
    """Without the columns, the table and the entries that came later: names are then the best tree's."""
    copied(run, tmp_path / "old")
    with closing(sqlite3.connect(tmp_path / "old/search.db")) as db, db:
        db.execute("ALTER TABLE evaluations DROP COLUMN decisions")
        db.execute("ALTER TABLE evaluations DROP COLUMN finished_at")
        db.execute("DROP TABLE class_vectors")
        db.execute("DELETE FROM meta WHERE key IN ('sessions', 'class_names')")
    view = load_run(tmp_path / "old")
    assert (view.class_vectors, view.sessions) == (None, ())
    assert view.class_names == tuple(f"w{c:05}" for c in range(40))
    assert {row.decisions for row in view.frozen} == {None}
    assert view.finished_at(view.frozen[-1]) == view.batches[-1].finished_at
    from treesearch.report.page.document import run_page

    assert "the run was written before ledgers kept class vectors" in run_page(view)


def test_a_broken_environment_is_left_out(run: Path, tmp_path: Path) -> None:
    copied(run, tmp_path / "run")
    for content in ("{", "[1]"):
        (tmp_path / "run/environment.json").write_text(content)
        assert load_run(tmp_path / "run").environment is None
    (tmp_path / "run/environment.json").write_text(json.dumps({"python": "3"}))
    assert load_run(tmp_path / "run").environment == {"python": "3"}
