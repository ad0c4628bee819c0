"""How long it takes to audit the predictions of a trained layer over a large vocabulary: `treesearch.decisions.audit`.

The layers of `treesearch bench softmax`, for 10,000 classes, on the Huffman tree and on a clustered binary one, and a
root with all classes below it. One thread; medians. An audit predicts, too. Parts are timed by themselves beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from treesearch.bench.softmax import NUM_FEATURES, trained_layers
from treesearch.bench.timing import call_seconds
from treesearch.builders import build_tree
from treesearch.decisions.audit import explain
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax

TARGET_SECONDS = 5.0  # of an audit of 10,000 predictions among 10,000 classes, without attributions
TRAINING_EXAMPLES = 500_000
FEATURES = 5  # of an audit with attributions


def run(num_classes: int = 10_000, num_examples: int = 10_000, repeats: int = 3) -> list[dict[str, Any]]:
    """Time audits, and what they are made of.

    Args:
        num_classes: C.
        num_examples: Predictions.
        repeats: Of each measurement; medians count.

    Returns:
        One row per tree and operation: ``tree``, ``operation``, ``seconds``, ``slowest``, ``target_seconds`` (for the
        default sizes; None for what has none), ``depth`` (decisions per prediction).
    """
    rows: list[dict[str, Any]] = []
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        for name, layer, inputs in _layers(num_classes, num_examples):
            rows += _rows(name, layer, inputs, Path(folder) / "audit.jsonl", repeats)
    return rows


def _layers(num_classes: int, num_examples: int) -> Iterator[tuple[str, HierarchicalSoftmax, Tensor]]:
    drawn = min(TRAINING_EXAMPLES, 50 * num_classes) + num_examples
    inputs = torch.zeros(0)
    for name, layer, inputs in trained_layers(num_classes, num_examples=drawn, num_held_out=num_examples):
        yield name, layer, inputs
    counts = torch.ones(num_classes).numpy()
    yield "flat root", HierarchicalSoftmax(NUM_FEATURES, build_tree("flat", counts=counts)), inputs


def _rows(name: str, layer: HierarchicalSoftmax, inputs: Tensor, file: Path, repeats: int) -> list[dict[str, Any]]:
    found = explain(layer, inputs[:8])  # what is compiled or built at first use
    found = explain(layer, inputs)
    operations: dict[str, tuple[Callable[[], object], float | None]] = {
        "audit": (lambda: explain(layer, inputs), TARGET_SECONDS),
        "predictions alone": (lambda: layer.predict(inputs), None),
        "audit with features": (lambda: explain(layer, inputs, num_features=FEATURES), None),
        "records to JSON Lines": (lambda: found.write_jsonl(file), None),
    }
    if layer.tree.num_internal == 1:  # predictions alone take most of the time, and the rest is as above
        operations = {name: operations[name] for name in ("audit", "predictions alone")}
    rows = []
    for operation, (call, target) in operations.items():
        seconds = [call_seconds(call) for _ in range(repeats)]
        rows.append(
            {
                "tree": name,
                "operation": operation,
                "seconds": median(seconds),
                "slowest": max(seconds),
                "target_seconds": target,
                "depth": float(found.length.mean()),
            }
        )
    file.unlink(missing_ok=True)
    return rows
