"""The Gymnasium face: `check_env`, masks, rewards at the end."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs import ConstructionTask, EvaluatedReward, Evaluation, StructuralReward, TreeConstructionEnv, zipf_task
from treesearch import Tree
from treesearch.errors import ConfigError


def make(**options: object) -> TreeConstructionEnv:
    env = gymnasium.make(envs.ENVIRONMENT_ID, **options).unwrapped
    assert isinstance(env, TreeConstructionEnv)
    return env


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"task": ConstructionTask(np.ones(3), in_features=1), "actions": ["frequency-0.5"], "max_decisions": 1},
        {"task": zipf_task(50), "actions": ["kway-4", "close-flat"], "closer": "close-huffman-2"},
    ],
    ids=["default", "smallest", "own"],
)
def test_check_env_has_nothing_to_say(options: dict[str, object]) -> None:
    check_env(make(**options))  # a warning is an error here


def test_a_masked_random_episode() -> None:
    env = gymnasium.make(envs.ENVIRONMENT_ID)
    bare = env.unwrapped
    assert isinstance(bare, TreeConstructionEnv)
    env.action_space.seed(5)
    for _ in range(20):
        observation, info = env.reset()
        terminated, num_steps = False, 0
        while not terminated:
            assert env.observation_space.contains(observation)
            assert observation["action_mask"].tolist() == info["action_mask"].tolist() == bare.action_masks().tolist()
            assert info["action_mask"].dtype == np.int8
            assert bare.action_masks().dtype == np.bool_
            assert bare.tree is None
            assert "tree" not in info
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
            num_steps += 1
            assert not truncated
            assert info["invalid_action"] is False
            assert terminated or reward == 0
        assert env.observation_space.contains(observation)
        assert not observation["features"].any()
        assert observation["action_mask"].all()
        assert info["tree"] is bare.tree
        assert bare.built is not None
        assert bare.evaluation is not None
        assert len(bare.built.decision_nodes) == num_steps <= 32
        assert reward == bare.evaluation.reward == StructuralReward(bare.task)(info["tree"]).reward


def test_illegal_actions_are_told_and_never_raise() -> None:
    env = make(task=zipf_task(20), actions=["kway-64", "frequency-0.5"], closer="close-huffman-2")
    _, info = env.reset()
    assert info["action_mask"].tolist() == [0, 1]
    _, reward, terminated, _, info = env.step(np.int64(0))
    assert info["invalid_action"] is True
    assert terminated
    depth = env.task.cost_weight * info["tree"].expected_depth(env.task.counts)  # binary nodes cost 1
    assert reward == pytest.approx(-depth)


def test_reward_object_is_asked_once_for_each_tree() -> None:
    asked: list[Tree] = []

    def evaluate(tree: Tree) -> Evaluation:
        asked.append(tree)
        return Evaluation.of_nodes(np.full(tree.num_internal, 0.5), np.ones(tree.num_internal))

    env = make(task=zipf_task(20), reward=EvaluatedReward(evaluate), actions=["close-huffman-2"])
    env.reset()
    _, reward, terminated, _, info = env.step(np.int64(0))
    assert terminated
    assert reward == -0.5 * 19
    assert len(asked) == 1
    assert asked[0] is info["tree"]


def test_a_finished_episode_needs_a_reset() -> None:
    env = make(actions=["close-huffman-2"])
    env.reset()
    env.step(np.int64(0))
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(np.int64(0))
    env.reset()
    assert env.tree is None
    env.step(np.int64(0))


def test_episodes_with_the_same_actions_end_in_the_same_tree() -> None:
    hashes = set()
    for _ in range(2):
        env = make()
        rng = np.random.default_rng(3)
        for _ in range(2):
            env.reset()
        while env.tree is None:
            env.step(rng.choice(np.flatnonzero(env.action_masks())))
        hashes.add(env.tree.hash)
    assert len(hashes) == 1


def test_vector_environments_carry_the_tree() -> None:
    vector = gymnasium.make_vec(envs.ENVIRONMENT_ID, num_envs=3, vectorization_mode="sync", max_decisions=2)
    _, info = vector.reset(seed=0)
    trees = []
    for _ in range(6):
        actions = np.array([np.flatnonzero(mask)[-1] for mask in info["action_mask"]])
        _, _, terminated, _, info = vector.step(actions)
        if terminated.any():
            trees += [tree for tree, ended in zip(info["tree"], terminated, strict=True) if ended]
    assert len(trees) >= 3
    assert all(isinstance(tree, Tree) and tree.num_classes == 200 for tree in trees)
    assert pickle.loads(pickle.dumps(trees[0])) == trees[0]  # what an asynchronous vector sends through its pipe
    vector.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ["kway"]}, "unknown action 'kway'"),
        ({"actions": []}, "at least one"),
        ({"actions": ["kway-256"]}, "legal at the root"),
        ({"closer": "kway-4"}, "must be a close-"),
        ({"max_decisions": 0}, "max_decisions must be >= 1"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)
