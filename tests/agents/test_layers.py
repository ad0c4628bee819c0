"""Plans by layer: what follows one, what is remembered of them, and that one is found where many decisions mislead."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from agents import Agent, Evaluated, Proposal, Situation, make_agent
from agents.layers import UNDECIDED as NONE
from agents.layers import LayeredPlans, layer_of, plan_of
from envs import Evaluation, StructuralReward, zipf_task
from tests.agents.content import classes_below
from treesearch import Tree

TASK = zipf_task(300, in_features=8, seed=3)
ACTIONS = ["kway-4", "kway-8", "shortlist-8", "close-clustered-2", "close-clustered-4"]


def agent_with(name: str = "random_search", **options: object) -> Agent:
    return make_agent(name, task=TASK, actions=ACTIONS, max_decisions=60, closer="close-clustered-2", seed=0, **options)


def built(choose: Callable[[Situation], int]) -> Proposal:
    return agent_with().roll_out(lambda situation: (choose(situation), 0.0), 0.005)


@pytest.mark.parametrize(
    ("mass", "layer"), [(1.0, 0), (1 - 1e-12, 0), (0.99, 1), (0.02, 1), (0.0199, 2), (1e-6, 2), (0.0, 2)]
)
def test_layers_by_mass(mass: float, layer: int) -> None:
    assert layer_of(mass) == layer


def test_a_tree_that_decides_like_nodes_alike_follows_a_plan() -> None:
    plan = plan_of(built(lambda s: [1, 0, 3][layer_of(s.mass)] if s.mask[[1, 0, 3][layer_of(s.mass)]] else 3))
    assert plan is not None
    assert [action for action, _ in plan] == [1, 0, 3]
    assert plan_of(built(lambda s: 3)) == ((3, NONE), (NONE, NONE), (NONE, NONE))


def test_what_is_done_where_the_action_is_not_legal_belongs_to_the_plan() -> None:
    """kway-8 needs more than eight classes."""
    for fill in (3, 4):
        proposal = built(lambda s, fill=fill: 1 if s.mask[1] else fill)
        assert set(proposal.actions) == {1, fill}
        plan = plan_of(proposal)
        assert plan is not None
        assert [action for action, _ in plan] == [1, 1, 1]
        assert plan[2] == (1, fill)
    mixed = iter([3, 4] * 1000)
    assert plan_of(built(lambda s: 1 if s.mask[1] else next(mixed))) is None


def test_one_node_that_is_decided_otherwise_follows_none() -> None:
    seen = []

    def choose(situation: Situation) -> int:
        layer = layer_of(situation.mass)
        seen.append(layer)
        return 3 if layer == 1 and seen.count(1) == 3 else [1, 0, 3][layer]

    assert plan_of(built(choose)) is None


def test_the_best_plans_under_each_weight() -> None:
    plans, reward, agent = LayeredPlans(), StructuralReward(TASK), agent_with()
    proposals = [agent.roll_out(lambda s, action=action: (action, 0.0), 0.005) for action in range(len(ACTIONS))]
    items = [Evaluated(proposal, reward(proposal.tree)) for proposal in proposals if plan_of(proposal) is not None]
    for item in items:
        plans.add(item)
    assert len(plans) == len(items) >= 4
    for weight in (0.0, 0.01, 10.0):
        ranked = sorted(items, key=lambda item: -item.evaluation.at(weight).reward)
        assert plans.best(weight, 3) == [plan_of(item.proposal) for item in ranked[:3]]
    again = LayeredPlans()
    again.load(plans.state())
    assert again.best(0.01, 9) == plans.best(0.01, 9)


def test_estimates_and_failures_say_nothing_of_a_plan() -> None:
    plans, proposal = LayeredPlans(), built(lambda s: 3)
    plans.add(Evaluated(proposal, None))
    plans.add(Evaluated(proposal, StructuralReward(TASK)(proposal.tree), exact=False))
    assert len(plans) == 0


def noisy(tree: Tree) -> Evaluation:
    """The analytic cost, and beside it nothing but noise, as of held-out tokens: smaller the more of them pass."""
    true = StructuralReward(TASK)(tree)
    own = [zlib.crc32(repr(sorted(classes)).encode()) / 2**32 - 0.5 for classes in partitions(tree)]
    assert true.node_cost is not None
    noise = 0.1 * np.array(own) * np.sqrt(true.node_mass)
    return Evaluation.of_nodes(true.node_loss + noise, true.node_mass, node_cost=true.node_cost, cost_weight=0.005)


def partitions(tree: Tree) -> list[list[tuple[int, ...]]]:
    below = classes_below(tree)
    return [[tuple(sorted(below[child])) for child in tree.children(node)] for node in range(tree.num_internal)]


@pytest.mark.slow
def test_fewer_decisions_owe_less_to_luck() -> None:
    luck = {}
    for name, share in (("layered", 1), ("composed", 0)):
        agent = agent_with("hybrid", policy_share=0, layered_share=share)
        agent.warm_start([Evaluated(proposal, noisy(proposal.tree)) for proposal in agent.demonstrate()])
        best = None
        for _ in range(15):
            batch = [Evaluated(proposal, noisy(proposal.tree)) for proposal in agent.ask(6)]
            agent.tell(batch)
            best = max([*batch, best] if best else batch, key=lambda item: item.evaluation.reward)
        luck[name] = best.evaluation.reward - StructuralReward(TASK)(best.proposal.tree).reward
    print({name: f"{nats:.4f} nats of luck" for name, nats in luck.items()})
    assert 0 < luck["layered"] < luck["composed"]
