"""Actions: literal splits, and the legal mask against what applying the action would give."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from envs import (
    DEFAULT_ACTIONS,
    Closer,
    Construction,
    ConstructionTask,
    OpenNode,
    SplitAction,
    make_action,
    parse_actions,
    parse_closer,
    zipf_task,
)
from envs.actions import MAX_FLAT, Grouping
from tests.slow import slow_but
from treesearch import Tree, build_tree
from treesearch.builders.reassignment import NodeDirections
from treesearch.errors import ConfigError, DataError

MORE_ACTIONS = (
    *DEFAULT_ACTIONS,
    "frequency-0.1",
    "frequency-0.9",
    "kway-2",
    "kway-3",
    "shortlist-1",
    "shortlist-2-kway-2",
    "shortlist-5-kway-3",
    "similarity-0.5-project-1",
    "frequency-0.25-project-0.75",
    "shortlist-1-project-0.1",
    "shortlist-3-project-0.5",
    "interpolated-0",
    "interpolated-1-project-0.5",
    "similar-huffman",
    "similar-huffman-start-2-project-0.5",
    "kway-3-reassigned",
    "similarity-0.5-reassigned",
    "kway-8-reassigned-project-0.5",
    "similarity-0.25-start-1",
    "kway-4-start-2",
    "kway-4-start-10-project-0.5",
    "kway-3-start-1-reassigned",
    "shortlist-5-kway-3-start-3",
    "category",
    "category-project-1",
    "close-huffman-5",
    "close-similar-huffman",
    "close-balanced-2",
    "close-interpolated-0",
    "close-interpolated-1",
    "close-kway-3-clustered-2",
    "close-kway-16-interpolated-0.5",
    "close-shortlist-4-kway-3-similar-huffman",
    "close-kway-2-kway-3-huffman-4",
    "close-kway-4-start-2-clustered-2",
)


def split(name: str, task: ConstructionTask, classes: list[int]) -> tuple[list[int], list[list[int]], int]:
    action = make_action(name)
    assert isinstance(action, SplitAction)
    result = action.parts(task, np.array(classes))
    return result.leaves.tolist(), [part.tolist() for part in result.parts], result.projection_dim


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MORE_ACTIONS)
def test_an_action_is_its_name(name: str) -> None:
    assert make_action(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "kway", "kway-1", "kway-0", "kway-016", "kway-16-project-0", "kway-16-project-1.0", "kway-4-kway-4"),
        *("kway-16-project-1-project-1", "kway-16-project-2", "similarity-0.50", "similarity-1", "similarity-0"),
        *("similarity-.5", "frequency-1.5", "frequency--0.5", "frequency-nan", "shortlist-0", "shortlist-4-kway-1"),
        *("close-kway-4", "close-kway-4-flat", "close-kway-1-clustered-2", "close-kway-4-project-1-clustered-2"),
        *("close-flat-2", "close-huffman", "close-huffman-1", "close-huffman-2-project-1", "close-interpolated-2"),
        *(
            "KWAY-4",
            "kway-4-start-0",
            "kway-4-start",
            "kway-4-reassigned-start-1",
            "shortlist-4-start-1",
            "kway-4 ",
            "kway-4\n",
            "kway-４",
            "x" * 5000,
        ),
    ],
)
def test_unknown_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown action") as caught:
        make_action(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_did_you_mean() -> None:
    with pytest.raises(ConfigError, match="did you mean 'close-huffman-2'"):
        make_action("close-hufman-2")


def test_lists_of_actions() -> None:
    kway = make_action("kway-4")
    assert [action.name for action in parse_actions([kway, "close-flat"])] == ["kway-4", "close-flat"]
    with pytest.raises(ConfigError, match="'kway-4' is listed 2 times"):
        parse_actions([kway, "kway-4"])
    with pytest.raises(ConfigError, match="at least one name"):
        parse_actions([])
    with pytest.raises(ConfigError, match="at least one name"):
        parse_actions("kway-4")


def test_closers() -> None:
    bare = ConstructionTask(np.ones(600), in_features=2)
    assert parse_closer(None, bare).name == "close-balanced-2"
    assert parse_closer(None, zipf_task(5)).name == "close-clustered-16"
    assert parse_closer("close-flat", zipf_task(MAX_FLAT)).name == "close-flat"
    for closer, task in (("close-flat", zipf_task(MAX_FLAT + 1)), ("close-clustered-2", bare)):
        with pytest.raises(ConfigError, match="must be able to close all"):
            parse_closer(closer, task)
    with pytest.raises(ConfigError, match="must be a close-"):
        parse_closer("kway-4", bare)


# -- splits ------------------------------------------------------------------------------------------------------------


def test_split_by_frequency() -> None:
    task = ConstructionTask(np.array([1.0, 8.0, 2.0, 4.0, 1.0]), in_features=6)
    assert split("frequency-0.5", task, [0, 1, 2, 3, 4]) == ([1], [[0, 2, 3, 4]], 0)
    assert split("frequency-0.9", task, [0, 1, 2, 3, 4]) == ([], [[1, 2, 3], [0, 4]], 0)
    assert split("frequency-0.5-project-0.4", task, [0, 2, 3, 4]) == ([3], [[0, 2, 4]], 2)


def test_shortlist_takes_the_smaller_id_of_equal_counts() -> None:
    task = ConstructionTask(np.array([1.0, 8.0, 2.0, 2.0, 2.0, 0.0]), in_features=6)
    leaves, parts, _ = split("shortlist-2", task, [0, 1, 2, 3, 4, 5])
    assert (sorted(leaves), parts) == ([1, 2], [[0, 3, 4, 5]])


def test_splits_by_similarity_find_the_groups() -> None:
    positions = np.array([0.0, 10.1, 0.1, 20.0, 10.0, 0.2, 20.1, 10.2])
    task = ConstructionTask(np.ones(8), positions[:, None])
    everything = list(range(8))
    leaves, parts, _ = split("similarity-0.3", task, everything)
    assert leaves == []
    # Two of eight equal masses are nearest to the share: the two at one end of the line.
    assert sorted(parts) in ([[0, 2], [1, 3, 4, 5, 6, 7]], [[0, 1, 2, 4, 5, 7], [3, 6]])
    leaves, parts, dim = split("kway-4-project-1", task, everything)
    assert (leaves, sorted(parts), dim) == ([], [[0, 2], [1, 7], [3, 6], [4, 5]], 1)  # the quarters of the line
    # Without the frequent ones in the way the rest falls into its groups.
    heavy = ConstructionTask(np.array([1.0, 1, 1, 9, 1, 1, 9, 1]), positions[:, None])
    leaves, parts, _ = split("shortlist-2-kway-2", heavy, everything)
    assert (sorted(leaves), sorted(parts)) == ([3, 6], [[0, 2, 5], [1, 4, 7]])


def test_closing_is_the_builder_on_the_classes_inside() -> None:
    task = zipf_task(60)
    classes = np.arange(3, 60, 2)
    closer = make_action("close-clustered-4")
    assert isinstance(closer, Closer)
    vectors = task.require_vectors()[classes]
    assert closer.close(task, classes) == build_tree("clustered", counts=task.counts[classes], vectors=vectors, arity=4)


def test_a_split_and_a_closer_in_one_are_the_split_and_then_the_closer() -> None:
    task = zipf_task(90)
    both = construct(task, ["close-shortlist-4-kway-5-clustered-2"], [0])
    apart = construct(task, ["shortlist-4-kway-5", "close-clustered-2"], [0, 1, 1, 1, 1, 1])
    assert both == apart
    assert both.arities[0] == 9


def test_a_split_closer_leaves_small_sets_to_the_other_closer() -> None:
    task, classes = zipf_task(60), np.arange(0, 60, 3)
    for name, rest in (
        ("close-kway-20-clustered-2", "close-clustered-2"),  # as many parts as classes
        ("close-kway-4-clustered-32", "close-clustered-32"),  # flat by the other closer
    ):
        both, alone = make_action(name), make_action(rest)
        assert isinstance(both, Closer)
        assert isinstance(alone, Closer)
        assert both.close(task, classes) == alone.close(task, classes)


def construct(task: ConstructionTask, names: list[str], actions: list[int]) -> Tree:
    made = Construction(
        task, parse_actions(names), max_decisions=len(actions), closer=parse_closer("close-balanced-2", task)
    )
    for action in actions:
        assert made.step(action)
    return made.finish().tree


@pytest.mark.parametrize("name", ["close-kway-4-custered-2", "close-kway-4-start-0-clustered-2"])
def test_a_wrong_part_of_a_name_is_shown_in_the_whole(name: str) -> None:
    with pytest.raises(ConfigError, match=f"action '{name}' names a part that there is not: unknown action 'close-"):
        make_action(name)


def test_classes_that_never_occurred_can_be_split_and_closed() -> None:
    counts = np.zeros(40)
    counts[0] = 1
    task = ConstructionTask(counts, np.random.default_rng(0).standard_normal((40, 3)))
    classes = np.arange(1, 40)
    node = OpenNode(classes, 0.0, 1, 3, False)
    for action in parse_actions(MORE_ACTIONS):
        if action.legal(task, node):
            assert check_by_applying(action, task, node)


def test_interpolated_split_is_the_first_step_of_the_builder() -> None:
    task = zipf_task(50)
    for weight in (0, 0.5, 1):
        tree = build_tree("interpolated", counts=task.counts, vectors=task.vectors, weight=float(weight))
        children = [set(tree.leaf_class[_leaves_below(tree, int(child))].tolist()) for child in tree.children(0)]
        leaves, parts, _ = split(f"interpolated-{weight}", task, list(range(50)))
        groups = [{leaf} for leaf in leaves] + [set(part) for part in parts]
        assert sorted(map(sorted, groups)) == sorted(map(sorted, children))


def _leaves_below(tree: Tree, node: int) -> list[int]:
    if node >= tree.num_internal:
        return [node - tree.num_internal]
    return [leaf for child in tree.children(node) for leaf in _leaves_below(tree, int(child))]


def test_split_by_category() -> None:
    task = ConstructionTask(np.ones(7), in_features=4, categories=np.array([5, 0, 5, 9, 0, 9, 1]))
    assert split("category", task, list(range(7))) == ([6], [[1, 4], [0, 2], [3, 5]], 0)
    node = OpenNode(np.array([0, 2]), 0.3, 1, 4, False)
    assert not make_action("category").legal(task, node)
    with pytest.raises(DataError, match="categories must be integers, one per class"):
        ConstructionTask(np.ones(7), in_features=4, categories=np.arange(6))


def by_mean(task: ConstructionTask) -> NodeDirections:
    """Directions without training: by each part's mean vector."""
    vectors = task.require_vectors().astype(np.float64)

    def directions(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        means = np.stack([vectors[part].mean(0) for part in parts])
        return np.einsum("nd,kd->nk", vectors[np.sort(np.concatenate(parts))], means)

    return directions


def test_reassigned_splits_ask_for_directions_twice_and_follow_them() -> None:
    positions = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])
    asked: list[list[list[int]]] = []

    def directions(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        asked.append([part.tolist() for part in parts])
        return np.column_stack([positions - 2.5, np.zeros(6)])  # the first wants the large

    task = ConstructionTask(np.ones(6), positions[:, None], directions=directions)
    assert split("similarity-0.5-reassigned", task, list(range(6)))[1] == [[3, 4, 5], [0, 1, 2]]
    assert len(asked) == 2
    assert asked[1] == [[3, 4, 5], [0, 1, 2]]


@pytest.mark.parametrize("name", ["similarity-0.5", "kway-4", "shortlist-3-kway-4"])
def test_a_start_is_another_local_optimum_of_the_same_kind(name: str) -> None:
    task = zipf_task(300)
    classes = list(range(300))
    plain, one, again, two = (split(name + start, task, classes) for start in ("", "-start-1", "-start-1", "-start-2"))
    assert one == again
    assert len({str(outcome) for outcome in (plain, one, two)}) == 3
    for leaves, parts, _ in (one, two):
        assert (leaves, len(parts)) == (plain[0], len(plain[1]))
        mass, expected = (sorted(task.counts[part].sum() for part in own) for own in (parts, plain[1]))
        assert mass == pytest.approx(expected, rel=0.5)


def custom() -> SplitAction:
    """Odd and even class ids."""

    class Parity(Grouping):
        def fits(self, task: ConstructionTask, size: int) -> bool:
            return True

        def groups(
            self, task: ConstructionTask, classes: NDArray[np.int64]
        ) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
            return np.zeros(0, np.int64), [classes[classes % 2 == 0], classes[classes % 2 == 1]]

    return SplitAction("parity", Parity())


def not_an_action() -> int:
    return 3


def test_actions_of_the_users_own() -> None:
    task = zipf_task(8)
    (action,) = parse_actions([f"{__name__}:custom"])
    assert action.name == "parity"
    assert isinstance(action, SplitAction)
    assert [part.tolist() for part in action.parts(task, np.arange(8)).parts] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    for name, message in (
        ("no_such_module:x", "ModuleNotFoundError"),
        (f"{__name__}:nothing", "AttributeError"),
        (f"{__name__}:not_an_action", "must return a SplitAction or a Closer, but got int"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            make_action(name)
        assert "\n" not in str(caught.value)


# -- the mask ----------------------------------------------------------------------------------------------------------


def check_by_applying(action: object, task: ConstructionTask, node: OpenNode) -> bool:
    """Whether the action does what its name says at ``node``, judged from the outcome."""
    if isinstance(action, Closer):
        if node.size < 3 or (action.name == "close-flat" and node.size > 512):
            return False
        try:
            return action.close(task, node.classes).num_classes == node.size
        except DataError:
            return False
    assert isinstance(action, SplitAction)
    stem, _, projection = action.name.partition("-project-")
    unstarted = re.sub(r"-start-\d+", "", stem)
    numbers = [int(number) for number in re.findall(r"-(\d+)(?=-|$)", unstarted)]
    if stem == "category":
        num_children = 0 if task.categories is None else len(set(task.categories[node.classes].tolist()))
        if num_children < 2 or node.size < 3:
            return False
    else:
        binary = dict.fromkeys(("similarity", "frequency", "interpolated", "similar"), 2)
        num_children = {**binary, "kway": numbers and numbers[0]}.get(stem.split("-")[0])
    if "-reassigned" in stem and task.directions is None:
        return False
    if num_children is None:  # shortlist
        num_children = numbers[0] + (numbers[1] if len(numbers) == 2 else 1)
        if numbers[0] >= node.size:
            return False
    try:
        outcome = action.parts(task, node.classes)
    except DataError:
        return False
    assert all(part.size >= 2 and (np.diff(part) > 0).all() for part in outcome.parts)
    together = np.concatenate([outcome.leaves, *outcome.parts])
    assert sorted(together.tolist()) == node.classes.tolist()
    num_found = outcome.leaves.size + len(outcome.parts)
    if "-reassigned" in stem:  # parts that trained directions leave empty are dropped
        if not 2 <= num_found <= num_children or node.size <= num_children:
            return False
    elif num_found != num_children or not outcome.parts:
        return False  # fewer children than named, or a flat node in disguise
    if projection:
        dim = int(task.in_features * float(projection))
        assert outcome.projection_dim == dim
        return dim >= 1 and (dim < node.input_dim or not node.projected)
    return outcome.projection_dim == 0


@pytest.mark.parametrize("with_vectors", slow_but([False], [True, False]))
def test_legal_means_that_applying_gives_what_the_name_says(with_vectors: bool) -> None:
    rng = np.random.default_rng(7)
    toy = zipf_task(700, in_features=8)
    task = ConstructionTask(toy.counts, in_features=8)
    if with_vectors:
        task = ConstructionTask(toy.counts, toy.vectors, categories=np.arange(700) // 90, directions=by_mean(toy))
    actions = parse_actions(MORE_ACTIONS)
    seen: dict[str, set[bool]] = {action.name: set() for action in actions}
    sizes = [
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        16,
        17,
        18,
        63,
        64,
        65,
        66,
        80,
        81,
        144,
        145,
        257,
        258,
        272,
        273,
        512,
        513,
        521,
        700,
    ]
    for size in sizes:
        classes = np.sort(rng.choice(700, size, replace=False))
        for input_dim, projected in ((8, False), (8, True), (4, True), (1, True)):
            node = OpenNode(classes, float(task.probability[classes].sum()), 1, input_dim, projected)
            for action in actions:
                legal = action.legal(task, node)
                assert legal == check_by_applying(action, task, node), (action.name, size, input_dim, projected)
                seen[action.name].add(legal)
    if with_vectors:  # the sizes must show both sides of every rule
        always_illegal = {name for name, answers in seen.items() if True not in answers}
        assert always_illegal == {"shortlist-1-project-0.1", "shortlist-1024-kway-64"}  # int(8 * 0.1) is 0; 700 classes
        assert all(False in answers for answers in seen.values())


@pytest.mark.parametrize("name", [name for name in MORE_ACTIONS if name.startswith("close-")])
def test_small_sets_are_flat_nodes_whatever_they_are(name: str) -> None:
    """What a construction takes for granted, without asking the builder."""
    closer, task = make_action(name), zipf_task(600)
    assert isinstance(closer, Closer)
    for size in {3, closer.flat_size - 1, closer.flat_size}:
        if 3 <= size <= closer.flat_size:
            assert closer.close(task, np.arange(0, size)).num_internal == 1
