"""What a running search tells: the progress bar and the tracker, after every evaluation."""

from __future__ import annotations

from collections.abc import Callable

from treesearch.progress import ProgressReporter
from treesearch.search.ledger import EvaluationRow


class SearchMonitor:
    """Tells progress and tracker of every frozen evaluation.

    Args:
        evaluations: The budget.
        progress: Told the best reward and its gain over Huffman.
        log: Told metrics.
    """

    def __init__(self, evaluations: int, progress: ProgressReporter, log: Callable[[dict[str, float]], None]) -> None:
        self._evaluations = evaluations
        self._progress = progress
        self._log = log
        self._done = 0
        self._failed = 0
        self._best: float | None = None
        self._huffman: float | None = None

    def __call__(self, row: EvaluationRow) -> None:
        """Take note of one evaluation."""
        self._done += 1
        if row.reward is None:
            self._failed += 1
        else:
            self._best = row.reward if self._best is None else max(self._best, row.reward)
            if row.label == "huffman":
                self._huffman = row.reward
        note = "" if self._best is None else f"best reward {self._best:.4f}"
        if self._best is not None and self._huffman is not None:
            note += f" ({self._best - self._huffman:+.4f} over Huffman)"
        if self._failed:
            note += f", {self._failed} failed"
        self._progress.update("search", self._done, self._evaluations, note)
        metrics = {"evaluations": float(self._done), "failures": float(self._failed)}
        for key in ("reward", "valid_nll", "cost", "seconds"):
            value = getattr(row, key)
            if value is not None:
                metrics[key] = value
        if self._best is not None:
            metrics["best_reward"] = self._best
        self._log(metrics)
