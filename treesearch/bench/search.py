"""Benchmark of a whole frozen search: evaluations per core-second, with and without the memo, and what is not training.

One worker in this process, one thread. The corpus is the running Python's standard library, so nothing has to be
downloaded.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from treesearch.config import Config, make_config
from treesearch.data import Dataset
from treesearch.evaluation.preparation import Preparation
from treesearch.evaluation.threads import one_thread
from treesearch.launch.eras import Eras
from treesearch.launch.parts import RunParts, load_data, make_cost_model, make_executor, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger import Ledger

NUM_CLASSES = 10_000
NUM_TOKENS = 300_000
EVALUATIONS = 400
REPLAYS = 50
CONTENDERS = (("hybrid", True), ("policy_gradient", True), ("random_search", True), ("hybrid", False))


def run(evaluations: int = EVALUATIONS) -> list[dict[str, Any]]:
    """One row per agent, with and without the memo.

    ``overhead_ms`` is all of the search but training, per evaluation: proposals, splits, keys, ledger, updates.
    ``replay_ms`` is the building of a tree from its decisions when its splits are known, median.
    """
    raw: dict[str, Any] = {
        "data": {"source": "python-stdlib", "max_classes": NUM_CLASSES, "max_train_tokens": NUM_TOKENS},
        "search": {"evaluations": evaluations, "executor": "local"},
    }
    config = make_config(raw)
    with ProgressReporter() as progress, one_thread():
        config, dataset = load_data(config)
        preparation = prepare_run(config, dataset, progress)
        return [
            _contender(make_config({**raw, "frozen": {"memo": memo}}), agent, dataset, preparation, progress)
            for agent, memo in CONTENDERS
        ]


def _contender(
    config: Config, agent: str, dataset: Dataset, preparation: Preparation, progress: ProgressReporter
) -> dict[str, Any]:
    config = config.model_copy(update={"search": config.search.model_copy(update={"agent": agent})})
    cost_model = make_cost_model(config, dataset.counts.astype(float), progress)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "search.db", create=True) as ledger,
        make_executor(config, dataset, preparation) as executor,
    ):
        eras = Eras(RunParts(config, dataset, cost_model, executor, ledger, progress))
        first = eras.first(preparation, None)
        begin = perf_counter()
        eras.search(first)
        seconds = perf_counter() - begin
        rows = ledger.rows(FROZEN)
    training = sum(row.seconds for row in rows)
    names = [action.name for action in eras.agent.actions]
    plans = [[names.index(name) for name in row.action_names()] for row in rows if row.actions is not None]
    return {
        "agent": agent,
        "memo": str(config.frozen.memo),
        "evaluations": len(rows),
        "per_core_second": len(rows) / seconds,
        "nodes_trained": sum(row.nodes_trained or 0 for row in rows) / sum(row.num_nodes or 0 for row in rows),
        "training_s": training,
        "overhead_ms": 1000 * (seconds - training) / len(rows),
        "replay_ms": 1000 * _replay_seconds(eras, plans[-REPLAYS:]),
    }


def _replay_seconds(eras: Eras, plans: Sequence[Sequence[int]]) -> float:
    times = []
    for plan in plans:
        _ = eras.agent.replay(plan, 0.0).tree
        begin = perf_counter()
        _ = eras.agent.replay(plan, 0.0).tree  # put together when it is looked at
        times.append(perf_counter() - begin)
    return statistics.median(times)
