"""What agents show of the builders' trees is what the builders build."""

from collections.abc import Sequence

import pytest

from agents import AGENTS, Agent, Evaluated, PolicyGradient, make_agent
from envs import DEFAULT_ACTIONS, StructuralReward, zipf_task
from tests.agents.conversation import make
from treesearch import build_tree
from treesearch.cost import CostWeights

TASK = zipf_task(200, in_features=8, seed=4)


def showing(actions: Sequence[str] = DEFAULT_ACTIONS, max_decisions: int = 1000, **options: object) -> Agent:
    return make_agent(
        "random_search", task=TASK, actions=actions, max_decisions=max_decisions, closer=None, seed=0, **options
    )


def built(name: str, **options: object) -> str:
    return build_tree(name, counts=TASK.counts, vectors=TASK.vectors, seed=TASK.seed, **options).hash


@pytest.mark.parametrize("max_decisions", [1, 5, 1000])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[("clustered", {"arity": arity}) for arity in (2, 4, 8, 16, 32, 64)],
        ("huffman", {"arity": 2}),
        ("interpolated", {"weight": 0.5}),
        ("flat", {}),
    ],
)
def test_builders_with_a_closer_are_among_them(name: str, options: dict[str, object], max_decisions: int) -> None:
    shown = {proposal.tree.hash for proposal in showing(max_decisions=max_decisions).demonstrate()}
    assert built(name, **options) in shown


@pytest.mark.parametrize("arity", [4, 8, 16, 32, 64])
def test_a_split_all_the_way_down_is_its_builder(arity: int) -> None:
    """Decision by decision, whose returns tell the nodes apart; a closer at the root is only one."""
    names = [f"kway-{arity}", f"close-clustered-{arity}"]
    split = showing(names).demonstrate()[0]
    assert split.tree.hash == built("clustered", arity=arity)
    assert split.actions[0] == 0
    assert len(split.actions) > 1


@pytest.mark.parametrize("max_decisions", [1, 3])
@pytest.mark.parametrize("arity", [4, 16])
def test_where_decisions_run_out_the_closer_goes_on(arity: int, max_decisions: int) -> None:
    agent = make_agent(
        "random_search",
        task=TASK,
        actions=[f"kway-{arity}", f"close-clustered-{arity}"],
        max_decisions=max_decisions,
        closer=f"close-clustered-{arity}",
        seed=0,
    )
    assert {proposal.tree.hash for proposal in agent.demonstrate()} == {built("clustered", arity=arity)}


def test_each_tree_is_shown_once_whatever_the_weights() -> None:
    for weights in (None, CostWeights((0.1, 0.2, 0.3)), CostWeights(low=0.001, high=0.1)):
        agent = showing(max_decisions=12, cost_weights=weights)
        shown = agent.demonstrate()
        assert len({proposal.tree.hash for proposal in shown}) == len(shown)
        assert {proposal.cost_weight for proposal in shown} <= set(agent.cost_weights.grid())
        again = agent.demonstrate()
        assert [one.tree for one in again] == [one.tree for one in shown]


@pytest.mark.parametrize("split", ["kway-8-start-2", "shortlist-16-kway-8", "shortlist-16-kway-8-start-1"])
def test_similar_parts_are_also_closed_alike(split: str) -> None:
    """A root and clusters of the same arity below it; the split everywhere is another tree."""
    plans = [list(proposal.actions) for proposal in showing([split, "close-clustered-8"]).demonstrate()]
    everywhere, closed, alone = sorted(plans)
    assert everywhere[:2] == [0, 0]
    assert closed == [0] + [1] * (len(closed) - 1)
    assert len(closed) > 2
    assert alone == [1]


def test_another_start_of_similar_huffman_has_its_closer_below() -> None:
    """So that no other closer takes what is left after the last decision, which would make it dearer."""
    shown = showing(["similar-huffman-start-2", "close-similar-huffman"], max_decisions=5).demonstrate()
    closed, everywhere, alone = (list(one.actions) for one in shown)
    assert (closed, everywhere, alone) == ([0, 1, 1], [0] * 5, [1])
    depths = [one.tree.expected_depth(TASK.counts) for one in (shown[0], shown[2])]
    assert depths == pytest.approx([build_tree("huffman", counts=TASK.counts).expected_depth(TASK.counts)] * 2)
    assert len({one.tree for one in shown}) == 3
    without = showing(["similar-huffman-start-2", "close-clustered-8"]).demonstrate()
    assert [0] * 5 in [list(one.actions)[:5] for one in without]


def test_nothing_shown_has_a_projection_and_no_split_runs_out_of_itself_into_another() -> None:
    names = ["similarity-0.25", "shortlist-64", "kway-8", "kway-8-project-0.5", "close-clustered-16"]
    shown = showing(names).demonstrate()
    assert all(proposal.tree.projection_dim.max() == 0 for proposal in shown)
    assert [set(proposal.actions) for proposal in shown] == [{0}, {1, 4}, {4}]


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_what_was_shown_is_not_proposed(name: str) -> None:
    agent, reward = make(name), StructuralReward(make(name).task)
    shown = agent.demonstrate()
    agent.warm_start([Evaluated(proposal, reward(proposal.tree)) for proposal in shown])
    assert not {proposal.tree.hash for proposal in shown} & {proposal.tree.hash for proposal in agent.ask(20)}


def test_a_replay_repeats_decisions_and_sees_another_weight() -> None:
    agent = showing(max_decisions=12)
    for proposal in agent.ask(5):
        again = agent.replay(proposal.actions, 0.5)
        assert (again.tree, again.actions, again.cost_weight) == (proposal.tree, proposal.actions, 0.5)
    agent.use_task(zipf_task(200, in_features=8, seed=5))
    for proposal in agent.ask(5):
        assert agent.replay(proposal.actions[:1], 0.5).actions[0] == proposal.actions[0]


def test_a_policy_does_not_imitate_one_tree_several_times() -> None:
    agents = [make("policy_gradient"), make("policy_gradient")]
    reward = StructuralReward(agents[0].task)
    shown = [Evaluated(proposal, reward(proposal.tree)) for proposal in agents[0].demonstrate()]
    for agent, demonstrations in zip(agents, (shown, shown * 3), strict=True):
        agent.warm_start(demonstrations)
    one, other = (agent.state_dict()["policy"] for agent in agents if isinstance(agent, PolicyGradient))
    assert all(one[key].equal(other[key]) for key in one)
