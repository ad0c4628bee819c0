"""The asynchronous search: no worker waits for another, and a killed one goes on where it was."""

import json

import numpy as np
import pytest

from tests.search.frozen_fakes import TimedExecutor, distinct, mean_nll
from treesearch import Tree
from treesearch.cost import CostModel
from treesearch.errors import ExecutionError
from treesearch.search.durable import DurableExecutor
from treesearch.search.evaluation_row import CACHED, FAILED, OK, STOPPED
from treesearch.search.frozen_rung import BUILDER, Candidate, EarlyStop, FrozenRung, Objective
from treesearch.search.ledger import Ledger
from treesearch.search.loop import Era, search

NUM_CLASSES = 8
COUNTS = np.arange(NUM_CLASSES, 0, -1.0)
OBJECTIVE = Objective(COUNTS, CostModel(6, 0.5), encoder="e0")
BUILDERS = [Candidate(Tree.from_nested([0, [1, [2, [3, [4, [5, [6, 7]]]]]]]), BUILDER, "huffman")]
TREES = distinct(200, num_classes=NUM_CLASSES, but=[BUILDERS[0].tree])


class Deck:
    """A proposer that deals trees in a fixed order and keeps what it is told; its state is all of that."""

    def __init__(self, trees=TREES):
        self.trees, self.dealt, self.pending, self.told = list(trees), 0, {}, []

    def demonstrate(self):
        return []

    def warm_start(self, scores):
        pass

    def ask(self, num, batch):
        return [self._deal(batch) for _ in range(num)]

    def _deal(self, batch):
        number, self.dealt = self.dealt, self.dealt + 1
        self.pending[number] = batch
        return self._candidate(number)

    def _candidate(self, number):
        return Candidate(self.trees[number], "deck", number=number, batch=self.pending[number])

    def tell(self, told):
        self.told.append([(candidate.number, score.valid_nll, score.exact) for candidate, score in told])
        for candidate, _ in told:
            del self.pending[candidate.number]
        return {}

    def under_way(self):
        return [self._candidate(number) for number in self.pending]

    def pack(self):
        return json.dumps([self.dealt, list(self.pending.items()), self.told]).encode()

    def unpack(self, state):
        self.dealt, pending, told = json.loads(state)
        self.pending = dict(pending)
        self.told = [[tuple(one) for one in batch] for batch in told]


def uneven(tree):
    """Seconds from 1 to 10, by content."""
    return 1 + int(tree.hash[:4], 16) % 1000 / 111


def run(ledger, executor, deck, *, evaluations=61, batch_size=6, asynchronous=True, **options):
    rung = FrozenRung(executor, ledger, OBJECTIVE, lambda row: None, **options)
    era = Era(rung, BUILDERS, deck)
    checkpoint = ledger.last_batch()
    position = None
    if checkpoint is not None:
        position = checkpoint.position
        deck.unpack(checkpoint.agent_state)
        ledger.rewind(keep="e0")
        rung.restore(position.batch)
    search(era, ledger, evaluations=evaluations, batch_size=batch_size, asynchronous=asynchronous, position=position)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        yield ledger


# -- busy workers


@pytest.mark.parametrize("num_workers", [2, 16])
def test_workers_are_busy_however_uneven_the_evaluations(ledger, num_workers):
    executor = TimedExecutor(uneven, num_workers=num_workers)
    run(ledger, executor, Deck(), evaluations=161)
    start = uneven(BUILDERS[0].tree)  # alone
    assert {uneven(tree) < 2 for tree in TREES} == {uneven(tree) > 9 for tree in TREES} == {True, False}
    last = 10.0  # seconds in which the last evaluations end one after the other
    assert executor.busy - start >= 0.95 * num_workers * (executor.clock - start - last)
    if num_workers == 2:
        assert executor.busy - start >= 0.95 * num_workers * (executor.clock - start)


def test_a_barrier_keeps_them_waiting(ledger):
    executor = TimedExecutor(uneven, num_workers=2)
    run(ledger, executor, Deck(), evaluations=161, asynchronous=False)
    assert executor.busy < 0.95 * 2 * executor.clock, "or the test above says nothing"


# -- what is told


