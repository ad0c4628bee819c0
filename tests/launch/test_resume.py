"""A search that is killed and resumed ends like one that never was; what would make it incomparable is refused."""

import contextlib
import os
import re
import shutil
import signal

import numpy as np
import pytest
import yaml

from tests import tiny
from tests.processes import full_disk
from tests.slow import slow_but
from treesearch.config import load_config
from treesearch.errors import RunError
from treesearch.launch import resume_search, run_search
from treesearch.progress import ProgressReporter
from treesearch.report.page.document import run_page
from treesearch.report.page.headline import headline
from treesearch.report.page.run_view import load_run
from treesearch.report.runs import run_outdated
from treesearch.search.evaluation_row import CONFIRM, FROZEN, STOPPED
from treesearch.search.ledger import Ledger
from treesearch.search.outcomes import task_key
from treesearch.search.run_folder import RunFolder
from treesearch.search.worker import EvaluationWorker

TIMES = {"head_us", "head_spread_us", "step_us", "step_spread_us"}


class Killed(BaseException):
    """As by a signal: nobody catches it."""


@pytest.fixture
def kill(monkeypatch):
    """``kill(n)``: the n-th transaction from here on never happens, nor does anything after it; 0 stops that."""
    whole = Ledger._transaction
    left = [0]

    @contextlib.contextmanager
    def transaction(ledger):
        left[0] -= 1
        if left[0] == 0:
            ledger._db.rollback()
            raise Killed
        with whole(ledger):
            yield

    def kill(number):
        left[0] = number
        monkeypatch.setattr(Ledger, "_transaction", transaction if number else whole)

    return kill


SETTINGS = {
    "plain": {},
    # A subset that stops some, two λs, two encoders.
    "eventful": {
        "environment": {
            "actions": ["similarity-0.5", "kway-4", "frequency-0.5", "close-huffman-2", "close-clustered-4"]
        },
        "frozen": {"subset_tokens": 400, "stop_margin": 0.01},
        "cost": {"weights": [0.001, 0.02]},
        "search": {"evaluations": 48, "refresh_every": 12, "batch_size": 4},
    },
    # With one worker, and as long as nothing is stopped, it is the same search again.
    "asynchronous": {
        "environment": {"actions": ["similarity-0.5", "kway-4", "close-huffman-2", "close-clustered-4"]},
        "cost": {"weights": [0.001, 0.02]},
        "search": {"evaluations": 48, "refresh_every": 12, "batch_size": 4, "asynchronous": True},
    },
}


@pytest.fixture(scope="module", params=slow_but(["plain"], SETTINGS))
def whole(request, tiny_config, tmp_path_factory):
    """Name and config of a search, and the folder of one that was never stopped."""
    raw = yaml.safe_load(tiny_config.read_text())
    for section, values in SETTINGS[request.param].items():
        raw[section] = {**raw.get(section, {}), **values}
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    config = load_config(path)
    with ProgressReporter() as progress:
        run_search(config, RunFolder(folder / "run"), progress)
    return config, RunFolder(folder / "run")


def rows(folder):
    with folder.open() as ledger:
        return [row.content() for row in ledger.rows()]


def results(folder):
    """The best tree and the comparison without measured times."""
    comparison = folder.comparison()
    for row in comparison["rows"]:
        for key in TIMES:
            row.pop(key)
    return folder.best_tree_file.read_bytes(), comparison


def transactions(folder):
    """About how many a run takes."""
    with folder.open() as ledger:
        rows = ledger.rows()
        streamed = sum(row.staleness is not None for row in rows) if folder.config().search.asynchronous else 0
        return 2 * len(rows) - streamed + len(ledger.metrics()) + 8


def search_until_killed(config, folder, kill, number):
    kill(number)
    with ProgressReporter() as progress:
        try:
            run_search(config, folder, progress)
            killed = False
        except Killed:
            killed = True
    kill(0)
    return killed


def resume(folder, *overrides):
    with ProgressReporter() as progress:
        return resume_search(folder, progress, overrides=overrides)


@pytest.mark.parametrize("share", slow_but([0.55], [0.06, 0.3, 0.55, 0.8, 0.97]))
def test_a_killed_search_ends_like_one_that_never_was(share, whole, kill, tmp_path):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    assert search_until_killed(config, folder, kill, int(share * transactions(reference)))
    assert len(rows(folder)) < len(rows(reference))
    resume(folder)
    assert rows(folder) == rows(reference)
    assert results(folder) == results(reference)


