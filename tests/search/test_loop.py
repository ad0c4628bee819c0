import json

import numpy as np
import pytest

from tests.search.frozen_fakes import FakeExecutor, mean_nll
from tests.search.frozen_fakes import distinct as distinct_trees
from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.errors import ExecutionError
from treesearch.search.evaluation_row import CACHED, FAILED, FROZEN, OK, STOPPED
from treesearch.search.frozen_rung import (
    BUILDER,
    Candidate,
    EarlyStop,
    FrozenRung,
    Objective,
)
from treesearch.search.ledger import Checkpoint, Ledger, Position
from treesearch.search.loop import Era, search

COUNTS = np.array([8.0, 4, 2, 1, 1])
OBJECTIVE = Objective(COUNTS, CostModel(6, 0.5), encoder="e0")


HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]])
TWO_PARTS = Tree.from_nested([[0, 1], [2, 3, 4]])
BUILDERS = [
    Candidate(HUFFMAN, BUILDER, "huffman"),
    Candidate(Tree.from_nested([0, 1, 2, 3, 4]), BUILDER, "flat"),
]


class Script:
    """A proposer that proposes a list of trees and keeps what it is told."""

    def __init__(self, trees, demonstrations=()):
        self.trees = list(trees)
        self.demonstrations = list(demonstrations)
        self.asked = []
        self.told = []
        self.warmed = []
        self.pending = {}

    def demonstrate(self):
        return self.demonstrations

    def warm_start(self, scores):
        self.warmed.append(list(scores))

    def ask(self, num, batch):
        self.asked.append(num)
        trees, self.trees = self.trees[:num], self.trees[num:]
        first = sum(self.asked) - num
        candidates = [
            Candidate(tree, "script", actions=("close", f"split({i})"), number=first + i, batch=batch)
            for i, tree in enumerate(trees)
        ]
        self.pending |= {candidate.number: candidate for candidate in candidates}
        return candidates

    def tell(self, told):
        self.told.append([score for _, score in told])
        for candidate, _ in told:
            del self.pending[candidate.number]
        return {"batches": float(len(self.told))}

    def under_way(self):
        return list(self.pending.values())

    def pack(self):
        return f"state after {len(self.told)}".encode()

    def unpack(self, state):
        raise NotImplementedError


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        yield ledger


def run(
    ledger,
    trees,
    *,
    evaluations,
    batch_size=3,
    fails=lambda tree: None,
    builders=BUILDERS,
    demonstrations=(),
    early_stop=None,
    **options,
):
    """A whole search; gives executor, proposer and the rows that were announced, in that order."""
    executor, script, announced = FakeExecutor(fails), Script(trees, demonstrations), []
    rung = FrozenRung(executor, ledger, OBJECTIVE, announced.append, early_stop=early_stop)
    search(Era(rung, builders, script), ledger, evaluations=evaluations, batch_size=batch_size, **options)
    return executor, script, announced


def distinct(num):
    """Different trees, none of which a builder built."""
    return distinct_trees(num, but=[builder.tree for builder in BUILDERS])


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
        assert score.valid_nll == pytest.approx(mean_nll(tree))


# -- scores


def test_rewards_by_hand(ledger):
    _, script, _ = run(ledger, [TWO_PARTS], evaluations=3)
    row, ((score,),) = ledger.rows()[-1], script.told
    cost = tree_cost(TWO_PARTS, COUNTS, in_features=6)
    # [[0, 1], [2, 3, 4]]: the root and {0, 1} are binary (1 each), {2, 3, 4} costs 1 + 3/20; 12 of 16 go left.
    assert row.cost == cost.cost == pytest.approx(1 + 12 / 16 * 1 + 4 / 16 * 1.15)
    assert (row.expected_depth, row.max_depth) == (2.0, 2)
    assert row.valid_nll == pytest.approx(mean_nll(TWO_PARTS))
    assert row.reward == pytest.approx(-row.valid_nll - 0.5 * row.cost)
    assert (row.reward, row.valid_nll) == (score.reward(0.5), score.valid_nll)
    assert -(score.node_nll + 0.5 * score.node_cost).sum() == pytest.approx(row.reward)
    assert (row.encoder, row.status, row.attempts, row.seconds, row.worker) == ("e0", OK, 1, 0.5, "fake-0")
    assert (row.cost_weight, row.num_nodes, row.nodes_trained, row.subset_nll) == (0.5, 3, 3, None)
    assert row.test_nll is row.learning_rate is row.seed is row.reason is None


