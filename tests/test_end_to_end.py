"""A whole run as a user starts it: through Ray with two workers, read back from the run folder alone."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import tiny
from tests.processes import alive, until
from treesearch import Tree, build_tree
from treesearch.bench.faults import descendants
from treesearch.config import load_config
from treesearch.errors import RunError
from treesearch.evaluation.comparison import t_interval
from treesearch.search.evaluation_row import CONFIRM, FROZEN, JOINT, OK, STOPPED, WARM
from treesearch.search.ledger import Ledger

pytestmark = pytest.mark.slow

FILES = {"config.yaml", "environment.json", "search.db", "best.tree.json", "comparison.json", "report.html"}
CONTRACT = {"name", "kind", "test_nll", "valid_nll", "cost", "expected_depth", "dot_products", "max_depth"}
TIMES = {"head_us", "head_spread_us", "step_us", "step_spread_us"}


@pytest.fixture(scope="module")
def ray_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search on two Ray workers."""
    folder = tmp_path_factory.mktemp("run") / "ray"
    settings = ("--set", "search.executor=ray", "--set", "ray.num_workers=2", "--set", "ray.cpus_per_worker=0.5")
    done = tiny.run_module("search", tiny_config, "--out", folder, *settings)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert f"{tiny.EVALUATIONS} frozen evaluations (0 failed), agent hybrid" in done.out
    return folder


@pytest.fixture(scope="module")
def ledger(ray_run: Path):
    with Ledger(ray_run / "search.db") as ledger:
        yield ledger


@pytest.fixture(scope="module")
def rows(ray_run: Path):
    return {row["name"]: row for row in json.loads((ray_run / "comparison.json").read_text())["rows"]}


def batches(folder: Path) -> list[tuple[int, bytes | None, str]]:
    """Number, agent state (of the last) and metrics of each batch."""
    with closing(sqlite3.connect(folder / "search.db")) as database:
        return database.execute("SELECT batch, agent_state, metrics FROM batches ORDER BY batch").fetchall()


def results(folder: Path) -> tuple[bytes, dict]:
    """The best tree and the comparison without the times that were measured."""
    comparison = json.loads((folder / "comparison.json").read_text())
    for row in comparison["rows"]:
        assert set(row) >= TIMES
        assert all(row.pop(key) > 0 for key in TIMES)
    return (folder / "best.tree.json").read_bytes(), comparison


def contents(folder: Path) -> list[dict]:
    with Ledger(folder / "search.db") as ledger:
        return [row.content() for row in ledger.rows()]


# -- the run folder


def test_the_folder_holds_what_it_should_and_nothing_else(ray_run):
    assert {path.name for path in ray_run.iterdir()} == FILES


def test_the_config_is_itself_a_config(ray_run, tiny_config):
    overrides = ["search.executor=ray", "ray.num_workers=2", "ray.cpus_per_worker=0.5"]
    assert load_config(ray_run / "config.yaml") == load_config(tiny_config, overrides)


def test_the_environment(ray_run):
    found = json.loads((ray_run / "environment.json").read_text())
    assert {"python", "platform", "processors", "device", "packages", "commit", "command"} <= set(found)
    assert {"torch", "ray", "treesearch"} <= set(found["packages"])
    assert "search" in found["command"]


