"""TensorBoard: event files in the run folder. See them with ``tensorboard --logdir runs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from treesearch.config import Config, dump_config
from treesearch.trackers.base import Metrics, Table, Tracker


class TensorBoardTracker(Tracker):
    """Writes ``tensorboard/`` in the run folder; a thread of its own does the writing.

    Args:
        config: Of the search.
        folder: Of the run.
        step: Evaluations before this process; what an earlier one has logged of later ones is taken back.
    """

    def __init__(self, config: Config, folder: Path, *, step: int = 0) -> None:
        self._step = step
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in dump_config(config).splitlines()), step)

    def log(self, step: int, metrics: Metrics) -> None:
        """Log numbers as scalars, distributions as histograms."""
        self._step = step
        for name, value in metrics.items():
            if isinstance(value, float | int):
                self._writer.add_scalar(name, value, step)
            elif len(value):
                self._writer.add_histogram(name, np.asarray(value), step)

    def finish(self, tables: Mapping[str, Table], best_tree: Path) -> None:
        """Log the tables as text, with the place of the best tree."""
        for name, (columns, rows) in tables.items():
            lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
            self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), self._step)
        self._writer.add_text("best_tree", str(best_tree), self._step)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
