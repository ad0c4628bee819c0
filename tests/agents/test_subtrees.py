"""The table of subtrees against all combinations of what was told, each built and judged as a whole."""

from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pytest

from agents import Agent, Evaluated, Proposal, make_agent
from agents.subtrees import LEFT, SubtreeTable
from envs import OpenNode, zipf_task
from tests.agents.content import Classes, ContentReward, classes_below, decided, follow
from treesearch import Tree
from treesearch.state import pack_state, unpack_state

TASK = zipf_task(16, in_features=8, seed=3)
ROOT = OpenNode(np.arange(16), 1.0, 0, 8, projected=False).digest
SPLITS = ["frequency-0.5", "kway-3", "similarity-0.25"]
BLOCKS = ["kway-2-project-0.5", "shortlist-2-project-0.25"]
CLOSERS = ["close-balanced-2", "close-flat"]
WEIGHTS = (0.0, 0.005, 0.05, 1.0)
Plan = dict[Classes, int]


def random_agent(actions: list[str], max_decisions: int, seed: int) -> Agent:
    return make_agent(
        "random_search",
        task=TASK,
        actions=actions,
        max_decisions=max_decisions,
        closer="close-balanced-2",
        seed=seed,
    )


def told(agent: Agent, num: int, seed: int) -> list[Evaluated]:
    reward = ContentReward(TASK, seed)
    return [Evaluated(proposal, reward(proposal.tree)) for proposal in agent.ask(num)]


def table_of(agent: Agent, items: list[Evaluated]) -> SubtreeTable:
    table = SubtreeTable(agent.actions, agent.closer_action)
    for item in items:
        table.add(item)
    return table


def named(items: list[Evaluated]) -> dict[bytes, Classes]:
    """Digests as class sets."""
    names = {}
    for item in items:
        proposal, below = item.proposal, classes_below(item.proposal.tree)
        for digests, nodes in (
            (proposal.class_sets, proposal.decision_nodes),
            (proposal.left_sets, proposal.left_nodes),
        ):
            names.update({digest: below[node] for digest, node in zip(digests, nodes, strict=True)})
    return names


# -- brute force -------------------------------------------------------------------------------------------------------


def all_plans(agent: Agent, items: list[Evaluated]) -> Iterator[Plan]:
    """Every combination of what was done with a class set outside of blocks; what was done with a block as a whole."""
    seen: dict[Classes, set[tuple[tuple[Classes, ...], tuple[tuple[Classes, int], ...]]]] = {}  # set -> (parts, plan)
    for item in items:
        plan = with_left(agent, item.proposal)
        blocks = [classes for classes, action in plan.items() if "project" in agent.actions[action].name]
        for classes, action in plan.items():
            if any(classes < block for block in blocks):
                continue
            below = [other for other in plan if other < classes]
            if classes in blocks:
                own = ((classes, action), *((other, plan[other]) for other in below))
                seen.setdefault(classes, set()).add(((), own))
            else:
                parts = tuple(one for one in below if not any(one < other for other in below))
                seen.setdefault(classes, set()).add((parts, ((classes, action),)))

    def plans(classes: Classes) -> Iterator[Plan]:
        for parts, own in seen[classes]:
            for combination in product(*(list(plans(part)) for part in parts)):
                yield {key: action for plan in combination for key, action in plan.items()} | dict(own)

    return plans(frozenset(range(16)))


def with_left(agent: Agent, proposal: Proposal) -> Plan:
    """The decisions, and the closer for what was left."""
    assert agent.closer_action is not None
    below = classes_below(proposal.tree)
    return decided(proposal) | {below[node]: agent.closer_action for node in proposal.left_nodes}


