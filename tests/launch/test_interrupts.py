"""What the first and the second Ctrl-C do; whole searches that are interrupted are in `test_resume`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.search import fakes
from treesearch.launch.interrupts import SIGNALS, finish_what_is_under_way
from treesearch.search.durable import DurableExecutor
from treesearch.search.executors import LocalExecutor, Task
from treesearch.search.ledger import Ledger

TASKS = [Task(key, ("dot", key), durable=False) for key in range(4)]


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[DurableExecutor]:
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        ledger.set_meta("encoder", "e")
        workers = LocalExecutor(fakes.make_commands, arrays={"x": np.ones(1000, np.float32)}, settings={"scale": 1.0})
        with DurableExecutor(workers, ledger) as executor:
            yield executor


@contextmanager
def told(executor: DurableExecutor) -> Iterator[list[str]]:
    """What is said meanwhile; afterwards the signals are handled as before."""
    before, said = [signal.getsignal(number) for number in SIGNALS], list[str]()
    with finish_what_is_under_way(executor, said.append):
        yield said
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_under_way_is_finished(executor: DurableExecutor, number: signal.Signals) -> None:
    done = []

    def interrupted_at_every_outcome() -> None:
        for outcome in executor.run(TASKS):
            done.append(outcome)
            signal.raise_signal(number)

    with told(executor) as said, pytest.raises(KeyboardInterrupt, match="stopped before everything was begun"):
        interrupted_at_every_outcome()
    assert [outcome.ok for outcome in done] == [True]
    assert said == ["stopping: evaluations that are under way are finished; once more to end at once"]


def test_the_second_one_ends_at_once(executor: DurableExecutor) -> None:
    with told(executor):
        next(executor.run(TASKS))
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_between_two_runs_it_is_an_interrupt(executor: DurableExecutor) -> None:
    with pytest.raises(KeyboardInterrupt), told(executor) as said:
        signal.raise_signal(signal.SIGINT)
    assert said == []


def test_one_that_is_lost_ends_the_search_all_the_same(executor: DurableExecutor) -> None:
    """As in a destructor, of which Python ignores what it raises."""
    with told(executor):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="stopped before everything was begun"):
            list(executor.run(TASKS))
