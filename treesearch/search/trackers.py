"""Experiment trackers: viewers of a search, never its source of truth. One run per search, logged by the driver."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from treesearch.config import Config
from treesearch.errors import ExecutionError


class Tracker(ABC):
    """Gets metrics of a running search; a context manager."""

    @abstractmethod
    def log(self, metrics: dict[str, float]) -> None:
        """Take the metrics of one evaluation."""

    @abstractmethod
    def finish(self, comparison: dict[str, Any], best_tree: Path) -> None:
        """Take the results."""

    @abstractmethod
    def close(self) -> None:
        """End the run; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class NoTracker(Tracker):
    """Tracks nothing."""

    def log(self, metrics: dict[str, float]) -> None:
        """Ignore the metrics."""

    def finish(self, comparison: dict[str, Any], best_tree: Path) -> None:
        """Ignore the results."""

    def close(self) -> None:
        """Nothing to end."""


class WandbTracker(Tracker):
    """Weights & Biases.

    Args:
        config: Of the search.
        folder: Where offline files go.

    Raises:
        ExecutionError: The run could not be started, such as online without a login.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=config.wandb.project,
                mode=config.wandb.mode,
                dir=str(folder),
                name=folder.name,
                config=config.model_dump(mode="json"),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise ExecutionError(f"wandb could not start ({reason}); set wandb.mode=offline or disabled") from None

    def log(self, metrics: dict[str, float]) -> None:
        """Log one step."""
        self._run.log(metrics)

    def finish(self, comparison: dict[str, Any], best_tree: Path) -> None:
        """Log the comparison as a table and the best tree as an artifact."""
        columns = ("name", "kind", "valid_nll", "cost", "expected_depth", "perplexity")
        data = [[row[column] for column in columns] for row in comparison["rows"]]
        self._run.log({"comparison": self._wandb.Table(columns=list(columns), data=data)})
        artifact = self._wandb.Artifact("best-tree", type="tree")
        artifact.add_file(str(best_tree))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def make_tracker(config: Config, folder: Path) -> Tracker:
    """The configured tracker."""
    return NoTracker() if config.wandb.mode == "disabled" else WandbTracker(config, folder)
