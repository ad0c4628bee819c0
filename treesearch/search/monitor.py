"""What a running search tells: the progress bar and the trackers, after every evaluation and every batch."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from treesearch.cost import CostModel
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import FAILED, STOPPED, EvaluationRow
from treesearch.search_panel import SearchStatus
from treesearch.trackers.base import Metrics

RATE_WINDOW = 64  # evaluations over which the rate is taken
LEAST_EVALUATIONS, LEAST_SECONDS = 2, 1.0  # of which a rate can be told


class SearchMonitor:
    """Tells progress and trackers of every frozen evaluation, and trackers of every batch.

    Args:
        evaluations: The budget.
        cost_model: Its λ is the one that progress is told of, whatever the proposals are for.
        progress: Told the `SearchStatus`.
        log: Told how many evaluations there are, and metrics; rewards are under that λ as well.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        evaluations: int,
        cost_model: CostModel,
        progress: ProgressReporter,
        log: Callable[[int, Metrics], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evaluations = evaluations
        self._cost_model = cost_model
        self._progress = progress
        self._log = log
        self._clock = clock
        self._done = 0
        self._failed = 0
        self._stopped = 0
        self._best: float | None = None
        self._huffman: float | None = None
        self._batch_rewards: list[float] = []
        self._batch_means: tuple[float, ...] = ()
        self._batch_evaluations = 0
        self._batch_began = clock()
        self._times = deque([clock()], maxlen=RATE_WINDOW + 1)  # when the last ones finished, and the one before them

    def new_encoder(self) -> None:
        """Rewards so far are not comparable with those to come, and what it took to train it is no evaluation's."""
        self._best = self._huffman = None
        self._batch_means = ()
        self._times.clear()
        self._times.append(self._clock())

    def recall(self, rows: Sequence[EvaluationRow], encoder: str) -> None:
        """Take note of what was done before the search was resumed under this encoder; nobody is told."""
        by_batch: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            self._note(row, comparable=row.encoder == encoder)
            if row.valid_nll is not None and row.encoder == encoder:
                by_batch[row.batch].append(row.validation_reward(self._cost_model))
        self._batch_means = tuple(_mean(by_batch[batch]) for batch in sorted(by_batch))

    def __call__(self, row: EvaluationRow) -> None:
        """Take note of one evaluation and tell of it."""
        self._note(row, comparable=True)
        self._times.append(self._clock())
        self._batch_evaluations += 1
        metrics = {"failures": float(self._failed)}
        if row.valid_nll is not None:
            metrics["reward"] = row.validation_reward(self._cost_model)
            self._batch_rewards.append(metrics["reward"])
        self._progress.search(self._status())
        for key in ("valid_nll", "cost", "seconds"):
            value = getattr(row, key)
            if value is not None:
                metrics[key] = value
        if self._best is not None:
            metrics["best_reward"] = self._best
        self._log(self._done, metrics)

    def end_batch(self, metrics: Mapping[str, float]) -> None:
        """Tell trackers of a batch, with the agent's metrics of it."""
        now = self._clock()
        if self._batch_rewards:
            self._batch_means = (*self._batch_means, _mean(self._batch_rewards))
        rate = self._batch_evaluations / max(now - self._batch_began, 1e-9)
        agent = {f"agent/{name}": value for name, value in metrics.items()}
        self._log(self._done, {**agent, "batch_rewards": self._batch_rewards, "evaluations_per_second": rate})
        self._batch_rewards, self._batch_evaluations, self._batch_began = [], 0, now

    def _status(self) -> SearchStatus:
        num, span = len(self._times) - 1, self._times[-1] - self._times[0]
        known = num >= LEAST_EVALUATIONS and span >= LEAST_SECONDS
        return SearchStatus(
            done=self._done,
            budget=self._evaluations,
            best_reward=self._best,
            huffman_reward=self._huffman,
            batch_means=(*self._batch_means, *([_mean(self._batch_rewards)] if self._batch_rewards else [])),
            num_failed=self._failed,
            num_stopped=self._stopped,
            rate=num / span if known else None,
            rate_window=num,
        )

    def _note(self, row: EvaluationRow, *, comparable: bool) -> None:
        self._done += 1
        self._failed += row.status == FAILED
        self._stopped += row.status == STOPPED
        if row.valid_nll is not None and comparable:
            reward = row.validation_reward(self._cost_model)
            self._best = reward if self._best is None else max(self._best, reward)
            if row.label == "huffman":
                self._huffman = reward


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
