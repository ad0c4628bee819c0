"""The fault campaign: short searches on a Ray cluster of this machine, in which something breaks all the time.

Workers, nodes and drivers are killed at random moments (SIGKILL), evaluations diverge and evaluations hang. Every
search has to end by itself with the ledger of one in which nothing was killed: no evaluation lost, none counted twice.

Linux only: it finds its victims in ``/proc``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from treesearch.config import dump_config, make_config
from treesearch.errors import ExecutionError, RunError
from treesearch.search.evaluation_row import FAILED
from treesearch.search.ledger import Ledger
from treesearch.search.ray_executor import LOOPBACK_VARIABLE
from treesearch.search.run_folder import RunFolder

WORKER, NODE, DRIVER, DIVERGED, HUNG = "worker", "node", "driver", "nan", "time_limit"
KILLS = (WORKER, NODE, DRIVER)
REASONS = {"FloatingPointError": DIVERGED, "time limit": HUNG}  # how the reasons of failures begin
NUM_FAULTS = 200
NUM_SEEDS = 4
KILLS_PER_SEARCH = 6
MAX_SECONDS = 300.0  # a search that takes longer hangs
CONFIG: dict[str, Any] = {
    "data": {"source": "python-stdlib", "max_classes": 300, "max_train_tokens": 20_000},
    "encoder": {"features": 16, "context": 2, "embedding": 8},
    "frozen": {"time_limit": 5.0},
    "joint": {"learning_rates": [0.01]},
    "confirm": {"promote": 1, "seeds": 2, "timing": False},
    "search": {
        "evaluations": 60,
        "batch_size": 6,
        "builders": [{"name": "huffman"}, {"name": "clustered", "arity": 4}],
    },
    "ray": {"num_workers": "auto", "max_attempts": 20},
}


@dataclass
class Result:
    """What became of one search."""

    kills: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # rows of the ledger, by kind
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the ledger, without what depends on when and where
    hung: bool = False
    error: str | None = None  # what it ended with, where that is not success
    seconds: float = 0.0

    @property
    def num_faults(self) -> int:
        """Kills and failures."""
        return self.kills.total() + self.failures.total()


class LocalCluster:
    """A Ray cluster of processes on this machine: a head without CPUs, and nodes of one CPU that come and go."""

    def __init__(self, num_nodes: int = 2) -> None:
        os.environ[LOOPBACK_VARIABLE] = "0"  # every listener on 127.0.0.1; read when ray is imported
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(num_nodes)]

    @property
    def address(self) -> str:
        """``host:port``."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        """Let a node join."""
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def kill_node(self, rng: np.random.Generator) -> None:
        """Kill one of the nodes with all that runs there."""
        node = self._nodes.pop(int(rng.integers(len(self._nodes))))
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_worker(self, rng: np.random.Generator) -> bool:
        """Kill a worker; False where there is none."""
        workers = [pid for pid in sorted(descendants(os.getpid())) if "ray::_Host" in _command_line(pid)]
        with suppress(ProcessLookupError):
            if workers:
                os.kill(workers[int(rng.integers(len(workers)))], signal.SIGKILL)
                return True
        return False

    def close(self) -> None:
        """End all its processes."""
        self._cluster.shutdown()


def run(num_faults: int = NUM_FAULTS) -> list[dict[str, Any]]:
    """One row per search, and a last one with the sums.

    ``lost`` and ``twice`` count rows of the ledger against a search in which nothing was killed, ``moved`` those of the
    right content that stand elsewhere.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    with closing(LocalCluster()) as cluster, tempfile.TemporaryDirectory() as folder:
        undisturbed = {seed: search(cluster, Path(folder) / f"whole-{seed}", seed) for seed in range(NUM_SEEDS)}
        for seed, whole in undisturbed.items():
            if whole.error is not None or whole.hung:
                raise ExecutionError(f"a search must end where nothing is killed, but seed {seed} gave: {whole.error}")
        while sum(row["faults"] for row in rows) < num_faults:
            seed = len(rows) % NUM_SEEDS
            expected = undisturbed[seed].rows
            moments = sorted(rng.integers(1, len(expected), size=KILLS_PER_SEARCH).tolist())
            kills = list(zip(moments, rng.choice(KILLS, size=KILLS_PER_SEARCH).tolist(), strict=True))
            result = search(cluster, Path(folder) / f"search-{len(rows)}", seed, kills, rng)
            rows.append(_row(str(len(rows) + 1), result, expected))
            if result.error is not None and not result.num_faults:
                raise ExecutionError(f"a search must get as far as its first fault, but ended with: {result.error}")
            print(f"faults: {sum(row['faults'] for row in rows)}/{num_faults}", file=sys.stderr)
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key not in ("search", "error")}
    errors = Counter(row["error"] for row in rows if row["error"])
    return [*rows, {"search": "all", **total, "error": "; ".join(errors)}]


