"""One changed decision: evolution and local search."""

from collections import Counter

import numpy as np
import pytest

from agents import Agent, Evaluated, Evolution, LocalSearch, Proposal, make_agent
from agents.elites import Elite
from envs import StructuralReward, zipf_task
from tests.agents.content import Classes, ContentReward, classes_below, decided
from treesearch import Tree

TASK = zipf_task(60, in_features=8, seed=2)
ACTIONS = ["frequency-0.5", "kway-3", "kway-8", "shortlist-4", "kway-2-project-0.5", "close-flat", "close-balanced-2"]
CLOSER = ACTIONS.index("close-balanced-2")
PLENTY = 1000  # more decisions than any tree here takes


def make(name: str, max_decisions: int = PLENTY, seed: int = 0, **settings: object) -> Agent:
    return make_agent(
        name,
        task=TASK,
        actions=ACTIONS,
        max_decisions=max_decisions,
        closer="close-balanced-2",
        seed=seed,
        **settings,
    )


def changed_set(parent: Proposal, child: Proposal) -> Classes:
    """Where the two first decide otherwise."""
    pairs = zip(decided(parent).items(), decided(child).items(), strict=False)
    return next(one for (one, action), (other, taken) in pairs if one == other and action != taken)


def outside(tree: Tree, changed: Classes) -> dict[Classes, tuple[int, frozenset[Classes]]]:
    """The partition of each node that is not below ``changed`` or that node itself, and its projection."""
    below = classes_below(tree)
    return {
        below[node]: frozenset(below[child] for child in tree.children(node))
        | {frozenset([-tree.projection_dim[node]])}
        for node in range(tree.num_internal)
        if not below[node] <= changed
    }


