"""W&B in its own process: with a package of ours in its place that misbehaves, and (slow) the real one, offline."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes import until
from treesearch import Tree
from treesearch.config import make_config
from treesearch.errors import ExecutionError
from treesearch.trackers import make_tracker

TABLES = {"comparison": (("name", "cost"), [["huffman", 9.5], ["found #3", None]])}

# Writes a line for every call to $CALLS, and does what $BEHAVIOUR says.
FAKE = """
import json, os, time

behaviour = os.environ["BEHAVIOUR"]

def called(name, *values):
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps([name, *values]) + "\\n")

class errors:
    class CommError(Exception): pass
    class UsageError(Exception): pass

class Settings:
    def __init__(self, init_timeout):
        self.init_timeout = init_timeout

def Histogram(values):
    return {"histogram": values}

def Table(columns, data):
    return {"columns": columns, "data": data}

class Artifact:
    def __init__(self, name, type):
        self.name, self.type, self.files = name, type, []
    def add_file(self, path):
        self.files.append(path)

class Run:
    def define_metric(self, name, step_metric):
        called("define_metric", name, step_metric)
    def log(self, values):
        if behaviour == "dies": os._exit(3)
        called("log", values)
        if behaviour == "slow": time.sleep(600)
    def log_artifact(self, artifact):
        called("log_artifact", artifact.name, artifact.type, artifact.files)
    def finish(self):
        if behaviour == "never ends": time.sleep(600)
        called("finish")

def teardown():
    called("teardown")

def init(settings=None, config=None, **options):
    print("wandb talks on stdout")
    if behaviour == "hangs": time.sleep(600)
    if behaviour == "no login": raise errors.UsageError("api_key not configured.\\nCall wandb.login()")
    if behaviour == "no network" and options["mode"] == "online": raise errors.CommError("no\\nroute")
    called("init", options, config["seed"], settings and settings.init_timeout)
    return Run()
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Puts the fake in place of wandb; gives what it was called with."""
    (tmp_path / "site" / "wandb").mkdir(parents=True)
    (tmp_path / "site" / "wandb" / "__init__.py").write_text(FAKE)
    file = tmp_path / "calls"
    file.touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("CALLS", str(file))
    monkeypatch.setenv("BEHAVIOUR", "works")
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my-run"
    folder.mkdir()
    Tree.from_nested([[0, 1], 2]).save(folder / "best.tree.json")
    return folder


def tracker(folder: Path, mode: str = "online", timeout: float = 30.0):
    config = make_config({"seed": 9, "wandb": {"mode": mode, "project": "p", "timeout": timeout}})
    return make_tracker(config, folder, run_id="abc")


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_one_run_with_metrics_tables_and_the_best_tree(calls, folder, capfd, mode):
    best = folder / "best.tree.json"
    with tracker(folder, mode) as run:
        run.log(1, {"reward": -5.0})
        run.log(10, {"batch_rewards": (np.float32(-5.0), -4.0)})
        run.finish(TABLES, best)
        run.close()
    first, *others = calls()
    options = {"project": "p", "name": "my-run", "dir": str(folder), "mode": mode, "id": "abc"}
    if mode == "online":
        assert first[1] == {**options, "resume": "allow"}
        assert 20 < first[3] < 30, "the server has less time than the whole"
    else:
        assert first == ["init", options, 9, None]
    assert others == [
        ["define_metric", "*", "evaluations"],
        ["log", {"evaluations": 1, "reward": -5.0}],
        ["log", {"evaluations": 10, "batch_rewards": {"histogram": [-5.0, -4.0]}}],
        ["log", {"comparison": {"columns": ["name", "cost"], "data": [["huffman", 9.5], ["found #3", None]]}}],
        ["log_artifact", "best-tree", "tree", [str(best)]],
        ["finish"],
    ]
    assert capfd.readouterr().out == "", "stdout is for data"


def test_a_run_that_cannot_start_says_what_to_do(calls, folder, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "no login")
    with pytest.raises(ExecutionError, match=r"\(api_key not configured. Call wandb.login\(\)\).*=offline"):
        tracker(folder)


def test_without_wandb_too(folder, tmp_path, monkeypatch):
    (tmp_path / "site" / "wandb").mkdir(parents=True)
    (tmp_path / "site" / "wandb" / "__init__.py").write_text("raise ImportError('no wandb here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(ExecutionError, match="no wandb here"):
        tracker(folder)


def test_without_a_network_the_run_is_kept_offline(calls, folder, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "no network")
    with pytest.warns(UserWarning, match=r"kept offline.*: no route; send what is in .*/my-run/wandb later"):
        run = tracker(folder)
    run.log(1, {"reward": -5.0})
    run.close()
    assert [name for name, *_ in calls()] == ["teardown", "init", "define_metric", "log", "finish"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "at_start", "at_end"),
    [("hangs", True, True), ("slow", False, True), ("never ends", False, True)],
)
def test_it_never_waits_longer_than_it_was_told(calls, folder, monkeypatch, recwarn, behaviour, at_start, at_end):
    """Seconds of processes that would sleep for ten minutes; a thousand messages fill every pipe."""
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    run = tracker(folder, timeout=5.0)
    begin = time.monotonic()
    for step in range(20_000):
        run.log(step, {"reward": -5.0, "batch_rewards": [1.0] * 20})
    assert time.monotonic() - begin < 60.0
    run.close()
    assert time.monotonic() - begin < 120.0
    said = [str(one.message) for one in recwarn.list]
    assert sum("has not started after 5 s" in one for one in said) == at_start
    assert sum("was not done after 5 s" in one for one in said) == at_end
    assert len(said) == at_start + at_end


def test_a_process_that_dies_ends_no_search(calls, folder, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "dies")
    run = tracker(folder)
    for step in range(100):
        run.log(step, {"reward": -5.0})
    with pytest.warns(UserWarning, match=r"exit code 3 \(its process died\)"):
        run.close()


DRIVER = """
import sys, time
from pathlib import Path
from treesearch.config import make_config
from treesearch.trackers import make_tracker

tracker = make_tracker(make_config({"wandb": {"mode": "offline"}}), Path(sys.argv[1]), run_id="abc")
tracker.log(1, {"reward": -5.0})
print("logged", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_run_ends_with_a_driver_that_is_killed(calls, folder, how):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert driver.stdout.readline() == b"logged\n"
    until(lambda: calls()[-1][0] == "log", "the arrival of what is logged")
    os.killpg(driver.pid, how)
    driver.wait()
    driver.stdout.close()
    until(lambda: calls()[-1] == ["finish"], "the end of the run")
    assert calls()[-2] == ["log", {"evaluations": 1, "reward": -5.0}]


def test_disabled_does_nothing_and_imports_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from treesearch.config import Config;"
        "from treesearch.trackers import make_tracker\n"
        "with make_tracker(Config(), Path(), run_id='a') as run: run.log(1, {'reward': 1.0}); run.finish({}, Path())\n"
        "print({'wandb', 'tensorboardX'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_real_one_offline_and_resumed(folder):
    for _ in range(2):
        with tracker(folder, "offline") as run:
            run.log(1, {"reward": -5.0, "batch_rewards": [1.0, 2.0]})
            run.finish(TABLES, folder / "best.tree.json")
        time.sleep(1.1)  # a folder's name has seconds
    runs = list((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert {one.name.rpartition("-")[2] for one in runs} == {"abc"}, "one run, in two pieces"
    for run in runs:
        (log,) = run.glob("*.wandb")
        content = log.read_bytes()
        for word in (b"reward", b"batch_rewards", b"comparison", b"best-tree", b"learning_rates"):
            assert word in content
