import json

import numpy as np
import pytest

from tests.nested import random_nested
from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.errors import ExecutionError
from treesearch.evaluation.frozen import NodeScores
from treesearch.search.executors import Executor, Outcome
from treesearch.search.ledger import CACHED, FAILED, FROZEN, OK, Ledger
from treesearch.search.loop import BUILDER, MAX_CONSECUTIVE_FAILURES, Candidate, FrozenRung, Objective, search

COUNTS = np.array([8.0, 4, 2, 1, 1])
OBJECTIVE = Objective(COUNTS, CostModel(6, 0.5), encoder="e0")
NUM_TOKENS = 10


HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]])
TWO_PARTS = Tree.from_nested([[0, 1], [2, 3, 4]])
BUILDERS = [
    Candidate(HUFFMAN, BUILDER, "huffman"),
    Candidate(Tree.from_nested([0, 1, 2, 3, 4]), BUILDER, "flat"),
]


def nll(tree):
    """What the fake worker says of each node: some numbers that the tree alone decides."""
    return np.random.default_rng(int(tree.hash[:8], 16)).uniform(1, 5, tree.num_internal)


class FakeExecutor(Executor):
    """Finishes tasks last to first, and fails where ``fails(tree)`` gives a reason."""

    num_workers = 3

    def __init__(self, fails=lambda tree: None):
        super().__init__()
        self.fails = fails
        self.ran = []

    def _outcomes(self, tasks):
        for task in reversed(tasks):
            tree = task.payload.tree
            self.ran.append(tree.hash)
            reason = self.fails(tree)
            result = (
                NodeScores(nll(tree), np.zeros(tree.num_internal, np.int64), NUM_TOKENS) if reason is None else None
            )
            yield Outcome(task, result, reason, 1, 0.5, "fake-0")

    def _release(self):
        pass


class Script:
    """A proposer that proposes a list of trees and keeps what it is told."""

    def __init__(self, trees):
        self.trees = list(trees)
        self.asked = []
        self.told = []

    def ask(self, num):
        self.asked.append(num)
        batch, self.trees = self.trees[:num], self.trees[num:]
        return [Candidate(tree, "script", actions=("close", f"split({i})")) for i, tree in enumerate(batch)]

    def tell(self, scores):
        self.told.append(list(scores))
        return {"batches": float(len(self.told))}

    def pack(self):
        return f"state after {len(self.told)}".encode()


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        yield ledger


def run(ledger, trees, *, evaluations, batch_size=3, fails=lambda tree: None, builders=BUILDERS):
    """A whole search; gives executor, proposer and the rows that were announced, in that order."""
    executor, script, announced = FakeExecutor(fails), Script(trees), []
    rung = FrozenRung(executor, ledger, OBJECTIVE, announced.append)
    search(rung, script, builders, ledger, evaluations=evaluations, batch_size=batch_size)
    return executor, script, announced


def distinct(num):
    """Different trees, none of which a builder built; there are 236 over five classes."""
    rng, known = np.random.default_rng(0), {builder.tree for builder in BUILDERS}
    trees = []
    while len(trees) < num:
        tree = Tree.from_nested(random_nested(rng, len(COUNTS)))
        if tree not in known:
            known.add(tree)
            trees.append(tree)
    return trees


# -- budget and order


@pytest.mark.parametrize(("evaluations", "asked"), [(3, [1]), (5, [3]), (9, [3, 3, 1]), (11, [3, 3, 3])])
def test_the_budget_is_spent_exactly_builders_included(ledger, evaluations, asked):
    _, script, announced = run(ledger, distinct(9), evaluations=evaluations)
    rows = ledger.rows()
    assert script.asked == asked
    assert [row.id for row in rows] == list(range(1, evaluations + 1))
    assert sorted(announced, key=lambda row: row.id) == rows


def test_builders_come_first_and_the_agent_is_not_told_of_them(ledger):
    trees = distinct(3)
    _, script, _ = run(ledger, trees, evaluations=5)
    rows = ledger.rows(FROZEN)
    assert [(row.agent, row.label, row.batch) for row in rows] == [
        (BUILDER, "huffman", 0),
        (BUILDER, "flat", 0),
        *[("script", None, 1)] * 3,
    ]
    assert [len(told) for told in script.told] == [3]


def test_ids_follow_the_proposals_whatever_finishes_first(ledger):
    trees = distinct(6)
    _, script, announced = run(ledger, trees, evaluations=8)
    assert [row.id for row in announced] == [2, 1, 5, 4, 3, 8, 7, 6], "the fake finishes backwards"
    assert [row.tree_hash for row in ledger.rows()][2:] == [tree.hash for tree in trees]
    assert [json.loads(row.actions) for row in ledger.rows()[2:5]] == [["close", f"split({i})"] for i in range(3)]
    for tree, score in zip(trees, [score for told in script.told for score in told], strict=True):
        assert score.valid_nll == pytest.approx(nll(tree).sum() / NUM_TOKENS)


# -- scores


