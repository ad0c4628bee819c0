"""Construction: every episode ends in a valid tree, decisions point at their nodes, optima are reached."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import (
    DEFAULT_ACTIONS,
    NUM_FEATURES,
    OBSERVATION_FEATURES,
    Construction,
    ConstructionTask,
    SplitCache,
    StructuralReward,
    make_action,
    parse_actions,
    parse_closer,
    zipf_task,
)
from envs.cache import ENTRY_OVERHEAD
from tests.envs.test_actions import MORE_ACTIONS
from treesearch import Tree, build_tree
from treesearch.errors import ConfigError
from treesearch.paths import input_dims

Names = tuple[str, ...]


def start(
    task: ConstructionTask,
    actions: Names = DEFAULT_ACTIONS,
    max_decisions: int = 32,
    closer: str | None = None,
    splits: SplitCache | None = None,
) -> Construction:
    parsed = parse_actions(actions)
    return Construction(task, parsed, max_decisions=max_decisions, closer=parse_closer(closer, task), splits=splits)


def classes_below(tree: Tree, node: int) -> set[int]:
    stack, found = [node], set()
    while stack:
        here = stack.pop()
        if here < tree.num_internal:
            stack.extend(tree.children(here).tolist())
        else:
            found.add(int(tree.leaf_class[here - tree.num_internal]))
    return found


def entropy_bits(counts: np.ndarray) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


# -- any episode -------------------------------------------------------------------------------------------------------


@st.composite
def tasks(draw: st.DrawFn) -> ConstructionTask:
    num_classes = draw(st.integers(3, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.geometric(0.1, num_classes) * (rng.random(num_classes) < draw(st.sampled_from([0.3, 1.0])))
    counts[rng.integers(num_classes)] += 1
    vectors = rng.standard_normal((num_classes, 6)) * draw(st.sampled_from([0.0, 1.0]))
    return ConstructionTask(counts, vectors if draw(st.booleans()) else None, 6, seed=draw(st.integers(0, 9)))


@settings(max_examples=150, deadline=None)
@given(task=tasks(), budget=st.integers(1, 12), illegal=st.booleans(), seed=st.integers(0, 2**32))
def test_every_episode_ends_in_a_complete_tree(task: ConstructionTask, budget: int, illegal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    construction = start(task, MORE_ACTIONS, budget)
    decided, outcomes = [], []
    while not construction.done:
        mask = construction.action_mask()
        assert mask.dtype == np.int8
        assert mask.any()
        observation = construction.observation()
        assert observation.shape == (NUM_FEATURES,)
        assert observation.dtype == np.float32
        assert np.abs(observation).max() <= 1
        decided.append(set(construction.current.classes.tolist()))
        assert len(decided[-1]) >= 3
        action = int(rng.integers(len(mask)) if illegal else rng.choice(np.flatnonzero(mask)))
        outcomes.append(construction.step(action) == bool(mask[action]))
        assert construction.num_decisions == len(decided) <= budget
    assert all(outcomes)
    built = construction.finish()
    assert construction.finish() is built
    assert built.tree.num_classes == task.num_classes
    assert built.decision_nodes.dtype == np.int32
    assert [classes_below(built.tree, node) for node in built.decision_nodes] == decided
    check_projections(built.tree, task.in_features)
    for cost in ("depth", "analytic"):
        evaluation = StructuralReward(task, cost=cost)(built.tree)
        assert evaluation.reward == pytest.approx(-evaluation.node_loss.sum())
    if (built.tree.arities == 2).all():
        assert built.tree.expected_depth(task.counts) >= huffman_depth(task) - 1e-9


def check_projections(tree: Tree, in_features: int) -> None:
    """The first projection on a path fits the input, later ones shrink it."""
    dims = input_dims(tree, in_features)
    for node in np.flatnonzero(tree.projection_dim):
        above = tree.parent[node]
        while above >= 0 and not tree.projection_dim[above]:
            above = tree.parent[above]
        assert 1 <= dims[node] <= in_features
        assert above < 0 or dims[node] < dims[above]


def huffman_depth(task: ConstructionTask) -> float:
    return build_tree("huffman", counts=task.counts).expected_depth(task.counts)


# -- known optima ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts", [[512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1], [4, 2, 4, 2, 2, 2], [1] * 64, [64, *[1] * 64, 64, 32, 32]]
)
def test_fano_code_of_dyadic_counts_is_optimal(counts: list[int]) -> None:
    task = ConstructionTask(np.array(counts), in_features=4)
    construction = start(task, ("frequency-0.5", "close-balanced-3"), 1000)
    while not construction.done:
        construction.step(0)
    tree = construction.finish().tree
    reward = StructuralReward(task, cost="depth")(tree).reward
    assert reward == -tree.expected_depth(task.counts)
    assert -reward == pytest.approx(entropy_bits(task.counts), rel=1e-12)


def test_best_of_all_episodes_on_a_tiny_task_is_huffman() -> None:
    task = ConstructionTask(np.array([10.0, 7.0, 5.0, 3.0, 1.0]), in_features=4)
    names = ("frequency-0.2", "frequency-0.4", "frequency-0.6", "close-huffman-2")
    rewards = []
    for script in itertools.product(range(len(names)), repeat=3):
        construction = start(task, names, 3, "close-huffman-2")
        for action in script:
            if not construction.done:
                construction.step(action)
        rewards.append(StructuralReward(task, cost="depth")(construction.finish().tree).reward)
    assert max(rewards) == pytest.approx(-huffman_depth(task))


# -- the rules of the game ---------------------------------------------------------------------------------------------


def test_heaviest_node_first() -> None:
    task = zipf_task(300)
    rng = np.random.default_rng(0)
    construction = start(task, ("similarity-0.3", "kway-4", "frequency-0.5"), 40)
    waiting = {tuple(range(300))}
    while not construction.done:
        masses = {node: task.probability[list(node)].sum() for node in waiting}
        current = tuple(construction.current.classes.tolist())
        assert masses[current] == pytest.approx(max(masses.values()))
        assert construction.current.mass == pytest.approx(masses[current])
        waiting.remove(current)
        action = construction.actions[int(rng.choice(np.flatnonzero(construction.action_mask())))]
        waiting |= {tuple(part.tolist()) for part in action.parts(task, np.array(current)).parts if part.size > 2}
        construction.step(construction.actions.index(action))


def test_ties_go_to_the_node_opened_earlier() -> None:
    task = ConstructionTask(np.ones(16), in_features=1)
    construction = start(task, ("frequency-0.5",), 100)
    seen = []
    while not construction.done:
        seen.append((construction.current.depth, int(construction.current.classes[0])))
        construction.step(0)
    assert seen == [(0, 0), (1, 0), (1, 8), (2, 0), (2, 4), (2, 8), (2, 12)]


def test_an_illegal_action_closes_the_node() -> None:
    task = zipf_task(100)
    construction = start(task, ("frequency-0.5", "kway-64", "close-flat"), 2, "close-huffman-3")
    assert construction.step(0)
    node = construction.current
    assert construction.action_mask().tolist() == [1, int(node.size > 64), 1]
    first_is_small = node.size <= 64
    assert construction.step(1) != first_is_small
    if first_is_small:
        built = construction.finish()
        subtree = build_tree("huffman", counts=task.counts[node.classes], arity=3)
        root = built.decision_nodes[1]
        assert classes_below(built.tree, root) == set(node.classes.tolist())
        assert built.tree.arities[root] == subtree.arities[0]


def test_after_the_budget_the_closer_takes_the_rest() -> None:
    task = ConstructionTask(np.ones(16), in_features=1)
    construction = start(task, ("frequency-0.5",), 1, "close-flat")
    construction.step(0)
    assert construction.done
    assert construction.finish().tree.to_nested() == [list(range(8)), list(range(8, 16))]


def test_nodes_where_nothing_is_legal_are_closed_without_a_decision() -> None:
    task = zipf_task(64)
    construction = start(task, ("kway-8",), 1000)
    while not construction.done:
        assert construction.current.size > 8
        assert construction.action_mask().tolist() == [1]
        construction.step(0)
    built = construction.finish()
    assert built.tree.num_classes == 64
    assert len(built.decision_nodes) == construction.num_decisions < 16


def test_projections_end_in_the_tree() -> None:
    task = zipf_task(40, in_features=16)
    construction = start(task, ("kway-3-project-0.5", "kway-2-project-0.25", "close-flat"), 3)
    construction.step(0)
    assert (construction.current.input_dim, construction.current.projected) == (8, True)
    assert construction.action_mask().tolist() == [0, 1, 1]
    construction.step(1)
    construction.step(2)
    tree = construction.finish().tree
    assert sorted(tree.projection_dim[tree.projection_dim > 0].tolist()) == [4, 4, 8, 8, 8]
    assert tree.projection_dim[0] == 0
    assert (tree.projection_dim[tree.children(0)] == 8).all()


def test_refusals() -> None:
    task = zipf_task(10)
    with pytest.raises(ConfigError, match="some action must be legal at the root"):
        start(task, ("kway-64",))
    with pytest.raises(ConfigError, match="max_decisions must be >= 1, but got 0"):
        start(task, max_decisions=0)
    with pytest.raises(ConfigError, match="serves one task"):
        start(task, splits=SplitCache(zipf_task(10)))
    construction = start(task, ("frequency-0.5",))
    for action in (-1, 1):
        with pytest.raises(ConfigError, match=f"must be in 0 .. 0, but got {action}"):
            construction.step(action)


# -- the memo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_ids", [0, 3000, 20_000_000])
def test_the_memo_changes_nothing_and_stays_in_its_bounds(max_ids: int) -> None:
    task = zipf_task(400)
    splits = ("similarity-0.5", "frequency-0.5", "kway-4", "shortlist-16", "kway-8-project-0.5")
    shared = SplitCache(task, max_ids=max_ids)
    for seed in (0, 1, 0, 1):
        rng = np.random.default_rng(seed)
        one, other = start(task, splits, splits=shared), start(task, splits)
        while not one.done:
            assert one.observation().tolist() == other.observation().tolist()
            action = int(rng.choice(np.flatnonzero(one.action_mask())))
            one.step(action)
            other.step(action)
            assert shared.num_ids <= max_ids
        assert other.done
        assert one.finish().tree == other.finish().tree
    assert (len(shared) > 3000 // ENTRY_OVERHEAD) == (max_ids > 3000)


def test_the_memo_forgets_what_was_used_longest_ago() -> None:
    task = zipf_task(100)
    nodes = []
    for first in range(3):
        construction = start(task, (f"shortlist-{first + 1}",))
        construction.step(0)
        nodes.append(construction.current)
    memo = SplitCache(task, max_ids=2 * (100 + ENTRY_OVERHEAD))
    computed: list[str] = []

    def get(index: int) -> None:
        memo.get("what", nodes[index], lambda: computed.append(str(index)))

    for index in (0, 1, 0, 2, 0, 1):  # 2 drives out 1, which 0 has outlived by being used
        get(index)
    assert computed == ["0", "1", "2", "1"]


# -- observations ------------------------------------------------------------------------------------------------------


def features(construction: Construction) -> dict[str, float]:
    return dict(zip(OBSERVATION_FEATURES, construction.observation().tolist(), strict=True))


def test_features_of_a_node() -> None:
    counts = np.array([8.0, 4.0, 2.0, 1.0, 1.0])
    task = ConstructionTask(counts, np.array([[9.0], [0.0], [0.0], [0.0], [0.0]]), cost_weight=0.01)
    construction = start(task, ("frequency-0.5", "kway-3-project-1"), 4)
    root = features(construction)
    assert root["log_mass"] == 0
    assert root["is_root"] == root["relative_log_size"] == root["input_dim"] == root["decisions_left"] == 1
    assert root["entropy"] == pytest.approx(entropy_bits(counts) / 20)
    assert root["spread"] == 0.5
    assert root["top_share"] == 0.5
    assert root["top10_share"] == 1
    assert root["cost_weight"] == pytest.approx(0.5)
    construction.step(0)
    below = features(construction)
    assert below["log_mass"] == pytest.approx(np.log(0.5) / 20)
    assert below["log_size"] == pytest.approx(2 / 20)
    assert below["relative_log_size"] == pytest.approx(2 / np.log2(5))
    assert below["relative_entropy"] == pytest.approx(1.75 / 2)
    assert below["spread"] == below["is_root"] == below["projected"] == 0
    assert below["depth"] == pytest.approx(1 / 20)
    assert below["decisions_left"] == 0.75


def test_features_see_projections_and_long_tails() -> None:
    construction = start(zipf_task(1000, in_features=8), ("shortlist-16-kway-4-project-0.5", "frequency-0.5"))
    assert features(construction)["top10_share"] == pytest.approx(
        (1 / np.arange(1, 11)).sum() / (1 / np.arange(1, 1001)).sum()
    )
    construction.step(0)
    assert features(construction)["projected"] == 1
    assert features(construction)["input_dim"] == 0.5


def test_features_do_not_depend_on_the_scale_of_counts_or_vectors() -> None:
    task = zipf_task(50)
    scaled = ConstructionTask(task.counts * 16, task.require_vectors() * 4)
    one, other = start(task), start(scaled)
    for _ in range(4):
        np.testing.assert_allclose(one.observation(), other.observation(), atol=1e-6)
        one.step(DEFAULT_ACTIONS.index("similarity-0.5"))
        other.step(DEFAULT_ACTIONS.index("similarity-0.5"))


def test_extreme_settings_stay_bounded() -> None:
    for cost_weight, expected in ((0.0, -1.0), (1e6, 1.0)):
        counts = np.array([1e30, 0.0, 0.0, 0.0, 1e-30])
        task = ConstructionTask(counts, np.full((5, 2), 3.0), cost_weight=cost_weight)
        construction = start(task, ("frequency-0.5",))
        assert features(construction)["cost_weight"] == expected
        construction.step(0)  # class 0 against all that never occur
        assert features(construction)["log_mass"] == -1
        assert features(construction)["relative_entropy"] <= 1
        assert make_action("frequency-0.5").legal(task, construction.current)
