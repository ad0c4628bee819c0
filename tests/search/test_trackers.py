import subprocess
import sys

import pytest

from treesearch import Tree
from treesearch.config import make_config
from treesearch.errors import ExecutionError
from treesearch.search.trackers import NoTracker, make_tracker

ROW = {"name": "huffman", "kind": "baseline", "valid_nll": 5.0, "cost": 9.5, "expected_depth": 9.5, "perplexity": 148.0}


def test_disabled_does_nothing_and_does_not_import_wandb(tmp_path):
    code = (
        "import sys; from pathlib import Path; from treesearch.config import Config;"
        "from treesearch.search.trackers import make_tracker\n"
        "with make_tracker(Config(), Path()) as tracker: tracker.log({'reward': 1.0}); tracker.finish({}, Path())\n"
        "print(type(tracker).__name__, 'wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [NoTracker.__name__, "False"]
    assert list(tmp_path.iterdir()) == []


OFFLINE = """
import sys
from pathlib import Path
from treesearch import Tree
from treesearch.config import make_config
from treesearch.search.trackers import make_tracker

folder = Path(sys.argv[1])
tree = folder / "best.tree.json"
Tree.from_nested([[0, 1], 2]).save(tree)
with make_tracker(make_config({"wandb": {"mode": "offline"}}), folder) as tracker:
    for reward in (-5.0, -4.0):
        tracker.log({"reward": reward, "evaluations": 1.0})
    tracker.finish({"rows": [ROW]}, tree)
    tracker.close()
"""


@pytest.mark.slow
def test_offline_writes_one_run_into_the_folder(tmp_path):
    """The real thing, in a process of its own: wandb starts a service that would outlive the test."""
    code = OFFLINE.replace("ROW", repr(ROW))
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "stdout is for data"
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = run.glob("*.wandb")
    content = log.read_bytes()
    for word in (b"reward", b"comparison", b"best-tree", b"learning_rates"):
        assert word in content


def test_a_run_that_cannot_start_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**_):
        raise wandb.errors.UsageError("api_key not configured (no-tty).\nCall wandb.login(key=[your_api_key])")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.delenv("WANDB_SILENT", raising=False)
    with pytest.raises(ExecutionError, match=r"api_key not configured.*set wandb.mode=offline") as caught:
        make_tracker(make_config({"wandb": {"mode": "online"}}), tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_comparison_table_takes_all_its_columns_from_the_rows(tmp_path, monkeypatch):
    """A fake run that keeps what it is given; the real one is slow."""
    wandb = pytest.importorskip("wandb")
    logged, artifacts, finished = [], [], []

    class Run:
        def log(self, metrics):
            logged.append(metrics)

        def log_artifact(self, artifact):
            artifacts.append(artifact)

        def finish(self):
            finished.append(True)

    started = {}
    monkeypatch.setattr(wandb, "init", lambda **options: started.update(options) or Run())
    best = tmp_path / "best.tree.json"
    Tree.from_nested([[0, 1], 2]).save(best)
    config = make_config({"seed": 9, "wandb": {"mode": "offline", "project": "p"}})
    with make_tracker(config, tmp_path) as tracker:
        tracker.log({"reward": -5.0})
        tracker.finish({"rows": [ROW]}, best)
    assert (started["project"], started["mode"], started["name"]) == ("p", "offline", tmp_path.name)
    assert started["config"]["seed"] == 9
    assert logged[0] == {"reward": -5.0}
    assert logged[1]["comparison"].data == [["huffman", "baseline", 5.0, 9.5, 9.5, 148.0]]
    assert [artifact.type for artifact in artifacts] == ["tree"]
    assert finished == [True]