@pytest.mark.parametrize("share", slow_but([0.75], [0.75, 0.95]))
def test_a_full_disk_ends_the_search_and_loses_nothing(share, whole, tmp_path):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    size = int(share * reference.ledger_file.stat().st_size)
    with (
        full_disk(size),
        ProgressReporter() as progress,
        pytest.raises(RunError, match="free space or mend the folder and resume"),
    ):
        run_search(config, folder, progress)
    with folder.read() as ledger:
        assert 0 < len(ledger.rows()) < len(rows(reference))
    resume(folder)
    assert rows(folder) == rows(reference)
    assert results(folder) == results(reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_wherever_it_is_killed(seed, whole, kill, tmp_path):
    """Up to three times."""
    config, reference = whole
    folder, rng = RunFolder(tmp_path / "run"), np.random.default_rng(seed)
    number = int(rng.integers(5, transactions(reference)))  # the first are the ledger's own, and the corpus'
    search_until_killed(config, folder, kill, number)
    for _ in range(2):
        kill(int(rng.integers(1, transactions(reference))))
        with contextlib.suppress(Killed):
            resume(folder)
        kill(0)
    resume(folder)
    assert rows(folder) == rows(reference)
    assert results(folder) == results(reference)


def test_the_eventful_search_is_one(whole):
    """Else the tests above would show less than they say."""
    config, reference = whole
    if config.search.refresh_every is None:
        return
    with reference.open() as ledger:
        frozen = ledger.rows(FROZEN)
    assert len({row.encoder for row in frozen}) > 1
    assert (STOPPED in {row.status for row in frozen}) == (config.frozen.stop_margin is not None)
    assert any(row.subset_nll is not None for row in frozen) == (config.frozen.subset_tokens is not None)


def test_what_is_finished_is_not_done_again(whole, kill, tmp_path, monkeypatch):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    done, again = [], []
    call = EvaluationWorker.__call__

    def watch(kept):
        def watched(worker, payload):
            kept.append(task_key(payload, "any"))
            return call(worker, payload)

        monkeypatch.setattr(EvaluationWorker, "__call__", watched)

    watch(done)
    search_until_killed(config, folder, kill, int(0.9 * transactions(reference)))
    watch(again)
    resume(folder)
    assert len(set(done) & set(again)) <= 1, "the one that was under way"
    assert len(done) > len(again) > 0


def test_a_finished_search_goes_on_with_a_larger_budget(whole, tmp_path):
    config, reference = whole
    folder = RunFolder(shutil.copytree(reference.path, tmp_path / "run"))
    budget = config.search.evaluations + 6
    comparison = resume(folder, f"search.evaluations={budget}")
    assert comparison["evaluations"] == budget == folder.config().search.evaluations
    frozen = [row for row in rows(folder) if row["rung"] == FROZEN]
    assert frozen[:-6] == [row for row in rows(reference) if row["rung"] == FROZEN]
    assert len({row["id"] for row in rows(folder)}) == len(rows(folder))


def test_the_confirmation_may_change(whole, tmp_path):
    _, reference = whole
    folder = RunFolder(shutil.copytree(reference.path, tmp_path / "run"))
    assert resume(folder, "confirm.seeds=3")["seeds"] == 3
    known = {tuple(row.items()) for row in rows(reference)}
    new = [row for row in rows(folder) if tuple(row.items()) not in known]
    assert {row["rung"] for row in new} == {CONFIRM}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=1", r"seed must stay 0, which all evaluations of a run share, but got 1; start a new search"),
        ("encoder.features=16", r"encoder\.features must stay 8"),
        ("cost.weight=0.1", r"cost\.weight must stay 0\.005"),
        ("environment.max_decisions=5", r"environment\.max_decisions must stay 4"),
        ("search.agent=evolution", r"search\.agent must stay 'hybrid'"),
        ("joint.epochs=3", r"joint\.epochs must stay 1"),
        ("data.max_classes=50", r"data\.max_classes must stay None"),
        ("search.evaluations=20", r"search\.evaluations must be at least what is spent \(\d+\), but got 20"),
    ],
)
def test_what_would_make_evaluations_incomparable_is_refused_by_name(override, says, whole, tmp_path):
    _, reference = whole
    folder = RunFolder(shutil.copytree(reference.path, tmp_path / "run"))
    before = tiny.snapshot(folder.path)
    with pytest.raises(RunError, match=says) as caught:
        resume(folder, override)
    assert len(str(caught.value).splitlines()) == 1
    assert tiny.snapshot(folder.path) == before


