"""A search that is killed and resumed ends like one that never was; what would make it incomparable is refused."""

import json
import shutil
from contextlib import contextmanager

import pytest
import yaml

from tests import tiny
from treesearch.config import load_config
from treesearch.errors import RunError
from treesearch.launch import resume_search, run_search
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import CONFIRM, FROZEN, JOINT, WARM, Ledger
from treesearch.search.run_folder import RunFolder

TIMES = {"head_us", "head_spread_us", "step_us", "step_spread_us"}


class Killed(BaseException):
    """As by a signal: nobody catches it."""


@pytest.fixture
def kill(monkeypatch):
    """``kill(n)``: the n-th transaction from here on never happens, nor does anything after it; 0 stops that."""
    whole = Ledger._transaction
    left = [0]

    @contextmanager
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
    # A subset that stops some, two λs, two encoders, and a memo that forgets.
    "eventful": {
        "encoder": {"refine_epochs": 1},
        "frozen": {"subset_tokens": 400, "stop_margin": 0.2},
        "cost": {"weights": [0.001, 0.02]},
        "search": {"evaluations": 48, "refresh_every": 12, "batch_size": 4},
    },
}


@pytest.fixture(scope="module", params=SETTINGS)
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
        return 2 * len(rows) + len(ledger.metrics()) + 8


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


@pytest.mark.parametrize("share", [0.06, 0.3, 0.55, 0.8, 0.97])
def test_a_killed_search_ends_like_one_that_never_was(share, whole, kill, tmp_path):
    config, reference = whole
    folder = RunFolder(tmp_path / "run")
    assert search_until_killed(config, folder, kill, int(share * transactions(reference)))
    assert len(rows(folder)) < len(rows(reference))
    resume(folder)
    assert rows(folder) == rows(reference)
    assert results(folder) == results(reference)