def test_batches_are_what_finishes_next(ledger):
    deck = Deck()
    run(ledger, TimedExecutor(uneven, num_workers=4), deck)
    rows = ledger.rows()
    assert [row.id for row in rows] == list(range(1, 62))
    assert [row.batch for row in rows] == [0] + [1 + i // 6 for i in range(60)]
    numbers = {tree.hash: number for number, tree in enumerate(TREES)}
    finished = [numbers[row.tree_hash] for row in rows[1:]]
    assert [number for batch in deck.told for number, _, _ in batch] == finished
    assert sorted(finished) == list(range(60)) != finished
    for row in rows[1:]:
        assert row.valid_nll == pytest.approx(mean_nll(TREES[numbers[row.tree_hash]]))
    assert deck.pending == {}
    assert ledger.last_batch().position.spent == 61


def test_staleness_is_the_number_of_updates_since_the_proposal(ledger):
    slow = TREES[0]
    run(ledger, TimedExecutor(lambda tree: 100.0 if tree == slow else 1.0, num_workers=2), Deck())
    by_tree = {row.tree_hash: row for row in ledger.rows()[1:]}
    assert ledger.rows()[0].staleness is None
    assert by_tree[slow.hash].batch == 10
    assert by_tree[slow.hash].staleness == 9, "it was asked for the first batch, and finishes last"
    assert {row.staleness for row in by_tree.values()} == {0, 9}


def test_with_a_barrier_nothing_is_stale(ledger):
    run(ledger, TimedExecutor(uneven, num_workers=4), Deck(), asynchronous=False)
    assert {row.staleness for row in ledger.rows()[1:]} == {0}


def test_one_worker_asks_when_the_last_batch_is_told(ledger, tmp_path):
    """So that both modes do the same."""
    run(ledger, TimedExecutor(uneven, num_workers=1), Deck())
    with Ledger(tmp_path / "other.db", create=True) as other:
        run(other, TimedExecutor(uneven, num_workers=1), Deck(), asynchronous=False)
        assert [row.content() for row in ledger.rows()] == [row.content() for row in other.rows()]


def test_what_is_known_or_under_way_is_not_run_again(ledger):
    first, second, third = TREES[:3]
    deck = Deck([first, first, BUILDERS[0].tree, second, third, first])
    executor = TimedExecutor(lambda tree: 2.0, num_workers=3)
    run(ledger, executor, deck, evaluations=7, batch_size=3)
    assert executor.ran == [BUILDERS[0].tree.hash, first.hash, second.hash, third.hash]
    assert [(row.tree_hash, row.status) for row in ledger.rows()[1:]] == [
        (BUILDERS[0].tree.hash, CACHED),
        (first.hash, OK),
        (first.hash, CACHED),
        (first.hash, CACHED),
        (second.hash, OK),
        (third.hash, OK),
    ]
    assert sorted(number for batch in deck.told for number, _, _ in batch) == list(range(6))


def test_failures_and_stops(ledger):
    bad = {tree.hash for tree in TREES[:60:5]}
    deck = Deck()
    executor = TimedExecutor(uneven, num_workers=3, fails=lambda tree: "ValueError: x" if tree.hash in bad else None)
    run(ledger, executor, deck, early_stop=EarlyStop(0.4))
    status = {row.tree_hash: row.status for row in ledger.rows()}
    assert {status[tree_hash] for tree_hash in bad} <= {FAILED, STOPPED}
    assert set(status.values()) == {OK, FAILED, STOPPED}
    exact = {number: exact for batch in deck.told for number, _, exact in batch}
    assert all(exact[number] == (status[TREES[number].hash] == OK) for number in range(60))
    assert not {row.tree_hash for row in ledger.rows() if row.status == STOPPED} & set(executor.ran)


def test_too_many_failures_in_a_row_end_it(ledger):
    executor = TimedExecutor(uneven, num_workers=2, fails=lambda tree: f"ValueError: {tree.hash}")
    with pytest.raises(ExecutionError, match=f"the first with: ValueError: {BUILDERS[0].tree.hash}"):
        run(ledger, executor, Deck(), max_consecutive_failures=5)
    assert [row.status for row in ledger.rows()] == [FAILED] * 5


def test_nodes_of_two_trees_under_way_are_trained_for_both(ledger):
    shared = [[0, 1], [2, 3]]
    one, other = Tree.from_nested([shared, [4, 5, 6, 7]]), Tree.from_nested([shared, [[4, 5], [6, 7]]])
    run(ledger, TimedExecutor(lambda tree: 1.0, num_workers=2), Deck([one, other]), evaluations=3)
    assert [row.nodes_trained for row in ledger.rows()[1:]] == [5, 7 - 1], "the same root decision is the same node"


# -- interruption


class Killed(BaseException):
    """As by a signal."""


class Mortal(TimedExecutor):
    """Dies before the answer of this number."""

    def __init__(self, dies, **options):
        super().__init__(uneven, **options)
        self.dies = dies

    def _answer(self, task, worker, seconds):
        if len(self.asked) == self.dies:
            raise Killed
        return super()._answer(task, worker, seconds)


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_one_loses_nothing_and_counts_nothing_twice(ledger, seed):
    rng = np.random.default_rng(seed)
    ran = []
    for _ in range(3):
        deck, executor = Deck(), Mortal(int(rng.integers(1, 19)), num_workers=4)
        with pytest.raises(Killed):
            run(ledger, executor, deck)
        ran += executor.ran
    deck, executor = Deck(), TimedExecutor(uneven, num_workers=4)
    run(ledger, executor, deck)
    ran += executor.ran
    rows = ledger.rows()
    assert [row.id for row in rows] == list(range(1, 62))
    assert sorted(number for batch in deck.told for number, _, _ in batch) == list(range(60))
    assert sorted(row.tree_hash for row in rows[1:]) == sorted(tree.hash for tree in TREES[:60])
    assert all(row.status == OK for row in rows)
    for batch in deck.told:
        for number, nll, exact in batch:
            assert exact
            assert nll == pytest.approx(mean_nll(TREES[number]))
    twice = [tree_hash for tree_hash in set(ran) if ran.count(tree_hash) > 1]
    assert set(twice) <= {BUILDERS[0].tree.hash}, "answers that the ledger holds are not run again"


class Fickle(Deck):
    """Deals other trees after every batch that it is told, as an agent does that learns."""

    def _deal(self, batch):
        number, self.dealt = self.dealt, self.dealt + 1
        self.pending[number] = batch, (number + 37 * len(self.told)) % len(self.trees)
        return self._candidate(number)

    def _candidate(self, number):
        batch, index = self.pending[number]
        return Candidate(self.trees[index], "deck", number=number, batch=batch)


@pytest.mark.parametrize("seed", range(12))
def test_fewer_workers_find_what_more_had_finished(ledger, seed):
    """A proposal that was finished is made again before the agent learns anything new."""
    rng = np.random.default_rng(seed)
    for num_workers in (8, 4, 2):
        with pytest.raises(Killed):
            run(ledger, Mortal(int(rng.integers(5, 13)), num_workers=num_workers), Fickle(), batch_size=3)
    deck = Fickle()
    run(ledger, TimedExecutor(uneven, num_workers=1), deck, batch_size=3)
    assert [row.id for row in ledger.rows()] == list(range(1, 62)), "no row is left over"
    assert ledger.last_batch().position.spent == 61
    assert sorted(number for batch in deck.told for number, _, _ in batch) == list(range(60))


def test_what_is_under_way_keeps_its_batch_and_number(ledger):
    slow = TREES[0]
    executor = Mortal(20, num_workers=2)
    executor.seconds = lambda tree: 100.0 if tree == slow else 1.0
    with pytest.raises(Killed):
        run(ledger, executor, Deck())
    deck = Deck()
    run(ledger, TimedExecutor(lambda tree: 1.0, num_workers=2), deck)
    row = next(row for row in ledger.rows() if row.tree_hash == slow.hash)
    assert (row.batch, row.staleness) == (4, 3)


def test_a_stopped_one_finishes_what_is_under_way(ledger):
    workers = TimedExecutor(uneven, num_workers=3)
    ledger.set_meta("encoder", "e0")
    executor = DurableExecutor(workers, ledger)
    rung = FrozenRung(executor, ledger, OBJECTIVE, lambda row: executor.stop() if row.id == 30 else None)
    with pytest.raises(KeyboardInterrupt):
        search(Era(rung, BUILDERS, Deck()), ledger, evaluations=61, batch_size=6, asynchronous=True)
    assert len(ledger.rows()) == len(workers.ran) == 32
    deck, workers = Deck(), TimedExecutor(uneven, num_workers=3)
    run(ledger, workers, deck)
    assert len(workers.ran) <= 61 - 32
    assert sorted(number for batch in deck.told for number, _, _ in batch) == list(range(60))


def test_the_encoder_is_refreshed_once_all_is_told(ledger):
    eras = []

    def era():
        rung = FrozenRung(
            TimedExecutor(uneven, num_workers=4),
            ledger,
            Objective(COUNTS, CostModel(6, 0.5), encoder=f"e{len(eras)}"),
            lambda row: None,
        )
        eras.append(len(ledger.rows()))
        return Era(rung, BUILDERS, deck)

    deck = Deck()
    search(era(), ledger, evaluations=40, batch_size=4, asynchronous=True, refresh_every=10, next_era=era)
    assert eras == [0, 13, 26], "a builder and three batches each"
    assert [row.encoder for row in ledger.rows()] == ["e0"] * 13 + ["e1"] * 13 + ["e2"] * 14
    assert deck.pending == {}
