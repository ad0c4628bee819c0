"""Benchmark of what stands around evaluations: executor, ledger, resuming, and a driver with many workers.

Evaluations are simulated (`treesearch.bench.simulated`); proposals, splits, agents, ledger and executors are the real
ones. The figures of two workers are worth something on an idle machine only: ``load`` is its load average before.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from treesearch.bench.simulated import INSTANT, SimulatedExecutor, SimulatedWorker, Timing, WatchedExecutor
from treesearch.builders import build_tree
from treesearch.config import Config, make_config
from treesearch.data import Dataset
from treesearch.evaluation.memo import NewNodes
from treesearch.evaluation.preparation import Preparation
from treesearch.launch import resume_search, run_search
from treesearch.launch.eras import Eras
from treesearch.launch.parts import RunParts, load_data, make_cost_model, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.ledger import Ledger
from treesearch.search.ray_executor import RayExecutor
from treesearch.search.run_folder import RunFolder
from treesearch.search.worker import FrozenTask
from treesearch.trackers.base import Metrics
from treesearch.tree import Tree

LARGE, SMALL = 10_000, 1_000  # classes
NUM_TASKS = 400
LEDGER_ROWS = 100_000
LEDGER_WRITES = 200
RESUMED_EVALUATIONS = 10_000
MANY_WORKERS = 256
EVALUATION_SECONDS = 2.0
ROUNDS = 12  # evaluations of each of the many workers
MANY_EVALUATIONS = 50_000
AGENTS = ("random_search", "policy_gradient", "hybrid")
SPREAD = Timing(0.1, 1.0)  # of uneven evaluations
UNEVEN_EVALUATIONS = 120

Row = dict[str, Any]
T = TypeVar("T")


def run() -> list[Row]:
    """One row per figure: what, value, unit, target, and the load of the machine before."""
    rows: list[Row] = []
    with ProgressReporter() as progress, tempfile.TemporaryDirectory() as folder:
        tasks = {classes: _Simulation(classes, progress) for classes in (LARGE, SMALL)}
        parts: list[Callable[[], Iterator[Row]]] = [
            lambda: _ray_overhead(tasks[LARGE]),
            lambda: _two_workers(tasks[SMALL]),
            lambda: _uneven(tasks[SMALL], Path(folder)),
            lambda: _ledger_write(Path(folder)),
            lambda: _resume(tasks[SMALL], Path(folder)),
            lambda: _many_workers(tasks, Path(folder)),
            lambda: _memory(tasks[SMALL], Path(folder)),
        ]
        for part in parts:
            load = os.getloadavg()[0]
            for row in part():
                rows.append({**row, "load": round(load, 2)})
                progress.say(f"{row['what']}: {row['value']:.4g} {row['unit']} (target {row['target']})")
    return rows


def _figure(what: str, value: float, unit: str, target: str) -> Row:
    return {"what": what, "value": value, "unit": unit, "target": target}


class _Simulation:
    """Corpus and features of the standard library's text, and searches on them without evaluations."""

    def __init__(self, num_classes: int, progress: ProgressReporter) -> None:
        self._raw: dict[str, Any] = {
            "data": {"source": "python-stdlib", "max_classes": num_classes, "max_train_tokens": 30 * num_classes},
            "confirm": {"seeds": 0},
        }
        config = make_config(self._raw)
        self.num_classes, self._progress = num_classes, progress
        config, dataset = load_data(config)
        self.dataset: Dataset = dataset
        self._preparation: Preparation = prepare_run(config, self.dataset, progress)
        self.counts: NDArray[np.float64] = self.dataset.counts.astype(float)

    def config(self, evaluations: int, agent: str = "hybrid", *, batch_size: int = 10, memo: bool = True) -> Config:
        """Of an asynchronous search; without the memo every evaluation is a worker's."""
        search = {"evaluations": evaluations, "agent": agent, "batch_size": batch_size}
        search |= {"asynchronous": True, "executor": "local"}
        return make_config({**self._raw, "search": search, "frozen": {"memo": memo}})

    def search(
        self, config: Config, executor: Executor, folder: Path, log: Callable[[int, Metrics], None] = lambda *_: None
    ) -> None:
        """Run a search on these workers; its ledger goes to ``folder``, which must not exist."""
        with (
            executor,
            RunFolder(folder).create(config) as ledger,
            ProgressReporter(quiet=True) as progress,
        ):
            cost_model = make_cost_model(config, self.counts, progress)
            eras = Eras(RunParts(config, self.dataset, cost_model, executor, ledger, progress), log)
            eras.search(eras.first(self._preparation, None))

    def tasks(self, num: int) -> list[Task]:
        """Evaluations of different trees."""
        trees = [build_tree("random", counts=self.counts, seed=seed) for seed in range(num)]
        return [Task(key, FrozenTask(tree)) for key, tree in enumerate(trees)]

    def ray(self, num_workers: int, timing: Timing) -> RayExecutor:
        """A pool of workers that spend time, half a CPU reserved for each."""
        return RayExecutor(
            SimulatedWorker,
            arrays={"counts": self.counts},
            settings=timing,
            num_workers=num_workers,
            cpus_per_worker=0.5,
        )


