"""Options that several applications have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TrainFile = Annotated[Path, typer.Option(help="Documents to learn from: lines 'text TAB label'.")]
TestFile = Annotated[Path, typer.Option(help="Documents of the table.")]
TaxonomyFile = Annotated[
    Path, typer.Option(help="Lines 'child TAB parent', ROOT at the top; or a path a line, or nested JSON.")
]
Parents = Annotated[str, typer.Option(help="Of several parents of a node: error, first, shallowest or deepest.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each classifier; intervals from two on.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the documents.")]
AsRows = Annotated[bool, typer.Option("--json", help="Print a list of rows.")]
