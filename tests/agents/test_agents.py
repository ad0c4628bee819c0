"""What every agent must do: one fixture, all agents."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import AGENTS, Agent, Evaluated, PolicyGradient, RandomSearch, make_agent
from envs import DEFAULT_ACTIONS, Construction, StructuralReward, parse_actions, parse_closer
from tests.agents.conversation import TASK, WEIGHTS, converse, fingerprint, long_conversation, make, warmed
from treesearch.errors import ConfigError, RunError
from treesearch.state import pack_state, unpack_state

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


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, object]:
    """What all agents propose in another process, with another hash seed and number of threads."""
    threads = "1" if torch.get_num_threads() > 1 else "2"
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-W", "error", "-m", "tests.agents.conversation", "9"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    proposals: dict[str, object] = json.loads(finished.stdout)
    return proposals


@pytest.mark.slow
def test_the_same_in_another_process(name: str, elsewhere: dict[str, object]) -> None:
    assert elsewhere[name] == long_conversation(name)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["list", "range"])
def test_proposals_are_for_the_given_weights(name: str, weights: str) -> None:
    allowed = WEIGHTS[weights]
    assert allowed is not None
    proposals = converse(warmed(make(name, cost_weights=allowed)), 8)
    drawn = [proposal.cost_weight for proposal in proposals]
    if weights == "list":
        assert set(drawn) == set(allowed.values)
    else:
        assert allowed.low is not None
        assert allowed.high is not None
        assert all(allowed.low <= weight <= allowed.high for weight in drawn)
        assert len(set(drawn)) == len(drawn)
    for proposal in proposals:  # and are shown their own
        seen = make(name).replay(proposal.actions, proposal.cost_weight).observations
        assert seen.tolist() == proposal.observations.tolist()


def test_the_task_has_the_weight_where_none_is_given(name: str) -> None:
    assert {proposal.cost_weight for proposal in converse(make(name), 1)} == {TASK.cost_weight}


@pytest.mark.slow
def test_no_tree_is_proposed_twice(name: str) -> None:
    agent = warmed(make(name))
    hashes = [proposal.tree.hash for proposal in converse(agent, 20)]
    assert len(set(hashes)) == len(hashes)


def test_where_all_trees_are_known_one_is_proposed_again(name: str) -> None:
    actions = ["close-huffman-2", "close-flat", "close-balanced-2"]
    agent = make_agent(name, task=TASK, actions=actions, max_decisions=3, closer=None, seed=0)
    assert len({proposal.tree.hash for proposal in converse(agent, 3)}) == 3
    assert len(converse(agent, 1)) == 4


def test_how_the_trees_are_asked_for_does_not_matter(name: str) -> None:
    one, other = make(name), make(name)
    assert fingerprint(one.ask(6)) == fingerprint(other.ask(1) + other.ask(0) + other.ask(5))


@pytest.mark.slow
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_resumed_agent_goes_on_as_if_nothing_had_happened(name: str, warm: bool, batches: int) -> None:
    def fresh(seed: int) -> Agent:
        agent = make(name, seed=seed, cost_weights=WEIGHTS["list"])
        return warmed(agent) if warm else agent

    whole = converse(fresh(3), batches + 2)
    stopped = fresh(3)
    before = converse(stopped, batches)
    packed = pack_state(stopped.state_dict())
    converse(stopped, 1)  # a state is a copy: what its agent does later leaves it alone
    state = unpack_state(packed)
    for _ in range(2):  # and what an agent does after loading leaves the state alone as well
        resumed = make(name, seed=99, cost_weights=WEIGHTS["list"])
        resumed.load_state_dict(state)
        assert pack_state(resumed.state_dict()) == packed
        assert fingerprint(before + converse(resumed, 2)) == fingerprint(whole)


def test_a_resumed_agent_between_ask_and_tell(name: str) -> None:
    whole, stopped, resumed = (warmed(make(name, seed=3)) for _ in range(3))
    reward = StructuralReward(TASK)
    asked = stopped.ask(5)
    assert fingerprint(whole.ask(5)) == fingerprint(asked)
    resumed.load_state_dict(unpack_state(pack_state(stopped.state_dict())))
    for agent in (whole, resumed):
        agent.tell([Evaluated(proposal, reward(proposal.tree)) for proposal in asked])
    assert fingerprint(converse(whole, 2)) == fingerprint(converse(resumed, 2))


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


@pytest.mark.slow
def test_random_search_is_uniform_over_the_legal_actions() -> None:
    agent = make("random_search")
    first = np.array([agent.propose(0.005).actions[0] for _ in range(2000)])
    legal = np.flatnonzero(agent.ask(1)[0].masks[0])
    counts = np.bincount(first, minlength=len(DEFAULT_ACTIONS))
    assert counts[legal].sum() == 2000
    expected = 2000 / legal.size
    chi_square = ((counts[legal] - expected) ** 2 / expected).sum()
    assert chi_square < legal.size + 5 * np.sqrt(2 * legal.size)
    assert agent.propose(0.005).log_probs[0] == pytest.approx(-np.log(legal.size))


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


@pytest.mark.slow
def test_rewards_of_a_uniform_policy_are_those_of_random_search() -> None:
    reward = StructuralReward(TASK)
    means = []
    for name in ("random_search", "policy_gradient"):
        rewards = [reward(proposal.tree).reward for proposal in make(name).ask(150)]
        means.append((np.mean(rewards), np.std(rewards) / np.sqrt(150)))
    (one, error), (other, other_error) = means
    assert abs(one - other) < 4 * np.hypot(error, other_error)


def test_what_was_told_of_the_old_task_is_forgotten(name: str) -> None:
    """With another task an agent is as if it had been told nothing, but for what its policy and draws have become."""
    agent = make(name)
    converse(agent, 3)
    agent.use_task(TASK)
    fresh = make(name).state_dict()
    state = agent.state_dict()
    for memory in {"asked", "archive", "population", "table", "moments", "worst_reward"} & set(state):
        assert pack_state({"memory": state[memory]}) == pack_state({"memory": fresh[memory]}), memory
    assert len(converse(agent, 1)) == 4