def test_what_was_seen_before_is_cached_and_not_run_again(ledger):
    first, second, third = distinct(3)
    proposals = [first, HUFFMAN, first, second, first, second, third]
    executor, script, _ = run(ledger, proposals, evaluations=9, batch_size=4)
    assert len(executor.ran) == len(set(executor.ran))
    assert set(executor.ran) <= {BUILDERS[1].tree.hash, *(tree.hash for tree in proposals)}
    assert len(executor.trained) == len(set(executor.trained))
    rows = ledger.rows()
    assert [row.status for row in rows] == [OK, OK, OK, CACHED, CACHED, OK, CACHED, CACHED, OK]
    scores = [score for told in script.told for score in told]
    by_tree = {}
    for row, score in zip(rows[2:], scores, strict=True):
        values = (row.reward, row.valid_nll, row.cost, row.expected_depth, row.dot_products, row.max_depth)
        assert by_tree.setdefault(row.tree_hash, values) == values
        assert score.reward(0.5) == row.reward
    assert by_tree[HUFFMAN.hash][0] == rows[0].reward, "a builder's tree is known, too"
    assert all((row.attempts, row.seconds, row.worker) == (0, 0.0, "") for row in rows if row.status == CACHED)


# -- failures


def test_failures_are_recorded_and_told_as_the_worst_so_far(ledger):
    good, bad, other = distinct(3)
    fails = {bad.hash: "FloatingPointError: nan"}
    _, script, _ = run(ledger, [good, bad, bad, other], evaluations=6, batch_size=4, fails=lambda t: fails.get(t.hash))
    rows = ledger.rows()[2:]
    assert [row.status for row in rows] == [OK, FAILED, FAILED, OK]
    assert [score.exact for score in script.told[0]] == [True, False, False, True]
    worst = max(row.valid_nll for row in ledger.rows() if row.valid_nll is not None)
    for row, score in zip(rows[1:3], script.told[0][1:3], strict=True):
        assert score.valid_nll == pytest.approx(worst)
        assert score.node_nll.sum() == pytest.approx(worst)
        assert score.cost.cost == row.cost, "its own"
        assert row.reason == "FloatingPointError: nan"
        assert row.reward is row.valid_nll is None
        assert row.cost > 0, "the cost is known without training"
    assert [row.attempts for row in rows[1:3]] == [1, 0], "the second was not run"


def test_what_failed_is_tried_again_in_a_later_batch(ledger):
    (tree,) = distinct(1)
    reasons = iter([None, None, "worker lost: killed", None])
    _, script, _ = run(ledger, [tree, tree], evaluations=4, batch_size=1, fails=lambda t: next(reasons))
    assert [row.status for row in ledger.rows()[2:]] == [FAILED, OK]
    assert [score.exact for (score,) in script.told] == [False, True]


def test_where_nothing_is_known_a_failure_is_told_as_none(ledger):
    _, script, _ = run(ledger, distinct(2), evaluations=4, batch_size=2, fails=lambda t: "ValueError: x")
    assert script.told == [[None, None]]


def test_too_many_failures_in_a_row_end_the_search_with_the_first_cause(ledger):
    number = iter(range(1000))
    message = r"20 evaluations in a row failed .*, the first with: ValueError: cause 2;"
    with pytest.raises(ExecutionError, match=message) as caught:
        run(
            ledger,
            distinct(40),
            evaluations=42,
            batch_size=7,
            fails=lambda t: None if (n := next(number)) < 2 else f"ValueError: cause {n}",
        )
    assert len(str(caught.value).splitlines()) == 1
    rows = ledger.rows()
    assert len(rows) == 2 + 20, "what failed is on record"
    assert all(row.reason for row in rows[2:])


