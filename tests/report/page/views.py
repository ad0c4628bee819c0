"""Run views with made-up rows, read from a real run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treesearch import build_tree
from treesearch.config import make_config
from treesearch.report.page.run_view import RunView, load_run
from treesearch.search.evaluation_row import CONFIRM, FAILED, FROZEN, JOINT, OK, WARM, EvaluationRow
from treesearch.search.ledger import Position
from treesearch.search.run_folder import RunFolder

BEGAN = 1000.0
TREE = build_tree("huffman", counts=[3, 2, 1], arity=2)  # what a row's tree is does not matter here


def row(number: int, **values: Any) -> EvaluationRow:
    """An evaluation on the frozen rung; ``values`` are columns."""
    known: dict[str, Any] = {
        "rung": FROZEN,
        "batch": 0,
        "agent": "hybrid",
        "label": None,
        "tree_hash": f"{number:032}",
        "status": OK,
        "cost": 1.0,
        "encoder": "e0",
        "finished_at": BEGAN + number,
        "seconds": 1.0,
    }
    known |= values
    if known["rung"] in (WARM, JOINT, CONFIRM):
        known |= {"encoder": None, "seed": known.get("seed", 0), "learning_rate": known.get("learning_rate", 0.01)}
    if known.get("valid_nll") is None:
        known["status"] = known["status"] if known["status"] != OK else FAILED
    return EvaluationRow(id=number, **known)


def view_of(
    folder: Path,
    rows: Sequence[EvaluationRow],
    *,
    metrics: Sequence[dict[str, float]] = (),
    config: dict[str, Any] | None = None,
    name: str | None = None,
) -> RunView:
    """What the report knows of a search with these rows; ``metrics`` are of batches 0, 1, ..."""
    run = RunFolder(folder)
    encoder = next((one.encoder for one in reversed(rows) if one.encoder is not None), "e0")
    with run.create(make_config(config or {})) as ledger:
        ledger.set_meta("sessions", [BEGAN])
        ledger.set_meta("encoder", encoder)
        for one in rows:
            ledger.record(one, TREE)
        for batch, values in enumerate(metrics):
            ledger.finish_batch(Position(batch, encoder, spent=0, began=0, proposed=0), b"", values)
    return load_run(folder, name=name)
