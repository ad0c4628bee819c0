"""Agents and vectors of others: Gymnasium's own workers, Stable-Baselines3's, MaskablePPO and a PPO in one file."""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

import envs
from envs import ConstructionTask, StructuralReward
from tests.envs import clean_ppo
from treesearch import Tree, build_tree
from treesearch.evaluation.threads import one_thread

# All of two parts. The last two cannot be taken again below a node where they have been.
SPLITS = [
    "frequency-0.1",
    "frequency-0.25",
    "frequency-0.5",
    "frequency-0.75",
    "frequency-0.9",
    "similarity-0.5",
    "category",
    "similarity-0.25-project-0.5",
]
METHODS = [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"]
SHORT = 3  # decisions


def zipf(num_classes: int, exponent: float, seed: int) -> ConstructionTask:
    """Class i has a count in proportion to (i + 1) ** -exponent, a random vector and one of two random categories."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((num_classes, 8), np.float32)
    categories = rng.integers(2, size=num_classes)
    return ConstructionTask(1 / np.arange(1, num_classes + 1) ** exponent, vectors, categories=categories)


TASKS = [zipf(64, 1.0, 1), zipf(96, 0.7, 2)]
UNSEEN = zipf(48, 1.3, 3)


def make(task: ConstructionTask, max_decisions: int = 16) -> gymnasium.Env[Any, Any]:
    """Binary trees, where Huffman's is known to be the best."""
    return gymnasium.make(
        envs.ENVIRONMENT_ID,
        task=task,
        reward=StructuralReward(task, cost="depth"),
        actions=SPLITS,
        closer="close-balanced-2",
        max_decisions=max_decisions,
    )


def bare(env: gymnasium.Env[Any, Any]) -> envs.TreeConstructionEnv:
    assert isinstance(env.unwrapped, envs.TreeConstructionEnv)
    return env.unwrapped


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


# -- vectors of Gymnasium --------------------------------------------------------------------------------------------


def legal(masks: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.value)
@pytest.mark.parametrize("method", [*METHODS, "sync"])
def test_masks_of_vectors_are_those_of_each_environment(method: str, mode: AutoresetMode) -> None:
    """Against plain environments that are reset by hand; also in the step after which a new episode stands there."""
    factories = [partial(make, task, SHORT) for task in TASKS]
    vector: VectorEnv[Any, Any, Any] = (
        SyncVectorEnv(factories, autoreset_mode=mode)
        if method == "sync"
        else AsyncVectorEnv(factories, context=method, autoreset_mode=mode)
    )
    rng, locals_ = np.random.default_rng(0), [make(task, SHORT) for task in TASKS]
    observation, info = vector.reset(seed=0)
    expected = [env.reset()[0] for env in locals_]
    ended, num_trees, num_illegal = np.zeros(2, bool), 0, 0
    for _ in range(6 * SHORT):
        for name in ("features", "action_mask"):
            assert observation[name].tolist() == [own[name].tolist() for own in expected]
        assert info["action_mask"].dtype == np.int8
        assert info["action_mask"].tolist() == observation["action_mask"].tolist()
        assert info["_action_mask"].all()
        actions = legal(info["action_mask"], rng)
        num_illegal += (info["action_mask"] == 0).sum()
        observation, reward, terminated, truncated, info = vector.step(actions)
        final = info["final_info"] if mode == AutoresetMode.SAME_STEP and terminated.any() else info
        for index, (env, action) in enumerate(zip(locals_, actions, strict=True)):
            if ended[index]:  # NEXT_STEP: this step was the reset
                expected[index], own_reward, own_ended = env.reset()[0], 0.0, False
            else:
                expected[index], own_reward, own_ended, _, own_info = env.step(action)  # type: ignore[assignment]
                if own_ended:
                    assert final["tree"][index] == own_info["tree"]
                    assert isinstance(final["tree"][index], Tree)
                    num_trees += 1
                    if mode == AutoresetMode.SAME_STEP:
                        assert info["final_obs"][index]["action_mask"].all()
                        expected[index] = env.reset()[0]
            assert (reward[index], terminated[index], truncated[index]) == (own_reward, own_ended, False)
        ended = terminated & (mode == AutoresetMode.NEXT_STEP)
    assert num_trees >= 6
    assert num_illegal >= 3
    vector.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_made_as_a_vector(mode: str) -> None:
    task = TASKS[0]
    options: dict[str, Any] = {"vector_kwargs": {"context": "spawn"}} if mode == "async" else {}
    vector = gymnasium.make_vec(
        envs.ENVIRONMENT_ID, num_envs=2, vectorization_mode=mode, task=task, max_decisions=SHORT, **options
    )
    env = gymnasium.make(envs.ENVIRONMENT_ID, task=task, max_decisions=SHORT)
    (observation, info), (expected, _) = vector.reset(), env.reset()
    ended = False
    while not ended:
        assert observation["features"].tolist() == [expected["features"].tolist()] * 2
        action = np.flatnonzero(info["action_mask"][0])[0]
        observation, reward, terminated, _, info = vector.step(np.array([action] * 2))
        expected, own_reward, ended, _, own_info = env.step(action)
        assert (reward.tolist(), terminated.tolist()) == ([own_reward] * 2, [ended] * 2)
    assert info["tree"].tolist() == [own_info["tree"]] * 2
    vector.close()


def test_environments_share_their_task() -> None:
    """Gymnasium copies the arguments; a large vocabulary must not be there once for each environment."""
    task = TASKS[0]
    reward = StructuralReward(task)
    vector = gymnasium.make_vec(envs.ENVIRONMENT_ID, num_envs=3, vectorization_mode="sync", task=task, reward=reward)
    assert isinstance(vector, SyncVectorEnv)
    assert all(bare(env).task is task for env in vector.envs)
    assert make(task).spec.kwargs["task"] is task  # type: ignore[union-attr]
    vector.close()


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_factories_and_environments_travel(dumps: Callable[[object], bytes]) -> None:
    env = make(TASKS[0], SHORT)
    env.reset()
    env.step(np.int64(2))
    copies = [pickle.loads(dumps(partial(make, TASKS[0], SHORT)))(), pickle.loads(dumps(env))]
    copies[0].reset()
    copies[0].step(np.int64(2))
    for copy in copies:
        assert bare(copy).action_masks().tolist() == bare(env).action_masks().tolist()
        assert bare(copy).task.counts.tolist() == TASKS[0].counts.tolist()
        for action in (1, 2):
            copy.step(np.int64(action))
    for action in (1, 2):
        env.step(np.int64(action))
    assert bare(env).tree is not None
    assert {bare(copy).tree for copy in copies} == {bare(env).tree}


@pytest.mark.parametrize("method", METHODS)
def test_a_new_process_finds_the_environment(method: str) -> None:
    """By the name of the module before the id, where nothing else there imports `envs`."""
    name = f"envs:{envs.ENVIRONMENT_ID}"
    vector = AsyncVectorEnv([lambda: gymnasium.make(name)], context=method)
    assert vector.reset()[1]["action_mask"].shape == (1, len(envs.DEFAULT_ACTIONS))
    vector.close()


# -- Stable-Baselines3 -----------------------------------------------------------------------------------------------


def test_stable_baselines_has_nothing_to_say() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make(TASKS[0]).unwrapped)  # a warning is an error here


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_masks_in_workers_of_stable_baselines(method: str) -> None:
    """``env_method`` gives those of the observation, after an automatic reset as well."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    utils = pytest.importorskip("sb3_contrib.common.maskable.utils")
    vector = vec_env.SubprocVecEnv([partial(make, task, SHORT) for task in TASKS], start_method=method)
    assert utils.is_masking_supported(vector)
    rng, observation, num_trees = np.random.default_rng(0), vector.reset(), 0
    at_root = observation["action_mask"]
    for _ in range(3 * SHORT):
        masks = utils.get_action_masks(vector)
        assert masks.dtype == np.bool_
        assert masks.tolist() == observation["action_mask"].astype(bool).tolist()
        assert masks.tolist() == np.array(vector.env_method("action_masks")).tolist()
        observation, reward, done, info = vector.step(legal(masks, rng))
        for index in np.flatnonzero(done):
            assert reward[index] == pytest.approx(-info[index]["tree"].expected_depth(TASKS[index].counts))
            assert info[index]["terminal_observation"]["action_mask"].all()
            assert observation["action_mask"][index].tolist() == at_root[index].tolist()
            num_trees += 1
    assert num_trees >= 6
    vector.close()


# -- learning --------------------------------------------------------------------------------------------------------

Act = Callable[[dict[str, Any]], int]


def returns_of(task: ConstructionTask, act: Act, num_episodes: int) -> NDArray[np.float64]:
    """What each episode gave; every action must have been legal."""
    env, returns = make(task), []
    for _ in range(num_episodes):
        observation, _ = env.reset()
        terminated = False
        while not terminated:
            observation, reward, terminated, _, info = env.step(np.int64(act(observation)))
            assert not info["invalid_action"]
        returns.append(float(reward))
    return np.array(returns)


def assert_it_has_learned(act: Act, task: ConstructionTask, *, within: float) -> None:
    """Far better than random legal actions, and near Huffman's depth, below which no binary tree can come."""
    rng = np.random.default_rng(0)
    random = returns_of(task, lambda observation: int(legal(observation["action_mask"][None], rng)[0]), 100)
    learned = returns_of(task, act, 50)
    optimum = -build_tree("huffman", counts=task.counts).expected_depth(task.counts)
    standard_error = np.sqrt(random.var(ddof=1) / random.size + learned.var(ddof=1) / learned.size)
    assert learned.mean() - random.mean() > 8 * standard_error
    assert learned.max() <= optimum + 1e-9
    assert random.mean() < 1.15 * optimum
    assert learned.mean() > within * optimum


