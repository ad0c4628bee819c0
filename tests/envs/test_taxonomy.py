"""Constructions that start from a taxonomy: splits by it, and refinements that keep all its nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import (
    Construction,
    ConstructionTask,
    OpenNode,
    StructuralReward,
    TreeConstructionEnv,
    make_action,
    parse_actions,
    parse_closer,
)
from envs.actions import SplitAction
from tests.nested import Naive, nested_trees
from treesearch.errors import ConfigError, DataError
from treesearch.taxonomy import Taxonomy, taxonomy_from_nested, taxonomy_from_paths

ACTIONS = ("kway-2", "kway-3-project-0.5", "frequency-0.5", "shortlist-1", "category", "close-huffman-2", "close-flat")
REFINES = ("parents", "anywhere")


def of_nested(nested: Naive) -> Taxonomy:
    """A taxonomy of that shape, with a chain in it and a class at the root's first inner node."""
    paths: list[str] = []

    def walk(entry: Naive, path: str) -> None:
        if isinstance(entry, list):
            for number, child in enumerate(entry):
                walk(child, f"{path}{number}/" if number else f"{path}0/only/")
        else:
            paths.append(f"{path}c{entry}")

    walk(nested, "")
    paths.append("0")
    return taxonomy_from_paths(paths)


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    return of_nested(draw(nested_trees().filter(lambda nested: isinstance(nested, list))))