@pytest.mark.parametrize("number", slow_but([4], [2, 4, 5]))
def test_a_resume_that_is_killed_leaves_no_finished_run(number, local_run, kill, tmp_path):
    """Where the confirmation alone changes: the number of evaluations does not tell."""
    folder = RunFolder(shutil.copytree(local_run, tmp_path / "run"))
    assert load_run(folder.path).complete
    assert state(folder) == "finished"
    kill(number)  # the first transaction says that it is not complete
    with pytest.raises(Killed):
        resume(folder, "confirm.seeds=3")
    kill(0)
    view = load_run(folder.path)
    assert view.comparison["evaluations"] == len(view.frozen) == tiny.EVALUATIONS
    assert state(folder) == "stopped before its end"
    assert view.outdated is not None
    assert run_outdated(folder, folder.comparison()) == view.outdated, "compare says so, too"
    assert any(f"go on with: treesearch resume {folder.path}" in one for one in headline(view).sentences)
    resume(folder)
    assert state(folder) == "finished"
    assert run_outdated(folder, folder.comparison()) is None


def test_a_ledger_of_before_it_said_whether_it_is_complete(local_run, tmp_path):
    folder = RunFolder(shutil.copytree(local_run, tmp_path / "run"))
    with folder.open() as ledger:
        ledger.set_meta("complete", None)
    assert load_run(folder.path).complete is None
    assert state(folder) == "finished"


def state(folder):
    """What the page calls it."""
    return re.search('<p class="state">(.*?); written', run_page(load_run(folder.path)))[1]


def test_another_text_is_refused(whole, tmp_path):
    config, reference = whole
    folder = RunFolder(shutil.copytree(reference.path, tmp_path / "run"))
    raw = config.model_dump(mode="json")
    raw["data"]["train"] = config.data.valid
    folder.config_file.write_text(yaml.safe_dump(raw))
    with pytest.raises(RunError, match="data must be those of the search"):
        resume(folder)


def test_only_one_process_works_on_a_run(whole, tmp_path):
    _, reference = whole
    folder = RunFolder(shutil.copytree(reference.path, tmp_path / "run"))
    with folder.lock(), pytest.raises(RunError, match="being worked on by another process"):
        resume(folder)
    resume(folder)


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="no ledger at"):
        resume(RunFolder(tmp_path))


# -- Ctrl-C


def test_an_interrupted_search_finishes_what_is_under_way(whole, tmp_path, monkeypatch, capsys):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    call, calls = EvaluationWorker.__call__, []

    def interrupted(worker, payload):
        calls.append(payload)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return call(worker, payload)

    monkeypatch.setattr(EvaluationWorker, "__call__", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with ProgressReporter() as progress, pytest.raises(KeyboardInterrupt):
        run_search(config, folder, progress)
    assert signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().err
    assert said.index("evaluations that are under way are finished") < said.index(f"treesearch resume {folder.path}")
    assert len(calls) == 9
    resume(folder)
    last = calls[8]
    evaluated = [row["tree_hash"] for row in rows(reference) if row["rung"] == FROZEN and row["nodes_trained"]]
    again = [one for one in calls if task_key(one, "") == task_key(last, "")]
    assert len(again) == evaluated.count(last.tree.hash), "it was finished: once under each encoder"
    assert rows(folder) == rows(reference)


@pytest.mark.slow
def test_the_second_time_it_ends_at_once(whole, tmp_path, monkeypatch):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    calls = []

    def interrupted(worker, payload):
        calls.append(payload)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it goes on")

    call = EvaluationWorker.__call__
    monkeypatch.setattr(EvaluationWorker, "__call__", interrupted)
    with ProgressReporter() as progress, pytest.raises(KeyboardInterrupt):
        run_search(config, folder, progress)
    monkeypatch.setattr(EvaluationWorker, "__call__", call)
    assert len(calls) == 1
    resume(folder)
    assert rows(folder) == rows(reference)
