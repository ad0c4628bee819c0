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
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.locks import claimed, is_held
from treesearch.search.run_folder import RunFolder
from treesearch.tune import sweep
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
    config, space = load_sweep(sweep_file(space=SPACE, num_samples=3), ["search.evaluations=40"])
    assert (config.search.evaluations, space.num_samples, space.space) == (40, 3, SPACE)


def test_the_shipped_sweep():
    config, space = load_sweep(Path(__file__).parents[2] / "configs/sweep.yaml")
    assert config.confirm.seeds > 0
    assert len(space.space) > 1


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
        ({"confirm.seeds": {"grid": [0, 1]}}, "must have confirm.seeds in common"),
        ({"search.executor": {"grid": ["local"]}}, "must have search.executor in common"),
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


def test_settings_that_need_each_other_are_judged_together(sweep_file):
    space = {"frozen.subset_tokens": {"grid": [100]}, "frozen.stop_margin": {"grid": [0.1, 0.2]}}
    assert load_sweep(sweep_file(space=space))
    with pytest.raises(ConfigError, match="subset_tokens needs stop_margin"):
        load_sweep(sweep_file(space={"frozen.subset_tokens": {"grid": [100]}}))


def test_numbers_stay_numbers(sweep_file):
    """YAML would take 1e-05 for a word."""
    config, _ = load_sweep(sweep_file(space=SPACE))
    assert sweep._assigned(config, {"search.settings.learning_rate": 1e-05}).search.settings == {"learning_rate": 1e-05}


def test_a_time_limit_cannot_be_kept(sweep_file):
    with pytest.raises(ConfigError, match=r"frozen\.time_limit cannot be kept"):
        load_sweep(sweep_file(space=SPACE), ["frozen.time_limit=5", "search.executor=ray"])


def claim(out, config, space):
    with claimed(out, sweep._identity(config, space), "sweep", empty=True):
        assert is_held(out / "config.yaml")
    assert not is_held(out / "config.yaml")


def test_what_may_change_when_a_sweep_goes_on(sweep_file, tmp_path):
    out = tmp_path / "out"
    config, space = load_sweep(sweep_file(space=SPACE))
    claim(out, config, space)
    changes = ["wandb.mode=offline", "tensorboard.enabled=true", "ray.num_workers=1"]
    other, wider = load_sweep(sweep_file(space=SPACE, max_concurrent=1), changes)
    claim(out, other, wider)
    different, space = load_sweep(sweep_file(space=SPACE), ["search.evaluations=33"])
    with pytest.raises(RunError, match="holds a sweep of another configuration; choose another --out"):
        claim(out, different, space)


def test_an_agent_that_there_is_not_is_refused_before_anything_runs(sweep_file, tmp_path):
    config, space = load_sweep(sweep_file(space={"search.agent": {"grid": ["hybrid", "evolutoin"]}}))
    with ProgressReporter(quiet=True) as progress, pytest.raises(ConfigError, match="did you mean 'evolution'"):
        run_sweep(config, space, tmp_path / "out", progress)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_sweep(sweep_file, tmp_path):
    config, space = load_sweep(sweep_file(space=SPACE))
    for name, content in (("config.yaml", "another"), ("notes.txt", "mine")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with ProgressReporter(quiet=True) as progress, pytest.raises(RunError, match="choose another --out"):
            run_sweep(config, space, folder, progress)


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
def test_a_killed_sweep_goes_on_and_runs_nothing_twice(sweep_file, tiny_config, tmp_path):
    """With files of data that are given as they are seen from where it is started."""
    out = tmp_path / "out"
    path = sweep_file(space=SPACE, num_samples=2, max_concurrent=2)
    command = [sys.executable, "-m", "treesearch.cli", "sweep", str(path), "--out", str(out), "--json"]
    raw = yaml.safe_load(path.read_text())
    raw["data"] |= {split: f"{split}.txt" for split in ("train", "valid", "test")}
    path.write_text(yaml.safe_dump(raw))
    driver = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=tiny_config.parent
    )
    until(lambda: list(out.glob("runs/*/comparison.json")), "the end of a search")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tiny_config.parent)
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
