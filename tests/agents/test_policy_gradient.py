"""The learning agent: its arithmetic, its credit, and that it reaches known optima."""

import numpy as np
import pytest
import torch

from agents import Evaluated, PolicyGradient, make_agent
from agents.policy_gradient import RunningMoments
from envs import ConstructionTask, Evaluation, StructuralReward
from tests.agents.conversation import converse, make
from treesearch import build_tree

METRICS = {"entropy", "policy_loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance", "replay_loss"}


def learner(**settings: object) -> PolicyGradient:
    agent = make("policy_gradient", **settings)
    assert isinstance(agent, PolicyGradient)
    return agent


def weights(agent: PolicyGradient) -> list[list[float]]:
    return [values.flatten().tolist() for part in ("policy", "value") for values in agent.state_dict()[part].values()]


def evaluated(agent: PolicyGradient, num: int) -> list[Evaluated]:
    reward = StructuralReward(agent.task)
    return [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(num)]


# -- arithmetic --------------------------------------------------------------------------------------------------------


def test_the_first_epoch_meets_the_policy_that_proposed() -> None:
    """With one epoch, ratios are 1: what the agent remembers of its draws is what it computes from them again."""
    agent = learner(update_epochs=1)
    metrics = agent.tell(evaluated(agent, 6))
    assert metrics.keys() == METRICS
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["clip_fraction"] == 0
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)  # advantages have mean 0


def test_entropy_of_the_untrained_policy_is_that_of_the_legal_actions() -> None:
    agent = learner(update_epochs=1)
    batch = evaluated(agent, 6)
    expected = np.mean([np.log(mask.sum()) for item in batch for mask in item.proposal.masks])
    assert agent.tell(batch)["entropy"] == pytest.approx(expected, rel=1e-3)


def test_illegal_actions_have_no_probability_and_no_gradient() -> None:
    agent = learner()
    converse(agent, 5)
    logits_A = torch.randn(4, requires_grad=True)
    agent._policy = torch.nn.Identity()  # type: ignore[assignment]
    log_prob_A = agent._log_probs(logits_A, torch.tensor([True, False, True, False]))
    assert log_prob_A.exp()[[1, 3]].tolist() == [0, 0]
    assert log_prob_A.exp().sum().item() == pytest.approx(1)
    (log_prob_A.exp() * log_prob_A).sum().backward()
    assert logits_A.grad is not None
    assert logits_A.grad[[1, 3]].tolist() == [0, 0]
    assert torch.isfinite(logits_A.grad).all()


def test_running_moments_are_those_of_everything_so_far() -> None:
    rng = np.random.default_rng(0)
    moments = RunningMoments()
    batches = [(rng.normal(5, 3, num), rng.random(num) + 0.1) for num in (1, 7, 100)]
    for values, weight in batches:
        moments.update(values, weight)
    values, weight = (np.concatenate(part) for part in zip(*batches, strict=True))
    mean = np.average(values, weights=weight)
    assert moments.mean == pytest.approx(mean)
    assert moments.variance == pytest.approx(np.average((values - mean) ** 2, weights=weight))
    assert moments.normalise(values) @ weight == pytest.approx(0, abs=1e-6)


def test_the_scale_of_the_reward_does_not_matter() -> None:
    """Weights after an update agree but for rounding where all losses are 1,000 times as large."""
    after = []
    for scale in (1.0, 1000.0):
        agent = learner()
        batch = [
            Evaluated(item.proposal, Evaluation.of_nodes(item.evaluation.node_loss * scale, item.evaluation.node_mass))
            for item in evaluated(agent, 6)
            if item.evaluation is not None
        ]
        agent.tell(batch)
        after.append(np.concatenate(weights(agent)))
    assert np.abs(after[0] - after[1]).max() < 2e-2
    assert (
        np.corrcoef(after[0] - np.concatenate(weights(learner())), after[1] - np.concatenate(weights(learner())))[0, 1]
        > 0.95
    )


# -- failures ----------------------------------------------------------------------------------------------------------


