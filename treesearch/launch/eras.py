"""The frozen rung of a run, from encoder to encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agents import Agent
from treesearch.config import FrozenConfig
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.preparation import Preparation
from treesearch.launch.parts import RunParts, builder_candidates, make_task, prepare_run
from treesearch.launch.proposer import AgentProposer, make_proposer
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.frozen_rung import EarlyStop, FrozenRung, Objective
from treesearch.search.ledger import Checkpoint, Position
from treesearch.search.loop import Era, search
from treesearch.search.monitor import SearchMonitor
from treesearch.search.worker import worker_arrays
from treesearch.state import pack_state
from treesearch.trackers.base import Metrics

KEPT_VECTORS = 50_000  # classes up to which the ledger keeps their vectors: at 128 features 13 MB


class Eras:
    """The frozen rung of a run: makes its first era, after it one for every refresh of the encoder, and searches.

    The ledger keeps the encoder of each, so that `resume` can make it again.

    Args:
        parts: Of the run. The executor gets the features of each era; the ledger's meta entry ``encoder`` is the hash
            of the latest ones.
        log: Told how many evaluations there are, and metrics, after each and after every batch.

    Attributes:
        encoder: Hash of the latest features.
    """

    encoder: str

    def __init__(self, parts: RunParts, log: Callable[[int, Metrics], None] = lambda step, metrics: None) -> None:
        self._parts, self._config = parts, parts.config
        self._monitor = SearchMonitor(parts.config.search.evaluations, parts.cost_model, parts.progress, log)
        self._proposer: AgentProposer

    def search(self, era: Era, position: Position | None = None) -> None:
        """Spend the budget, beginning with this era, or going on with it after this position."""
        settings = self._config.search
        search(
            era,
            self._parts.ledger,
            evaluations=settings.evaluations,
            batch_size=settings.batch_size,
            asynchronous=settings.asynchronous,
            refresh_every=settings.refresh_every,
            next_era=self.next,
            position=position,
        )

    def first(self, preparation: Preparation, policy: Path | None, *, seed: int | None = None) -> Era:
        """The era of the encoder that was trained on cheap trees; ``seed`` is the agent's, None takes the run's."""
        task = make_task(self._config, self._parts.dataset, preparation)
        self._proposer = make_proposer(self._config, task, policy, seed=seed)
        return self._era(preparation)

    def resume(self, preparation: Preparation, checkpoint: Checkpoint) -> Era:
        """The era of a checkpoint, as it was there."""
        task = make_task(self._config, self._parts.dataset, preparation)
        self._proposer = make_proposer(self._config, task)
        self._proposer.unpack(checkpoint.agent_state)
        era = self._era(preparation)
        era.rung.restore(checkpoint.position.batch)
        self._monitor.recall(self._parts.ledger.rows(FROZEN), self.encoder)
        return era

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
        preparation = prepare_run(parts.config, parts.dataset, parts.progress, tree=tree)
        parts.executor.replace_arrays(worker_arrays(parts.dataset, preparation))
        self._proposer.use_task(make_task(parts.config, parts.dataset, preparation))
        return self._era(preparation)

    def _era(self, preparation: Preparation) -> Era:
        parts, frozen = self._parts, self._config.frozen
        self.encoder = preparation.hash
        parts.ledger.set_meta("encoder", self.encoder)
        parts.ledger.store_encoder(self.encoder, pack_state(preparation.encoder))
        if parts.dataset.num_classes <= KEPT_VECTORS:
            parts.ledger.store_class_vectors(self.encoder, preparation.vectors)
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
            time_limit=frozen.time_limit,
            max_consecutive_failures=self._config.search.max_consecutive_failures,
        )
        builders = builder_candidates(self._config, parts.dataset, self._proposer.agent.task)
        return Era(rung, builders, self._proposer, self._monitor.end_batch)


def forest_size(frozen: FrozenConfig) -> int | None:
    """Trees that a worker trains in one pass; None where the compiled kernel trains one at a time."""
    on_cuda = frozen.kernel == "auto" and resolve_device(frozen.device).type == "cuda"
    return frozen.forest if frozen.kernel == "torch" or on_cuda else None