def search(
    cluster: LocalCluster,
    folder: Path,
    seed: int,
    kills: Sequence[tuple[int, str]] = (),
    rng: np.random.Generator | None = None,
) -> Result:
    """Run one search.

    Args:
        cluster: Where its workers run.
        folder: For its files; must not exist.
        seed: Of the search.
        kills: Rows in the ledger, ascending, from which on something is killed, and what; or ``add`` for a node more.
        rng: Chooses among workers, and nodes.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    folder.mkdir()
    config, run_folder, result = folder / "config.yaml", RunFolder(folder / "run"), Result()
    config.write_text(
        dump_config(make_config({**CONFIG, "seed": seed, "ray": {**CONFIG["ray"], "address": cluster.address}}))
    )
    began = time.monotonic()
    words = folder / "stderr"
    driver = _start(words, "search", config, run_folder.path)
    try:
        for moment, kind in kills:
            while driver.poll() is None and _num_rows(run_folder) < moment and time.monotonic() < began + MAX_SECONDS:
                time.sleep(0.02)
            if driver.poll() is not None:
                break
            if kind == DRIVER:
                driver.kill()
                driver.wait()
                driver = _start(words, "resume", run_folder.path)
            elif kind == NODE:
                cluster.kill_node(rng)
                cluster.add_node()
            elif kind == WORKER and not cluster.kill_worker(rng):
                continue
            elif kind == "add":
                cluster.add_node()
            result.kills[kind] += 1
        if driver.wait(timeout=max(1.0, began + MAX_SECONDS - time.monotonic())) != 0:
            result.error = words.read_text().strip().rpartition("\n")[2] or f"exit code {driver.returncode}"
    except subprocess.TimeoutExpired:
        result.hung, result.error = True, f"not finished after {MAX_SECONDS:.0f} s"
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    result.seconds = time.monotonic() - began
    with suppress(RunError), run_folder.read() as ledger:
        rows = ledger.rows()
        result.rows = [row.content() for row in rows]
        reasons = [row.reason or "" for row in rows if row.status == FAILED]
        result.failures.update(kind for start, kind in REASONS.items() for one in reasons if one.startswith(start))
    return result


def compare(rows: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows of a ledger are lost, there twice, and in another place than in an undisturbed one."""
    found, expected = (Counter(_without_id(row) for row in each) for each in (rows, whole))
    lost, twice = (expected - found).total(), (found - expected).total()
    moved = sum(_without_id(one) != _without_id(other) for one, other in zip(rows, whole, strict=False))
    return {"lost": lost, "twice": twice, "moved": moved if not (lost or twice) else 0}


def _without_id(row: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in row.items() if key != "id"))


def _row(name: str, result: Result, whole: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = {kind: result.kills[kind] + result.failures[kind] for kind in (*KILLS, DIVERGED, HUNG)}
    return {
        "search": name,
        "faults": result.num_faults,
        **counts,
        "rows": len(result.rows),
        **compare(result.rows, whole),
        "hung": int(result.hung),
        "seconds": result.seconds,
        "error": result.error or "",
    }


def _start(words: Path, command: str, *paths: Path) -> subprocess.Popen[bytes]:
    """A driver that writes its errors to a file."""
    program = f"import sys; from {__package__} import faulty_driver; sys.exit(faulty_driver.main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", program, command, *map(str, paths)]
    with words.open("ab") as file:
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=file)


def _num_rows(folder: RunFolder) -> int:
    """Rows in a ledger; none where there is no ledger yet."""
    with suppress(RunError), Ledger(folder.ledger_file, read_only=True) as ledger:
        return ledger.next_id() - 1
    return 0


def descendants(pid: int) -> set[int]:
    """Processes below one."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            found = re.search(r"^PPid:\s+(\d+)", status.read_text(), re.M)
            if found is not None:
                parents.setdefault(int(found[1]), []).append(int(status.parent.name))
    below: set[int] = set()
    open_pids = [pid]
    while open_pids:
        children = parents.get(open_pids.pop(), [])
        below.update(children)
        open_pids += children
    return below


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
