"""`cost.kind: measured`: what the reward charges, and what a run leaves behind."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.test_cost_table import ARITIES, BATCH, DIMS, VISITS, D, made_up
from treesearch import Tree, build_tree
from treesearch.config import Config
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.data import Corpus
from treesearch.errors import ConfigError, DataError
from treesearch.launch import check_choices, make_cost_model
from treesearch.progress import ProgressReporter
from treesearch.search.confirm import at_best_rate, choose_finalists
from treesearch.search.evaluation_row import FROZEN, JOINT, EvaluationRow
from treesearch.search.frozen_rung import BUILDER
from treesearch.search.ledger import Ledger
from treesearch.search.promotion import Promoted, promote

COUNTS = np.arange(1.0, 61)
STREAM = np.arange(60, dtype=np.int32)
NAMES = tuple(f"w{number}" for number in STREAM)
DATA = Corpus(STREAM, STREAM, STREAM, NAMES, COUNTS.astype(np.int64), eos=0, source={}).dataset(5)


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
def test_a_mistake_in_the_table_costs_no_training(table_file: Path) -> None:
    """What the search checks before it prepares refuses the table as well."""

    def check(path: Path, features: int = D) -> None:
        cost = {"kind": "measured", "table": str(path)}
        settings = {"encoder": {"features": features}, "joint": {"batch_size": BATCH}, "cost": cost}
        check_choices(Config.model_validate(settings), DATA)

    check(table_file)
    with pytest.raises(DataError, match="must be a cost table"):
        check(table_file.with_name("missing.json"))
    with pytest.raises(ConfigError, match="must be of 32 features and batches of 64"):
        check(table_file, 32)


def test_a_table_in_which_nothing_takes_time(table_file: Path) -> None:
    zero = np.zeros_like(made_up().inference_us)
    nothing = replace(made_up(), inference_us=tuple(map(tuple, zero.tolist())))
    table_file.write_text(nothing.to_json())
    with pytest.raises(ConfigError, match=r"cost.table must give the Huffman tree a time > 0, but gives 0.0"):
        model(table_file, phase="inference")


# -- at no more than Huffman's cost

# In units WIDE costs less than Huffman and PAIR more; in the microseconds made up here it is the other way round.
FIVE = np.array([8.0, 4, 2, 1, 1])
HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]])
WIDE = Tree.from_nested([0, [1, 2, 3, 4]])
PAIR = Tree.from_nested([[0, 1], [2, 3, 4]])
DEAR = Tree.from_nested([4, [0, 1, 2, 3]])


def ternary_is_cheap(weight: float) -> CostModel:
    """A visited node takes 1 us if binary, 0.1 if ternary, 10 and more if wider."""
    node_us = {2: 1.0, 3: 0.1, 8: 50.0, 64: 50.0}
    training = tuple(tuple(tuple(node_us[arity] for _ in VISITS) for arity in ARITIES) for _ in DIMS)
    return CostModel(D, weight, replace(made_up(), training_us=training))


@pytest.fixture
def frozen_rows(tmp_path: Path) -> Iterator[Callable[[CostModel], Ledger]]:
    """Writes the frozen rung: DEAR is best, PAIR worst."""
    with ExitStack() as stack:

        def fill(cost_model: CostModel) -> Ledger:
            ledger = stack.enter_context(Ledger(tmp_path / f"{cost_model.table is None}.db", create=True))
            for agent, label, tree, reward in (
                (BUILDER, "huffman", HUFFMAN, -5.0),
                ("agent", None, DEAR, -4.0),
                ("agent", None, WIDE, -6.0),
                ("agent", None, PAIR, -6.5),
            ):
                cost = cost_model.tree_cost(tree, FIVE)
                row = EvaluationRow(
                    id=ledger.next_id(),
                    rung=FROZEN,
                    batch=0,
                    agent=agent,
                    label=label,
                    tree_hash=tree.hash,
                    status="ok",
                    reward=reward,
                    valid_nll=-reward,
                    cost=cost.cost,
                    cost_measured_us=cost.measured_us,
                )
                ledger.record(row, tree)
            return ledger

        yield fill


def test_the_costs_that_the_next_test_relies_on() -> None:
    units = [CostModel(D).tree_cost(tree, FIVE).cost for tree in (WIDE, HUFFMAN, PAIR, DEAR)]
    assert units == sorted(units)
    times = [ternary_is_cheap(1.0).tree_cost(tree, FIVE).measured_us or 0 for tree in (PAIR, HUFFMAN, WIDE, DEAR)]
    # Per example of a batch of 64; four binary nodes are Huffman's.
    np.testing.assert_allclose(np.multiply(times, 64), [2.1, 4, 11.08, 11.08], rtol=0.02)


def test_times_that_cannot_be_told_apart_count_as_equal(table_file: Path) -> None:
    measured, analytic = CostModel(D, 0.01, made_up()), CostModel(D, 0.01)
    for model, limit in ((analytic, 2.0), (measured, 2.0 * 1.01)):
        assert model.no_dearer(limit, 2.0)
        assert model.no_dearer(0.5, 2.0)
        assert not model.no_dearer(np.nextafter(limit, 3.0), 2.0)


@pytest.mark.parametrize("weight", [0.0, 0.1], ids=["free", "charged"])
@pytest.mark.parametrize("kind", ["analytic", "measured"])
def test_no_more_than_huffmans_cost_is_of_what_the_reward_charges(
    kind: str, weight: float, frozen_rows: Callable[[CostModel], Ledger]
) -> None:
    cost_model = CostModel(D, weight) if kind == "analytic" else ternary_is_cheap(weight)
    ledger = frozen_rows(cost_model)
    cheap = WIDE if kind == "analytic" else PAIR
    promoted = promote(ledger, counts=FIVE, cost_model=cost_model, num_trees=1)
    assert [p.tree for p in promoted] == [HUFFMAN, DEAR, cheap]

    everything = promote(ledger, counts=FIVE, cost_model=cost_model, num_trees=9)
    nll = {HUFFMAN: 5.0, DEAR: 4.0, WIDE: 6.0, PAIR: 6.5}

    class Rung:
        def train(self, rung: str, jobs: list[tuple[Promoted, float, int]]) -> list[EvaluationRow]:
            return [replace(promoted.row, valid_nll=nll[promoted.tree]) for promoted, _, _ in jobs]

    rung: Any = Rung()
    finalists = choose_finalists(at_best_rate(everything, rung, learning_rates=[0.1], seed=0), cost_model=cost_model)
    assert [finalist.promoted.tree for finalist in finalists] == [HUFFMAN, DEAR, cheap]


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
    assert comparison["cost_weight"] == 0.05
    with Ledger(first / "search.db") as ledger:
        rows = [row for row in ledger.rows() if row.reward is not None]
    assert {row.rung for row in rows} >= {FROZEN, JOINT}
    # The unit is the mean time of a decision in the Huffman tree.
    huffman = next(row for row in rows if row.label == "huffman")
    unit_us = huffman.cost_measured_us / huffman.cost
    for row in rows:
        assert row.cost_measured_us is not None
        assert row.reward == pytest.approx(-row.valid_nll - 0.05 * row.cost_measured_us / unit_us)
    assert huffman.reward == pytest.approx(-huffman.valid_nll - 0.05 * huffman.cost)
    front = comparison["fronts"]["frozen"]
    assert front["cost_kind"] == "measured"
    by_tree = {row.tree_hash: row for row in rows if row.rung == FROZEN}
    for point in front["points"]:
        assert point["cost"] == pytest.approx(by_tree[point["tree"]].cost_measured_us / unit_us)
    assert all(row["cost_measured_us"] > 0 for row in comparison["rows"])

    # The same table gives the same run; a new measurement would not.
    done = tiny.run_module(
        "search", tiny_config, "--out", again, *settings, "--set", f"cost.table={first}/cost_table.json"
    )
    assert done.code == 0, done.err
    assert (again / "cost_table.json").read_text() == (first / "cost_table.json").read_text()
    with Ledger(again / "search.db") as ledger, Ledger(first / "search.db") as before:
        assert [row.content() for row in ledger.rows()] == [row.content() for row in before.rows()]
