"""What a running search tells: the progress bar and the tracker, after every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treesearch.cost import CostModel
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import FAILED, EvaluationRow


class SearchMonitor:
    """Tells progress and tracker of every frozen evaluation.

    Args:
        evaluations: The budget.
        cost_model: Its λ is the one that progress is told of, whatever the proposals are for.
        progress: Told the best reward and its gain over Huffman.
        log: Told metrics; ``reward`` and ``best_reward`` are under that λ as well.
    """

    def __init__(
        self,
        evaluations: int,
        cost_model: CostModel,
        progress: ProgressReporter,
        log: Callable[[dict[str, float]], None],
    ) -> None:
        self._evaluations = evaluations
        self._cost_model = cost_model
        self._progress = progress
        self._log = log
        self._done = 0
        self._failed = 0
        self._best: float | None = None
        self._huffman: float | None = None

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
        metrics = {"evaluations": float(self._done), "failures": float(self._failed)}
        if row.valid_nll is not None:
            metrics["reward"] = row.validation_reward(self._cost_model)
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
        self._log(metrics)

    def _note(self, row: EvaluationRow, *, comparable: bool) -> None:
        self._done += 1
        self._failed += row.status == FAILED
        if row.valid_nll is not None and comparable:
            reward = row.validation_reward(self._cost_model)
            self._best = reward if self._best is None else max(self._best, reward)
            if row.label == "huffman":
                self._huffman = reward
