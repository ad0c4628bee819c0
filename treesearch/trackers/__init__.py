"""Experiment trackers: viewers of a search, never its source of truth. One run per search, logged by the driver."""

from __future__ import annotations

from pathlib import Path

from treesearch.config import Config
from treesearch.trackers.base import Tracker, Trackers

__all__ = ["Tracker", "make_tracker"]


def make_tracker(config: Config, folder: Path, *, run_id: str, step: int = 0) -> Tracker:
    """The configured trackers as one.

    Args:
        config: Of the search.
        folder: Of the run; what trackers write goes below it.
        run_id: The run's name with a tracker; the same again continues that run.
        step: Evaluations that are kept from before this process.

    Raises:
        ExecutionError: A tracker cannot be started as configured.
    """
    trackers: list[Tracker] = []
    if config.tensorboard.enabled:
        from treesearch.trackers.tensorboard import TensorBoardTracker

        trackers.append(TensorBoardTracker(config, folder, step=step))
    if config.wandb.mode != "disabled":
        from treesearch.trackers.wandb import WandbTracker

        trackers.append(WandbTracker(config, folder, run_id=run_id))
    return Trackers(trackers)