def _ray_overhead(simulation: _Simulation) -> Iterator[Row]:
    """What lies between two evaluations of a worker, trees and results on the way."""
    tasks = simulation.tasks(NUM_TASKS)
    with simulation.ray(1, INSTANT) as executor:
        _run_all(executor, tasks[:20])
        seconds, outcomes = _timed(partial(_run_all, executor, tasks))
    overhead = (seconds - sum(outcome.seconds for outcome in outcomes)) / len(outcomes)
    yield _figure(f"Ray, per evaluation, {simulation.num_classes} classes", 1000 * overhead, "ms", "<= 10")


def _two_workers(simulation: _Simulation) -> Iterator[Row]:
    """Evaluations of half a CPU second, by one worker and by two, in turns."""
    tasks, spin = simulation.tasks(16), Timing(0.5, 0.5, spin=True)
    ratios = []
    with simulation.ray(1, spin) as one, simulation.ray(2, spin) as two:
        for executor in (one, two):
            _run_all(executor, tasks[:4])
        for _ in range(3):
            alone, together = (_timed(partial(_run_all, pool, tasks))[0] for pool in (one, two))
            ratios.append(alone / together)
    yield _figure("two workers against one, 0.5 s of CPU each", statistics.median(ratios), "x", ">= 1.85")


def _uneven(simulation: _Simulation, folder: Path) -> Iterator[Row]:
    """A search by two workers without a barrier."""
    executor = WatchedExecutor(simulation.ray(2, SPREAD))
    simulation.search(simulation.config(UNEVEN_EVALUATIONS), executor, folder / "uneven")
    yield _figure("two workers busy, times 1:10, asynchronous", 100 * executor.busy_share, "%", ">= 95")


def _ledger_write(folder: Path) -> Iterator[Row]:
    """One row with a new tree of 10,000 classes and its nodes, behind 100,000 others."""
    rng = np.random.default_rng(0)
    with Ledger(folder / "long.db", create=True) as ledger:
        small = [build_tree("random", counts=np.ones(20), seed=seed) for seed in range(200)]
        for number in range(1, LEDGER_ROWS + 1):
            ledger.record(_row(number, small[number % len(small)]), small[number % len(small)])
        seconds = []
        for number in range(LEDGER_ROWS + 1, LEDGER_ROWS + LEDGER_WRITES + 1):
            tree = build_tree("random", counts=np.ones(LARGE), seed=number)
            nodes = NewNodes(rng.integers(2**63, size=(1000, 2)).astype(np.uint64), rng.random(1000))
            seconds.append(_timed(partial(ledger.record, _row(number, tree), tree, {"m": nodes}))[0])
    for name, value in (("median", statistics.median(seconds)), ("99th percentile", np.quantile(seconds, 0.99))):
        yield _figure(f"ledger write at {LEDGER_ROWS} rows, {name}", 1000 * float(value), "ms", "<= 2")


def _row(number: int, tree: Tree) -> EvaluationRow:
    return EvaluationRow(
        id=number,
        rung=FROZEN,
        batch=number // 10,
        agent="hybrid",
        label=None,
        tree_hash=tree.hash,
        status=OK,
        valid_nll=5.0,
        cost=9.0,
        actions='["similarity-0.5", "close-huffman-2", "close-clustered-4"]',
    )


def _resume(simulation: _Simulation, folder: Path) -> Iterator[Row]:
    """All of `treesearch resume` but the start of Python, with the ten evaluations that are left."""
    run = RunFolder(folder / "resumed")
    config = simulation.config(RESUMED_EVALUATIONS)
    more = [f"search.evaluations={RESUMED_EVALUATIONS + 10}"]
    with ProgressReporter(quiet=True) as progress:
        run_search(config, run, progress, make_worker=SimulatedWorker)
        seconds, _ = _timed(lambda: resume_search(run, progress, overrides=more, make_worker=SimulatedWorker))
    yield _figure(f"resume after {RESUMED_EVALUATIONS} evaluations", seconds, "s", "<= 10")


def _many_workers(simulations: Mapping[int, _Simulation], folder: Path) -> Iterator[Row]:
    """One driver, evaluations of two seconds: which share of the workers' time it keeps them at work."""
    timing = Timing(EVALUATION_SECONDS, EVALUATION_SECONDS)
    for classes, simulation in simulations.items():
        for agent in AGENTS:
            workers = SimulatedExecutor(MANY_WORKERS, counts=simulation.counts, timing=timing)
            executor = WatchedExecutor(workers)
            config = simulation.config(ROUNDS * MANY_WORKERS, agent, batch_size=MANY_WORKERS // 4, memo=False)
            simulation.search(config, executor, folder / f"many-{classes}-{agent}")
            what = f"{MANY_WORKERS} workers busy, {classes} classes, {agent}"
            yield _figure(what, 100 * executor.busy_share, "%", ">= 90")


def _memory(simulation: _Simulation, folder: Path) -> Iterator[Row]:
    """Memory of this process after a fifth of a long search, and what the rest adds."""
    sizes: dict[int, float] = {}

    def watch(step: int, metrics: Metrics) -> None:
        if step % (MANY_EVALUATIONS // 5) == 0:
            sizes[step] = _resident_bytes() / 2**20

    executor = SimulatedExecutor(MANY_WORKERS, counts=simulation.counts)
    simulation.search(simulation.config(MANY_EVALUATIONS, batch_size=MANY_WORKERS), executor, folder / "long", watch)
    for step in sorted(sizes):
        yield _figure(f"driver's memory after {step} evaluations", sizes[step], "MiB", "flat")


def _run_all(executor: Executor, tasks: Sequence[Task]) -> list[Outcome]:
    return list(executor.run(tasks))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result
