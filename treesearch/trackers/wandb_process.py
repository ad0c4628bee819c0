"""The process that talks to Weights & Biases, so that neither its network nor its service can hold up a search.

A program of its own: lines of JSON come in on stdin, a few go out on stdout. It imports nothing of treesearch, which
would load torch. The end of stdin ends the run, whether the search closed it or died.

In, first of all: {"id", "project", "name", "folder", "mode", "timeout", "config"}. Then any of
    {"log": {name: number or list of numbers}}
    {"tables": {name: [columns, rows]}, "artifact": path}
Out: {"started": mode, "reason": why it is not the one asked for, or null}, or {"error": text} before it ends with 1.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

RESERVE_SECONDS = 2.0  # of the time limit: for what is not the wait for the server


def main() -> None:
    """Run until stdin ends."""
    began = time.monotonic()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what wandb prints

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        import wandb

        run = _start(wandb, json.loads(sys.stdin.readline()), began, answer)
        run.define_metric("*", step_metric="evaluations")
        for line in sys.stdin:
            message = json.loads(line)
            if "log" in message:
                run.log({name: _value(wandb, value) for name, value in message["log"].items()})
            else:
                _finish(wandb, run, message)
        run.finish()
    except Exception as error:  # whatever it is, the search has to hear of it
        answer(error=" ".join(str(error).split()) or type(error).__name__)
        sys.exit(1)


def _start(wandb: Any, first: dict[str, Any], began: float, answer: Callable[..., None]) -> Any:
    """The run; offline where the server cannot be reached in time, so that nothing is lost."""
    options = {"project": first["project"], "name": first["name"], "dir": first["folder"], "config": first["config"]}
    mode, run_id = first["mode"], first["id"]
    if mode != "online":
        run = wandb.init(mode=mode, id=run_id, **options)
        answer(started=mode, reason=None)
        return run
    seconds = max(1.0, first["timeout"] - RESERVE_SECONDS - (time.monotonic() - began))
    try:
        settings = wandb.Settings(init_timeout=seconds)
        run = wandb.init(mode=mode, id=run_id, resume="allow", settings=settings, **options)
        answer(started=mode, reason=None)
    except wandb.errors.CommError as error:
        wandb.teardown()  # the service has taken the id
        run = wandb.init(mode="offline", id=run_id, **options)
        answer(started="offline", reason=" ".join(str(error).split()))
    return run


def _value(wandb: Any, value: Any) -> Any:
    return wandb.Histogram(value) if isinstance(value, list) else value


def _finish(wandb: Any, run: Any, message: dict[str, Any]) -> None:
    run.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in message["tables"].items()})
    artifact = wandb.Artifact("best-tree", type="tree")
    artifact.add_file(message["artifact"])
    run.log_artifact(artifact)


if __name__ == "__main__":
    main()
