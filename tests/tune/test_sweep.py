"""Sweeps: what is refused before anything runs, and (slow) one that is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.processes import until
from treesearch.errors import ConfigError, RunError
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import FROZEN
from treesearch.search.run_folder import RunFolder
from treesearch.tune.sweep import load_sweep, run_sweep, sweep_table

SPACE = {"search.agent": {"grid": ["hybrid", "evolution"]}, "environment.max_decisions": {"randint": [3, 7]}}


@pytest.fixture
def sweep_file(tiny_config, tmp_path):
    def write(**sweep: object) -> Path:
        raw = yaml.safe_load(tiny_config.read_text())
        raw["confirm"] = {"promote": 1, "seeds": 1, "timing": False}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({**raw, "sweep": sweep}))
        return path

    return write


def test_a_sweep_is_a_config_and_a_space(sweep_file):
    config, sweep = load_sweep(sweep_file(space=SPACE, num_samples=3), ["search.evaluations=40"])
    assert (config.search.evaluations, sweep.num_samples, sweep.space) == (40, 3, SPACE)


def test_the_shipped_sweep():
    config, sweep = load_sweep(Path(__file__).parents[2] / "configs/sweep.yaml")
    assert config.confirm.seeds > 0
    assert len(sweep.space) > 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "sweep.space: dictionary should have at least 1 item"),
        ({"search.agnet": {"grid": ["hybrid"]}}, "unknown key 'search.agnet' in the config; did you mean 'agent'"),
        ({"search.batch_size": {"choice": [5, 0]}}, "search.batch_size: input should be greater than or equal to 1"),
        ({"frozen.learning_rate": {"uniform": [-1.0, 1.0]}}, "frozen.learning_rate: input should be greater than 0"),
        ({"search.agent": {"gird": ["hybrid"]}}, "sweep.space.search.agent: unknown kind 'gird'; did you mean 'grid'"),
        ({"search.agent": {"grid": []}}, r"sweep.space.search.agent.grid must be a list, but got \[\]"),
        ({"search.agent": {"grid": ["hybrid"], "choice": ["hybrid"]}}, "must have one kind, grid or choice or"),
        ({"frozen.learning_rate": {"loguniform": [0, 1]}}, r"must be \[low, high\], both > 0, with low < high"),
        ({"frozen.learning_rate": {"uniform": [0.1]}}, r"must be \[low, high\] with low < high, but got \[0.1\]"),
        ({"environment.max_decisions": {"randint": [3.5, 7]}}, "must have whole numbers"),
        ({"data.max_classes": {"grid": [100]}}, "must have data.max_classes in common"),
        ({"cost": {"grid": [{"weight": 1}]}}, "must have cost in common"),
    ],
)
def test_what_is_refused(sweep_file, space, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_sweep(sweep_file(space=space))
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_sweep(sweep_file, tiny_config):
    with pytest.raises(ConfigError, match="needs a section sweep with a space"):
        load_sweep(tiny_config)
    with pytest.raises(ConfigError, match=r"unknown key 'sweep.num_smaples'.*did you mean 'num_samples'"):
        load_sweep(sweep_file(space=SPACE, num_smaples=2))
    with pytest.raises(ConfigError, match=r"needs cost.table"):
        load_sweep(sweep_file(space=SPACE), ["cost.kind=measured"])
    with pytest.raises(ConfigError, match=r"must have encoder.features in common"):
        load_sweep(sweep_file(space={"encoder.features": {"grid": [8, 16]}}), ["confirm.seeds=0"])


def test_an_agent_that_there_is_not_is_refused_before_anything_runs(sweep_file, tmp_path):
    config, sweep = load_sweep(sweep_file(space={"search.agent": {"grid": ["hybrid", "evolutoin"]}}))
    with ProgressReporter(quiet=True) as progress, pytest.raises(ConfigError, match="did you mean 'evolution'"):
        run_sweep(config, sweep, tmp_path / "out", progress)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_sweep(sweep_file, tmp_path):
    config, sweep = load_sweep(sweep_file(space=SPACE))
    for name, content in (("config.yaml", "another"), ("notes.txt", "mine")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with ProgressReporter(quiet=True) as progress, pytest.raises(RunError, match="choose another --out"):
            run_sweep(config, sweep, folder, progress)


def test_the_table_shows_failures_too():
    figures = {"frozen_reward": -4.0, "joint_reward": -3.9, "valid_nll": 3.8, "cost": 4.5}
    names = ("search.agent", "x.rate")
    found = {"search": "a", "settings": dict(zip(names, ("hybrid", 0.1), strict=True)), **figures}
    failed = {"search": "b", "settings": dict(zip(names, ("evolution", 0.2), strict=True)), **dict.fromkeys(figures)}
    rows = [{**found, "best": "found #3", "error": None}, {**failed, "best": None, "error": "RunError: no"}]
    table = sweep_table(rows)
    cells = [list(column.cells) for column in table.columns]
    assert [column.header for column in table.columns][:3] == ["search", "agent", "rate"]
    assert cells[-1] == ["found #3", "RunError: no"]
    assert cells[3] == ["-4.0000", "-"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_sweep_goes_on_and_runs_nothing_twice(sweep_file, tmp_path):
    out = tmp_path / "out"
    path = sweep_file(space=SPACE, num_samples=2, max_concurrent=2)
    command = [sys.executable, "-m", "treesearch.cli", "sweep", str(path), "--out", str(out), "--json"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: list(out.glob("runs/*/comparison.json")), "the end of a search")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert sorted(row["settings"]["search.agent"] for row in rows) == ["evolution"] * 2 + ["hybrid"] * 2
    assert [row["error"] for row in rows] == [None] * 4
    assert rows == sorted(rows, key=lambda row: -row["joint_reward"])
    assert len(list(out.glob("runs/*"))) == 4
    assert json.loads((out / "sweep.json").read_text()) == rows
    for run in out.glob("runs/*"):
        with RunFolder(run).read() as ledger:
            assert len(ledger.rows(FROZEN)) == tiny.EVALUATIONS
