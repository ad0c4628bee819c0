"""What is kept of a worker's outcomes, and when it is read."""

import numpy as np
import pytest

from treesearch import Tree
from treesearch.evaluation.frozen import NodeScores
from treesearch.search.durable import DurableExecutor
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.ledger import Ledger, Position
from treesearch.search.outcomes import pack_outcome, task_key, unpack_outcome
from treesearch.search.worker import ForestTask, FrozenTask, JointScores, JointTask

TREE, OTHER = Tree.from_nested([[0, 1], [2, 3]]), Tree.from_nested([0, 1, 2, 3])
NAN = float("nan")
SCORES = NodeScores(np.array([1 / 3, NAN, 0.1 + 0.2]), np.array([5, 0, 2]), 5)
RESULTS = {
    "nodes": SCORES,
    "forest": [SCORES, "FloatingPointError: nan", NodeScores(np.zeros(1), np.ones(1, np.int64), 1)],
    "joint": JointScores(5.5, None, 2),
    "confirm": JointScores(5.5, 1e-300, 2, np.array([0.25, 7], np.float32)),
}


def frozen(tree=TREE, wanted=None, tokens=None):
    return FrozenTask(tree, None if wanted is None else np.array(wanted), tokens)


def joint(tree=TREE, rate=0.1, seed=0, test=False, warm=False):
    return JointTask(tree, rate, seed, test, warm)


DIFFERENT = [
    frozen(),
    frozen(OTHER),
    frozen(wanted=[True, False, True]),
    frozen(wanted=[True, True, False]),
    frozen(tokens=7),
    ForestTask((TREE,)),
    ForestTask((TREE, OTHER)),
    ForestTask((OTHER, TREE)),
    ForestTask((TREE,), 7),
    joint(),
    joint(OTHER),
    joint(rate=0.1 + 1e-17),
    joint(rate=0.2),
    joint(seed=1),
    joint(test=True),
    joint(warm=True),
]


def test_keys_are_equal_where_results_must_be():
    keys = [task_key(payload, "e0") for payload in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert task_key(frozen(Tree.from_nested([[1, 0], [3, 2]])), "e0") == keys[0]
    changed = [task_key(payload, "e1") != key for payload, key in zip(DIFFERENT, keys, strict=True)]
    assert changed == [not isinstance(p, JointTask) or p.warm for p in DIFFERENT], "the encoder, where it matters"


@pytest.mark.parametrize("name", RESULTS)
def test_outcomes_survive(name):
    task = Task(3, frozen())
    outcome = Outcome(task, RESULTS[name], None, 2, 0.125, "ray-1")
    packed = pack_outcome(outcome)
    again = unpack_outcome(task, packed)
    assert type(again.result) is type(outcome.result)
    assert (again.reason, again.attempts, again.seconds, again.worker) == (None, 2, 0.125, "ray-1")
    assert pack_outcome(again) == packed


class Worker(Executor):
    """Fails where told to; remembers what it ran and what arrays it got."""

    num_workers = 1
    num_busy = 0

    def __init__(self, failing=()):
        super().__init__()
        self.failing, self.ran, self.arrays, self.closed = set(failing), [], [], False

    def _outcomes(self, tasks):
        for task in tasks:
            if self._stopped:
                return
            self.ran.append(task.key)
            bad = task.key in self.failing
            yield Outcome(task, None if bad else SCORES, "ValueError: x" if bad else None, 1, 0.5, "w")

    def _replace(self, arrays):
        self.arrays.append(arrays)

    def _release(self):
        self.closed = True


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        ledger.set_meta("encoder", "e0")
        yield ledger


TASKS = [Task(0, frozen()), Task(1, frozen(OTHER)), Task(2, joint())]


def run(ledger, tasks=TASKS, **options):
    worker = Worker(**options)
    with DurableExecutor(worker, ledger) as executor:
        outcomes = {outcome.task.key: outcome for outcome in executor.run(tasks)}
    assert worker.closed
    return worker.ran, outcomes


def test_what_was_answered_is_not_run_again_but_failures_are(ledger):
    ran, first = run(ledger, failing=[1])
    assert ran == [0, 1, 2]
    ran, again = run(ledger)
    assert ran == [1]
    assert [pack_outcome(again[key]) for key in (0, 2)] == [pack_outcome(first[key]) for key in (0, 2)]
    assert again[1].ok
    assert not first[1].ok


def test_after_a_batch_only_joint_training_is_known(ledger):
    run(ledger)
    ledger.finish_batch(Position(0, "e0", spent=2, began=2, proposed=0), b"", {})
    assert run(ledger)[0] == [0, 1]


def test_another_encoder(ledger):
    run(ledger)
    ledger.set_meta("encoder", "e1")
    assert run(ledger)[0] == [0, 1]


def test_a_stopped_run_is_an_interrupt_once_what_is_under_way_is_finished(ledger):
    worker, done = Worker(), []
    executor = DurableExecutor(worker, ledger)
    assert not executor.busy

    def until_stopped():
        for outcome in executor.run(TASKS):
            assert executor.busy
            done.append(outcome.task.key)
            executor.stop()

    with pytest.raises(KeyboardInterrupt, match="stopped before everything was begun"):
        until_stopped()
    assert not executor.busy
    assert done == worker.ran == [0]
    assert run(ledger)[0] == [1, 2]


def test_arrays_reach_the_workers(ledger):
    worker = Worker()
    with DurableExecutor(worker, ledger) as executor:
        executor.replace_arrays({"x": np.zeros(1)})
    assert len(worker.arrays) == 1