def test_one_success_in_between_starts_the_count_again(ledger):
    number = iter(range(1000))
    run(
        ledger,
        distinct(60),
        evaluations=62,
        fails=lambda t: None if next(number) % 20 == 0 else "ValueError: x",
    )
    assert len(ledger.rows()) == 62


# -- batches


def test_the_state_after_every_batch_is_kept_with_the_metrics(ledger):
    run(ledger, distinct(7), evaluations=9)
    assert ledger.last_batch() == Checkpoint(Position(3, "e0", spent=9, began=2, proposed=7), b"state after 3")
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
    rung = FrozenRung(Interrupted(), ledger, OBJECTIVE, lambda row: None, memoise=False)
    with pytest.raises(Stop):
        search(Era(rung, BUILDERS, script), ledger, evaluations=11, batch_size=3)
    assert ledger.last_batch() == Checkpoint(Position(1, "e0", spent=5, began=2, proposed=3), b"state after 1")
    assert [row.id for row in ledger.rows()] == [1, 2, 3, 4, 5, 7, 8]


# -- demonstrations


def shown(*trees, weight=None):
    return [Candidate(tree, "script", actions=("close",), cost_weight=weight) for tree in trees]


def test_demonstrations_come_after_the_builders_and_from_the_budget(ledger):
    first, second, *rest = distinct(6)
    demonstrations = shown(HUFFMAN, first, second)
    _, script, _ = run(ledger, rest, evaluations=8, demonstrations=demonstrations)
    rows = ledger.rows()
    assert [row.id for row in rows] == list(range(1, 9))
    assert [(row.agent, row.batch) for row in rows[:5]] == [(BUILDER, 0)] * 2 + [("script", 0)] * 2 + [("script", 1)]
    assert [row.tree_hash for row in rows[2:4]] == [first.hash, second.hash], "a builder's tree takes nothing"
    assert script.asked == [3, 1]
    assert [score.valid_nll for score in script.warmed[0]] == pytest.approx(
        [mean_nll(tree) for tree in (HUFFMAN, first, second)]
    )


def test_a_tree_shown_for_several_weights_takes_one_evaluation(ledger):
    first, second, *rest = distinct(6)
    demonstrations = [one for weight in (0.1, 1.0, 10.0) for one in shown(first, second, weight=weight)]
    _, script, _ = run(ledger, rest, evaluations=8, demonstrations=demonstrations)
    rows = ledger.rows()
    assert [row.tree_hash for row in rows[2:4]] == [first.hash, second.hash]
    assert [row.cost_weight for row in rows[2:4]] == [0.1, 0.1]
    assert (len(rows), script.asked) == (8, [3, 1])
    assert [score.valid_nll for score in script.warmed[0]] == pytest.approx([mean_nll(first), mean_nll(second)] * 3)


@pytest.mark.parametrize("evaluations", range(1, 8))
def test_the_budget_is_exact_even_where_it_does_not_reach_the_agent(ledger, evaluations):
    demonstrations = shown(*distinct(3))
    _, script, _ = run(ledger, distinct(6)[3:], evaluations=evaluations, demonstrations=demonstrations)
    assert len(ledger.rows()) == evaluations
    assert sum(script.asked) == max(0, evaluations - 5)
    assert [score is None for score in script.warmed[0]] == [i >= evaluations - 2 for i in range(3)]


def test_demonstrations_are_not_stopped_early(ledger):
    trees = distinct(8)
    stop = EarlyStop(1e-6, subset_tokens=2)
    _, script, _ = run(ledger, trees[4:], evaluations=10, demonstrations=shown(*trees[:4]), early_stop=stop)
    status = [row.status for row in ledger.rows()]
    assert status[:6] == [OK] * 6
    assert STOPPED in status[6:]
    assert None not in script.warmed[0]


# -- eras


class Encoders:
    """A search with refreshes: each era has a rung, builders and an encoder of its own, and one agent."""

    def __init__(self, ledger, script, *, builders=BUILDERS, stop=None):
        self.executor, self.announced, self.spent = FakeExecutor(), [], []
        self.ledger, self.script, self.builders, self.stop = ledger, script, builders, stop
        self.number = 0

    def era(self):
        objective = Objective(COUNTS, CostModel(6, 0.5), encoder=f"e{self.number}")
        rung = FrozenRung(self.executor, self.ledger, objective, self.announced.append, early_stop=self.stop)
        return Era(rung, self.builders, self.script)

    def next(self):
        self.number += 1
        self.spent.append(len(self.ledger.rows()))
        return self.era()

    def run(self, **options):
        search(self.era(), self.ledger, next_era=self.next, **options)