def task_of(taxonomy: Taxonomy, refine: Any, seed: int = 0, *, zeros: bool = False) -> ConstructionTask:
    rng = np.random.default_rng(seed)
    C = taxonomy.num_classes
    counts = rng.integers(0 if zeros else 1, 4, C).astype(float)
    counts[0] += 1
    vectors = rng.standard_normal((C, 4))
    return ConstructionTask(counts, vectors, seed=seed, taxonomy=taxonomy, refine=refine, categories=np.arange(C) // 3)


def nodes(taxonomy: Taxonomy) -> dict[int, list[int]]:
    """The children of each node, by climbing from every class; what a taxonomy leaves out of its tree is in it."""
    below: dict[int, list[int]] = {}
    for node, above in enumerate(taxonomy.parent.tolist()):
        below.setdefault(above, []).append(node)
    return below


def path(taxonomy: Taxonomy, cls: int) -> list[int]:
    node, found = int(taxonomy.class_node[cls]), []
    while node >= 0:
        found.append(node)
        node = int(taxonomy.parent[node])
    return found[::-1]


# -- splits by taxonomy ------------------------------------------------------------------------------------------------


def by_enumeration(taxonomy: Taxonomy, classes: Sequence[int], level: int | None) -> set[frozenset[int]]:
    paths = {cls: path(taxonomy, cls) for cls in classes}
    if level is None:
        level = next(at for at in range(99) if len({tuple(one[: at + 1]) for one in paths.values()}) > 1)
    groups: dict[Any, set[int]] = {}
    for cls, one in paths.items():
        groups.setdefault(one[level] if level < len(one) else ("ends above", cls), set()).add(cls)
    return set(map(frozenset, groups.values()))


@settings(max_examples=60, deadline=None)
@given(taxonomy=taxonomies(), seed=st.integers(0, 2**32))
def test_splits_by_taxonomy_are_those_of_enumeration(taxonomy: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    C = taxonomy.num_classes
    if C < 3:
        return
    task = task_of(taxonomy, None)
    classes = np.sort(rng.choice(C, int(rng.integers(3, C + 1)), replace=False))
    node = OpenNode(classes, 1.0, 0, 4, False)
    for level in (None, 1, 2, taxonomy.num_levels, taxonomy.num_levels + 1):
        action = make_action("taxonomy" if level is None else f"taxonomy-{level}")
        assert isinstance(action, SplitAction)
        assert not action.by_size
        expected = by_enumeration(taxonomy, classes.tolist(), level)
        assert action.legal(task, node) == (1 < len(expected) < classes.size)
        split = action.parts(task, classes)
        assert {frozenset(part.tolist()) for part in [*split.parts, *split.leaves[:, None]]} == expected
        assert all((np.diff(part) > 0).all() for part in split.parts)


def test_the_mask_goes_by_the_classes_not_by_their_number() -> None:
    taxonomy = taxonomy_from_paths(["a/x/1", "a/x/2", "a/y/1", "a/y/2", "b/1", "b/2", "b/3", "b/4"])
    task = task_of(taxonomy, None)
    actions = parse_actions(["taxonomy", "frequency-0.5", "close-flat"])
    construction = Construction(task, actions, max_decisions=9, closer=parse_closer(None, task))
    assert construction.action_mask().tolist() == [1, 1, 1]
    construction.step(0)
    seen = {}
    while not construction.done:
        seen[tuple(construction.current.classes.tolist())] = construction.action_mask().tolist()
        construction.step(2)
    assert seen == {(0, 1, 2, 3): [1, 1, 1], (4, 5, 6, 7): [0, 1, 1]}
    assert not make_action("taxonomy").legal(ConstructionTask(np.ones(8), in_features=2), construction_root(8))


def construction_root(size: int) -> OpenNode:
    return OpenNode(np.arange(size), 1.0, 0, 2, False)


# -- refinement --------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(taxonomy=taxonomies(), refine=st.sampled_from(REFINES), budget=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_every_tree_of_a_refinement_has_all_nodes(taxonomy: Taxonomy, refine: str, budget: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widest = widest_by_hand(taxonomy, refine)
    if widest < 3 or taxonomy.num_classes < 3:
        if taxonomy.num_classes >= 3:
            with pytest.raises(ConfigError, match=f"refine: {refine} needs a node of the taxonomy with >= 3"):
                task_of(taxonomy, refine)
        return
    task = task_of(taxonomy, refine, zeros=True)
    assert task.widest.size == widest
    closer = str(rng.choice(["close-clustered-2", "close-flat", "close-kway-2-huffman-2"]))
    construction = Construction(
        task, parse_actions(ACTIONS), max_decisions=budget, closer=parse_closer(closer, task), splits=None
    )
    decided, C = [], task.num_classes
    while not construction.done:
        node, mask = construction.current, construction.action_mask()
        seen = task.over_units
        expected = [action.legal(seen, node) for action in construction.actions]
        assert mask.tolist() == expected
        assert node.size >= 3
        assert node.mass == pytest.approx(task.probability[classes_of(task, node.classes)].sum())
        if refine == "parents":
            assert (node.classes < C).all()
        assert np.abs(construction.observation()).max() <= 1
        decided.append(set(classes_of(task, node.classes)))
        construction.step(int(rng.choice(np.flatnonzero(mask))))
    built = construction.finish()
    tree = built.tree
    assert tree.num_classes == C
    assert (taxonomy.nodes_in(tree) >= 0).all()
    for node, expected_classes in zip(built.decision_nodes.tolist(), decided, strict=True):
        first, count = (array[node] for array in tree.leaf_intervals)
        order = np.argsort(tree.leaf_intervals[0][tree.class_leaf])
        assert set(order[first : first + count].tolist()) == expected_classes
    assert StructuralReward(task)(tree).reward < 0


def widest_by_hand(taxonomy: Taxonomy, refine: str) -> int:
    children = nodes(taxonomy)
    sizes = [0]
    for node in range(taxonomy.num_nodes):
        below = children.get(node, [])
        while len(below) == 1 and taxonomy.class_at[node] < 0 and below[0] in children:  # a chain
            node, below = below[0], children[below[0]]
        leaf = [single(taxonomy, children, child) for child in below] + [True] * int(taxonomy.class_at[node] >= 0)
        sizes.append(sum(leaf) if refine == "parents" else len(leaf))
    return max(sizes)


def single(taxonomy: Taxonomy, children: dict[int, list[int]], node: int) -> bool:
    return int(taxonomy.num_classes_below[node]) == 1


def classes_of(task: ConstructionTask, units: np.ndarray[Any, Any]) -> list[int]:
    assert task.units is not None
    return sorted(task.units.classes(units)[0].tolist())


def test_what_is_open_and_what_the_taxonomy_has_settled() -> None:
    """Below ROOT: a (two children), b (four classes) and three classes; below a: x (three classes) and a class."""
    taxonomy = taxonomy_from_paths(["a/x/0", "a/x/1", "a/x/2", "a/3", "b/4", "b/5", "b/6", "b/7", "8", "9", "10"])
    found = {}
    for refine in REFINES:
        task = task_of(taxonomy, refine)
        construction = Construction(
            task, parse_actions(["close-flat"]), max_decisions=9, closer=parse_closer("close-flat", task)
        )
        opened = []
        while not construction.done:
            opened.append(classes_of(task, construction.current.classes))
            construction.step(0)
        found[refine] = sorted(opened), construction.finish().tree.to_nested()
    rest = [[0, 1, 2], [4, 5, 6, 7]]
    assert found["parents"] == (sorted([*rest, [8, 9, 10]]), [[[0, 1, 2], 3], [4, 5, 6, 7], [8, 9, 10]])
    assert found["anywhere"] == (sorted([*rest, list(range(11))]), taxonomy.tree.to_nested())


def test_units_are_grouped_by_what_their_classes_are() -> None:
    """Five pairs of classes; by mean vector the first two go together, and the others."""
    taxonomy = taxonomy_from_paths([f"{letter}/{letter}{number}" for letter in "abcde" for number in range(2)])
    position = np.repeat([0.0, 1.0, 10.0, 11.0, 12.0], 2) + np.tile([-30.0, 30.0], 5)
    counts = np.array([1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 1.0, 1.0, 0.0, 0.0])
    asked: list[list[list[int]]] = []

    def directions(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        asked.append([part.tolist() for part in parts])
        own = position[np.sort(np.concatenate(parts))]
        return np.column_stack([own, -own])

    task = ConstructionTask(
        counts,
        position[:, None],
        taxonomy=taxonomy,
        refine="anywhere",
        categories=np.array([7, 7, 7, 7, 7, 3, 3, 3, 3, 3]),
        directions=directions,
    )
    seen = task.over_units
    assert seen.counts.tolist() == [*counts, 14.0, 2.0, 2.0, 8.0, 2.0, 0.0]
    assert seen.vectors is not None
    assert seen.vectors[11:, 0] == pytest.approx([0, 1, 10, 11, 12], abs=1e-5)
    assert seen.categories is not None
    own = seen.categories[11:].tolist()
    assert (own[:2], own[3:]) == ([7, 7], [3, 3])
    assert own[2] not in (3, 7)
    action = make_action("similarity-0.25")
    assert isinstance(action, SplitAction)
    assert sorted(part.tolist() for part in action.parts(seen, task.root).parts) == [[11, 12], [13, 14, 15]]
    assert seen.directions is not None
    rows = seen.directions([np.array([11, 15]), np.array([12, 13, 14])])
    assert asked == [[[0, 1, 8, 9], [2, 3, 4, 5, 6, 7]]]
    assert rows[:, 0] == pytest.approx([0, 1, 10, 11, 12])
    assert task.units is not None
    rows = task.units.directions(directions, np.array([3.0, *np.ones(9)]))([np.array([11]), np.array([2, 13])])
    assert rows[:, 0] == pytest.approx([position[2], -15, 10]), "by count, in the order of rising units"


def test_the_environment_refines() -> None:
    taxonomy = taxonomy_from_paths([f"{one % 6}/{one % 2}/{one}" for one in range(60)])
    env = TreeConstructionEnv(task_of(taxonomy, "anywhere"), actions=ACTIONS, max_decisions=5)
    env.reset()
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(np.flatnonzero(env.action_masks())[0])
    assert reward < 0
    assert (taxonomy.nodes_in(info["tree"]) >= 0).all()


def test_a_deep_chain_of_units() -> None:
    paths = ["/".join(f"n{level}" for level in range(depth)) + f"/c{depth}" for depth in range(1, 400)]
    taxonomy = taxonomy_from_paths([*paths, "n0/d1", "n0/d2"])
    for refine in REFINES:
        task = task_of(taxonomy, refine)
        construction = Construction(
            task, parse_actions(["frequency-0.5"]), max_decisions=5, closer=parse_closer("close-huffman-2", task)
        )
        while not construction.done:
            construction.step(0)
        assert (taxonomy.nodes_in(construction.finish().tree) >= 0).all()


def test_tasks_that_do_not_fit() -> None:
    taxonomy = taxonomy_from_nested({"a": ["1", "2"], "b": ["3", "4"]})
    make: dict[str, Any] = {"counts": np.ones(4), "in_features": 2}
    with pytest.raises(DataError, match="the taxonomy must have the 4 classes of the counts, but has 3"):
        ConstructionTask(**make, taxonomy=taxonomy_from_nested({"a": ["1", "2"], "b": ["3"]}))
    with pytest.raises(ConfigError, match="refine='anywhere' needs a taxonomy"):
        ConstructionTask(**make, refine="anywhere")
    with pytest.raises(ConfigError, match="refine must be 'parents', 'anywhere' or None, but got 'all'"):
        ConstructionTask(**make, taxonomy=taxonomy, refine="all")
    with pytest.raises(ConfigError, match="with >= 3 classes right below it, but none has more than 2: there is noth"):
        ConstructionTask(**make, taxonomy=taxonomy, refine="parents")
    wide = ConstructionTask(np.ones(600), in_features=2, refine="parents", taxonomy=wide_taxonomy())
    with pytest.raises(ConfigError, match="the closer must be able to close all 590 classes"):
        parse_closer("close-flat", wide)


def wide_taxonomy() -> Taxonomy:
    return taxonomy_from_paths([f"{'a' if one < 590 else 'b'}/{one}" for one in range(600)])