@pytest.mark.parametrize("closer_share", [0.0, 0.5, 1.0])
def test_a_child_differs_in_one_decision_and_below_it(closer_share: float) -> None:
    agent = make("random_search")
    for parent in agent.ask(15):
        for decision in {0, len(parent.actions) // 2, len(parent.actions) - 1}:
            child = agent.change(parent, decision, 0.01, closer_share=closer_share)
            changed = list(decided(parent))[decision]
            before, after = decided(parent), decided(child)
            assert child.cost_weight == 0.01
            assert child.class_sets[: decision + 1] == parent.class_sets[: decision + 1]
            assert child.actions[:decision] == parent.actions[:decision]
            assert after[changed] != before[changed]
            assert parent.masks[decision][after[changed]]
            assert outside(child.tree, changed) == outside(parent.tree, changed)
            elsewhere = {classes for classes in before if not classes <= changed}
            assert elsewhere == {classes for classes in after if not classes <= changed}
            assert all(after[classes] == before[classes] for classes in elsewhere)
            if closer_share == 1:
                new = {classes for classes in after if classes < changed and classes not in before}
                assert {after[classes] for classes in new} <= {CLOSER}


@pytest.mark.parametrize("max_decisions", [2, 6, 12])
def test_a_tight_budget_only_cuts_what_is_lightest(max_decisions: int) -> None:
    """More decisions below the changed one: others are lost to the closer, but none is made otherwise."""
    agent = make("random_search", max_decisions)
    for parent in agent.ask(30):
        decision = int(agent.rng.integers(len(parent.actions)))
        child = agent.change(parent, decision, 0.01, closer_share=1.0)
        changed, before = list(decided(parent))[decision], decided(parent)
        for classes, action in decided(child).items():
            if not classes <= changed:
                assert action == before.get(classes, CLOSER)


def test_the_only_legal_action_stays() -> None:
    agent = make_agent("random_search", task=TASK, actions=["frequency-0.5"], max_decisions=4, closer=None, seed=0)
    (parent,) = agent.ask(1)
    assert agent.change(parent, 1, 0.01).tree == parent.tree


# -- evolution ---------------------------------------------------------------------------------------------------------


def told(agent: Agent, num: int) -> list[Evaluated]:
    reward = ContentReward(TASK, 0)
    return [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(num)]


def test_the_oldest_leave_the_population() -> None:
    agent = make("evolution", population_size=3)
    items = told(agent, 5)
    for item in items:
        agent.tell([item, Evaluated(item.proposal, None)])  # failures never join
    assert [one["tree_hash"] for one in agent.state_dict()["population"]] == [
        item.proposal.tree.hash for item in items[2:]
    ]


def parents(agent: Agent, num: int, cost_weight: float, monkeypatch: pytest.MonkeyPatch) -> list[Elite]:
    """Whom it changes."""
    chosen: list[Elite] = []

    def change(self: Agent, parent: Elite, decision: int, weight: float, **options: object) -> Proposal:
        assert 0 <= decision < len(parent.actions)
        assert weight == cost_weight
        chosen.append(parent)
        return proposal

    proposal = agent.ask(1)[0]
    monkeypatch.setattr(type(agent), "change", change)
    for _ in range(num):
        agent.propose(cost_weight)
    return chosen


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_best_of_a_tournament_is_the_parent(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn with replacement from n, the best takes part with 1 - (1 - 1/n) ** size."""
    agent = make("evolution", population_size=4, tournament_size=size)
    items = told(agent, 4)
    agent.tell(items)
    for weight in (0.0, 1.0):
        rewards = {item.proposal.tree.hash: item.evaluation.at(weight).reward for item in items if item.evaluation}
        ranked = sorted(rewards, key=lambda key: -rewards[key])
        with monkeypatch.context() as patch:
            counts = Counter(elite.tree_hash for elite in parents(agent, 1000, weight, patch))
        for rank, tree_hash in enumerate(ranked):
            chance = (1 - rank / 4) ** size - (1 - (rank + 1) / 4) ** size
            assert abs(counts[tree_hash] - 1000 * chance) < 5 * np.sqrt(1000 * chance * (1 - chance)) + 1e-9


def test_a_child_of_evolution_has_a_parent_in_the_population() -> None:
    agent = make("evolution", population_size=8)
    assert isinstance(agent, Evolution)
    for _ in range(4):
        items = told(agent, 8)
        agent.tell(items)
    for child in agent.ask(20):
        after = decided(child)
        matches = 0
        for item in items:
            before = decided(item.proposal)
            if list(before.items()) == list(after.items()):
                continue
            changed = changed_set(item.proposal, child)
            matches += outside(child.tree, changed) == outside(item.proposal.tree, changed)
        assert matches


# -- local search ------------------------------------------------------------------------------------------------------


def test_a_step_of_local_search_changes_one_subtree_of_one_of_the_best() -> None:
    agent = make("local_search", num_elites=2)
    assert isinstance(agent, LocalSearch)
    everything: list[Evaluated] = []
    for _ in range(6):
        items = told(agent, 8)
        everything += items
        agent.tell(items)
    rewards = {item.proposal.tree.hash: item.evaluation.reward for item in everything if item.evaluation is not None}
    best = sorted(rewards, key=lambda key: -rewards[key])[:2]
    elites = [item.proposal for item in everything if item.proposal.tree.hash in best]
    for child in (agent.propose(TASK.cost_weight) for _ in range(30)):
        candidates = [(elite, changed_set(elite, child)) for elite in elites]
        assert any(outside(child.tree, changed) == outside(elite.tree, changed) for elite, changed in candidates)


@pytest.mark.slow
def test_local_search_prefers_heavy_nodes_by_the_power(monkeypatch: pytest.MonkeyPatch) -> None:
    for power in (0.0, 1.0):
        agent = make("local_search", num_elites=1, mass_power=power)
        item = max(told(agent, 20), key=lambda item: len(item.proposal.actions))
        agent.tell([item])
        assert item.evaluation is not None
        mass = item.evaluation.node_mass[item.proposal.decision_nodes]
        drawn: list[int] = []

        def change(
            self: Agent, parent: Elite, decision: int, *_: object, drawn: list[int] = drawn, **__: object
        ) -> Proposal:
            drawn.append(decision)
            return self.roll_out(self.random_action, 0.0)

        with monkeypatch.context() as patch:
            patch.setattr(LocalSearch, "change", change)
            for _ in range(600):
                agent.propose(TASK.cost_weight)
        expected = mass**power / (mass**power).sum() * 600
        counts = np.bincount(drawn, minlength=mass.size)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()


def test_local_search_never_loses_its_best() -> None:
    agent, reward = make("local_search", 20), StructuralReward(TASK)
    best = -np.inf
    for _ in range(10):
        items = [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(6)]
        agent.tell(items)
        best = max(best, *(item.evaluation.reward for item in items if item.evaluation is not None))
        kept = max(-one["loss"] - TASK.cost_weight * one["cost"] for one in agent.state_dict()["archive"])
        assert kept == pytest.approx(best, rel=1e-9)
