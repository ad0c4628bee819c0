"""What is remembered of a tree, against the verdict itself; the archive against sorting everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Evaluated, Proposal, decision_returns
from agents.elites import Archive, Elite, told_elites
from envs import Evaluation
from tests.agents.conversation import make
from treesearch.state import pack_state, unpack_state

PROPOSALS = make("random_search").ask(6)


def verdict(proposal: Proposal, rng: np.random.Generator, *, cost: bool = True, weight: float = 0.01) -> Evaluation:
    """Random losses and costs; no example passes some nodes."""
    num = proposal.tree.num_internal
    mass = rng.random(num) * (rng.random(num) < 0.8)
    cost_N = rng.exponential(size=num) * mass
    loss_N = rng.exponential(size=num) * mass
    if not cost:
        return Evaluation.of_nodes(loss_N, mass)
    return Evaluation.of_nodes(loss_N + weight * cost_N, mass, node_cost=cost_N, cost_weight=weight)


@pytest.mark.parametrize("cost", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.01, 0.3])
def test_an_elite_judges_like_its_evaluation(weight: float, cost: bool) -> None:
    rng = np.random.default_rng(0)
    for proposal in PROPOSALS:
        evaluation = verdict(proposal, rng, cost=cost)
        elite = Elite.of(Evaluated(proposal, evaluation))
        assert elite is not None
        assert elite.reward(weight) == pytest.approx(evaluation.at(weight).reward, rel=1e-12)
        np.testing.assert_allclose(
            elite.returns(weight), decision_returns(proposal, evaluation.at(weight)), rtol=1e-9, atol=1e-12
        )


def test_a_failure_leaves_no_elite() -> None:
    broken = Evaluation.of_nodes(np.full(PROPOSALS[0].tree.num_internal, np.nan), np.ones(1))
    assert told_elites([Evaluated(PROPOSALS[0], None), Evaluated(PROPOSALS[0], broken)]) == []


def test_the_state_of_an_elite_goes_round() -> None:
    elite = Elite.of(Evaluated(PROPOSALS[0], verdict(PROPOSALS[0], np.random.default_rng(1))))
    assert elite is not None
    packed = pack_state(elite.state())
    again = Elite.from_state(unpack_state(packed))
    assert pack_state(again.state()) == packed
    assert (again.class_sets, again.actions) == (elite.class_sets, elite.actions)
    assert again.returns(0.2).tolist() == elite.returns(0.2).tolist()


def elite_of(name: int, loss: int, cost: int) -> Elite:
    none = np.zeros(0)
    empty = np.zeros((0, 0))
    return Elite(str(name), (), (), empty.astype(np.float32), empty.astype(np.int8), loss, cost, none, none, none)


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 5)), max_size=6), max_size=6
    ),
    size=st.integers(1, 4),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=3, unique=True),
)
def test_the_archive_keeps_the_best_of_everything(
    batches: list[list[tuple[int, int, int]]], size: int, weights: list[float]
) -> None:
    numbers = {name: (loss, cost) for batch in reversed(batches) for name, loss, cost in reversed(batch)}
    archive, everything = Archive(size, weights), dict[str, Elite]()
    for batch in batches:
        elites = [elite_of(name, *numbers[name]) for name, _, _ in batch]  # a tree always has the same verdict
        archive.add(elites)
        for elite in elites:
            everything.setdefault(elite.tree_hash, elite)
        kept = set()
        for weight in weights:
            expected = sorted((elite.reward(weight) for elite in everything.values()), reverse=True)[:size]
            best = archive.best(weight)
            assert [elite.reward(weight) for elite in best] == expected
            kept.update(elite.tree_hash for elite in best)
        assert {elite.tree_hash for elite in archive} == kept
        assert len(archive) <= size * len(weights)


def test_ties_go_to_the_one_told_earlier() -> None:
    archive = Archive(2, [1.0])
    archive.add([elite_of(1, 3, 0), elite_of(2, 1, 2)])
    archive.add([elite_of(3, 0, 3), elite_of(1, 3, 0)])
    assert [elite.tree_hash for elite in archive.best(1.0)] == ["1", "2"]
    assert [elite.tree_hash for elite in archive.best(1.0, 1)] == ["1"]
    again = Archive(2, [1.0])
    again.load(archive.state())
    assert [elite.tree_hash for elite in again.best(1.0)] == ["1", "2"]
