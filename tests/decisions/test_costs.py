"""Costs of nodes against naive differences of paths."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.decisions.probs import few, path, trees
from tests.ragged import ZOO, taxonomies
from treesearch import Tree
from treesearch.decisions.costs import Charge, NodeCosts
from treesearch.errors import DataError
from treesearch.taxonomy import Taxonomy, taxonomy_from_edges

CHARGES: tuple[Charge, ...] = ("once", "every")
SMALL = Tree.from_nested([[0, 1], [2, 3, 4]], class_names=list("abcde")).annotate(node_names=["all", "left", "right"])


def naive_cost(costs: NodeCosts, action: int, truth: int) -> float:
    given, wanted = path(costs.tree, action), path(costs.tree, truth)
    positive, negative = costs.false_positive.tolist(), costs.false_negative.tolist()
    entered = [positive[node] for node in given if node not in wanted]
    missed = [negative[node] for node in wanted if node not in given]
    return sum(entered[:1] if costs.charge == "once" else entered) + sum(missed)


def random_costs(tree: Tree, seed: int, charge: Charge) -> NodeCosts:
    rng = np.random.default_rng(seed)
    return NodeCosts(tree, *torch.from_numpy(rng.uniform(0.1, 3, (2, tree.num_nodes))), charge)


@few
@given(tree=trees(), seed=st.integers(0, 99), charge=st.sampled_from(CHARGES))
def test_costs_are_differences_of_paths(tree: Tree, seed: int, charge: Charge) -> None:
    costs = random_costs(tree, seed, charge)
    nodes = range(tree.num_nodes)
    naive = torch.tensor([[naive_cost(costs, a, y) for y in nodes] for a in nodes], dtype=torch.float64)
    torch.testing.assert_close(costs.matrix(), naive)
    some = torch.from_numpy(np.random.default_rng(seed).integers(tree.num_nodes, size=(2, 5)))
    torch.testing.assert_close(costs.matrix(some[0], some[1]), naive[some[0]][:, some[1]])
    torch.testing.assert_close(costs.cost(some, some.flip(0)), naive[some, some.flip(0)])


def test_charges() -> None:
    pair = {"false_positive": 5.0, "false_negative": 1.0}
    left, right, first, second = 1, 2, int(SMALL.class_leaf[0]), int(SMALL.class_leaf[2])
    action, truth = (
        torch.tensor([first, 0, left, first, first, right]),
        torch.tensor([second, second, 0, 0, left, left]),
    )
    once, every = (NodeCosts.uniform(SMALL, **pair, charge=charge) for charge in CHARGES)
    assert once.cost(action, truth).tolist() == [7, 2, 5, 5, 5, 6]
    assert every.cost(action, truth).tolist() == [12, 2, 5, 10, 5, 6]
    assert once.thresholds.tolist() == pytest.approx([0] + 7 * [5 / 6])
    assert repr(once).startswith("NodeCosts(Tree(num_classes=5")


@pytest.mark.parametrize(("pair", "threshold"), [((0, 1), 0.0), ((2, 0), 1.0), ((1e308, 1e308), 0.5), ((3, 1), 0.75)])
def test_thresholds(pair: tuple[float, float], threshold: float) -> None:
    costs = NodeCosts.by_node(SMALL, {"left": pair}, default=(1, 9))
    assert costs.thresholds.tolist() == pytest.approx([0, threshold] + 6 * [0.1])


def naive_taxonomy_cost(
    taxonomy: Taxonomy, costs: dict[int, tuple[float, float]], a: int, y: int, charge: Charge
) -> float:
    def line(node: int) -> list[int]:
        found = []
        while node >= 0:
            found.append(node)
            node = int(taxonomy.parent[node])
        return found[::-1]

    given, wanted = line(a), line(y)
    entered = [costs[int(taxonomy.depth[node])][0] for node in given if node not in wanted]
    missed = [costs[int(taxonomy.depth[node])][1] for node in wanted if node not in given]
    return sum(entered[:1] if charge == "once" else entered) + sum(missed)


@few
@given(taxonomy=taxonomies(), charge=st.sampled_from(CHARGES), seed=st.integers(0, 99))
def test_costs_by_level_are_those_of_the_drawn_nodes(taxonomy: Taxonomy, charge: Charge, seed: int) -> None:
    """Also where single children were left out of the tree; leaves of classes at inner nodes are apart."""
    rng = np.random.default_rng(seed)
    levels = {level: (float(rng.uniform(0.1, 3)), float(rng.uniform(0.1, 3))) for level in range(1, 20)}
    given_levels = {level: levels[level] for level in range(1, taxonomy.num_levels + 1)}
    costs = NodeCosts.by_level(taxonomy, given_levels, charge=charge)
    assert costs.tree == taxonomy.tree
    matrix = costs.matrix().tolist()
    # The end of each chain; the root of the tree may be the end of one.
    ends = {int(node): at for at, node in enumerate(taxonomy.tree_node)}
    for a, a_at in ends.items():
        for y, y_at in ends.items():
            naive = naive_taxonomy_cost(taxonomy, levels, a_at, y_at, charge)
            assert matrix[a][y] == pytest.approx(naive)


def test_a_class_at_an_inner_node_costs_as_its_siblings() -> None:
    costs = NodeCosts.by_level(ZOO, {1: (1, 1), 2: (2, 1), 3: (3, 1)})
    by_class = dict(
        zip(ZOO.class_names, costs.false_positive[torch.from_numpy(ZOO.tree.class_leaf).long()].tolist(), strict=True)
    )
    assert by_class == {"eagle": 3, "owl": 3, "bird": 3, "fish": 2, "rock": 1}


def test_a_chain_costs_as_its_nodes() -> None:
    chain = taxonomy_from_edges([("a", "ROOT"), ("b", "a"), ("c", "ROOT")])
    levels = {1: (1.0, 10.0), 2: (2.0, 20.0)}
    once, every = (NodeCosts.by_level(chain, levels, charge=charge) for charge in CHARGES)
    leaf = int(chain.tree_node[chain.node("b")])
    assert [float(c[leaf]) for c in (once.false_positive, every.false_positive, once.false_negative)] == [1, 3, 30]


def test_levels_of_a_tree_are_depths() -> None:
    costs = NodeCosts.by_level(Tree.from_nested([0, [1, 2]]), {1: (1, 2)}, default=(3, 4))
    assert costs.false_positive.tolist() == [0, 1, 1, 3, 3]
    assert costs.false_negative.tolist() == [0, 2, 2, 4, 4]
    assert NodeCosts.by_level(Tree.from_nested(0), {}).matrix().tolist() == [[0]]


def test_names() -> None:
    costs = NodeCosts.by_node(ZOO.tree, {"bird": (1, 2), "eagle": (3, 4), 1: (5, 6)}, default=(7, 8))
    bird = int(ZOO.tree_node[ZOO.node("bird")])
    assert (float(costs.false_positive[bird]), float(costs.false_negative[bird])) == (1, 2)
    assert float(costs.false_positive[int(ZOO.tree.class_leaf[0])]) == 3
    assert float(costs.false_positive[int(ZOO.tree.class_leaf[2])]) == 7
    assert float(costs.false_positive[1]) == 5


TWICE = SMALL.annotate(class_names=list("aabcd"))


def wrong(**changes: object) -> NodeCosts:
    arguments = {"false_positive": 1.0, "false_negative": 1.0, **changes}
    return NodeCosts.uniform(SMALL, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrong(false_positive=-1), "every node has false positive -1 and"),
        (lambda: wrong(false_negative=float("nan")), "false negative nan"),
        (lambda: wrong(false_negative=float("inf")), "false negative inf"),
        (lambda: wrong(false_positive=0, false_negative=0), "one of a pair > 0"),
        (lambda: wrong(charge="twice"), "'once' or 'every', but got 'twice'"),
        (lambda: NodeCosts.by_level(SMALL, {3: (1, 1)}), r"in \[1, 2\], but got 3"),
        (lambda: NodeCosts.by_level(SMALL, {0: (1, 1)}), r"in \[1, 2\], but got 0"),
        (lambda: NodeCosts.by_level(SMALL, {1: (1, 1)}), "level 2 has none"),
        (lambda: NodeCosts.by_level(SMALL, {1: (0, 0)}, default=(1, 1)), "level 1 has false positive 0"),
        (lambda: NodeCosts.by_level(SMALL, {1: 2}, default=(1, 1)), "level 1 has 2"),  # type: ignore[dict-item]
        (lambda: NodeCosts.by_level([0], {}), "Taxonomy or a Tree, but got list"),  # type: ignore[arg-type]
        (lambda: NodeCosts.by_node(SMALL, {"rigth": (1, 1)}), "0 have 'rigth'; did you mean 'right'?"),
        (lambda: NodeCosts.by_node(SMALL, {"all": (1, 1)}), "the root is on every path"),
        (lambda: NodeCosts.by_node(SMALL, {1: (1, 1)}), r"node 2 \('right'\) has none; give a default"),
        (lambda: NodeCosts.by_node(SMALL, {1: (1, 1), "left": (1, 1)}), "is named twice"),
        (lambda: NodeCosts.by_node(SMALL, {8: (1, 1)}), r"in \[0, 8\), but got 8"),
        (lambda: NodeCosts.by_node(TWICE, {"a": (1, 1)}), "2 have 'a'; give its id"),
        (lambda: NodeCosts(SMALL, torch.ones(7), torch.ones(8)), r"one number per node, 8, but got shape \(7,\)"),
        (lambda: NodeCosts(SMALL, torch.ones(8), -torch.ones(8)), r"is -1 at node 1 \('left'\)"),
        (lambda: NodeCosts(SMALL, torch.zeros(8), torch.zeros(8)), r"both are 0 at node 1 \('left'\)"),
        (lambda: wrong().cost(torch.tensor(8), torch.tensor(0)), r"action must lie in \[0, 8\)"),
        (lambda: wrong().cost(torch.tensor(1), torch.tensor(0.5)), "truth must be a tensor of integer"),
        (lambda: wrong().cost(torch.zeros(2).long(), torch.zeros(3).long()), "as many"),
    ],
)  # fmt: skip
def test_bad_costs(make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("given_costs", ["abc", None, ["a", 1.0]])
def test_costs_that_are_no_numbers(given_costs: object) -> None:
    tree = Tree.from_nested([0, 1])
    with pytest.raises(DataError, match="false_positive must be one number per node, 3"):
        NodeCosts(tree, given_costs, torch.ones(3))  # type: ignore[arg-type]
