"""What a running search tells: rewards under the run's λ, whatever the proposals are for."""

import pytest

from treesearch.cost import CostModel
from treesearch.search.ledger import FAILED, FROZEN, OK, STOPPED, EvaluationRow
from treesearch.search.monitor import SearchMonitor


class Screen:
    def __init__(self):
        self.told, self.logged, self.steps = [], [], []

    def log(self, step, metrics):
        self.steps.append(step)
        self.logged.append(metrics)

    def update(self, stage, done, total, note=""):
        assert (stage, total) == ("search", 9)
        self.told.append((done, note))


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def monitor(screen):
    return SearchMonitor(9, CostModel(8, 0.1), screen, screen.log)


def row(number, nll, cost, *, label=None, status=OK, weight=50.0):
    reward = None if nll is None else -nll - weight * cost
    return EvaluationRow(
        id=number,
        rung=FROZEN,
        batch=0,
        agent="a",
        label=label,
        tree_hash="h",
        status=status,
        cost_weight=weight,
        reward=reward,
        valid_nll=nll,
        cost=cost,
        seconds=0.5,
    )


def test_rewards_are_under_the_weight_that_the_run_reports(monitor, screen):
    monitor(row(1, 5.0, 10.0, label="huffman"))
    monitor(row(2, 4.0, 15.0))  # worse than Huffman under its own λ
    monitor(row(3, 6.0, 1.0, weight=0.0))
    assert screen.told == [
        (1, "best reward -6.0000 (+0.0000 over Huffman)"),
        (2, "best reward -5.5000 (+0.5000 over Huffman)"),
        (3, "best reward -5.5000 (+0.5000 over Huffman)"),
    ]
    assert [one["reward"] for one in screen.logged] == pytest.approx([-6.0, -5.5, -6.1])
    assert [one["best_reward"] for one in screen.logged] == pytest.approx([-6.0, -5.5, -5.5])
    assert screen.steps == [1, 2, 3]
    assert screen.logged[1] | {"reward": 0, "best_reward": 0} == {
        "failures": 0.0,
        "reward": 0,
        "best_reward": 0,
        "valid_nll": 4.0,
        "cost": 15.0,
        "seconds": 0.5,
    }


def test_failures_are_counted_and_stops_are_none(monitor, screen):
    monitor(row(1, None, 10.0, status=FAILED))
    monitor(row(2, None, 10.0, status=STOPPED))
    monitor(row(3, 5.0, 10.0))
    assert screen.told == [(1, "1 failed"), (2, "1 failed"), (3, "best reward -6.0000, 1 failed")]
    assert [one["failures"] for one in screen.logged] == [1, 1, 1]
    assert "reward" not in screen.logged[0]
    assert "best_reward" not in screen.logged[1]


def test_a_new_encoder_starts_anew(monitor, screen):
    monitor(row(1, 2.0, 10.0, label="huffman"))
    monitor.new_encoder()
    monitor(row(2, 5.0, 10.0))
    monitor(row(3, 6.0, 10.0, label="huffman"))
    assert screen.told[1:] == [
        (2, "best reward -6.0000"),
        (3, "best reward -6.0000 (+1.0000 over Huffman)"),
    ]


def test_a_batch_has_its_rewards_its_rate_and_what_the_agent_says(monitor, screen):
    for number in (1, 2):
        monitor(row(number, 5.0 + number, 10.0))
    monitor(row(3, None, 10.0, status=FAILED))
    monitor.end_batch({"entropy": 1.5})
    monitor(row(4, 4.0, 10.0))
    monitor.end_batch({})
    first, second = screen.logged[3], screen.logged[5]
    assert (screen.steps[3], screen.steps[5]) == (3, 4)
    assert first["agent/entropy"] == 1.5
    assert first["batch_rewards"] == pytest.approx([-7.0, -8.0])
    assert second["batch_rewards"] == pytest.approx([-5.0])
    assert min(one["evaluations_per_second"] for one in (first, second)) > 0
