"""The agent between the loop and its own world: λs, what is carried over a refresh, policies of other runs."""

import numpy as np
import pytest

from envs import zipf_task
from treesearch.config import Config
from treesearch.cost import CostModel, CostWeights
from treesearch.errors import ConfigError, RunError
from treesearch.evaluation.scores import score_tree
from treesearch.launch.proposer import CARRIED, cost_weights, make_proposer

TASK = zipf_task(40)


def proposer(agent="random_search", *, policy=None, weights=None, **settings):
    config = Config.model_validate(
        {
            "cost": {"weights": weights},
            "environment": {"max_decisions": 3},
            "search": {"agent": agent, "settings": settings},
        }
    )
    return make_proposer(config, TASK, policy)


def score(tree, seed=0):
    """Numbers that the tree decides."""
    rng = np.random.default_rng([int(tree.hash[:8], 16), seed])
    return score_tree(tree, rng.uniform(0, 0.5, tree.num_internal), counts=TASK.counts, cost_model=CostModel(16))


def converse(one, rounds=3, num=8):
    """Candidates and scores of some batches; every fifth evaluation fails."""
    heard = []
    for number in range(rounds):
        candidates = one.ask(num, number)
        scores = [None if i % 5 == 4 else score(c.tree) for i, c in enumerate(candidates)]
        told = list(zip(candidates, scores, strict=True))
        one.tell(told)
        heard += told
    return heard


def test_candidates_say_where_they_come_from():
    one = proposer(weights=[0.1, 0.2])
    candidates = one.ask(30, 1)
    assert {c.agent for c in candidates} == {"random_search"}
    assert {c.cost_weight for c in candidates} == {0.1, 0.2}
    assert all(c.actions and set(c.actions) <= {a.name for a in one.agent.actions} for c in candidates)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, CostWeights((0.005,))),
        ([0.1, 0.2], CostWeights((0.1, 0.2))),
        ({"low": 0.1, "high": 0.2}, CostWeights(low=0.1, high=0.2)),
    ],
)
def test_weights_of_a_config(weights, expected):
    assert cost_weights(Config.model_validate({"cost": {"weights": weights}})) == expected


def test_agents_are_told_rewards_under_the_weight_of_the_proposal(monkeypatch):
    one = proposer(weights=[0.1, 3.0])
    candidates, told = one.ask(6, 1), []
    monkeypatch.setattr(one.agent, "tell", lambda evaluated: told.extend(evaluated) or {})
    scores = [score(c.tree) for c in candidates[:5]]
    one.tell(list(zip(candidates, [*scores, None], strict=True)))
    for candidate, given, item in zip(candidates, scores, told, strict=False):
        assert item.evaluation.reward == pytest.approx(given.reward(candidate.cost_weight))
        assert item.evaluation.cost_weight == candidate.cost_weight
        assert item.evaluation.node_loss.sum() == pytest.approx(-item.evaluation.reward)
    assert told[5].evaluation is None


@pytest.mark.parametrize("weights", [None, [0.0, 2.0], {"low": 0.001, "high": 1.0}])
def test_the_best_under_each_weight_are_repeated_after_a_refresh(weights):
    """Not the best of all: under a small λ every reward is higher."""
    one = proposer(weights=weights)
    plain = len(one.demonstrate())
    heard = [(c, s) for c, s in converse(one) if s is not None]
    grid = one.agent.cost_weights.grid()
    one.use_task(TASK)
    carried = one.demonstrate()[plain:]
    num = CARRIED // len(grid)
    for weight in grid:
        best = sorted({c.tree.hash: s.reward(weight) for c, s in heard}.items(), key=lambda item: -item[1])[:num]
        assert [c.tree.hash for c in carried if c.cost_weight == weight] == [tree_hash for tree_hash, _ in best]
    assert len(carried) == num * len(grid) <= CARRIED
    assert len(one.demonstrate()) == plain, "rewards under the old encoder are forgotten"


# -- policies


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A file with a trained policy."""
    one = proposer("policy_gradient")
    converse(one, rounds=2)
    path = tmp_path_factory.mktemp("policy") / "agent.npz"
    path.write_bytes(one.pack())
    return path


def test_a_policy_carries_over(state):
    trained, fresh = proposer("policy_gradient", policy=state), proposer("policy_gradient")
    assert trained.pack() != fresh.pack()
    policy = trained.agent.state_dict()["policy"]
    assert any(not np.array_equal(policy[key], value) for key, value in fresh.agent.state_dict()["policy"].items())


def test_an_agent_without_a_policy_takes_none(state):
    with pytest.raises(
        ConfigError, match=r"--policy needs an agent with a policy, but search\.agent is 'random_search'"
    ):
        proposer(policy=state)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be read \(No such file or directory\); give a run folder"),
        (b"", "a packed state must be an archive"),
        (b"PK\x03\x04 and no more", "a packed state must be an archive"),
        ("random_search", "must have been saved with the same agent"),
        ("hidden_size", "must have the layers of this agent's"),
    ],
)
def test_files_that_hold_no_policy_of_this_agent(content, says, tmp_path):
    path = tmp_path / "policy"
    if content == "random_search":
        path.write_bytes(proposer().pack())
    elif content == "hidden_size":
        path.write_bytes(proposer("policy_gradient", hidden_size=8).pack())
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=says) as caught:
        proposer("policy_gradient", policy=path)
    assert len(str(caught.value).splitlines()) == 1


def test_folders_that_hold_no_policy(tmp_path):
    with pytest.raises(RunError, match="no ledger at"):
        proposer("policy_gradient", policy=tmp_path)
