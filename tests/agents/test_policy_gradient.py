"""The learning agent: its arithmetic, its credit, and that it reaches known optima."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Evaluated, PolicyGradient, decision_returns, make_agent
from agents.policy_gradient import RunningMoments, leave_one_out
from envs import DEFAULT_ACTIONS, ConstructionTask, Evaluation, StructuralReward, seen_under, zipf_task
from tests.agents.conversation import TASK, WEIGHTS, converse, make
from treesearch import build_tree
from treesearch.errors import RunError
from treesearch.state import pack_state, unpack_state

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
    log_prob_A = agent._log_probs(logits_A, torch.tensor([True, False, True, False]), torch.zeros(4))
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=20))
def test_leave_one_out(entries: list[tuple[int, float, float]]) -> None:
    groups, returns, otherwise = (list(part) for part in zip(*entries, strict=True))
    rivals = [groups.index(group) for group in groups]
    expected = []
    for i, rival in enumerate(rivals):
        others = [returns[j] for j, other in enumerate(rivals) if other == rival and j != i]
        expected.append(returns[i] - np.mean(others) if others else otherwise[i])
    got = leave_one_out(
        torch.tensor(returns, dtype=torch.float64), torch.tensor(rivals), torch.tensor(otherwise, dtype=torch.float64)
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_rivals_decided_the_same_classes_for_the_same_weight() -> None:
    agent = learner(cost_weights=WEIGHTS["list"])
    batch = evaluated(agent, 12)
    collected = agent._collect(batch)
    assert collected is not None
    keys = [(item.proposal.cost_weight, one) for item in batch for one in item.proposal.class_sets]
    rivals = collected[0].rivals.tolist()
    assert len(set(zip(keys, rivals, strict=True))) == len(set(keys)) == len(set(rivals))
    assert len(set(keys)) < len(keys)


def test_visits_to_class_sets_keep_cost_apart() -> None:
    agent = learner(cost_weights=WEIGHTS["list"])
    batch = evaluated(agent, 3)
    collected = agent._collect(batch)
    assert collected is not None
    visits = collected[1]
    assert visits.class_sets == [one for item in batch for one in item.proposal.class_sets]
    for weight in (0.0, 0.02):
        under = [decision_returns(item.proposal, item.evaluation.at(weight)) for item in batch if item.evaluation]
        np.testing.assert_allclose(visits.returns - weight * visits.costs, np.concatenate(under), atol=1e-12)


def test_class_sets_that_come_again_are_learned_beside_the_network() -> None:
    """With a network that stands still the same decisions get likelier; without steps nothing does."""
    likelier = {}
    for step in (0.0, 1.0):
        agent = learner(class_set_step=step, update_epochs=1, learning_rate=1e-12, imitation_trees=0)
        items = evaluated(agent, 40)
        best = max(items, key=lambda item: item.evaluation.reward if item.evaluation is not None else -np.inf)
        before = log_likelihood(agent, best, agent.task.cost_weight)
        agent.tell(items)
        likelier[step] = log_likelihood(agent, best, agent.task.cost_weight) - before
    assert likelier[0.0] == pytest.approx(0, abs=1e-6)
    assert likelier[1.0] > 0.1


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
    returns = collected[0].returns
    assert returns[-num:].tolist() == [returns[start].item()] * num
    assert returns.min().item() == returns[-1].item()
    visits = collected[1]
    earned = visits.returns - agent.task.cost_weight * visits.costs
    assert earned[-1] == pytest.approx(min(rewards))


@pytest.mark.parametrize("credit", ["node", "terminal"])
def test_nothing_is_learned_from_failures_alone(credit: str) -> None:
    agent = learner(credit=credit)
    before = weights(agent)
    assert agent.tell([Evaluated(proposal, None) for proposal in agent.ask(2)]) == {}
    assert weights(agent) == before


def test_what_the_policy_thought_impossible_and_turned_out_badly_breaks_nothing() -> None:
    agent = learner()
    batch = evaluated(agent, 8)
    worst = min(range(8), key=lambda i: batch[i].evaluation.reward if batch[i].evaluation else 0.0)
    proposal = batch[worst].proposal
    unlikely = replace(proposal, log_probs=np.full(len(proposal.actions), -300.0))  # as of another proposer
    metrics = agent.tell([*batch[:worst], Evaluated(unlikely, batch[worst].evaluation), *batch[worst + 1 :]])
    assert all(np.isfinite(value) for value in metrics.values())
    assert agent.ask(4)


# -- imitation and replay ----------------------------------------------------------------------------------------------


def log_likelihood(agent: PolicyGradient, item: Evaluated, cost_weight: float) -> float:
    """Of the decisions of a tree, seen under a λ."""
    seen = agent.replay(item.proposal.actions, cost_weight)
    assert seen.tree == item.proposal.tree
    return float(np.mean(agent.log_probs(seen)))


def test_imitation_makes_the_best_demonstrations_likely_under_each_weight() -> None:
    agent, fresh = (learner(cost_weights=WEIGHTS["list"], imitation_trees=1) for _ in range(2))
    reward = StructuralReward(agent.task)
    items = [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.demonstrate()]
    agent.warm_start([*items, Evaluated(items[0].proposal, None)])
    for weight in agent.cost_weights.grid():
        best = max(items, key=lambda item: item.evaluation.at(weight).reward if item.evaluation else -np.inf)
        assert log_likelihood(agent, best, weight) > log_likelihood(fresh, best, weight) + 0.5


@pytest.mark.parametrize("off", [{"imitation_trees": 0}, {"imitation_epochs": 0}])
def test_imitation_can_be_turned_off(off: dict[str, object]) -> None:
    agent = learner(**off)
    agent.warm_start(evaluated(agent, 4))
    assert weights(agent) == weights(learner(**off))


def test_replay_learns_from_the_best_so_far_under_each_weight() -> None:
    agent = learner(cost_weights=WEIGHTS["list"], replay_trees=2)
    items = [item for _ in range(3) for item in evaluated(agent, 5)]
    agent.remember(items)
    recalled = agent._replay_batch()
    assert recalled is not None
    best = [
        item.proposal
        for weight in agent.cost_weights.grid()
        for item in sorted(items, key=lambda item: -item.evaluation.at(weight).reward if item.evaluation else 0)[:2]
    ]
    assert recalled.actions.tolist() == [action for proposal in best for action in proposal.actions]
    seen = [agent.replay(proposal.actions, agent.cost_weights.grid()[i // 2]) for i, proposal in enumerate(best)]
    assert recalled.observations.tolist() == np.concatenate([one.observations for one in seen]).tolist()


def test_replay_makes_the_best_so_far_likely() -> None:
    items = evaluated(learner(), 12)
    best = max(items, key=lambda item: item.evaluation.reward if item.evaluation is not None else -np.inf)
    after = []
    for coef in (0.0, 10.0):
        agent = learner(replay_trees=1, replay_coef=coef)
        for _ in range(3):
            agent.tell(items)
        after.append(log_likelihood(agent, best, agent.task.cost_weight))
    assert after[1] > after[0]


def test_without_replay_there_is_no_such_loss() -> None:
    agent = learner(replay_trees=0)
    assert agent.tell(evaluated(agent, 4)).keys() == METRICS - {"replay_loss"}


def test_what_was_seen_under_another_weight() -> None:
    agent = learner()
    for proposal in agent.ask(3):
        for weight in (0.0, 0.005, 0.3, 1e9):
            before = proposal.observations.copy()
            seen = seen_under(proposal.observations, weight)
            assert seen.tolist() == agent.replay(proposal.actions, weight).observations.tolist()
            assert (proposal.observations == before).all()


# -- another corpus ----------------------------------------------------------------------------------------------------


def test_a_policy_goes_to_another_vocabulary_and_nothing_else_does() -> None:
    old = learner()
    old.warm_start(evaluated(old, 4))
    converse(old, 3)
    state = unpack_state(pack_state(old.state_dict()))
    task = zipf_task(500, in_features=4, seed=9)
    new, fresh = (learner(task=task, learning_rate=0.1, seed=2) for _ in range(2))
    new.load_policy(state)
    assert weights(new) == weights(old) != weights(fresh)
    mine, untouched = new.state_dict(), fresh.state_dict()
    for key in mine.keys() - {"policy", "value"}:
        assert pack_state({key: mine[key]}) == pack_state({key: untouched[key]})
    before = weights(old)
    converse(new, 2)
    assert before == weights(old) != weights(new)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": DEFAULT_ACTIONS[1:]}, "saved with the same actions"),
        ({"name": "hybrid"}, "saved with the same agent"),
        ({"hidden_size": 8}, "must have the layers of this agent's .hidden_size 8."),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    state = learner().state_dict()
    arguments = {
        "name": "policy_gradient",
        "task": TASK,
        "actions": DEFAULT_ACTIONS,
        "max_decisions": 12,
        "closer": None,
        "seed": 0,
    }
    agent = make_agent(**{**arguments, **options})
    assert isinstance(agent, PolicyGradient)
    before = weights(agent)
    with pytest.raises(RunError, match=message):
        agent.load_policy(state)
    assert weights(agent) == before


@pytest.mark.parametrize("key", ["policy", "value"])
def test_a_policy_without_a_part_is_refused(key: str) -> None:
    agent, before = learner(seed=1), weights(learner(seed=1))
    state = learner().state_dict()
    del state[key]
    with pytest.raises(RunError, match="must have the layers"):
        agent.load_policy(state)
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


@pytest.mark.slow
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
