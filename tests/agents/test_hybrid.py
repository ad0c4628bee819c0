"""The hybrid: what it starts from, what it changes, and that it reaches a known optimum."""

import numpy as np
import pytest
from numpy.typing import NDArray

from agents import Evaluated, Hybrid, Proposal, make_agent
from agents.layers import UNDECIDED, layer_of, plan_of
from envs import ConstructionTask, zipf_task
from tests.agents.content import ContentReward, decided
from tests.agents.test_policy_gradient import HUFFMAN_DEPTH, best_reward
from treesearch.errors import ConfigError
from treesearch.paths import block_roots

TASK = zipf_task(80, in_features=8, seed=2)
ACTIONS = ["frequency-0.5", "kway-4", "kway-8", "shortlist-4", "kway-2-project-0.5", "close-flat", "close-balanced-2"]


def hybrid(*, task: ConstructionTask = TASK, max_decisions: int = 1000, **settings: object) -> Hybrid:
    """One that composes and follows its policy, but makes no plans by layer unless it is told to."""
    settings = {"layered_share": 0, **settings}
    agent = make_agent(
        "hybrid",
        task=task,
        actions=ACTIONS,
        max_decisions=max_decisions,
        closer="close-balanced-2",
        seed=0,
        **settings,
    )
    assert isinstance(agent, Hybrid)
    return agent


def talk(agent: Hybrid, num_batches: int) -> list[Evaluated]:
    reward = ContentReward(agent.task, 0)
    items = []
    for _ in range(num_batches):
        batch = [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(6)]
        agent.tell(batch)
        items += batch
    return items


def test_without_changes_it_proposes_the_best_known_tree() -> None:
    """Put together from all that was told, so at least as good as any of them."""
    agent, reward = hybrid(policy_share=0, change_root=0, change_other=0), ContentReward(TASK, 0)
    source = hybrid(policy_share=1)
    items = talk(source, 5)
    agent.tell(items)
    for weight in (0.0, 0.005, 0.5):
        proposal = agent.propose(weight)
        best = max(item.evaluation.at(weight).reward for item in items if item.evaluation is not None)
        assert reward(proposal.tree).at(weight).reward >= best - 1e-12
        assert agent.propose(weight).tree == proposal.tree


def in_no_block(proposal: Proposal) -> NDArray[np.bool_]:
    """Which decisions are not below a projection: the others belong to the one that made it."""
    return block_roots(proposal.tree)[proposal.decision_nodes] < 0


def test_a_change_is_one_that_was_not_tried() -> None:
    agent = hybrid(policy_share=0, change_root=0, change_other=1, untried_share=1)
    items = talk(agent, 6)
    tried: dict[frozenset[int], set[int]] = {}
    for item in items:
        made = zip(decided(item.proposal).items(), in_no_block(item.proposal), strict=True)
        for (classes, action), alone in made:
            if alone:
                tried.setdefault(classes, set()).add(action)
    (root, *_), plan = decided(items[0].proposal), agent._table.best_plan(agent._root, TASK.cost_weight)
    changes = 0
    for _ in range(20):
        proposal = agent.propose(TASK.cost_weight)
        assert proposal.actions[0] == plan[proposal.class_sets[0]]  # the root stays
        made = zip(decided(proposal).items(), proposal.class_sets, proposal.masks, in_no_block(proposal), strict=True)
        for (classes, action), digest, mask, alone in made:
            if alone and digest in plan and classes != root and action != plan[digest]:
                changes += 1
                assert mask[action]
                everything_tried = set(np.flatnonzero(mask).tolist()) <= tried[classes]
                assert everything_tried or action not in tried[classes]
    assert changes


def test_with_a_policy_alone_the_table_plays_no_part() -> None:
    agent = hybrid(policy_share=1)
    talk(agent, 3)
    first = agent.propose(0.005)
    assert np.isfinite(first.log_probs).all()
    assert (first.log_probs < 0).any()


def test_a_plan_by_layer_is_the_best_one_with_another_action_in_one_layer() -> None:
    agent = hybrid(policy_share=0, layered_share=1, layered_parents=1)
    talk(agent, 8)
    changed = set()
    for weight in (0.0, 0.005, 0.5):
        (parent,) = agent._plans.best(weight, 1)
        for _ in range(30):
            proposal = agent.propose(weight)
            assert plan_of(proposal) is not None
            otherwise = set()
            for mass, action, mask in zip(proposal.masses.tolist(), proposal.actions, proposal.masks, strict=True):
                layer = layer_of(mass)
                wanted = [one for one in parent[layer] if one != UNDECIDED and mask[one]]
                if wanted and action != wanted[0]:
                    otherwise.add(layer)
            assert len(otherwise) <= 1
            changed |= otherwise
    assert changed >= {0, 1}


def test_plans_and_policy_share_the_proposals() -> None:
    with pytest.raises(ConfigError, match=r"policy_share and layered_share must be 1 together at most.*0\.7 and 0\.6"):
        hybrid(policy_share=0.7, layered_share=0.6)
    with pytest.raises(ConfigError, match="layered_parents must be finite and >= 1, but got 0"):
        hybrid(layered_parents=0)


def test_another_task_begins_with_an_empty_table() -> None:
    agent = hybrid()
    talk(agent, 2)
    assert agent._table.best_plan(agent._root, 0.005)
    agent.use_task(zipf_task(80, in_features=8, seed=3))
    assert agent._table.best_plan(agent._root, 0.005) == {}
    assert len(talk(agent, 2)) == 12


def test_estimates_do_not_enter_the_table() -> None:
    agent, reward = hybrid(), ContentReward(TASK, 0)
    agent.tell([Evaluated(proposal, reward(proposal.tree), exact=False) for proposal in agent.ask(4)])
    assert agent._table.best_plan(agent._root, 0.005) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_comes_as_near_to_huffman_as_random_search_in_a_quarter_of_the_trees(seed: int) -> None:
    mixed = -best_reward("hybrid", seed, num_trees=96) / HUFFMAN_DEPTH
    drawn = -best_reward("random_search", seed, num_trees=384) / HUFFMAN_DEPTH
    print(f"seed {seed}: hybrid {mixed:.4f} in 96 trees, random search {drawn:.4f} in 384, of Huffman's expected depth")
    assert mixed <= drawn
