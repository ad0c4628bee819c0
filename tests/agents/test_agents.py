"""What every agent must do: one fixture, all agents."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import AGENTS, Evaluated, PolicyGradient, RandomSearch, make_agent, pack_state, unpack_state
from envs import DEFAULT_ACTIONS, Construction, StructuralReward, parse_actions, parse_closer
from tests.agents.conversation import TASK, converse, fingerprint, make
from treesearch.errors import ConfigError, RunError

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=sorted(AGENTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_proposals_are_legal_and_replaying_their_actions_gives_their_tree(name: str) -> None:
    for proposal in converse(make(name), 3):
        replay = Construction(TASK, parse_actions(DEFAULT_ACTIONS), max_decisions=12, closer=parse_closer(None, TASK))
        for step, action in enumerate(proposal.actions):
            assert proposal.observations[step].tolist() == replay.observation().tolist()
            assert proposal.masks[step].tolist() == replay.action_mask().tolist()
            assert replay.step(action)
        assert replay.done
        built = replay.finish()
        assert built.tree == proposal.tree
        assert built.decision_nodes.tolist() == proposal.decision_nodes.tolist()
        num = len(proposal.actions)
        assert proposal.observations.shape[0] == proposal.masks.shape[0] == proposal.log_probs.shape[0] == num
        assert (proposal.observations.dtype, proposal.masks.dtype) == (np.float32, np.int8)
        assert (proposal.log_probs <= 0).all()


def test_the_seed_decides(name: str) -> None:
    first, again, other = (fingerprint(converse(make(name, seed=seed), 3)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_same_in_another_process(name: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "error", "-m", "tests.agents.conversation", "9"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)[name] == fingerprint(converse(make(name, seed=5), 3))


def test_how_the_trees_are_asked_for_does_not_matter(name: str) -> None:
    one, other = make(name), make(name)
    assert fingerprint(one.ask(6)) == fingerprint(other.ask(1) + other.ask(0) + other.ask(5))


def test_a_resumed_agent_goes_on_as_if_nothing_had_happened(name: str) -> None:
    whole = converse(make(name, seed=3), 3)
    stopped = make(name, seed=3)
    before = converse(stopped, 1)
    packed = pack_state(stopped.state_dict())
    converse(stopped, 1)  # a state is a copy: what its agent does later leaves it alone
    state = unpack_state(packed)
    for _ in range(2):  # and what an agent does after loading leaves the state alone as well
        resumed = make(name, seed=99)
        resumed.load_state_dict(state)
        assert pack_state(resumed.state_dict()) == packed
        assert fingerprint(before + converse(resumed, 2)) == fingerprint(whole)


def test_a_state_fits_only_an_agent_like_the_one_that_saved_it(name: str) -> None:
    state = make(name).state_dict()
    fewer = make_agent(name, task=TASK, actions=DEFAULT_ACTIONS[1:], max_decisions=12, closer=None, seed=0)
    with pytest.raises(RunError, match="saved with the same actions"):
        fewer.load_state_dict(state)
    for other in AGENTS:
        if other != name:
            with pytest.raises(RunError, match="saved with the same agent"):
                make(other).load_state_dict(state)


def test_a_batch_of_failures_is_survived(name: str) -> None:
    agent = make(name)
    agent.tell([Evaluated(proposal, None) for proposal in agent.ask(3)])
    agent.tell([])
    assert len(converse(agent, 1)) == 4


def test_global_generators_and_threads_are_left_alone(name: str) -> None:
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].tolist()
    converse(make(name), 1)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()
    assert threads == torch.get_num_threads()


def test_random_search_is_uniform_over_the_legal_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make("random_search")
    monkeypatch.setattr(type(agent), "max_tries", 1)
    first = np.array([proposal.actions[0] for proposal in agent.ask(2000)])
    legal = np.flatnonzero(agent.ask(1)[0].masks[0])
    counts = np.bincount(first, minlength=len(DEFAULT_ACTIONS))
    assert counts[legal].sum() == 2000
    expected = 2000 / legal.size
    chi_square = ((counts[legal] - expected) ** 2 / expected).sum()
    assert chi_square < legal.size + 5 * np.sqrt(2 * legal.size)
    assert agent.ask(1)[0].log_probs[0] == pytest.approx(-np.log(legal.size))


def test_make_agent() -> None:
    agent = make("policy_gradient", clip_coef=0.3, credit="terminal")
    assert isinstance(agent, PolicyGradient)
    assert (agent.settings.clip_coef, agent.settings.credit) == (0.3, "terminal")
    assert isinstance(make("random_search"), RandomSearch)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("policy-gradient", {}, "unknown agent 'policy-gradient'; did you mean 'policy_gradient'"),
        ("policy_gradient", {"clip_coeff": 1}, "no setting 'clip_coeff'; did you mean 'clip_coef'"),
        ("random_search", {"clip_coef": 1}, "no setting 'clip_coef'; it takes none"),
        ("policy_gradient", {"credit": "nodes"}, "credit must be 'node' or 'terminal'"),
        ("policy_gradient", {"learning_rate": 0}, "learning_rate must be finite and > 0"),
        ("policy_gradient", {"mass_power": -1}, "mass_power must be finite and >= 0"),
        ("policy_gradient", {"update_epochs": 1.5}, "update_epochs must be an integer"),
    ],
)
def test_refusals(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **settings)


def test_unknown_action() -> None:
    with pytest.raises(ConfigError, match="unknown action 'kway'"):
        make_agent("random_search", task=TASK, actions=["kway"], max_decisions=1, closer=None, seed=0)


def test_rewards_of_a_uniform_policy_are_those_of_random_search() -> None:
    reward = StructuralReward(TASK)
    means = []
    for name in ("random_search", "policy_gradient"):
        rewards = [reward(proposal.tree).reward for proposal in make(name).ask(150)]
        means.append((np.mean(rewards), np.std(rewards) / np.sqrt(150)))
    (one, error), (other, other_error) = means
    assert abs(one - other) < 4 * np.hypot(error, other_error)
