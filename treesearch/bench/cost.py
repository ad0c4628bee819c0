"""Whether a cost table predicts what whole trees take: measured here, then compared on trees of different shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.bench.timing import median_seconds
from treesearch.builders import build_tree
from treesearch.cost_table import CostTable
from treesearch.evaluation.calibration import LEARNING_RATE, calibrate, training_step
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

NUM_FEATURES, BATCH, POOL = 128, 512, 32
NUM_CLASSES = 10_000


def run(repeats: int = 9) -> list[dict[str, Any]]:
    """Predicted and measured microseconds per example of a training step, update included; the median error last."""
    table = calibrate(NUM_FEATURES, batch_size=BATCH)
    rng = np.random.default_rng(0)
    with one_thread():
        contenders = {name: _step(tree, counts, rng) for name, tree, counts in _trees(rng)}
        seconds = median_seconds(contenders, repeats)
    return _rows(table, {name: 1e6 * value / BATCH for name, value in seconds.items()})


def _rows(table: CostTable, measured: dict[str, float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, tree, counts in _trees(np.random.default_rng(0)):
        predicted = table.training_us_per_example(tree, counts)
        error = predicted / measured[name] - 1
        rows.append({"tree": name, "predicted_us": predicted, "measured_us": measured[name], "error": error})
    middle = median(abs(row["error"]) for row in rows)
    rows.append({"tree": "median of the absolute errors", "predicted_us": None, "measured_us": None, "error": middle})
    return rows


def _trees(rng: np.random.Generator) -> Iterator[tuple[str, Tree, NDArray[np.float64]]]:
    """Twenty trees that differ in arity, depth, balance, width of the vectors and distribution of the classes."""
    zipf = 1e6 / np.arange(2, NUM_CLASSES + 2)
    uniform = np.ones(2000)
    vectors = rng.standard_normal((NUM_CLASSES, 16)).astype(np.float32)
    for arity in (2, 3, 4, 8, 16, 64):
        yield f"huffman({arity=})", build_tree("huffman", counts=zipf, arity=arity), zipf
    for arity in (2, 5, 32):
        yield f"balanced({arity=}), 2000 equal classes", build_tree("balanced", counts=uniform, arity=arity), uniform
    for arity in (2, 10, 40):
        yield f"clustered({arity=})", build_tree("clustered", counts=zipf, vectors=vectors, arity=arity), zipf
    yield "random", build_tree("random", counts=zipf, seed=0), zipf
    yield "two-level", build_tree("two-level", counts=zipf), zipf
    yield "flat, 300 equal classes", build_tree("flat", counts=uniform[:300]), uniform[:300]
    yield "flat, 2000 classes", build_tree("flat", counts=zipf[:2000]), zipf[:2000]
    for div_value, cutoffs in ((1.0, [500, 2500]), (2.0, [100, 1000, 4000]), (4.0, [500, 2500]), (4.0, [2000])):
        name = f"adaptive(cutoffs={cutoffs}, {div_value=})"
        tree = build_tree("adaptive", counts=zipf, cutoffs=cutoffs, div_value=div_value, in_features=NUM_FEATURES)
        yield name, tree, zipf


def _step(tree: Tree, counts: NDArray[np.float64], rng: np.random.Generator) -> Callable[[], None]:
    layer = HierarchicalSoftmax(NUM_FEATURES, tree, sparse=True)
    pool = torch.from_numpy(rng.choice(tree.num_classes, (POOL, BATCH), p=counts / counts.sum()))
    optimizer = RowwiseAdam(layer.parameters(), lr=LEARNING_RATE)
    return training_step(layer, torch.randn(BATCH, NUM_FEATURES).requires_grad_(), cycle(pool.unbind()), optimizer)
