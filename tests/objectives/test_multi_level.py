"""Multi-level supervision against sums of probabilities over subtrees."""

import numpy as np
import pytest
import torch

from treesearch import HierarchicalSoftmax, Tree
from treesearch.errors import DataError
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.taxonomy import Taxonomy, taxonomy_from_edges

EDGES = [
    ("animal", "ROOT"),
    ("dog", "animal"),
    ("poodle", "dog"),
    ("beagle", "dog"),
    ("cat", "animal"),
    ("bird", "animal"),
    ("thing", "ROOT"),
    ("tool", "thing"),
    ("hammer", "tool"),
    ("saw", "tool"),
]
TAXONOMY = taxonomy_from_edges(EDGES, classes=["poodle", "beagle", "cat", "bird", "hammer", "saw", "dog"])
NAMES = [*TAXONOMY.class_names, "animal", "tool", "thing", None]
REFINED = Tree.from_nested([[[[0, 1], 6], [2, 3]], [4, 5]])


def layer_over(tree: Tree) -> HierarchicalSoftmax:
    torch.manual_seed(0)
    return HierarchicalSoftmax(4, tree, dtype=torch.float64)


def below(taxonomy: Taxonomy, node: int) -> list[int]:
    """Classes at a node or under it."""
    found = []
    for cls, end in enumerate(taxonomy.class_node.tolist()):
        while end >= 0 and end != node:
            end = int(taxonomy.parent[end])
        if end == node:
            found.append(cls)
    return found


def path(taxonomy: Taxonomy, node: int) -> list[int]:
    """The node and those above it, root first."""
    return ([] if taxonomy.parent[node] < 0 else path(taxonomy, int(taxonomy.parent[node]))) + [node]


@pytest.mark.parametrize("tree", [TAXONOMY.tree, REFINED], ids=["own", "refined"])
def test_the_loss_is_that_of_sums_over_subtrees(tree: Tree) -> None:
    layer, input_BD = layer_over(tree), torch.randn(len(NAMES), 4, dtype=torch.float64)
    levels, nodes = {1: 0.5, 3: 0.25}, {"animal": 2.0}
    loss = MultiLevelLoss(TAXONOMY, label_weight=0.75, level_weights=levels, node_weights=nodes, tree=tree)
    probability_BC = layer.log_prob(input_BD).exp().detach()

    def mass(row: int, node: int) -> float:
        return float(probability_BC[row, below(TAXONOMY, node)].sum())

    total = 0.0
    for row, name in enumerate(NAMES[:-1]):
        assert name is not None
        node, cls = TAXONOMY.node(name), int(TAXONOMY.class_at[TAXONOMY.node(name)])
        own = float(probability_BC[row, cls]) if cls >= 0 else mass(row, node)
        total -= 0.75 * np.log(own)
        above = path(TAXONOMY, node)
        for level, weight in levels.items():
            if level < len(above):
                total -= weight * np.log(mass(row, above[level]))
        animal = TAXONOMY.node("animal")
        if animal in above and name != "animal":
            total -= 2.0 * np.log(mass(row, above[2]) / mass(row, animal))
    label = loss.label_ids(NAMES)
    assert label[-1] == MultiLevelLoss.IGNORED
    assert loss(layer, input_BD, label).item() == pytest.approx(total / (len(NAMES) - 1), rel=1e-12)


def test_a_class_at_an_inner_node_and_its_subtree_are_two_labels() -> None:
    layer, input_BD = layer_over(TAXONOMY.tree), torch.randn(1, 4, dtype=torch.float64)
    loss, dog = MultiLevelLoss(TAXONOMY), TAXONOMY.node("dog")
    probability_C = layer.log_prob(input_BD)[0].exp()
    assert loss(layer, input_BD, loss.label_ids(["dog"])).item() == pytest.approx(-probability_C[6].log().item())
    subtree = torch.tensor([TAXONOMY.num_classes + dog])
    assert loss(layer, input_BD, subtree).item() == pytest.approx(-probability_C[[0, 1, 6]].sum().log().item())


def test_classes_alone_are_the_ordinary_loss() -> None:
    layer, input_BD = layer_over(TAXONOMY.tree), torch.randn(7, 4, dtype=torch.float64)
    target = torch.arange(7)
    assert torch.allclose(MultiLevelLoss(TAXONOMY)(layer, input_BD, target), layer(input_BD, target).loss)


def test_weights_go_linearly_from_start_to_end() -> None:
    layer, input_BD = layer_over(TAXONOMY.tree), torch.randn(7, 4, dtype=torch.float64)
    target = torch.arange(7)
    moving = MultiLevelLoss(TAXONOMY, label_weight=(0.0, 1.0), level_weights={1: (2.0, 0.0)})
    assert float(MultiLevelLoss(TAXONOMY)(layer, input_BD, torch.full((7,), -100)).detach()) == 0
    for progress in (0.0, 0.25, 1.0):
        fixed = MultiLevelLoss(TAXONOMY, label_weight=progress, level_weights={1: 2 - 2 * progress})
        assert torch.allclose(moving(layer, input_BD, target, progress=progress), fixed(layer, input_BD, target))


def test_gradients_of_coarse_labels_stay_above_them() -> None:
    layer = layer_over(TAXONOMY.tree)
    loss = MultiLevelLoss(TAXONOMY)
    loss(layer, torch.randn(2, 4, dtype=torch.float64), loss.label_ids(["animal", "thing"])).backward()
    gradient = layer.weights[0].grad
    assert gradient is not None
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [0]  # the root alone decides between them


def test_errors() -> None:
    loss = MultiLevelLoss(TAXONOMY)
    layer = layer_over(REFINED)
    for bad, message in (
        ({"level_weights": {4: 1.0}}, r"levels must be whole numbers in \[1, 3\], but got 4"),
        ({"level_weights": {0: 1.0}}, "but got 0"),
        ({"level_weights": {"1": 1.0}}, "levels must be whole numbers"),
        ({"level_weights": {1: "a"}}, "a weight must be a number >= 0"),
        ({"level_weights": {1: (1.0, 2.0, 3.0)}}, "a weight must be a number >= 0"),
        ({"level_weights": {1: -1.0}}, "a weight must be a number >= 0"),
        ({"label_weight": 0.0}, "at least one weight must be > 0"),
        ({"node_weights": {"thing": 1.0}}, "'thing' has none"),
        ({"node_weights": {"poodle": 1.0}}, "'poodle' has none"),
        ({"node_weights": {"dgo": 1.0}}, "no node 'dgo'"),
        ({"tree": Tree.from_nested([[0, 4], [1, 2, 3, 5, 6]])}, "'animal' is none of its; refine it"),
    ):
        with pytest.raises(DataError, match=message):
            MultiLevelLoss(TAXONOMY, **bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no node 'pudel'"):
        loss.label_ids(["pudel"])
    with pytest.raises(DataError, match=r"labels must be classes in .* but one is 99"):
        loss.node_targets(torch.tensor([0, 99]))
    with pytest.raises(DataError, match="integer ids"):
        loss.node_targets(torch.tensor([0.5]))
    with pytest.raises(DataError, match="progress must lie in"):
        loss.node_targets(torch.tensor([0]), progress=2.0)
    with pytest.raises(DataError, match=r"pass tree=layer\.tree"):
        loss(layer, torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0]))
