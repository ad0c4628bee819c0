"""Weights & Biases, one run per search."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from treesearch.config import Config
from treesearch.errors import ExecutionError
from treesearch.trackers import wandb_process
from treesearch.trackers.base import Metrics, Table, Tracker, is_number

MAX_WAITING = 10_000  # messages that a process which does not take them may be behind


class WandbTracker(Tracker):
    """Hands everything to a process of its own (`treesearch.trackers.wandb_process`).

    It waits for that process at most ``wandb.timeout`` seconds at the start and as many at the end, and never in
    between. A server that cannot be reached by then costs a warning, and the run is kept offline.

    Args:
        config: Of the search.
        folder: Of the run; files go to ``wandb/`` there.
        run_id: The same again continues a run.

    Raises:
        ExecutionError: The run cannot be started as configured, such as online without a login.
    """

    def __init__(self, config: Config, folder: Path, *, run_id: str) -> None:
        self._timeout = config.wandb.timeout
        self._files = folder / "wandb"
        self._dropped = 0
        self._closed = False
        # -P: this folder has a module named wandb. A session of its own: Ctrl-C is for the search alone.
        command = [sys.executable, "-P", wandb_process.__file__]
        environment = {"WANDB_SILENT": "true", **os.environ}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._messages: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._listen)]
        for thread in self._threads:
            thread.start()
        settings = config.wandb.model_dump(include={"project", "mode", "timeout"})
        named = {"id": run_id, "name": folder.name, "folder": str(folder)}
        self._put({**settings, **named, "config": config.model_dump(mode="json")})
        self._await_start()

    def log(self, step: int, metrics: Metrics) -> None:
        """Log numbers, and distributions as histograms."""
        values = {name: value if is_number(value) else np.asarray(value).tolist() for name, value in metrics.items()}
        self._put({"log": {"evaluations": step, **values}})

    def finish(self, tables: Mapping[str, Table], best_tree: Path) -> None:
        """Log the tables, and the best tree as an artifact."""
        self._put({"tables": tables, "artifact": str(best_tree)})

    def close(self) -> None:
        """Let the process send what is left."""
        if self._closed:
            return
        self._closed = True
        self._end_messages()
        try:
            code = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self._end_process()
            self._warn(f"was not done after {self._timeout:g} s (wandb.timeout) and was ended")
        else:
            if code != 0:
                self._warn(f"ended with exit code {code} ({self._last_words()})")
            elif self._dropped:
                self._warn(f"fell behind, and {self._dropped} messages were left out")

    def _await_start(self) -> None:
        try:
            answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self._warn(f"has not started after {self._timeout:g} s (wandb.timeout); the search does not wait for it")
            return
        if "error" in answer:
            self._end_process()
            raise ExecutionError(
                f"wandb could not start ({answer['error']}); mend that, or set wandb.mode=offline or disabled"
            )
        if answer["reason"] is not None:
            self._warn(f"is kept {answer['started']}, since the server cannot be reached: {answer['reason']}")

    def _put(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, default=float)  # in this thread: what is no JSON is the caller's mistake
        try:
            self._messages.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _end_messages(self) -> None:
        while True:
            try:
                self._messages.put_nowait(None)
            except queue.Full:
                self._messages.get_nowait()
                self._dropped += 1
            else:
                return

    def _send(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            while (message := self._messages.get()) is not None:
                stdin.write(f"{message}\n")
                stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._answers.put(json.loads(line))
        self._answers.put({"error": "its process died"})  # unless it said more before

    def _last_words(self) -> str:
        """Why the process failed, as far as it said so."""
        self._threads[1].join(1.0)
        errors = [answer["error"] for answer in list(self._answers.queue) if "error" in answer]
        return str(errors[0]) if errors else "no reason given"

    def _end_process(self) -> None:
        """The service that wandb starts ends with its process."""
        self._process.kill()
        self._process.wait()

    def _warn(self, what: str) -> None:
        warnings.warn(f"wandb {what}; send what is in {self._files} later with: wandb sync", stacklevel=3)