@pytest.mark.slow
def test_maskable_ppo_learns() -> None:
    sb3_contrib = pytest.importorskip("sb3_contrib")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    vector = vec_env.SubprocVecEnv([partial(make, task) for task in TASKS], start_method="forkserver")
    agent = sb3_contrib.MaskablePPO(
        "MultiInputPolicy", vector, n_steps=256, batch_size=128, n_epochs=8, learning_rate=1e-3, gamma=1.0,
        gae_lambda=1.0, seed=0,
    )  # fmt: skip
    agent.learn(16_384)
    vector.close()

    def act(observation: dict[str, Any]) -> int:
        return int(agent.predict(observation, action_masks=observation["action_mask"])[0])

    for task in (*TASKS, UNSEEN):
        assert_it_has_learned(act, task, within=1.05)


@pytest.mark.slow
def test_ppo_in_one_file_learns() -> None:
    factories = [partial(make, task) for task in TASKS * 2]
    vector = AsyncVectorEnv(factories, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
    agent = clean_ppo.train(vector, clean_ppo.Args())
    vector.close()
    generator = torch.Generator().manual_seed(0)
    for task in (*TASKS, UNSEEN):
        assert_it_has_learned(partial(agent.act, generator=generator), task, within=1.05)


def test_ppo_in_one_file_never_takes_what_is_illegal() -> None:
    agent = clean_ppo.Agent(envs.NUM_FEATURES, 3)
    observation = {"features": np.ones((5, envs.NUM_FEATURES), np.float32), "action_mask": np.array([[0, 1, 1]] * 5)}
    policy = agent.policy(*clean_ppo.tensors(observation))
    assert not policy.probs[:, 0].any()
    assert policy.entropy().tolist() == pytest.approx([np.log(2)] * 5, abs=1e-3)
    (policy.entropy() + policy.log_prob(torch.ones(5))).sum().backward()
    for parameter in agent.actor.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
