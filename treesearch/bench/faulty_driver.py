"""A driver whose workers diverge on some trees and hang on others: arguments ``search CONFIG DIR`` or ``resume DIR``.

For the fault campaign (`treesearch.bench.faults`). Which trees are hit depends on the tree alone, so that a search that
is killed and resumed meets the same ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.config import load_config
from treesearch.errors import TreeSearchError
from treesearch.launch import resume_search, run_search
from treesearch.progress import ProgressReporter
from treesearch.search.run_folder import RunFolder
from treesearch.search.worker import EvaluationWorker, FrozenTask, WorkerSettings

DIVERGING, HANGING = 0.06, 0.03  # shares of the trees that share nodes with earlier ones


class FaultyWorker:
    """An `EvaluationWorker` that learns from broken features, or never answers, on some trees."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], settings: WorkerSettings) -> None:
        broken = np.full_like(arrays["train.x"], np.nan)
        self._sound = EvaluationWorker(arrays, settings)
        self._broken = EvaluationWorker({**arrays, "train.x": broken}, settings)

    def __call__(self, payload: Any) -> Any:
        """Evaluate one task, or not."""
        first = not isinstance(payload, FrozenTask) or payload.wanted is None  # a builder: Huffman has to succeed
        if not first:
            draw = int(payload.tree.hash[:8], 16) / 16**8
            if draw < DIVERGING:
                return self._broken(payload)
            while draw < DIVERGING + HANGING:
                time.sleep(1.0)
        return self._sound(payload)


def main(arguments: list[str]) -> int:
    """Search or resume; the exit code."""
    command, *paths = arguments
    try:
        with ProgressReporter(quiet=True) as progress:
            if command == "search":
                config, folder = paths
                run_search(load_config(config), RunFolder(Path(folder)), progress, make_worker=FaultyWorker)
            else:
                resume_search(RunFolder(Path(paths[0])), progress, make_worker=FaultyWorker)
    except TreeSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
