"""A whole run: prepare, search, confirm, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents import Agent
from treesearch.config import Config, FrozenConfig
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.preparation import Preparation
from treesearch.launch.confirmation import confirm_search, time_confirmed
from treesearch.launch.parts import (
    RunParts,
    builder_candidates,
    check_choices,
    load_corpus,
    make_cost_model,
    make_executor,
    make_task,
    prepare_run,
    worker_arrays,
)
from treesearch.launch.proposer import AgentProposer, make_proposer
from treesearch.launch.results import best_tree, export_best, summarise
from treesearch.progress import ProgressReporter
from treesearch.search.frozen_rung import EarlyStop, FrozenRung, Objective
from treesearch.search.ledger import FROZEN
from treesearch.search.loop import Era, search
from treesearch.search.monitor import SearchMonitor
from treesearch.search.run_folder import RunFolder, next_free_folder
from treesearch.search.trackers import make_tracker


def run_search(
    config: Config, folder: RunFolder, progress: ProgressReporter, *, policy: Path | None = None
) -> dict[str, Any]:
    """Run a whole search: prepare, search, confirm, export.

    Args:
        config: What to do.
        folder: Where; must be new or empty.
        progress: Who is told.
        policy: A run folder, or a packed agent's state, whose policy the agent starts from.

    Returns:
        The content of ``comparison.json``.

    Raises:
        TreeSearchError: Input, configuration or folder cannot be used, or evaluations kept failing.
    """
    folder.check_free()
    corpus = load_corpus(config)
    counts = corpus.counts.astype(float)
    check_choices(config, counts, class_names=corpus.class_names, policy=policy)
    with folder.create(config) as ledger, make_tracker(config, folder.path) as tracker:
        progress.say(f"{corpus.num_classes} classes, {len(corpus.train)} training tokens; results go to {folder.path}")
        preparation = prepare_run(config, corpus, progress)
        ledger.set_meta("counts", corpus.counts.tolist())
        ledger.set_meta("corpus", corpus.source | {"hash": corpus.hash})
        cost_model = make_cost_model(config, counts, progress)
        if cost_model.table is not None:
            folder.write_cost_table(cost_model.table)
        with make_executor(config, corpus, preparation) as executor:
            parts = RunParts(config, corpus, cost_model, executor, ledger, progress)
            eras = Eras(parts, log=tracker.log)
            eras.search(eras.first(preparation, policy))
            promoted, trained, confirmed = confirm_search(parts, encoder=eras.encoder)
        times = time_confirmed(config, corpus, confirmed, progress)
        comparison = summarise(
            config,
            ledger,
            trained=trained,
            confirmed=confirmed,
            times=times,
            cost_model=cost_model,
            encoder=eras.encoder,
        )
        best = best_tree(promoted, confirmed, cost_model)
        folder.write_results(export_best(best, corpus, cost_model), comparison)
        tracker.finish(comparison, folder.best_tree_file)
    return comparison


class Eras:
    """The frozen rung of a run: makes its first era, after it one for every refresh of the encoder, and searches.

    Args:
        parts: Of the run. The executor gets the features of each era; the ledger's meta entry ``encoder`` is the hash
            of the latest ones.
        log: Told metrics after every evaluation.

    Attributes:
        encoder: Hash of the latest features.
    """

    encoder: str

    def __init__(self, parts: RunParts, log: Callable[[dict[str, float]], None] = lambda metrics: None) -> None:
        self._parts, self._config = parts, parts.config
        self._monitor = SearchMonitor(parts.config.search.evaluations, parts.cost_model, parts.progress, log)
        self._proposer: AgentProposer

    def search(self, first: Era) -> None:
        """Spend the budget, beginning with this era."""
        settings = self._config.search
        search(
            first,
            self._parts.ledger,
            evaluations=settings.evaluations,
            batch_size=settings.batch_size,
            refresh_every=settings.refresh_every,
            next_era=self.next,
        )

    def first(self, preparation: Preparation, policy: Path | None, *, seed: int | None = None) -> Era:
        """The era of the encoder that was trained on cheap trees; ``seed`` is the agent's, None takes the run's."""
        task = make_task(self._config, self._parts.corpus, preparation)
        self._proposer = make_proposer(self._config, task, policy, seed=seed)
        return self._era(preparation)

    @property
    def agent(self) -> Agent:
        """Who proposes."""
        return self._proposer.agent

    def next(self) -> Era:
        """Train the encoder anew, on the best tree of the last era too; go on with its features and class vectors."""
        parts = self._parts
        rows = [row for row in parts.ledger.rows(FROZEN) if row.encoder == self.encoder and row.valid_nll is not None]
        best = max(rows, key=lambda row: row.validation_reward(parts.cost_model))
        tree = parts.ledger.tree(best.tree_hash)
        preparation = prepare_run(parts.config, parts.corpus, parts.progress, tree=tree)
        parts.executor.replace_arrays(worker_arrays(parts.corpus, preparation))
        self._proposer.use_task(make_task(parts.config, parts.corpus, preparation))
        return self._era(preparation)

    def _era(self, preparation: Preparation) -> Era:
        parts, frozen = self._parts, self._config.frozen
        self.encoder = preparation.hash
        parts.ledger.set_meta("encoder", self.encoder)
        self._monitor.new_encoder()
        objective = Objective(parts.counts, parts.cost_model, self.encoder)
        stop = None if frozen.stop_margin is None else EarlyStop(frozen.stop_margin, frozen.subset_tokens)
        rung = FrozenRung(
            parts.executor,
            parts.ledger,
            objective,
            self._monitor,
            early_stop=stop,
            memoise=frozen.memo,
            forest_size=forest_size(frozen),
        )
        return Era(rung, builder_candidates(self._config, self._proposer.agent.task), self._proposer)


def forest_size(frozen: FrozenConfig) -> int | None:
    """Trees that a worker trains in one pass; None where the compiled kernel trains one at a time."""
    on_cuda = frozen.kernel == "auto" and resolve_device(frozen.device).type == "cuda"
    return frozen.forest if frozen.kernel == "torch" or on_cuda else None


def default_folder(config_path: Path) -> Path:
    """``runs/NAME-N`` beside the working directory, N the smallest free number."""
    return next_free_folder(Path("runs"), config_path.stem)
