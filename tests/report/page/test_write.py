"""Writing the report: where it goes, what it does not replace, and following a search until nobody works on it."""

import fcntl
import re
import shutil
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import full_disk
from tests.report.page import runs
from treesearch.errors import RunError
from treesearch.report.page import run_view
from treesearch.report.page.run_view import load_run
from treesearch.report.page.write import MARK, report_file, watch_report, write_report
from treesearch.search import locks
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import STOPPED_BY
from treesearch.search.locks import CONFIG_FILE, claimed
from treesearch.search.run_folder import RunFolder
from treesearch.search.study_ledgers import ledger_file, recorded

LIVE = 'id="live"'


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.hostile(tmp_path_factory.mktemp("write") / "run").path


@pytest.fixture
def run(original: Path, tmp_path: Path) -> RunFolder:
    """A folder of its own of a search that was stopped."""
    shutil.copytree(original, tmp_path / "run")
    (tmp_path / "run/comparison.json").unlink()
    return RunFolder(tmp_path / "run")


def test_default_places(run: RunFolder, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_report([run.path]) == run.report_file == run.path / "report.html"
    assert run.report_file.read_text().startswith("<!DOCTYPE html>")
    assert report_file([run.path, original]) == Path("report.html")
    assert write_report([run.path, original]) == Path("report.html")
    assert "Runs side by side" in (tmp_path / "report.html").read_text()
    assert write_report([run.path], Path("other.html")) == Path("other.html")
    assert list(tmp_path.glob("**/*.tmp*")) == []


def test_an_earlier_report_is_replaced_and_nothing_else(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("")  # an empty file is nothing that could be lost
    write_report([run.path], file)
    assert MARK in file.read_text()
    write_report([run.path], file)
    file.write_text("<html>somebody's own")
    for write in (write_report, lambda paths, out: watch_report(paths, out, interval=1)):
        with pytest.raises(RunError, match=r"page\.html exists and is no report of treesearch; choose another --out"):
            write([run.path], file)
    assert file.read_text() == "<html>somebody's own"
    with pytest.raises(RunError, match=r"search\.db exists and is no report"):
        write_report([run.path], run.ledger_file)


def test_where_it_cannot_be_written(run: RunFolder, tmp_path: Path) -> None:
    for out, why in (
        (tmp_path / "none/page.html", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (run.config_file / "page.html", "Not a directory"),
    ):
        with pytest.raises(RunError, match=rf"cannot be written \({why}\); choose another --out"):
            write_report([run.path], out)


def test_a_folder_where_one_may_not_write(run: RunFolder, read_only_folder: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written \(Permission denied\); choose another --out"):
        write_report([run.path], read_only_folder / "page.html")


def test_a_full_disk_leaves_the_earlier_report(run: RunFolder) -> None:
    run.report_file.write_text(MARK)
    with full_disk(1_000_000), pytest.raises(RunError, match="cannot be written"):
        write_report([run.path])
    assert run.report_file.read_text() == MARK


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no folder; give the folder of a search"):
        write_report([tmp_path / "none"])


def test_watching_ends_when_nobody_works_on_it(run: RunFolder) -> None:
    """The lock is another process's in a search; here a thread's, which is the same to the lock."""
    release, written, told = threading.Event(), [], []
    held = threading.Event()

    def work() -> None:
        with run.lock():
            held.set()
            release.wait(60)

    worker = threading.Thread(target=work)
    worker.start()
    assert held.wait(60)

    def sleep(seconds: float) -> None:
        written.append((seconds, run.report_file.read_text()))
        if len(written) == 2:
            release.set()
            worker.join()
        with run.open() as ledger:
            row = ledger.rows()[1]
            ledger.record(replace(row, id=ledger.next_id()), ledger.tree(row.tree_hash))

    assert watch_report([run.path], interval=7.5, told=told.append, sleep=sleep) == run.report_file
    assert [seconds for seconds, _ in written] == [7.5, 7.5]
    for number, (_, page) in enumerate(written):
        assert f"The search is running: {24 + number} of 24 evaluations are done" in page
        assert LIVE in page
        assert '"refresh":7.5}' in page
    last = run.report_file.read_text()
    assert "All 26 evaluations are done, but the search was stopped" in last
    assert LIVE not in last
    assert '"refresh":null}' in last
    assert told == [
        f"wrote {run.report_file}; open it, it follows the search every 7.5 s (Ctrl-C to end)",
        f"wrote {run.report_file}; no process works on it any more",
    ]


def test_an_interrupt_writes_a_last_page(run: RunFolder) -> None:
    def sleep(seconds: float) -> None:
        assert LIVE in run.report_file.read_text()
        raise KeyboardInterrupt

    with run.lock(), pytest.raises(KeyboardInterrupt):
        watch_report([run.path], interval=1, sleep=sleep)
    page = run.report_file.read_text()
    assert LIVE not in page
    assert "The search is running" in page


def test_one_of_several_runs_is_followed(run: RunFolder, original: Path, tmp_path: Path) -> None:
    told: list[str] = []
    file = tmp_path / "two.html"
    watch_report([original, run.path], file, interval=1, told=told.append, sleep=pytest.fail)
    assert told == [f"wrote {file}; no process works on them any more"]
    with run.lock(), pytest.raises(KeyboardInterrupt):
        watch_report([original, run.path], file, interval=1, sleep=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert "2 runs, 1 running" in file.read_text()


def study_folder(folder: Path, run: RunFolder, num_searches: int) -> Path:
    """A study that has finished so many searches, beside one that is about to begin."""
    (folder / "hybrid").mkdir(parents=True)
    shutil.copy(run.config_file, folder / CONFIG_FILE)
    (folder / "hybrid/seed-9.partial-1").touch()
    for seed in range(1, num_searches + 1):
        shutil.copy(run.ledger_file, folder / f"hybrid/seed-{seed}.db")
    return folder


def told_of(page: str, name: str) -> tuple[str, int]:
    """State and evaluations of a run, from the table of runs."""
    cells, *_ = re.findall(rf"<tr><th[^>]*>(?:<[^>]*>)*{name}(?:<[^>]*>)*</th>(.*?)</tr>", page)
    state, _, evaluations, *_ = re.findall(r"<td[^>]*>(.*?)</td>", cells)
    return state, int(evaluations)


def test_a_study_is_followed_between_its_searches(run: RunFolder, tmp_path: Path) -> None:
    study = study_folder(tmp_path / "study", run, 1)
    told: list[str] = []
    pages: list[str] = []

    with ExitStack() as working:
        working.enter_context(claimed(study, (study / CONFIG_FILE).read_text(), "study", empty=False))

        def sleep(seconds: float) -> None:
            pages.append((study / "report.html").read_text())
            if len(pages) == 1:
                shutil.copy(run.ledger_file, study / "hybrid/seed-2.db")
            else:
                working.close()

        watch_report([study], interval=1, told=told.append, sleep=sleep)
    assert len(pages) == 2
    assert all(LIVE in page for page in pages)
    assert "2 runs, more to come" in pages[1]
    last = (study / "report.html").read_text()
    assert LIVE not in last
    assert "more to come" not in last
    assert len(told) == 2


def test_a_search_of_a_study_is_followed(run: RunFolder, tmp_path: Path) -> None:
    """From its first evaluation to its end, beside one that has finished."""
    study = study_folder(tmp_path / "study", run, 1)
    pages: list[str] = []
    with run.read() as source:
        rows, encoder = source.rows(FROZEN), source.meta("encoder")
        trees = {row.tree_hash: source.tree(row.tree_hash) for row in rows[:3]}  # it was made up with few more

    with ExitStack() as working:
        working.enter_context(claimed(study, (study / CONFIG_FILE).read_text(), "study", empty=False))
        ledger = working.enter_context(recorded(ledger_file(study, "hybrid", 2)))
        ledger.set_meta("encoder", encoder)

        between = iter((rows[:3], rows[3:], []))

        def sleep(seconds: float) -> None:
            pages.append((study / "report.html").read_text())
            for row in next(between):
                ledger.record(row, trees.get(row.tree_hash, trees[rows[0].tree_hash]))
            if len(pages) == 3:
                working.close()

        watch_report([study], interval=1, sleep=sleep)
    pages.append((study / "report.html").read_text())
    said = [told_of(page, "hybrid, seed 2") for page in pages]
    assert said == [("running", 0), ("running", 3), ("running", len(rows)), ("finished", len(rows))]
    unfinished = "1 of 2 searches have not finished"
    assert ["2 runs, 1 running" in page and unfinished in page for page in pages] == [True, True, True, False]
    assert told_of(pages[0], "hybrid, seed 1") == ("finished", 24)


def test_what_cannot_be_read_now_is_looked_at_again(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a process works there; the first look, and the last, must succeed."""
    study = study_folder(tmp_path / "study", run, 1)
    kept, told = study / "hybrid/seed-1.db", []
    with ExitStack() as working:
        working.enter_context(claimed(study, (study / CONFIG_FILE).read_text(), "study", empty=False))
        turns = iter((lambda: kept.write_bytes(b""), lambda: shutil.copy(run.ledger_file, kept), working.close))
        watch_report([study], interval=1, told=told.append, sleep=lambda seconds: next(turns)())
        assert len(told) == 3
        assert re.search(r"seed-1\.db cannot be used as a ledger: it is empty; .*; looking again in 1 s$", told[1])
    kept.write_bytes(b"")
    with (
        claimed(study, (study / CONFIG_FILE).read_text(), "study", empty=False),
        pytest.raises(RunError, match="it is empty"),
    ):
        watch_report([study], interval=1, sleep=pytest.fail)


def test_a_search_that_has_failed_does_not_run(run: RunFolder, tmp_path: Path) -> None:
    """Nor is it in the means of its study, whose other searches go on."""
    study = study_folder(tmp_path / "study", run, 1)
    partial = study / "hybrid/seed-2.partial-ab"
    shutil.copy(run.ledger_file, partial)
    with Ledger(partial) as ledger:
        ledger.set_meta(STOPPED_BY, "ExecutionError")
    with claimed(study, (study / CONFIG_FILE).read_text(), "study", empty=False):
        page = write_report([study]).read_text()
    assert told_of(page, "hybrid, seed 2") == ("stopped before its end", 24)
    assert "1 of 2 searches have not finished" in page


def test_what_a_study_that_was_stopped_has_left(run: RunFolder, tmp_path: Path) -> None:
    study = study_folder(tmp_path / "study", run, 1)
    shutil.copy(run.ledger_file, study / "hybrid/seed-2.partial-12")
    page = write_report([study]).read_text()
    assert told_of(page, "hybrid, seed 2")[0] == "stopped before its end"
    assert "1 running" not in page
    (study / "hybrid/seed-1.db").unlink()
    page = write_report([study]).read_text()
    assert "The search was stopped after 24 of 24 evaluations; the same study, started again, begins it anew." in page


def test_a_sweep_is_followed_between_its_searches(run: RunFolder, tmp_path: Path) -> None:
    """No search is under way, one that begins has an empty ledger; seen from the folder above as well."""
    sweep = tmp_path / "above/sweep"
    shutil.copytree(run.path, sweep / "runs/a")
    (sweep / "runs/b").mkdir()
    shutil.copy(run.config_file, sweep / "runs/b")
    (sweep / "runs/b/search.db").touch()
    for path in (sweep, sweep.parent):
        with claimed(sweep, "seed: 1\n", "sweep", empty=False), pytest.raises(KeyboardInterrupt):
            watch_report([path], interval=1, sleep=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert "stopped before its end" in (path / "report.html").read_text()
        with pytest.raises(RunError, match=r"runs/b/search\.db cannot be used as a ledger: it is empty"):
            write_report([path])


def test_a_search_that_a_sweep_begins_anew_meanwhile(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder goes and comes again, here between the look for ledgers and the look at them."""
    kept, gone = (RunFolder(shutil.copytree(run.path, tmp_path / "sweep/runs" / name)) for name in "ab")

    def at_work(path: Path) -> bool:
        shutil.rmtree(gone.path)
        return True

    monkeypatch.setattr(run_view, "at_work", at_work)
    assert [view.path for view in run_view.find_runs([tmp_path / "sweep"])] == [kept.path]


def test_what_to_wait_for_before_there_is_anything_to_show(run: RunFolder, tmp_path: Path) -> None:
    study = study_folder(tmp_path / "study", run, 0)
    with pytest.raises(RunError, match=r"holds no search\.db and no study"):
        watch_report([study], interval=1)
    text = (study / CONFIG_FILE).read_text()
    with (
        claimed(study, text, "study", empty=False),
        pytest.raises(
            RunError, match=r"nothing to show yet, but a process works on it: wait until its first search has"
        ),
    ):
        watch_report([study], interval=1)
    with pytest.raises(RunError, match=r"is no folder; .*; one that has just begun makes it once it has read its data"):
        watch_report([tmp_path / "none"], interval=1)


def test_asking_for_a_lock_does_not_keep_a_search_off(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that begins while `locked` holds the lock for a moment waits for it instead of failing."""
    assert not run.locked()
    asked, taken = threading.Event(), threading.Event()

    def ask() -> None:
        with run.environment_file.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            asked.set()
            taken.wait(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(60)
    assert run.locked()
    with run.lock():
        assert load_run(run.path).running
        monkeypatch.setattr(locks, "PATIENCE", 0.05)
        with pytest.raises(RunError, match="is being worked on by another process"), run.lock():
            pass
    thread.join()
    assert not load_run(run.path).running