@pytest.mark.parametrize("max_decisions", [4, 50])
@pytest.mark.parametrize("actions", [SPLITS + CLOSERS, SPLITS + CLOSERS + BLOCKS], ids=["nodes", "blocks"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_plan_is_the_best_of_all_combinations(actions: list[str], max_decisions: int, seed: int) -> None:
    agent = random_agent(actions, max_decisions, seed)
    items = told(agent, 16, seed)
    table, names, reward = table_of(agent, items), named(items), ContentReward(TASK, seed)
    root = frozenset(range(16))
    trees: dict[str, tuple[Tree, set[int]]] = {}  # and the actions at its root
    for plan in all_plans(agent, items):
        tree, _ = follow(agent, plan)
        trees.setdefault(tree.hash, (tree, set()))[1].add(plan[root])
    assert len(trees) > len(items)
    for weight in WEIGHTS:
        rewards = [(reward(tree).at(weight).reward, actions) for tree, actions in trees.values()]
        best = max(earned for earned, _ in rewards)
        for action, loss in table.losses(ROOT, weight).items():
            assert -loss == pytest.approx(max(earned for earned, actions in rewards if action in actions), rel=1e-9)
        assert table.losses(ROOT, weight).keys() == table.tried(ROOT) == set[int]().union(*(a for _, a in rewards))
        plan = {names[digest]: action for digest, action in table.best_plan(ROOT, weight).items()}
        tree, made = follow(agent, plan)
        assert made == plan  # all of it is used
        assert reward(tree).at(weight).reward == pytest.approx(best, rel=1e-9)
        assert best >= max(item.evaluation.at(weight).reward for item in items if item.evaluation is not None) - 1e-12


def test_a_higher_weight_buys_less_cost_for_more_loss() -> None:
    agent = random_agent(SPLITS + CLOSERS, 50, 0)
    items = told(agent, 40, 0)
    table, names, reward = table_of(agent, items), named(items), ContentReward(TASK, 0)
    points = []
    for weight in np.geomspace(1e-3, 10, 20):
        plan = {names[digest]: action for digest, action in table.best_plan(ROOT, float(weight)).items()}
        evaluation = reward(follow(agent, plan)[0]).at(0.0)
        assert evaluation.node_cost is not None
        points.append((-evaluation.reward, float(evaluation.node_cost.sum())))
    assert len(set(points)) > 2
    for (loss, cost), (next_loss, next_cost) in pairwise(points):
        assert next_loss >= loss - 1e-12
        assert next_cost <= cost + 1e-12


def test_more_told_trees_never_make_it_worse() -> None:
    agent = random_agent(SPLITS + CLOSERS + BLOCKS, 3, 1)
    items, reward, best = told(agent, 30, 1), ContentReward(TASK, 1), -np.inf
    names, table = named(items), table_of(agent, [])
    for item in items:
        table.add(item)
        plan = {names[digest]: action for digest, action in table.best_plan(ROOT, 0.005).items()}
        now = reward(follow(agent, plan)[0]).reward
        assert now >= best - 1e-12
        best = now


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_a_block_is_one_that_was_told_and_suits_the_weight() -> None:
    agent = random_agent(["kway-2-project-0.5", "kway-3", "close-flat", "close-balanced-2"], 50, 0)
    items = [item for item in told(agent, 60, 0) if item.proposal.actions[0] == 0]
    assert len(items) > 5
    table, reward = table_of(agent, items), ContentReward(TASK, 0)
    plans = [with_left(agent, item.proposal) for item in items]
    names, chosen = named(items), set()
    for weight in np.geomspace(1e-4, 10, 30):
        plan = {names[digest]: action for digest, action in table.best_plan(ROOT, float(weight)).items()}
        assert plan in plans
        best = max(item.evaluation.at(weight).reward for item in items if item.evaluation is not None)
        assert reward(follow(agent, plan)[0]).at(weight).reward == pytest.approx(best, rel=1e-9)
        chosen.add(plans.index(plan))
        block = {names[digest]: action for digest, action in table.block_plan(ROOT, 0, float(weight)).items()}
        assert block | {frozenset(range(16)): 0} == plan
    assert len(chosen) > 1


def test_what_is_no_block_has_no_plan_of_its_own() -> None:
    agent = random_agent(SPLITS, 50, 0)
    table = table_of(agent, told(agent, 3, 0))
    assert ROOT in table
    assert b"another" not in table
    assert {len(table.block_plan(ROOT, action, 0.005)) for action in table.tried(ROOT)} == {0}


# -- what is no verdict ------------------------------------------------------------------------------------------------


def test_failures_and_estimates_say_nothing() -> None:
    agent = random_agent(SPLITS + CLOSERS, 50, 0)
    items = told(agent, 3, 0)
    table = table_of(agent, [])
    for item in items:
        table.add(Evaluated(item.proposal, None))
        table.add(Evaluated(item.proposal, item.evaluation, exact=False))
    assert table.best_plan(ROOT, 0.005) == {}
    assert table.tried(ROOT) == set()


# -- what is left ------------------------------------------------------------------------------------------------------


def test_what_the_closer_took_counts_as_its_action() -> None:
    agent = random_agent(["kway-3", "close-balanced-2"], 1, 0)
    items = [item for item in told(agent, 2, 0) if item.proposal.actions == (0,)]
    (left, *_) = items[0].proposal.left_sets
    table = table_of(agent, items)
    assert table.tried(left) == {1}
    assert table.best_plan(ROOT, 0.005)[left] == 1


def test_what_the_closer_took_is_no_action_where_the_closer_is_none() -> None:
    agent = random_agent(["kway-3"], 1, 0)
    (item,) = told(agent, 1, 0)
    table = table_of(agent, [item])
    assert table.tried(item.proposal.left_sets[0]) == set()
    assert table.best_plan(ROOT, 0.005) == {ROOT: 0}
    table.add(item)
    assert len(table.state()["options"]) == 1 + len(item.proposal.left_sets)
    assert set(table.state()["options"][:, 1].tolist()) == {0, LEFT}


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [["kway-3"], SPLITS, SPLITS + CLOSERS + BLOCKS])
def test_a_state_goes_round(actions: list[str]) -> None:
    agent = random_agent(actions, 3, 0)
    items = told(agent, 12, 0)
    for num in (0, 1, 6):
        table, other = table_of(agent, items[:num]), table_of(agent, items[6:])
        packed = pack_state({"table": table.state()})
        other.load(unpack_state(packed)["table"])
        assert pack_state({"table": other.state()}) == packed
        for later in items[num:]:
            table.add(later)
            other.add(later)
        assert pack_state({"table": other.state()}) == pack_state({"table": table.state()})
        for weight in WEIGHTS:
            assert other.best_plan(ROOT, weight) == table.best_plan(ROOT, weight)
