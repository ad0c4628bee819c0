"""What a running search tells: rewards under the run's λ, whatever the proposals are for."""

import pytest

from treesearch.cost import CostModel
from treesearch.search.evaluation_row import FAILED, FROZEN, OK, STOPPED, EvaluationRow
from treesearch.search.monitor import RATE_WINDOW, SearchMonitor


class Screen:
    def __init__(self):
        self.told, self.logged, self.steps = [], [], []

    def log(self, step, metrics):
        self.steps.append(step)
        self.logged.append(metrics)

    def search(self, status):
        assert status.budget == 9
        self.told.append(status)

    @property
    def rewards(self):
        return [(status.done, status.best_reward, status.gain) for status in self.told]


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def clock():
    """A clock that tests move."""
    return [1000.0]


@pytest.fixture
def monitor(screen, clock):
    return SearchMonitor(9, CostModel(8, 0.1), screen, screen.log, clock=lambda: clock[0])


def row(number, nll, cost, *, label=None, status=OK, weight=50.0, batch=0, encoder="e"):
    reward = None if nll is None else -nll - weight * cost
    return EvaluationRow(
        id=number,
        rung=FROZEN,
        batch=batch,
        encoder=encoder,
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
    assert screen.rewards == [(1, -6.0, 0.0), (2, -5.5, 0.5), (3, -5.5, 0.5)]
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
    assert screen.rewards == [(1, None, None), (2, None, None), (3, -6.0, None)]
    assert [(status.num_failed, status.num_stopped) for status in screen.told] == [(1, 0), (1, 1), (1, 1)]
    assert [one["failures"] for one in screen.logged] == [1, 1, 1]
    assert "reward" not in screen.logged[0]
    assert "best_reward" not in screen.logged[1]


def test_a_new_encoder_starts_anew(monitor, screen):
    monitor(row(1, 2.0, 10.0, label="huffman"))
    monitor.new_encoder()
    monitor(row(2, 5.0, 10.0))
    monitor(row(3, 6.0, 10.0, label="huffman"))
    assert screen.rewards[1:] == [(2, -6.0, None), (3, -6.0, 1.0)]


def test_a_batch_has_its_rewards_its_rate_and_what_the_agent_says(monitor, screen, clock):
    for number in (1, 2):
        monitor(row(number, 5.0 + number, 10.0))
    clock[0] += 1.5
    monitor(row(3, None, 10.0, status=FAILED))
    monitor.end_batch({"entropy": 1.5})
    monitor(row(4, 4.0, 10.0))
    monitor.end_batch({})
    first, second = screen.logged[3], screen.logged[5]
    assert (screen.steps[3], screen.steps[5]) == (3, 4)
    assert first["agent/entropy"] == 1.5
    assert first["batch_rewards"] == pytest.approx([-7.0, -8.0])
    assert second["batch_rewards"] == pytest.approx([-5.0])
    assert first["evaluations_per_second"] == pytest.approx(2.0)
    assert second["evaluations_per_second"] > 0, "in no time at all"
    monitor(row(5, 4.0, 10.0))
    assert screen.told[-1].batch_means == pytest.approx([-7.5, -5.0, -5.0]), "of the last so far"


def test_a_batch_of_failures_has_no_mean(monitor, screen):
    monitor(row(1, None, 10.0, status=FAILED))
    monitor.end_batch({})
    assert screen.told[-1].batch_means == ()
    monitor(row(2, 4.0, 10.0))
    assert screen.told[-1].batch_means == (-5.0,)


# -- the rate


def test_the_rate_is_unknown_at_the_start(monitor, screen, clock):
    for number, seconds in enumerate((0.1, 0.1, 0.7, 0.1), start=1):
        clock[0] += seconds
        monitor(row(number, 5.0, 10.0))
    assert [status.rate for status in screen.told[:3]] == [None] * 3, "too few, or too short a time, to tell"
    assert screen.told[3].rate == pytest.approx(4 / 1.0)
    clock[0] += 9
    monitor(row(5, 5.0, 10.0))
    assert (screen.told[4].rate, screen.told[4].rate_window) == (pytest.approx(5 / 10), 5)


def test_the_rate_is_of_the_last_evaluations(screen, clock):
    monitor = SearchMonitor(9, CostModel(8, 0.1), screen, screen.log, clock=lambda: clock[0])
    for number in range(10 + RATE_WINDOW):
        clock[0] += 100.0 if number < 10 else 0.25
        monitor(row(number, 5.0, 10.0))
    assert (screen.told[-1].rate, screen.told[-1].rate_window) == (pytest.approx(4.0), RATE_WINDOW)
    monitor.new_encoder()
    clock[0] += 1.0
    monitor(row(99, 5.0, 10.0))
    assert screen.told[-1].rate is None, "training an encoder is no evaluation"


def test_a_resumed_search_knows_what_was_done_but_takes_the_time_of_its_own(monitor, screen, clock):
    before = [
        row(1, 5.0, 10.0, label="huffman", batch=0),
        row(2, 1.0, 10.0, batch=1, encoder="another"),
        row(3, None, 10.0, batch=1, status=FAILED),
        row(4, 3.0, 10.0, batch=1),
        row(5, 4.0, 10.0, batch=1),
        row(6, None, 10.0, batch=2, status=STOPPED),
    ]
    monitor.recall(before, "e")
    assert screen.told == []
    clock[0] += 10
    for number in (7, 8):
        monitor(row(number, 5.0, 10.0))
    status = screen.told[-1]
    assert (status.done, status.num_failed, status.num_stopped) == (8, 1, 1)
    assert (status.best_reward, status.gain) == (-4.0, 2.0)
    assert status.batch_means == pytest.approx([-6.0, -4.5, -6.0])
    assert (status.rate, status.rate_window) == (pytest.approx(0.2), 2)