def test_node_credit_leaves_failures_out() -> None:
    one, other = learner(ent_coef=0), learner(ent_coef=0)  # the bonus decays with every told tree
    batch = evaluated(one, 4)
    broken = Evaluation.of_nodes(np.full(batch[0].proposal.tree.num_internal, np.nan), np.ones(1))
    other.ask(4)
    one.tell(batch[1:])
    other.tell([Evaluated(batch[0].proposal, broken), *batch[1:], Evaluated(batch[0].proposal, None)])
    assert weights(one) == weights(other)


def test_terminal_credit_counts_a_failure_as_the_worst_reward_so_far() -> None:
    agent = learner(credit="terminal")
    batch = evaluated(agent, 4)
    rewards = [item.evaluation.reward for item in batch if item.evaluation is not None]
    collected = agent._collect([*batch, Evaluated(batch[0].proposal, None)])
    assert collected is not None
    num = len(batch[0].proposal.actions)
    worst = int(np.argmin(rewards))
    start = sum(len(item.proposal.actions) for item in batch[:worst])
    assert collected.returns[-num:].tolist() == [collected.returns[start].item()] * num
    assert collected.returns.min().item() == collected.returns[-1].item()


@pytest.mark.parametrize("credit", ["node", "terminal"])
def test_nothing_is_learned_from_failures_alone(credit: str) -> None:
    agent = learner(credit=credit)
    before = weights(agent)
    assert agent.tell([Evaluated(proposal, None) for proposal in agent.ask(2)]) == {}
    assert weights(agent) == before


# -- learning ----------------------------------------------------------------------------------------------------------


def test_learns_which_action_is_best_where_it_can_be_seen_at_once() -> None:
    """One decision, four actions of known cost: the policy moves to the cheapest."""
    task = ConstructionTask(1 / np.arange(1, 65), in_features=8)
    names = ["close-balanced-2", "close-huffman-2", "close-balanced-8", "close-flat"]
    agent = make_agent("policy_gradient", task=task, actions=names, max_decisions=1, closer=None, seed=0)
    assert isinstance(agent, PolicyGradient)
    for _ in range(15):
        agent.tell(evaluated(agent, 8))
    chosen = [proposal.actions[0] for proposal in agent.ask(20)]
    costs = [1 * 6, build_tree("huffman", counts=task.counts).expected_depth(task.counts), 2 * 1.4, 1 + 64 / 20]
    assert np.mean(np.array(chosen) == int(np.argmin(costs))) > 0.9


SPLITS = [f"frequency-0.{tenth}" for tenth in range(1, 10)]


def best_reward(name: str, seed: int, *, num_trees: int, batch_size: int = 16, **settings: object) -> float:
    """Best structural reward on 1,000 Zipf classes, binary splits by frequency only."""
    task = ConstructionTask(1 / np.arange(1, 1001), in_features=16)
    reward = StructuralReward(task, cost="depth")
    agent = make_agent(
        name, task=task, actions=SPLITS, max_decisions=64, closer="close-balanced-2", seed=seed, **settings
    )
    best = -np.inf
    for _ in range(num_trees // batch_size):
        batch = [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(batch_size)]
        agent.tell(batch)
        best = max(best, *(item.evaluation.reward for item in batch if item.evaluation is not None))
    return best


HUFFMAN_DEPTH = build_tree("huffman", counts=1 / np.arange(1, 1001)).expected_depth(1 / np.arange(1, 1001))


def test_beats_random_search_within_a_hundred_trees() -> None:
    assert best_reward("policy_gradient", 0, num_trees=96) > best_reward("random_search", 0, num_trees=96)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_comes_within_two_percent_of_huffman_and_beats_random_search(seed: int) -> None:
    learned = -best_reward("policy_gradient", seed, num_trees=400) / HUFFMAN_DEPTH
    drawn = -best_reward("random_search", seed, num_trees=400) / HUFFMAN_DEPTH
    print(f"seed {seed}: policy gradient {learned:.4f}, random search {drawn:.4f} of Huffman's expected depth")
    assert learned < 1.02
    assert learned < drawn


@pytest.mark.slow
def test_node_credit_learns_faster_than_the_terminal_reward() -> None:
    node, terminal = (
        best_reward("policy_gradient", 0, num_trees=160, credit=credit) for credit in ("node", "terminal")
    )
    assert node > terminal
