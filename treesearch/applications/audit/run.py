"""Audit all examples of a file, a part at a time, and see how far the layer's confidence can be trusted.

Shapes: **T** examples, **D** features, **C** classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.tree import Tree as RichTree

from treesearch.data.features import read_examples
from treesearch.decisions.audit import Audit, explain
from treesearch.decisions.confidence import KINDS, Kind, path_confidence
from treesearch.decisions.risk_coverage import risk_coverage
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree_files import write_atomically

EXAMPLES_AT_ONCE = 4096
COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
Row = dict[str, Any]


class AuditTask(NamedTuple):
    """What to audit."""

    layer: HierarchicalSoftmax
    inputs: NDArray[np.floating]  # [T, D]
    labels: NDArray[np.integer] | None  # [T]


@dataclass
class AuditRun:
    """What came of it."""

    num_examples: int
    accuracy: float | None  # None without labels
    coverage: list[Row]  # see `coverage_rows`; empty without labels
    records: list[Row] = field(default_factory=list)  # of the first examples
    views: list[RichTree] = field(default_factory=list)  # the same for people


def load_task(layer: Path, inputs: Path) -> AuditTask:
    """A layer and features that fit it.

    Args:
        layer: Folder that `HierarchicalSoftmax.save_pretrained` wrote.
        inputs: An ``.npz`` with ``x`` and perhaps ``y``, or a folder with ``x.npy`` and perhaps ``y.npy``.

    Raises:
        DataError: Something is missing or damaged, or does not fit.
        TreeError: The layer's tree is missing or damaged.
    """
    own = HierarchicalSoftmax.from_pretrained(layer).eval()
    x, y = read_examples(inputs)
    if x.shape[1] != own.in_features:
        raise DataError(
            f"inputs must have the layer's {own.in_features} features, but {str(inputs)!r} has {x.shape[1]}; take"
            " those that the layer was trained on"
        )
    if y is not None and int(y.max()) >= own.num_classes:
        raise DataError(
            f"classes must lie in [0, {own.num_classes}), those of the layer, but {str(inputs)!r} has {int(y.max())}"
        )
    return AuditTask(own, x, y)


def audit_features(
    task: AuditTask,
    *,
    out: Path | None = None,
    num_alternatives: int = 3,
    num_features: int = 0,
    feature_names: Sequence[str] | None = None,
    num_shown: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> AuditRun:
    """Explain the prediction of every example.

    Args:
        task: Layer and examples.
        out: File of the records, a line of JSON each; None: they are not written.
        num_alternatives: As in `explain`.
        num_features: As in `explain`.
        feature_names: As in `explain`.
        num_shown: First examples whose records and views are kept.
        on_step: Called with examples done, and all.

    Raises:
        DataError: The settings do not fit, or ``out`` cannot be written.
    """
    found = AuditRun(len(task.inputs), None, [])
    confidence: dict[Kind, list[NDArray[np.float64]]] = {kind: [] for kind in KINDS}
    predicted: list[NDArray[np.int64]] = []
    dtype = task.layer.weights[0].dtype

    def run(file: BinaryIO | None) -> None:
        for begin in range(0, len(task.inputs), EXAMPLES_AT_ONCE):
            rows = np.array(task.inputs[begin : begin + EXAMPLES_AT_ONCE])
            audit = explain(
                task.layer,
                torch.from_numpy(rows).to(dtype),
                num_alternatives=num_alternatives,
                num_features=num_features,
                feature_names=feature_names,
            )
            if file is not None:
                audit.write_lines(file, first=begin)
            _keep(found, audit, begin, num_shown)
            predicted.append(audit.classes)
            for kind, values in confidence.items():
                values.append(path_confidence(audit, kind))
            on_step(begin + len(rows), len(task.inputs))

    if out is None:
        run(None)
    else:
        try:
            write_atomically(out, run)
        except OSError as reason:
            raise DataError(f"{str(out)!r} cannot be written ({reason.strerror}); check the folder") from None
    if task.labels is not None:
        wrong_T = np.concatenate(predicted) != task.labels
        found.accuracy = float(1 - wrong_T.mean())
        found.coverage = coverage_rows({kind: np.concatenate(values) for kind, values in confidence.items()}, wrong_T)
    return found


def coverage_rows(confidence: dict[Kind, NDArray[np.float64]], wrong_T: NDArray[np.bool_]) -> list[Row]:
    """Accuracy among the surest share of examples, for each kind of confidence and several shares.

    Returns:
        One row per kind: ``confidence``, ``aurc`` (area under the risk-coverage curve) and ``points``, each with
        ``coverage`` (asked for), ``answered`` (more where confidences are equal), ``threshold`` and ``accuracy``.
    """
    rows = []
    for kind, values_T in confidence.items():
        curve = risk_coverage(values_T, wrong_T)
        points = []
        for coverage in COVERAGES:
            threshold = curve.threshold_at(coverage)
            answered = float((values_T >= threshold).mean())
            accuracy = 1 - curve.risk_at(coverage)
            points.append({"coverage": coverage, "answered": answered, "threshold": threshold, "accuracy": accuracy})
        rows.append({"confidence": kind, "aurc": curve.aurc, "points": points})
    return rows


def coverage_table(rows: Sequence[Row]) -> Table:
    """The rows for people, 100 columns at most."""
    title = "Accuracy where the surest share is answered, and the confidence that takes"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("confidence")
    for point in rows[0]["points"]:
        table.add_column(f"{100 * point['coverage']:g} %", justify="right", no_wrap=True)
    table.add_column("AURC", justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{point['accuracy']:.3f}\n{point['threshold']:.3f}" for point in row["points"]]
        table.add_row(row["confidence"], *cells, f"{row['aurc']:.4f}")
    return table


def _keep(found: AuditRun, audit: Audit, begin: int, num_shown: int) -> None:
    for place, record in zip(range(num_shown - begin), audit.iter_records(first=begin), strict=False):
        found.records.append(record)
        found.views.append(audit.render(place, first=begin))
