"""The analytic cost model against values worked out by hand."""

import numpy as np
import pytest

from tests import nested as naive
from treesearch import Tree, build_tree
from treesearch.cost import CostModel, CostWeights, TreeCost, node_costs, node_dot_products, tree_cost
from treesearch.errors import ConfigError, DataError


def test_binary_nodes_cost_their_depth() -> None:
    counts = [8, 4, 2, 1, 1]
    tree = build_tree("huffman", counts=counts)
    # depths 1 2 3 4 4: (8 + 8 + 6 + 4 + 4) / 16
    assert tree_cost(tree, counts, in_features=64) == TreeCost(
        cost=1.875, expected_depth=1.875, dot_products=1.875, max_depth=4
    )


def test_wide_nodes() -> None:
    tree = Tree.from_nested([[0, 1], [2, 3, 4, 5], 6])
    np.testing.assert_allclose(node_costs(tree, 10), [1.15, 1.0, 1.2])
    np.testing.assert_allclose(node_dot_products(tree, 10), [3, 1, 4])
    # every example passes the root, 2 of 10 the pair, 5 of 10 the four
    cost = tree_cost(tree, [1, 1, 2, 1, 1, 1, 3], in_features=10)
    assert cost.cost == pytest.approx(1.15 + 0.2 * 1.0 + 0.5 * 1.2)
    assert cost.expected_depth == pytest.approx(1.7)
    assert cost.dot_products == pytest.approx(3 + 0.2 * 1 + 0.5 * 4)
    assert cost.max_depth == 2


def test_nested_projections() -> None:
    # root (3 ways, no projection) > node 1 (pair, to 8) and node 2 (pair, to 4) > node 3 (3 ways, to 2) and leaf 3
    shape = Tree.from_nested([0, [1, 2], [3, [4, 5, 6]]])
    tree = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=[0, 8, 4, 2])
    np.testing.assert_allclose(node_costs(tree, 16), [1.15, 8 / 16 + 8 / 20, 4 / 16 + 4 / 20, 2 / 16 * 1.15 + 2 / 20])
    # rows * d_n / D, and d_n * d / D for the projection from d
    np.testing.assert_allclose(node_dot_products(tree, 16), [3, 8 / 16 + 8, 4 / 16 + 4, 3 * 2 / 16 + 2 * 4 / 16])


def test_a_projection_reaches_the_nodes_below_it() -> None:
    shape = Tree.from_nested([0, [1, [2, 3]]])
    tree = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=[0, 4, 0])
    np.testing.assert_allclose(node_costs(tree, 16), [1.0, 0.25 + 0.2, 0.25])
    np.testing.assert_allclose(node_dot_products(tree, 16), [1.0, 0.25 + 4, 0.25])


def test_a_projection_at_the_root() -> None:
    tree = Tree.from_parents([-1, 0, 0], [0, 1], projection_dim=[8])
    assert node_costs(tree, 16).tolist() == [0.5 + 0.4]
    assert node_dot_products(tree, 16).tolist() == [0.5 + 8]


def test_flat_softmax_over_10000_classes_costs_501_units() -> None:
    tree = build_tree("flat", counts=np.ones(10_000))
    cost = tree_cost(tree, np.ones(10_000), in_features=128)
    assert (cost.cost, cost.dot_products, cost.max_depth) == (501.0, 10_000.0, 1)


def test_default_adaptive_softmax_over_10000_classes() -> None:
    counts = np.ones(10_000)
    cost = tree_cost(build_tree("adaptive", counts=counts, in_features=128), counts, in_features=128)
    # head of 500 + 2 entries; 2000 classes on 32 features for a fifth, 7500 on 8 for three quarters of the examples
    head, first, second = 1 + 502 / 20, 32 / 128 * (1 + 2000 / 20) + 32 / 20, 8 / 128 * (1 + 7500 / 20) + 8 / 20
    assert cost.cost == pytest.approx(head + 0.2 * first + 0.75 * second)
    assert cost.dot_products == pytest.approx(502 + 0.2 * (2000 / 4 + 32) + 0.75 * (7500 / 16 + 8))


