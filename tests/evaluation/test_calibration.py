"""Calibration: the trees that it compares are what it says, and a small table is measured for real."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from treesearch import Tree, build_tree
from treesearch.cost_table import CostTable
from treesearch.evaluation import calibration
from treesearch.evaluation.calibration import _fan_with_chains, _projected, calibrate
from treesearch.paths import class_paths
from treesearch.softmax import HierarchicalSoftmax


@pytest.mark.parametrize(("places", "arity", "length"), [(1, 2, 1), (1, 5, 3), (7, 2, 4), (20, 3, 2), (64, 8, 1)])
def test_every_example_goes_down_one_chain(places: int, arity: int, length: int) -> None:
    tree, ends = _fan_with_chains(places, arity, length)
    longer, longer_ends = _fan_with_chains(places, arity, length + 2)
    assert len(set(ends.tolist())) == places
    for own, classes, nodes in ((tree, ends, length), (longer, longer_ends, length + 2)):
        paths = class_paths(own)
        for cls in classes:
            arities = own.arities[paths.node[paths.ptr[cls] : paths.ptr[cls + 1]]]
            assert (arities[-nodes:] == arity).all()
        # What lies above the chains is the same fan, whatever their length.
        assert (own.depths[classes] - nodes).tolist() == (tree.depths[ends] - length).tolist()
    assert longer.num_internal - tree.num_internal == 2 * places


def test_projections_stand_at_the_root_and_at_the_ends() -> None:
    tree, ends = _fan_with_chains(3, 2, 1)
    dims = _projected(tree, 5, 2, ends).projection_dim
    assert sorted(dims.tolist()) == [2, 2, 2, 5]
    assert _projected(tree, 0, 0, ends) is tree


def test_projections_are_timed_between_trees_of_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both searches have the same layer's shapes and visit as many nodes; one goes through the projection."""
    compared = []

    def compare(more: Callable[[], object], less: Callable[[], object]) -> float:
        compared.append((more, less))
        return 128.0

    monkeypatch.setattr(calibration, "_difference_us", compare)
    bench = calibration._Bench(16, 8, torch.device("cpu"))
    assert bench.inference_projections((4, 16)).tolist() == [128 / calibration.ROWS] * 2
    for calls in compared:
        layers, visits, classes = [], [], []
        for call in calls:
            captured: list[tuple[HierarchicalSoftmax, Tensor]] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    HierarchicalSoftmax, "topk", lambda own, input, k, into=captured: into.append((own, input))
                )
                call()
            ((layer, input),) = captured
            found = layer.topk(input, 1)
            layers.append(layer)
            visits.append(set(found.num_nodes.tolist()))
            classes.append({int(layer.tree.parent[layer.tree.class_leaf[c]]) for c in found.indices[:, 0].tolist()})
            assert len(input) == calibration.ROWS
        assert layers[0].tree == layers[1].tree
        assert visits == [{2}, {2}]
        (through,), (beside,) = classes
        dims = layers[0].tree.projection_dim
        assert dims[through] > 0
        assert dims[beside] == dims[0] == 0


def test_a_small_projection_is_cheap_per_example() -> None:
    """8 x 128 multiplications take less than the microseconds that a call spends on one more parameter."""
    assert calibration._Bench(128, 64, torch.device("cpu")).inference_projections((8,))[0] < 1.0


@pytest.fixture(scope="module")
def table() -> CostTable:
    return calibrate(32, batch_size=64, max_arity=64)


@pytest.mark.slow
def test_a_table_is_complete_and_positive(table: CostTable) -> None:
    assert table.dims == (2, 8, 32)
    assert table.arities == (2, 3, 4, 8, 16, 32, 64)
    assert table.visits == (1, 2, 4, 8, 16, 64)
    assert np.shape(table.training_us) == (3, 7, 6)
    assert np.min(table.training_us) > 0
    assert np.min(table.inference_us) > 0
    assert table.call_us > 0
    assert table.inference_call_us > 0


@pytest.mark.slow
def test_more_work_takes_longer(table: CostTable) -> None:
    """Far apart, so that a disturbance does not turn it round: nothing here is a claim about speed."""
    training = np.array(table.training_us)
    assert training[2, 0, -1] > training[2, 0, 0]  # 64 visits, 1 visit
    assert training[2, -1, -1] > training[2, 0, -1]  # arity 64, arity 2
    assert np.array(table.inference_us)[2, -1] > np.array(table.inference_us)[2, 0]


def test_it_prices_any_tree(table: CostTable) -> None:
    counts = np.arange(1.0, 101)
    trees = [build_tree("huffman", counts=counts, arity=arity) for arity in (2, 7, 50)]
    trees += [build_tree("adaptive", counts=counts, in_features=32), Tree.from_nested(0)]
    for tree in trees:
        own = counts[: tree.num_classes]
        assert np.isfinite(table.training_us_per_example(tree, own))
        assert table.training_us_per_example(tree, own) > 0
