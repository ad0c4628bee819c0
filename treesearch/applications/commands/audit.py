"""`treesearch apply audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from treesearch.console import stdout, tell


def audit(
    layer: Annotated[Path, typer.Option(help="Folder that save_pretrained of a layer wrote.")],
    inputs: Annotated[
        Path, typer.Option(help="An .npz with x, and y where classes are known; or a folder with x.npy and y.npy.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the audit here: a line of JSON per example.")] = None,
    alternatives: Annotated[int, typer.Option(min=0, help="Other children listed per decision.")] = 3,
    features: Annotated[int, typer.Option(min=0, help="Features listed per decision, largest share first.")] = 0,
    feature_names: Annotated[Path | None, typer.Option(help="Names of the features, one a line.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print the paths of so many examples.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the first audits and the table as one object.")
    ] = False,
) -> None:
    """Explain a layer's predictions decision by decision, and how accurate it is where it is sure."""
    from treesearch.applications.audit import audit_features, coverage_table, load_task
    from treesearch.data.names import read_names
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter

    task = load_task(layer, inputs)
    names = None if feature_names is None else read_names(feature_names)
    with one_thread(), ProgressReporter() as progress:
        found = audit_features(
            task,
            out=out,
            num_alternatives=alternatives,
            num_features=features,
            feature_names=names,
            num_shown=show,
            on_step=lambda done, total: progress.update("audit", done, total),
        )
    if as_json:
        fields = {
            "num_examples": found.num_examples,
            "accuracy": found.accuracy,
            "coverage": found.coverage,
            "examples": found.records,
        }
        print(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        for view in found.views:
            stdout().print(view)
        if found.coverage:
            stdout().print(coverage_table(found.coverage))
    if found.accuracy is None:
        tell(f"{found.num_examples} examples; there are no classes y beside x, so nothing is said of accuracy")
    else:
        tell(f"{found.num_examples} examples, accuracy {found.accuracy:.3f}")