def test_the_ledger_is_complete(ledger):
    frozen, warm, joint, confirmed = (ledger.rows(rung) for rung in (FROZEN, WARM, JOINT, CONFIRM))
    assert {row.tree_hash for row in joint} < {row.tree_hash for row in warm} <= {row.tree_hash for row in frozen}
    assert {(row.status, row.epochs, row.test_nll) for row in warm} == {(OK, 1, None)}
    assert [row.id for row in ledger.rows()] == list(range(1, len(ledger.rows()) + 1))
    assert len(frozen) == tiny.EVALUATIONS
    assert [row.label for row in frozen[:3]] == ["huffman", "clustered(arity=4)", "balanced"]
    assert {row.agent for row in frozen[3:]} == {"hybrid"}
    shown = [row for row in frozen[3:] if row.batch == 0]
    assert 0 < len(shown) < tiny.EVALUATIONS - 3 - 12, "demonstrations leave two batches at least"
    assert len({row.tree_hash for row in frozen[: 3 + len(shown)]}) == 3 + len(shown)
    batches = [1 + i // 6 for i in range(tiny.EVALUATIONS - 3 - len(shown))]
    assert [row.batch for row in frozen] == [0] * (3 + len(shown)) + batches
    assert all(json.loads(row.actions) for row in frozen[3:])
    # Nobody had to train a tree whose nodes were all known.
    # Of two workers one may have done all before the other one had started.
    assert set() < {row.worker for row in frozen if row.nodes_trained} <= {"ray-0", "ray-1"}
    assert {row.worker for row in frozen if not row.nodes_trained} <= {""}
    assert {row.cost_weight for row in ledger.rows()} == {0.005}
    assert all(row.test_nll is None for row in frozen + joint)
    assert all(row.test_nll is not None and row.status == OK for row in confirmed)
    first, second = ({row.tree_hash for row in joint if row.seed == seed} for seed in (tiny.SEED, tiny.SEED + 1))
    assert first > second >= {row.tree_hash for row in confirmed}, "half of the trees have a second run"
    assert {row.seed for row in joint} == {tiny.SEED, tiny.SEED + 1}
    assert len({row.seed for row in confirmed}) == 2
    assert tiny.SEED not in {row.seed for row in confirmed}, "reported runs have fresh seeds"
    for row in ledger.rows():
        assert row.reward == pytest.approx(-row.valid_nll - 0.005 * row.cost)
        assert ledger.tree(row.tree_hash).hash == row.tree_hash
    assert ledger.last_batch().position.batch == batches[-1]
    assert ledger.meta("encoder") == frozen[0].encoder
    assert ledger.meta("corpus")["splits"]["train"]["name"] == "train.txt"


def test_huffman_in_the_ledger_is_huffman(ledger, tiny_config):
    words = (tiny_config.parent / "train.txt").read_text().split()
    counts = sorted([words.count(word) for word in set(words)] + [200], reverse=True)  # and 200 sentence ends
    huffman = build_tree("huffman", counts=counts)
    first = ledger.rows(FROZEN)[0]
    assert first.expected_depth == pytest.approx(huffman.expected_depth(counts))
    assert first.expected_depth <= min(
        r.expected_depth for r in ledger.rows() if max(ledger.tree(r.tree_hash).arities) == 2
    )


# -- results


def test_comparison_rows(rows):
    assert next(iter(rows)) == "huffman"
    assert rows["huffman"]["kind"] == "baseline"
    found = [name for name, row in rows.items() if row["kind"] == "found"]
    assert 1 <= len(found) <= 2
    for row in rows.values():
        assert set(row) >= CONTRACT
        assert set(row["test_nll"]) == {"mean", "low", "high", "n"}
        assert row["test_nll"]["n"] == 2
        assert row["test_nll"]["low"] <= row["test_nll"]["mean"] <= row["test_nll"]["high"]


def test_comparison_is_what_the_ledger_says(rows, ledger):
    confirmed = ledger.rows(CONFIRM)
    for name, row in rows.items():
        own = [entry for entry in confirmed if entry.label == name]
        assert row["test_nll"] == pytest.approx(t_interval([entry.test_nll for entry in own]).as_dict())
        assert row["valid_nll"] == pytest.approx(sum(entry.valid_nll for entry in own) / 2)
        assert {(entry.cost, entry.max_depth, entry.tree_hash) for entry in own} == {
            (row["cost"], row["max_depth"], row["tree"])
        }
    builders = {entry.tree_hash for entry in ledger.rows(FROZEN) if entry.agent == "builder"}
    assert all((row["kind"] == "baseline") == (row["tree"] in builders) for row in rows.values())


def test_the_best_tree(ray_run, rows, tiny_config):
    tree = Tree.load(ray_run / "best.tree.json")
    words = set((tiny_config.parent / "train.txt").read_text().split())
    assert set(tree.class_names) == {*words, "<eos>"}
    assert tree.hash in {row["tree"] for row in rows.values()}
    text = (ray_run / "best.tree.json").read_text()
    assert str(ray_run.parent) not in text
    assert str(tiny_config.parent) not in text
    assert "/" not in json.dumps(dict(tree.metadata))
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text), "no date and no time of day"


