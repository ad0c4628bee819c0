"""What a running search tells: the progress bar and the trackers, after every evaluation and every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from treesearch.cost import CostModel
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import FAILED, EvaluationRow
from treesearch.trackers.base import Metrics


class SearchMonitor:
    """Tells progress and trackers of every frozen evaluation, and trackers of every batch.

    Args:
        evaluations: The budget.
        cost_model: Its λ is the one that progress is told of, whatever the proposals are for.
        progress: Told the best reward and its gain over Huffman.
        log: Told how many evaluations there are, and metrics; rewards are under that λ as well.
    """

    def __init__(
        self,
        evaluations: int,
        cost_model: CostModel,
        progress: ProgressReporter,
        log: Callable[[int, Metrics], None],
    ) -> None:
        self._evaluations = evaluations
        self._cost_model = cost_model
        self._progress = progress
        self._log = log
        self._done = 0
        self._failed = 0
        self._best: float | None = None
        self._huffman: float | None = None
        self._batch_rewards: list[float] = []
        self._batch_evaluations = 0
        self._batch_began = perf_counter()

    def new_encoder(self) -> None:
        """Rewards so far are not comparable with those to come."""
        self._best = self._huffman = None

    def recall(self, rows: Sequence[EvaluationRow], encoder: str) -> None:
        """Take note of what was done before the search was resumed under this encoder; nobody is told."""
        for row in rows:
            self._note(row, comparable=row.encoder == encoder)

    def __call__(self, row: EvaluationRow) -> None:
        """Take note of one evaluation and tell of it."""
        self._note(row, comparable=True)
        self._batch_evaluations += 1
        metrics = {"failures": float(self._failed)}
        if row.valid_nll is not None:
            metrics["reward"] = row.validation_reward(self._cost_model)
            self._batch_rewards.append(metrics["reward"])
        notes = []
        if self._best is not None:
            gain = "" if self._huffman is None else f" ({self._best - self._huffman:+.4f} over Huffman)"
            notes.append(f"best reward {self._best:.4f}{gain}")
        if self._failed:
            notes.append(f"{self._failed} failed")
        self._progress.update("search", self._done, self._evaluations, ", ".join(notes))
        for key in ("valid_nll", "cost", "seconds"):
            value = getattr(row, key)
            if value is not None:
                metrics[key] = value
        if self._best is not None:
            metrics["best_reward"] = self._best
        self._log(self._done, metrics)

    def end_batch(self, metrics: Mapping[str, float]) -> None:
        """Tell trackers of a batch, with the agent's metrics of it."""
        now = perf_counter()
        rate = self._batch_evaluations / max(now - self._batch_began, 1e-9)
        agent = {f"agent/{name}": value for name, value in metrics.items()}
        self._log(self._done, {**agent, "batch_rewards": self._batch_rewards, "evaluations_per_second": rate})
        self._batch_rewards, self._batch_evaluations, self._batch_began = [], 0, now

    def _note(self, row: EvaluationRow, *, comparable: bool) -> None:
        self._done += 1
        self._failed += row.status == FAILED
        if row.valid_nll is not None and comparable:
            reward = row.validation_reward(self._cost_model)
            self._best = reward if self._best is None else max(self._best, reward)
            if row.label == "huffman":
                self._huffman = reward