def test_rewards_by_hand(ledger):
    _, script, _ = run(ledger, [TWO_PARTS], evaluations=3)
    row, ((score,),) = ledger.rows()[-1], script.told
    cost = tree_cost(TWO_PARTS, COUNTS, in_features=6)
    # [[0, 1], [2, 3, 4]]: the root and {0, 1} are binary (1 each), {2, 3, 4} costs 1 + 3/20; 12 of 16 go left.
    assert row.cost == cost.cost == pytest.approx(1 + 12 / 16 * 1 + 4 / 16 * 1.15)
    assert (row.expected_depth, row.max_depth) == (2.0, 2)
    assert row.valid_nll == pytest.approx(nll(TWO_PARTS).sum() / NUM_TOKENS)
    assert row.reward == pytest.approx(-row.valid_nll - 0.5 * row.cost)
    assert (row.reward, row.valid_nll) == (score.reward, score.valid_nll)
    assert -score.node_loss.sum() == pytest.approx(row.reward)
    assert (row.encoder, row.status, row.attempts, row.seconds, row.worker) == ("e0", OK, 1, 0.5, "fake-0")
    assert row.test_nll is row.learning_rate is row.seed is row.reason is None


def test_what_was_seen_before_is_cached_and_not_run_again(ledger):
    first, second, third = distinct(3)
    proposals = [first, HUFFMAN, first, second, first, second, third]
    executor, script, _ = run(ledger, proposals, evaluations=9, batch_size=4)
    assert sorted(executor.ran) == sorted({BUILDERS[1].tree.hash, *(tree.hash for tree in proposals)})
    rows = ledger.rows()
    assert [row.status for row in rows] == [OK, OK, OK, CACHED, CACHED, OK, CACHED, CACHED, OK]
    scores = [score for told in script.told for score in told]
    by_tree = {}
    for row, score in zip(rows[2:], scores, strict=True):
        values = (row.reward, row.valid_nll, row.cost, row.expected_depth, row.dot_products, row.max_depth)
        assert by_tree.setdefault(row.tree_hash, values) == values
        assert score.reward == row.reward
    assert by_tree[HUFFMAN.hash][0] == rows[0].reward, "a builder's tree is known, too"
    assert all((row.attempts, row.seconds, row.worker) == (0, 0.0, "") for row in rows if row.status == CACHED)


# -- failures


def test_failures_are_recorded_and_told_as_none(ledger):
    good, bad, other = distinct(3)
    fails = {bad.hash: "FloatingPointError: nan"}
    _, script, _ = run(ledger, [good, bad, bad, other], evaluations=6, batch_size=4, fails=lambda t: fails.get(t.hash))
    rows = ledger.rows()[2:]
    assert [row.status for row in rows] == [OK, FAILED, FAILED, OK]
    assert [score is None for score in script.told[0]] == [False, True, True, False]
    for row in rows[1:3]:
        assert row.reason == "FloatingPointError: nan"
        assert row.reward is row.valid_nll is None
        assert row.cost > 0, "the cost is known without training"
    assert [row.attempts for row in rows[1:3]] == [1, 0], "the second was not run"


def test_what_failed_is_tried_again_in_a_later_batch(ledger):
    (tree,) = distinct(1)
    reasons = iter([None, None, "worker lost: killed", None])
    _, script, _ = run(ledger, [tree, tree], evaluations=4, batch_size=1, fails=lambda t: next(reasons))
    assert [row.status for row in ledger.rows()[2:]] == [FAILED, OK]
    assert script.told[0] == [None]
    assert script.told[1][0] is not None


def test_too_many_failures_in_a_row_end_the_search_with_the_first_cause(ledger):
    number = iter(range(1000))
    with pytest.raises(ExecutionError, match="in a row failed, the first with: ValueError: cause 2") as caught:
        run(
            ledger,
            distinct(40),
            evaluations=42,
            batch_size=7,
            fails=lambda t: None if (n := next(number)) < 2 else f"ValueError: cause {n}",
        )
    assert len(str(caught.value).splitlines()) == 1
    rows = ledger.rows()
    assert len(rows) == 2 + MAX_CONSECUTIVE_FAILURES, "what failed is on record"
    assert all(row.reason for row in rows[2:])


def test_one_success_in_between_starts_the_count_again(ledger):
    number = iter(range(1000))
    run(
        ledger,
        distinct(60),
        evaluations=62,
        fails=lambda t: None if next(number) % MAX_CONSECUTIVE_FAILURES == 0 else "ValueError: x",
    )
    assert len(ledger.rows()) == 62


# -- batches


def test_the_state_after_every_batch_is_kept_with_the_metrics(ledger):
    run(ledger, distinct(7), evaluations=9)
    assert ledger.last_batch() == (3, b"state after 3")
    assert ledger.metrics() == [(0, {}), (1, {"batches": 1.0}), (2, {"batches": 2.0}), (3, {"batches": 3.0})]
    assert [row.batch for row in ledger.rows()] == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_an_interrupted_batch_has_rows_but_no_state(ledger):
    class Stop(BaseException):
        """As KeyboardInterrupt."""

    class Interrupted(FakeExecutor):
        def _outcomes(self, tasks):
            for outcome in super()._outcomes(tasks):
                yield outcome
                if len(self.ran) == 7:
                    raise Stop

    script = Script(distinct(9))
    rung = FrozenRung(Interrupted(), ledger, OBJECTIVE, lambda row: None)
    with pytest.raises(Stop):
        search(rung, script, BUILDERS, ledger, evaluations=11, batch_size=3)
    assert ledger.last_batch() == (1, b"state after 1")
    assert [row.id for row in ledger.rows()] == [1, 2, 3, 4, 5, 7, 8]