# -- the same again


def test_one_local_worker_gives_the_same_run(ray_run, local_run):
    assert contents(local_run) == contents(ray_run)
    assert batches(local_run) == batches(ray_run)
    assert results(local_run) == results(ray_run)


EVERYTHING = (
    "--set=search.evaluations=60",
    "--set=search.refresh_every=12",
    "--set=cost.weights={low: 0.001, high: 0.1}",
    "--set=frozen.stop_margin=0.01",
    "--set=frozen.subset_tokens=600",
    "--set=confirm.finalists=2",
    "--set=confirm.rank_trees=5",
)


def test_everything_at_once_is_the_same_on_ray_and_without_the_memo(tiny_config, tmp_path):
    ray = ("--set=search.executor=ray", "--set=ray.cpus_per_worker=0.5")
    for name, settings in {"local": (), "ray": ray, "plain": ("--set=frozen.memo=false",)}.items():
        done = tiny.run_module("search", tiny_config, "--out", tmp_path / name, *EVERYTHING, *settings)
        assert done.code == 0, done.err
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert batches(tmp_path / "local") == batches(tmp_path / "ray")
    assert results(tmp_path / "local") == results(tmp_path / "ray")

    with Ledger(tmp_path / "local/search.db") as ledger:
        frozen, joint = ledger.rows(FROZEN), ledger.rows(JOINT)
        encoder = ledger.meta("encoder")
    assert len(frozen) == 60
    encoders = list(dict.fromkeys(row.encoder for row in frozen))
    assert len(encoders) >= 2
    assert encoder == encoders[-1]
    assert {row.status for row in frozen} >= {OK, STOPPED}
    assert all(0.001 <= row.cost_weight <= 0.1 for row in frozen)
    assert {row.cost_weight for row in joint} == {0.005}
    last = {row.tree_hash for row in frozen if row.encoder == encoder and row.valid_nll is not None}
    assert {row.tree_hash for row in joint} <= last, "encoders are not mixed"
    for front in json.loads((tmp_path / "local/comparison.json").read_text())["fronts"].values():
        assert {point["tree"] for point in front["points"]} <= last

    # Without the memo nothing is known of a tree's nodes beforehand: early stop may differ, results of trees do not.
    with Ledger(tmp_path / "plain/search.db") as ledger:
        plain = {(row.encoder, row.tree_hash): row.valid_nll for row in ledger.rows(FROZEN) if row.status == OK}
    both = [row for row in frozen if row.status == OK and (row.encoder, row.tree_hash) in plain]
    assert len(both) > 20
    for row in both:
        assert row.valid_nll == plain[row.encoder, row.tree_hash]


def test_another_agent_and_another_batch_size_repeat_as_well(tiny_config, tmp_path):
    settings = ["--set=search.agent=random_search", "--set=search.batch_size=4", "--set=confirm.seeds=0"]
    for name in "ab":
        assert tiny.treesearch("search", tiny_config, "--out", tmp_path / name, *settings).code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert batches(tmp_path / "a") == batches(tmp_path / "b")
    assert (tmp_path / "a/best.tree.json").read_bytes() == (tmp_path / "b/best.tree.json").read_bytes()


def test_another_seed_gives_another_run(local_run, tiny_config, tmp_path):
    assert tiny.treesearch("search", tiny_config, "--out", tmp_path / "run", "--set=seed=1").code == 0
    rewards, others = (
        [row["reward"] for row in contents(folder) if row["rung"] == FROZEN] for folder in (local_run, tmp_path / "run")
    )
    assert not set(rewards) & set(others)
    assert batches(tmp_path / "run")[-1][1] != batches(local_run)[-1][1]


