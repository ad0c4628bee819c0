"""Measured costs: a table made up by formulas whose expectations are known, and its file."""

import json
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.nested import random_nested
from treesearch import Tree, build_tree
from treesearch.cost import CostModel, node_costs
from treesearch.cost_table import CostTable
from treesearch.errors import DataError
from treesearch.paths import input_dims

D, BATCH = 16, 64
ARITIES = (2, 3, 8, 64)
VISITS = (1, 2, 8, 64)
DIMS = (4, 16)


def fixed(arity: float, dim: float) -> float:
    return 1 + 0.1 * arity + 0.01 * dim


def per_visit(arity: float, dim: float) -> float:
    return 0.2 + 0.02 * arity + 0.001 * dim


def made_up() -> CostTable:
    """Times that are linear in arity, input size and visits: what interpolation must reproduce."""
    return CostTable(
        device="paper",
        in_features=D,
        batch_size=BATCH,
        dims=DIMS,
        arities=ARITIES,
        visits=VISITS,
        training_us=tuple(
            tuple(tuple(fixed(k, d) + m * per_visit(k, d) for m in VISITS) for k in ARITIES) for d in DIMS
        ),
        projection_us=tuple(tuple(5 + 0.1 * d * m for m in VISITS) for d in DIMS),
        call_us=32.0,
        inference_us=tuple(tuple(0.5 + 0.1 * k + 0.01 * d for k in ARITIES) for d in DIMS),
        inference_projection_us=tuple(0.1 * d for d in DIMS),
        inference_call_us=3.0,
    )


def expected(tree: Tree, counts: np.ndarray) -> np.ndarray:
    """With visits M ~ Poisson(mean): the fixed part whenever M > 0, the rest by the mean; per example."""
    mean = BATCH * tree.node_mass(counts)[: tree.num_internal] / counts.sum()
    dims = input_dims(tree, D)
    return (-np.expm1(-mean) * fixed(tree.arities, dims) + mean * per_visit(tree.arities, dims)) / BATCH


@pytest.mark.parametrize("seed", range(5))
def test_expected_times_of_nodes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = Tree.from_nested(random_nested(rng, 300))
    counts = rng.random(300) ** 4 + 1e-6
    wide = tree.arities <= ARITIES[-1]
    found = made_up().training_node_us(tree, counts)
    # The root cannot be passed by more than a batch, and the mean is interpolated: a few per cent.
    np.testing.assert_allclose(found[wide], expected(tree, counts)[wide], rtol=0.05)


def test_arities_beyond_the_table_are_extrapolated() -> None:
    tree = build_tree("flat", counts=np.ones(1000))
    found = made_up().training_node_us(tree, np.ones(1000))
    np.testing.assert_allclose(found, (fixed(1000, D) + BATCH * per_visit(1000, D)) / BATCH, rtol=0.05)


def test_projections_cost_extra_where_they_stand() -> None:
    plain = Tree.from_nested([[0, 1], [2, 3]])
    tree = Tree.from_parents(plain.parent, plain.leaf_class, projection_dim=[0, 4, 0])
    table, counts = made_up(), np.array([60.0, 60, 4, 4])
    difference = table.training_node_us(tree, counts) - table.training_node_us(plain, counts)
    mean = BATCH * 120 / 128
    narrower = fixed(2, 4) - fixed(2, 16) + mean * (per_visit(2, 4) - per_visit(2, 16))
    np.testing.assert_allclose(difference, [0, (5 + 0.4 * mean + narrower) / BATCH, 0], rtol=0.05, atol=1e-12)


def test_rare_nodes_cost_their_overhead_alone() -> None:
    counts = np.array([1e9, 1.0, 1.0])
    tree = build_tree("huffman", counts=counts)
    found = made_up().training_node_us(tree, counts)
    mean = BATCH * 2 / 1e9
    assert found[1] == pytest.approx(mean * (fixed(2, D) + per_visit(2, D)) / BATCH, rel=0.02)


def test_whole_trees() -> None:
    tree, counts, table = build_tree("huffman", counts=np.arange(1, 41)), np.arange(1.0, 41), made_up()
    total = table.training_us_per_example(tree, counts)
    assert total == pytest.approx(table.training_node_us(tree, counts).sum() + 32 / BATCH)
    passes = tree.node_mass(counts)[:39] / counts.sum()
    np.testing.assert_allclose(table.inference_node_us(tree, counts), passes * 0.86)


def test_one_class_costs_nothing_but_the_call() -> None:
    table = made_up()
    assert table.training_us_per_example(Tree.from_nested(0), [1]) == 32 / BATCH
    assert table.inference_node_us(Tree.from_nested(0), [1]).tolist() == []


# -- the model that the reward uses