@pytest.mark.parametrize("seed", range(3))
def test_cost_is_the_mean_over_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = Tree.from_nested(naive.random_nested(rng, 50))
    tree = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=rng.integers(0, 9, shape.num_internal))
    counts = rng.integers(0, 20, 50)
    per_class = tree.path_sums(node_costs(tree, 32))
    assert tree_cost(tree, counts, in_features=32).cost == pytest.approx(per_class @ counts / counts.sum())


def test_one_class_costs_nothing() -> None:
    assert tree_cost(Tree.from_nested(0), [5], in_features=8) == TreeCost(0.0, 0.0, 0.0, 0)


def test_counts_must_fit() -> None:
    with pytest.raises(DataError, match="got 3 for 2 classes"):
        tree_cost(Tree.from_nested([0, 1]), [1, 2, 3], in_features=8)


# -- units and weights


def test_the_units_of_nodes_add_up_to_what_a_tree_is_charged() -> None:
    tree, counts = Tree.from_nested([[0, 1], [2, 3, 4, 5], 6]), [1, 1, 2, 1, 1, 1, 3]
    model = CostModel(10, 0.25)
    assert model.node_units(tree, counts).tolist() == pytest.approx([1.15, 0.2, 0.6])
    assert model.node_losses(tree, counts).tolist() == pytest.approx([0.25 * 1.15, 0.05, 0.15])
    cost = model.tree_cost(tree, counts)
    assert model.charged(cost.cost, cost.measured_us) == cost.cost == pytest.approx(1.95)
    assert model.loss(cost) == pytest.approx(0.25 * 1.95)


def test_a_list_of_weights() -> None:
    weights = CostWeights((0.0, 0.5, 2.0))
    assert weights.grid() == (0.0, 0.5, 2.0)
    rng = np.random.default_rng(0)
    drawn = [weights.draw(rng) for _ in range(3000)]
    assert {w: drawn.count(w) for w in (0.0, 0.5, 2.0)} == pytest.approx(dict.fromkeys((0.0, 0.5, 2.0), 1000), abs=90)


def test_one_weight_takes_no_draw() -> None:
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert CostWeights((0.005,)).draw(rng) == 0.005
    assert rng.bit_generator.state == untouched.bit_generator.state
    assert CostWeights((0.005,)).grid() == (0.005,)


def test_a_range_of_weights_is_log_uniform() -> None:
    weights = CostWeights(low=0.001, high=0.1)
    np.testing.assert_allclose(weights.grid(3), [0.001, 0.01, 0.1])
    assert len(weights.grid()) == 5
    rng = np.random.default_rng(0)
    drawn = np.log10([weights.draw(rng) for _ in range(4000)])
    assert -3 <= drawn.min() < -2.99
    assert -1.01 < drawn.max() <= -1
    assert np.histogram(drawn, 4, (-3, -1))[0] == pytest.approx([1000] * 4, abs=110)


@pytest.mark.parametrize(
    ("values", "low", "high", "says"),
    [
        ((), None, None, "a list of at least one, or low and high"),
        ((1.0,), 0.1, 1.0, "a list of at least one, or low and high"),
        ((), 0.1, None, "low and high"),
        ((), None, 0.1, "low and high"),
        ((0.1, -1.0), None, None, "finite and >= 0, but got -1.0"),
        ((float("nan"),), None, None, "but got nan"),
        ((float("inf"),), None, None, "but got inf"),
        ((), 0.0, 1.0, "0 < low < high, but got 0.0 and 1.0"),
        ((), 1.0, 1.0, "0 < low < high"),
        ((), 1.0, float("inf"), "0 < low < high"),
    ],
)
def test_weights_that_are_none(values: tuple[float, ...], low: float | None, high: float | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CostWeights(values, low, high)
