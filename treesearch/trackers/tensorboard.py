"""TensorBoard: event files in the run folder. See them with ``tensorboard --logdir runs``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from treesearch.config import Config, dump_config
from treesearch.trackers.base import Metrics, Table, Tracker, is_number


class TensorBoardTracker(Tracker):
    """Writes ``tensorboard/`` in the run folder. Where that fails, as on a full disk, it warns once and does no more.

    Args:
        config: Of the search.
        folder: Of the run.
        step: Evaluations before this process; what an earlier one has logged of later ones is taken back.
    """

    def __init__(self, config: Config, folder: Path, *, step: int = 0) -> None:
        self._step, self._broken = step, False
        self._writer: Any = None
        self._events_prefix = folder / "tensorboard" / "events"
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        text = "\n".join(f"    {line}" for line in dump_config(config).splitlines())
        self._write(Event(step=step, summary=summary.text("config", text)))

    def log(self, step: int, metrics: Metrics) -> None:
        """Log numbers as scalars, distributions as histograms."""
        self._step = step
        for name, value in metrics.items():
            if is_number(value):
                self._write(Event(step=step, summary=summary.scalar(name, float(value))))
            elif np.size(value):
                self._write(Event(step=step, summary=summary.histogram(name, np.asarray(value), bins="auto")))

    def finish(self, tables: Mapping[str, Table], best_tree: Path) -> None:
        """Log the tables as text, with the place of the best tree."""
        for name, (columns, rows) in tables.items():
            lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
            text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            self._write(Event(step=self._step, summary=summary.text(name, text)))
        self._write(Event(step=self._step, summary=summary.text("best_tree", str(best_tree))))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._guarded(self._writer.close)
        self._broken = True

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()

        def write() -> None:
            if self._writer is None:
                self._events_prefix.parent.mkdir(exist_ok=True)
                self._writer = EventsWriter(str(self._events_prefix))
            self._writer.write_event(event)
            self._writer.flush()

        self._guarded(write)

    def _guarded(self, write: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            write()
        except OSError as error:
            self._broken = True
            if self._writer is not None:
                with suppress(OSError):  # what is buffered cannot be written either
                    self._writer.close()
            folder = self._events_prefix.parent
            warnings.warn(
                f"TensorBoard files in {folder} cannot be written ({error.strerror}) and end here", stacklevel=3
            )


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