@pytest.mark.parametrize("phase", ["training", "inference"])
def test_a_measured_model_charges_microseconds(phase: str) -> None:
    counts = np.arange(1.0, 41)
    tree = build_tree("huffman", counts=counts, arity=3)
    model = CostModel(D, 0.25, made_up(), phase)  # type: ignore[arg-type]
    node_us = getattr(made_up(), f"{phase}_node_us")(tree, counts)
    cost = model.tree_cost(tree, counts)
    assert cost.measured_us == pytest.approx(node_us.sum())
    assert cost.cost == pytest.approx(CostModel(D).tree_cost(tree, counts).cost), "the column is always analytic"
    assert model.loss(cost) == pytest.approx(0.25 * node_us.sum())
    np.testing.assert_allclose(model.node_losses(tree, counts), 0.25 * node_us)


def test_an_analytic_model_charges_units() -> None:
    counts = np.arange(1.0, 41)
    tree = build_tree("huffman", counts=counts, arity=3)
    model = CostModel(D, 0.25)
    cost = model.tree_cost(tree, counts)
    assert cost.measured_us is None
    passes = tree.node_mass(counts)[: tree.num_internal] / counts.sum()
    np.testing.assert_allclose(model.node_losses(tree, counts), 0.25 * passes * node_costs(tree, D))
    assert model.loss(cost) == pytest.approx(model.node_losses(tree, counts).sum())


# -- files


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cost_table.json"
    path.write_text(made_up().to_json())
    assert CostTable.load(path) == made_up()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"visits": [1, 2]},
        {"training_us": 3},
        {"extra": 1},
    ],
    ids=str,
)
def test_files_that_are_no_table(change: dict, tmp_path: Path) -> None:
    path = tmp_path / "cost_table.json"
    path.write_text(json.dumps(json.loads(made_up().to_json()) | change))
    with pytest.raises(DataError, match="must be a cost table"):
        CostTable.load(path)


def changed(content: object, place: tuple[int | str, ...], value: object) -> object:
    """The content with another value at a place."""
    if not place:
        return value
    copied: Any = copy(content)
    copied[place[0]] = changed(copied[place[0]], place[1:], value)
    return copied


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("device",), 3, "device"),
        (("in_features",), 16.0, "in_features"),
        (("in_features",), True, "in_features"),
        (("in_features",), 0, "in_features"),
        (("in_features",), 32, "dims must end with in_features, 32, but end with 16"),
        (("batch_size",), "64", "batch_size"),
        (("batch_size",), 128, "visits must end with batch_size, 128, but end with 64"),
        (("dims",), [16, 4], "dims must be rising whole numbers >= 1"),
        (("dims",), [16, 16], "dims must be rising whole numbers >= 1"),
        (("dims",), [0, 16], "dims must be rising whole numbers >= 1"),
        (("dims",), [4.5, 16], "dims must be rising whole numbers >= 1"),
        (("dims",), 16, "dims must be rising whole numbers >= 1"),
        (("dims",), [], "dims must be rising whole numbers >= 1"),
        (("arities",), [3, 4, 8, 64], "arities must begin with 2, but begin with 3"),
        (("arities",), [2, 8, 3, 64], "arities must be rising whole numbers >= 1"),
        (("visits",), [2, 3, 8, 64], "visits must begin with 1, but begin with 2"),
        (("visits",), [1, True, 8, 64], "visits must be rising whole numbers >= 1"),
        (("training_us", 0, 1, 2), float("nan"), "training_us must hold finite numbers >= 0, but has nan"),
        (("training_us", 0, 1, 2), -0.5, "training_us must hold finite numbers >= 0, but has -0.5"),
        (("training_us", 0, 1, 2), 10**400, "training_us must hold finite numbers >= 0"),
        (("training_us", 0, 1), [1.0, 2.0], ""),
        (("projection_us", 1, 0), float("inf"), "projection_us must hold finite numbers >= 0, but has inf"),
        (("projection_us", 1, 0), "fast", "projection_us must hold finite numbers >= 0, but has 'fast'"),
        (("inference_us", 0, 0), None, "inference_us must hold finite numbers >= 0, but has None"),
        (("inference_projection_us", 0), True, "inference_projection_us must hold finite numbers >= 0, but has True"),
        (("call_us",), -1, "call_us must be a finite number >= 0, but is -1"),
        (("inference_call_us",), [1.0], "inference_call_us must be a finite number >= 0"),
    ],
    ids=str,
)
def test_tables_that_could_not_have_been_measured(
    place: tuple[int | str, ...], value: object, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "cost_table.json"
    path.write_text(json.dumps(changed(json.loads(made_up().to_json()), place, value)))
    with pytest.raises(DataError, match="must be a cost table") as caught:
        CostTable.load(path)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "[" * 100_000], ids=lambda content: repr(content)[:9])
def test_broken_files(content: str, tmp_path: Path) -> None:
    path = tmp_path / "cost_table.json"
    path.write_text(content)
    with pytest.raises(DataError, match="must be a cost table"):
        CostTable.load(path)
    with pytest.raises(DataError, match="must be a cost table"):
        CostTable.load(tmp_path / "missing.json")