def test_the_encoder_is_refreshed_after_so_many_proposals(ledger):
    trees = distinct(20)
    encoders = Encoders(ledger, Script(trees[:16], shown(*trees[16:18])))
    encoders.run(evaluations=27, batch_size=3, refresh_every=6)
    rows = ledger.rows()
    assert [row.id for row in rows] == list(range(1, 28))
    assert encoders.spent == [10, 20], "2 builders, 2 demonstrations and 6 proposals each"
    assert [row.encoder for row in rows] == ["e0"] * 10 + ["e1"] * 10 + ["e2"] * 7
    for start in (0, 10, 20):
        again = rows[start : start + 4]
        assert [(row.label, row.agent, row.status) for row in again] == [
            ("huffman", BUILDER, OK),
            ("flat", BUILDER, OK),
            (None, "script", OK),
            (None, "script", OK),
        ], "nothing is known under a new encoder"
        assert all(row.nodes_trained for row in again[:2])
    assert [row.batch for row in rows] == [0] * 4 + [1] * 3 + [2] * 3 + [3] * 4 + [4] * 3 + [5] * 3 + [6] * 4 + [7] * 3
    assert ledger.last_batch().position == Position(7, "e2", spent=27, began=4, proposed=3)
    assert len(encoders.script.warmed) == 3


@pytest.mark.parametrize(("evaluations", "spent"), [(12, []), (13, [8]), (20, [8]), (21, [8, 16]), (29, [8, 16, 24])])
def test_no_refresh_that_leaves_nothing_to_propose(ledger, evaluations, spent):
    encoders = Encoders(ledger, Script(distinct(40)))
    encoders.run(evaluations=evaluations, batch_size=3, refresh_every=4)
    assert encoders.spent == spent
    rows = ledger.rows()
    assert len(rows) == evaluations
    for number in range(len(spent) + 1):
        assert sum(row.encoder == f"e{number}" and row.agent == "script" for row in rows) >= 3


def test_builders_alone_do_not_call_for_a_refresh(ledger):
    """However many they are: a search would otherwise spend its budget on them."""
    encoders = Encoders(ledger, Script(distinct(40)), builders=BUILDERS * 4)
    encoders.run(evaluations=30, batch_size=3, refresh_every=2)
    assert encoders.spent == [11], "a third era would have the builders alone"
    assert sum(row.agent == "script" for row in ledger.rows()) == 30 - 2 * 8


def test_without_refreshes_the_encoder_stays(ledger):
    encoders = Encoders(ledger, Script(distinct(40)))
    encoders.run(evaluations=30, batch_size=3, refresh_every=None)
    assert encoders.spent == []


@pytest.mark.parametrize("evaluations", range(12, 27))
def test_the_budget_is_exact_with_refreshes_and_demonstrations(ledger, evaluations):
    trees = distinct(40)
    encoders = Encoders(ledger, Script(trees[:36], shown(HUFFMAN, *trees[36:])))
    encoders.run(evaluations=evaluations, batch_size=4, refresh_every=4)
    assert [row.id for row in ledger.rows()] == list(range(1, evaluations + 1))
    assert len(encoders.announced) == evaluations


def test_a_tree_that_was_stopped_under_one_encoder_is_judged_anew_under_the_next(ledger):
    script = Script([*distinct(4), *distinct(4)])
    encoders = Encoders(ledger, script, stop=EarlyStop(0.01))
    encoders.run(evaluations=12, batch_size=4, refresh_every=4)
    proposals = [row for row in ledger.rows() if row.agent == "script"]
    first, second = proposals[:4], proposals[4:]
    assert [(row.tree_hash, row.status, row.reward) for row in first] == [
        (row.tree_hash, row.status, row.reward) for row in second
    ]
    assert CACHED not in {row.status for row in proposals}
