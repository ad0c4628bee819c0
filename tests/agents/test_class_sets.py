"""Preferences at single class sets: steps by hand, what they learn, and their state."""

import numpy as np
import pytest

from agents.class_sets import WINDOW, ClassSetPreferences, Visits
from treesearch.state import pack_state, unpack_state

ONE, TWO = b"one-one-one-one-", b"two-two-two-two-"
UNIFORM = np.full((1, 2), 0.5, np.float32)


def visits(*entries: tuple[bytes, float, int, float, float]) -> Visits:
    """From (class set, λ, action, return without cost, cost)."""
    sets, weights, actions, returns, costs = zip(*entries, strict=True)
    return Visits(sets, np.array(weights), np.array(actions), np.array(returns), np.array(costs))


def preferences(*, step_size: float = 0.5, cost_weights: tuple[float, ...] = (0.1,)) -> ClassSetPreferences:
    return ClassSetPreferences(2, cost_weights, step_size=step_size)


def test_steps_by_hand() -> None:
    known = preferences()
    known.learn(visits((ONE, 0.1, 0, -2.0, 3.0)), UNIFORM)
    assert known.logits(ONE, 0.1).tolist() == [0, 0]  # there is nothing to compare it with
    # Under λ = 0.1 the first visit earned -2.3. The second, -2.2, beats it and is beaten by the third, -2.1: utilities
    # 0 and 1, each times (taken - probability).
    known.learn(visits((ONE, 0.1, 0, -2.0, 2.0), (ONE, 0.1, 1, -2.0, 1.0)), np.array([[0.5, 0.5], [0.75, 0.25]]))
    assert known.logits(ONE, 0.1).tolist() == [-0.375, 0.375]
    # Equal to the best: beats two, is beaten by none.
    known.learn(visits((ONE, 0.1, 0, -2.0, 1.0)), UNIFORM)
    assert known.logits(ONE, 0.1) == pytest.approx([-0.375 + 0.25 * 2 / 3, 0.375 - 0.25 * 2 / 3])
    assert known.logits(TWO, 0.1).tolist() == [0, 0]


def test_only_ranks_matter() -> None:
    tables = [preferences(), preferences()]
    for known, scale in zip(tables, (1.0, 1000.0), strict=True):
        known.learn(visits(*((ONE, 0.1, i % 2, scale * i, 0.0) for i in range(4))), np.repeat(UNIFORM, 4, 0))
    assert tables[0].logits(ONE, 0.1).tolist() == tables[1].logits(ONE, 0.1).tolist()
    assert tables[0].logits(ONE, 0.1)[1] > 0


def test_each_weight_learns_for_itself_and_a_strange_one_counts_as_the_nearest_by_ratio() -> None:
    known = preferences(cost_weights=(0.001, 0.1))
    known.learn(visits((ONE, 0.1, 0, -1.0, 0.0), (ONE, 0.1, 1, -2.0, 0.0)), np.repeat(UNIFORM, 2, 0))
    assert known.logits(ONE, 0.1).tolist() == [0.5, -0.5]
    assert known.logits(ONE, 0.001).tolist() == [0, 0]
    assert known.logits(ONE, 0.011).tolist() == [0.5, -0.5]
    assert known.logits(ONE, 0.009).tolist() == [0, 0]
    assert preferences(cost_weights=(0.0, 0.1)).logits(ONE, 0.0).tolist() == [0, 0]


def test_the_better_action_wins_in_noise() -> None:
    rng = np.random.default_rng(0)
    known = ClassSetPreferences(3, (0.1,), step_size=1.0)
    for _ in range(200):
        logits = known.logits(ONE, 0.1)
        probability = np.exp(logits - logits.max())
        probability /= probability.sum()
        action = int(rng.choice(3, p=probability))
        known.learn(visits((ONE, 0.1, action, [0.0, 1.0, 0.5][action] + rng.normal(), 0.0)), probability[None])
    assert probability[1] > 0.9


def test_old_visits_are_forgotten() -> None:
    known = preferences()
    known.learn(visits(*[(ONE, 0.1, 0, 9.0, 0.0)] * 5), np.repeat(UNIFORM, 5, 0))
    known.learn(visits(*[(ONE, 0.1, 0, -1.0, 0.0)] * WINDOW), np.repeat(UNIFORM, WINDOW, 0))
    before = known.logits(ONE, 0.1).copy()
    known.learn(visits((ONE, 0.1, 0, 0.0, 0.0)), UNIFORM)
    assert (known.logits(ONE, 0.1) - before).tolist() == [0.25, -0.25]  # it beats all that are left


def test_the_state_goes_round() -> None:
    rng = np.random.default_rng(1)
    known, other = preferences(cost_weights=(0.01, 0.1)), preferences(cost_weights=(0.01, 0.1))
    entries = [(ONE if rng.random() < 0.5 else TWO, 0.1, int(rng.integers(2)), rng.normal(), 1.0) for _ in range(9)]
    known.learn(visits(*entries, (b"3" * 16, 0.01, 0, 1.0, 2.0)), np.repeat(UNIFORM, 10, 0))
    other.load(unpack_state(pack_state(known.state())))
    for table in (known, other):
        table.learn(visits((ONE, 0.1, 1, 0.3, 0.1), (b"3" * 16, 0.01, 1, 0.0, 2.0)), np.repeat(UNIFORM, 2, 0))
    for key in ((ONE, 0.1), (TWO, 0.1), (b"3" * 16, 0.01)):
        assert known.logits(*key).any()
        assert known.logits(*key).tolist() == other.logits(*key).tolist()
    known.clear()
    assert not known.logits(ONE, 0.1).any()
    known.load(unpack_state(pack_state(known.state())))
    assert not known.logits(ONE, 0.1).any()
