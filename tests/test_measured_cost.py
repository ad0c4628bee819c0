"""`cost.kind: measured`: what the reward charges, and what a run leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.test_cost_table import BATCH, D, made_up
from treesearch import build_tree
from treesearch.config import Config
from treesearch.cost import CostModel, CostTable
from treesearch.errors import ConfigError, DataError
from treesearch.launch import make_cost_model
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import FROZEN, JOINT, Ledger

COUNTS = np.arange(1.0, 61)


def model(path: Path, *, features: int = D, batch_size: int = BATCH, **cost: object) -> CostModel:
    config = Config.model_validate(
        {
            "encoder": {"features": features},
            "joint": {"batch_size": batch_size},
            "cost": {"kind": "measured", "table": str(path), **cost},
        }
    )
    return make_cost_model(config, COUNTS, ProgressReporter())


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(made_up().to_json())
    return path


@pytest.mark.parametrize("phase", ["training", "inference"])
def test_huffman_is_charged_alike_by_both_kinds(phase: str, table_file: Path) -> None:
    huffman = build_tree("huffman", counts=COUNTS)
    measured, analytic = model(table_file, phase=phase, weight=0.01), CostModel(D, 0.01)
    assert measured.table == made_up()
    charge = measured.loss(measured.tree_cost(huffman, COUNTS))
    assert charge == pytest.approx(analytic.loss(analytic.tree_cost(huffman, COUNTS)))


def test_a_table_of_another_layer_is_refused(table_file: Path) -> None:
    with pytest.raises(ConfigError, match="must be of 32 features and batches of 64"):
        model(table_file, features=32)
    with pytest.raises(ConfigError, match="must be of 16 features and batches of 99"):
        model(table_file, batch_size=99)
    with pytest.raises(DataError, match="must be a cost table"):
        model(table_file.with_name("missing.json"))


@pytest.mark.slow
def test_a_run_on_measured_cost(tiny_config: Path, tmp_path: Path) -> None:
    settings = ("--set", "cost.kind=measured", "--set", "cost.weight=0.05")
    first, again = tmp_path / "first", tmp_path / "again"
    done = tiny.run_module("search", tiny_config, "--out", first, *settings)
    assert done.code == 0, done.err
    table = CostTable.load(first / "cost_table.json")
    assert (table.in_features, table.batch_size) == (8, 128)
    comparison = json.loads((first / "comparison.json").read_text())
    assert comparison["cost_kind"] == "measured"
    weight = comparison["cost_weight"]
    with Ledger(first / "search.db") as ledger:
        rows = [row for row in ledger.rows() if row.reward is not None]
    assert {row.rung for row in rows} >= {FROZEN, JOINT}
    for row in rows:
        assert row.cost_measured_us is not None
        assert row.reward == pytest.approx(-row.valid_nll - weight * row.cost_measured_us)
    huffman = next(row for row in rows if row.label == "huffman")
    assert weight * huffman.cost_measured_us == pytest.approx(0.05 * huffman.cost)
    assert all(row["cost_measured_us"] > 0 for row in comparison["rows"])

    # The same table gives the same run; a new measurement would not.
    done = tiny.run_module(
        "search", tiny_config, "--out", again, *settings, "--set", f"cost.table={first}/cost_table.json"
    )
    assert done.code == 0, done.err
    assert (again / "cost_table.json").read_text() == (first / "cost_table.json").read_text()
    with Ledger(again / "search.db") as ledger, Ledger(first / "search.db") as before:
        assert [row.content() for row in ledger.rows()] == [row.content() for row in before.rows()]
