"""Agents on tasks that refine a taxonomy."""

from typing import Any

import pytest

from agents import AGENTS, Evaluated, Hybrid, RandomSearch, make_agent
from envs import StructuralReward
from tests.envs.test_taxonomy import ACTIONS, REFINES, task_of
from treesearch.taxonomy import taxonomy_from_paths


@pytest.mark.parametrize("refine", REFINES)
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_refines(name: str, refine: str) -> None:
    taxonomy = taxonomy_from_paths([f"{one % 6}/{one % 2}/{one}" for one in range(60)])
    task = task_of(taxonomy, refine)
    kind = {"task": task, "actions": ACTIONS, "max_decisions": 6, "closer": "close-huffman-2", "seed": 3}
    agent, reward = make_agent(name, **kind), StructuralReward(task)
    agent.warm_start([Evaluated(one, reward(one.tree)) for one in agent.demonstrate()])
    for _ in range(3):
        proposals = agent.ask(5)
        assert all((taxonomy.nodes_in(one.tree) >= 0).all() for one in proposals)
        agent.tell([Evaluated(one, reward(one.tree)) for one in proposals])
    again = make_agent(name, **kind)
    again.load_state_dict(agent.state_dict())
    assert [one.tree.hash for one in again.ask(4)] == [one.tree.hash for one in agent.ask(4)]


@pytest.mark.parametrize("refine", REFINES)
def test_the_best_known_parts_of_refinements_add_up(refine: str) -> None:
    """What the hybrid thinks the best of all it was told is worth, is what that tree is worth."""
    taxonomy = taxonomy_from_paths([f"{one % 7}/{one % 2}/{one}" for one in range(70)] + ["x", "y", "z", "0/u"])
    task = task_of(taxonomy, refine)
    actions, reward = ("kway-2", "kway-4", "frequency-0.5", "close-huffman-2"), StructuralReward(task)
    few = RandomSearch(task, actions=actions, max_decisions=4, closer="close-huffman-2", seed=1)
    agent = Hybrid(task, actions=actions, max_decisions=200, closer="close-huffman-2", seed=1)
    told = [Evaluated(one, reward(one.tree)) for one in few.ask(12)]
    agent.remember(told)
    table, weight = agent._table, task.cost_weight

    def choose(situation: Any) -> tuple[int, float]:
        losses = table.losses(situation.class_set, weight)
        return min(losses, key=lambda action: (losses[action], action)), 0.0

    best = agent.roll_out(choose, weight)
    saved = max(item.evaluation.reward for item in told if item.evaluation)
    assert reward(best.tree).reward >= saved - 1e-12
    if refine == "anywhere":
        assert -reward(best.tree).reward == pytest.approx(min(table.losses(best.class_sets[0], weight).values()))