def test_the_folder_of_the_run_is_enough_to_repeat_it(local_run, tmp_path):
    done = tiny.treesearch("search", local_run / "config.yaml", "--out", tmp_path / "again")
    assert done.code == 0, done.err
    assert results(tmp_path / "again") == results(local_run)


@pytest.mark.slow
def test_an_asynchronous_search_on_ray_counts_every_proposal_once(tiny_config, tmp_path):
    settings = ["--set=search.asynchronous=true", "--set=search.executor=ray", "--set=search.batch_size=4"]
    folder = tmp_path / "run"
    arguments = [tiny_config, "--out", folder, *settings, "--set=confirm.seeds=0", "--set=search.evaluations=80"]
    done = tiny.treesearch("search", *arguments)
    assert done.code == 0, done.err
    with Ledger(folder / "search.db") as ledger:
        rows, position = ledger.rows(FROZEN), ledger.last_batch().position
    assert [row.id for row in rows] == list(range(1, 81))
    assert position.spent == 80
    proposed = [row for row in rows if row.staleness is not None]
    assert len(proposed) == position.proposed
    assert [row.batch for row in proposed] == [1 + i // 4 for i in range(len(proposed))]
    assert all(0 <= row.staleness < row.batch for row in proposed)
    assert 0 in {row.staleness for row in proposed}
    again = tiny.treesearch("resume", folder, "--set=search.evaluations=90")
    assert again.code == 0, again.err
    with Ledger(folder / "search.db") as ledger:
        assert [row.content() for row in ledger.rows(FROZEN)[:80]] == [row.content() for row in rows]
        assert ledger.last_batch().position.spent == 90


# -- death of the driver


def test_a_killed_driver_takes_its_ray_along_and_loses_nothing(ray_run, tiny_config, tmp_path):
    """In the joint rung; `tests.launch.test_resume` kills everywhere else, without Ray."""
    folder = tmp_path / "run"
    settings = ["--set", "search.executor=ray", "--set", "ray.num_workers=2", "--set", "ray.cpus_per_worker=0.5"]
    command = [sys.executable, "-m", "treesearch.cli", "search", str(tiny_config), "--out", str(folder), *settings]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def rows() -> int:
        with suppress(RunError), Ledger(folder / "search.db") as ledger:
            return len(ledger.rows(JOINT))
        return 0

    until(rows, "a joint training")
    driver.send_signal(signal.SIGSTOP)  # or it might have finished before its children are found
    below = descendants(driver.pid)
    assert any(Path(f"/proc/{pid}/comm").read_text().startswith("raylet") for pid in below)
    driver.kill()
    driver.wait()
    until(lambda: not alive(below), "the end of Ray's processes")
    assert contents(folder) != contents(ray_run)
    done = tiny.run_module("resume", folder, "--set", "ray.num_workers=1")
    assert done.code == 0, done.err
    assert contents(folder) == contents(ray_run)
    assert results(folder) == results(ray_run)


def test_ctrl_c_exits_130_and_says_how_to_go_on(ray_run, tiny_config, tmp_path):
    folder, errors = tmp_path / "run", tmp_path / "stderr"
    settings = ["--set", "search.executor=ray", "--set", "ray.num_workers=2", "--set", "ray.cpus_per_worker=0.5"]
    command = [sys.executable, "-m", "treesearch.cli", "search", str(tiny_config), "--out", str(folder), *settings]
    with errors.open("w") as file:
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)

    def rows() -> int:
        with suppress(RunError), Ledger(folder / "search.db") as ledger:
            return len(ledger.rows(FROZEN))
        return 0

    until(lambda: rows() >= 3, "three evaluations")
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: all processes of the command get it
    assert driver.wait(timeout=60) == 130, errors.read_text()
    said = errors.read_text()
    assert f"go on with: treesearch resume {folder}" in said
    assert said.rstrip().endswith("interrupted")
    assert "Traceback" not in said
    done = tiny.run_module("resume", folder)
    assert done.code == 0, done.err
    assert contents(folder) == contents(ray_run)
