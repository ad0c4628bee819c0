"""The frozen rung: rows at their own λ, and what is not worth finishing."""

import math

import numpy as np
import pytest

from tests.search.frozen_fakes import NUM_TOKENS, SUBSET_FACTOR, FakeExecutor, distinct, mean_nll, node_nll
from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.search.evaluation_row import CACHED, FAILED, OK, STOPPED
from treesearch.search.frozen_rung import BUILDER, Candidate, EarlyStop, FrozenRung, Objective
from treesearch.search.ledger import Ledger

COUNTS = np.array([8.0, 4, 2, 1, 1])
LAMBDA = 0.5
HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]])  # cost 1.875
FLAT = Tree.from_nested([0, 1, 2, 3, 4])  # 1.25
PAIR = Tree.from_nested([[0, 1], [2, 3, 4]])  # 2.0375
DEAR = Tree.from_nested([3, [4, [2, [1, 0]]]])  # 3.5625
OBJECTIVE = Objective(COUNTS, CostModel(6, LAMBDA), encoder="e0")
BUILDERS = [Candidate(HUFFMAN, BUILDER, "huffman"), Candidate(FLAT, BUILDER, "flat")]


def cost(tree):
    return tree_cost(tree, COUNTS, in_features=6).cost


def proposed(*trees, weight=None):
    return [Candidate(tree, "agent", cost_weight=weight) for tree in trees]


class TreeNll:
    """A tree costs so much, all at its root, the subset of tokens aside: nodes that trees share must agree."""

    def __init__(self, **nll):
        self.by_tree = {globals()[name]: value for name, value in nll.items()}

    def __call__(self, tree):
        return np.r_[NUM_TOKENS * self.by_tree[tree], np.zeros(tree.num_internal - 1)]


@pytest.fixture
def make(tmp_path):
    """Makes a rung with a ledger; gives rung, executor and ledger."""
    ledgers = []

    def make(*, nll=node_nll, margin=None, subset_tokens=None, fails=lambda tree: None, builders=BUILDERS, **options):
        ledger = Ledger(tmp_path / f"{len(ledgers)}.db", create=True)
        ledgers.append(ledger)
        executor = FakeExecutor(fails, nll=nll, **options.pop("executor", {}))
        stop = None if margin is None else EarlyStop(margin, subset_tokens)
        memo = options.pop("memoise", True)
        rung = FrozenRung(executor, ledger, OBJECTIVE, lambda row: None, early_stop=stop, memoise=memo)
        rung.evaluate(builders, 0)
        return rung, executor, ledger

    yield make
    for ledger in ledgers:
        ledger.close()


# -- λ


def test_a_row_is_rewarded_at_its_own_weight(make):
    rung, _, ledger = make()
    weights = [None, 0.0, 2.0]
    candidates = [Candidate(tree, "agent", cost_weight=w) for w in weights for tree in (PAIR, DEAR)]
    scores = rung.evaluate(candidates, 1)
    for row, candidate, score in zip(ledger.rows()[2:], candidates, scores, strict=True):
        weight = LAMBDA if candidate.cost_weight is None else candidate.cost_weight
        assert row.cost_weight == weight
        assert row.valid_nll == pytest.approx(mean_nll(candidate.tree))
        assert row.reward == pytest.approx(-row.valid_nll - weight * cost(candidate.tree))
        assert score.reward(weight) == row.reward
    assert {row.cost_weight for row in ledger.rows()[:2]} == {LAMBDA}, "builders' rows are at the run's"
    assert [row.status for row in ledger.rows()[2:]] == [OK, OK, CACHED, CACHED, CACHED, CACHED]


def test_what_a_row_says_of_its_nodes(make):
    rung, executor, ledger = make()
    rung.evaluate(proposed(PAIR, HUFFMAN), 1)
    rows = ledger.rows()
    assert [(row.num_nodes, row.nodes_trained, row.status) for row in rows] == [
        (4, 4, OK),
        (1, 1, OK),
        (3, 3, OK),
        (4, 0, CACHED),
    ]
    assert sum(row.nodes_trained for row in rows) == len(set(executor.trained))


def test_a_tree_put_together_from_known_nodes_is_no_cached_one(make):
    rung, executor, ledger = make()
    trees = [Tree.from_nested(n) for n in ([[0, 1], 2, [3, 4]], [[0, 1], [2, 3, 4]], [[0, 1, 2], [3, 4]])]
    last = Tree.from_nested([[0, 1], [2, [3, 4]]])
    rung.evaluate(proposed(*trees), 1)
    rung.evaluate(proposed(last), 2)
    row = ledger.rows()[-1]
    assert row.status == OK
    assert row.nodes_trained == 0, "its root is PAIR's, {2, 34} and {3, 4} are Huffman's, {0, 1} is PAIR's"
    assert row.valid_nll == pytest.approx(mean_nll(last))
    assert (row.attempts, row.seconds, row.worker) == (0, 0.0, "")
    assert last not in [tree for tree, _, _ in executor.asked]


# -- hopeless: before any training

# Huffman is best: -2 - 0.5 * 1.875 = -2.9375, and has the lowest NLL.
NLL = {"HUFFMAN": 2.0, "FLAT": 3.0, "PAIR": 2.0, "DEAR": 2.5}


def test_the_costs_that_these_tests_rely_on():
    assert [cost(t) for t in (HUFFMAN, FLAT, PAIR, DEAR)] == pytest.approx([1.875, 1.25, 2.0375, 3.5625])


@pytest.mark.parametrize("slack", [-1e-9, 1e-9])
def test_hopeless_by_cost_to_the_margin(make, slack):
    """Were its NLL the lowest so far, DEAR would lie (3.5625 - 1.875) * λ behind."""
    gap = LAMBDA * (3.5625 - 1.875)
    rung, executor, ledger = make(nll=TreeNll(**NLL), margin=gap + slack)
    (score,) = rung.evaluate(proposed(DEAR), 1)
    row = ledger.rows()[-1]
    if slack > 0:
        assert (row.status, row.reason, row.valid_nll) == (OK, None, 2.5)
        return
    assert row.status == STOPPED
    assert DEAR.hash not in executor.ran
    assert row.reward is row.valid_nll is row.subset_nll is None
    assert (row.attempts, row.nodes_trained, row.seconds) == (0, 0, 0.0)
    assert row.cost == pytest.approx(3.5625)
    bound = -2.0 - LAMBDA * cost(DEAR)
    assert row.reason == f"hopeless: reward at most {bound:.4f} at an NLL of 2.0000, but the best is -2.9375"
    assert rung.known(DEAR) is None
    # The estimate: the best NLL, over nodes by mass times bits.
    assert score.valid_nll == pytest.approx(2.0)
    assert score.reward(LAMBDA) == pytest.approx(-2.0 - LAMBDA * 3.5625)
    assert score.node_nll.tolist() == pytest.approx((2.0 * DEAR.pass_shares(COUNTS) / 3.5625).tolist())


@pytest.mark.parametrize("slack", [-1e-9, 1e-9])
def test_hopeless_by_its_known_nodes_to_the_margin(make, slack):
    """Two of its three nodes are Huffman's; together they bound its NLL from below."""
    mixed = Tree.from_nested([0, [1, [2, 3, 4]]])
    known = node_nll(HUFFMAN)[:2].sum() / NUM_TOKENS  # the nodes {0 | 1234} and {1 | 234}
    best_nll = min(mean_nll(tree) for tree in (HUFFMAN, FLAT))
    best = max(-mean_nll(tree) - LAMBDA * cost(tree) for tree in (HUFFMAN, FLAT))
    bound = -max(known, best_nll) - LAMBDA * cost(mixed)
    assert known > best_nll, "or the other bound would be the one that is tested"
    assert bound < best
    rung, _, ledger = make(margin=best - bound + slack)
    rung.evaluate(proposed(mixed), 1)
    row = ledger.rows()[-1]
    assert row.status == (OK if slack > 0 else STOPPED)
    if slack < 0:
        assert row.reason == (
            f"hopeless: reward at most {bound:.4f} at an NLL of {known:.4f}, but the best is {best:.4f}"
        )


def test_nothing_is_hopeless_while_nothing_is_known(make):
    rung, _, ledger = make(builders=[], nll=TreeNll(**NLL), margin=0.01)
    rung.evaluate(proposed(DEAR, HUFFMAN), 1)
    assert [row.status for row in ledger.rows()] == [OK, OK]


def test_a_dear_tree_is_hopeless_under_a_large_weight_only(make):
    rung, _, ledger = make(nll=TreeNll(**NLL | {"DEAR": 1.9}), margin=0.1)
    rung.evaluate(proposed(DEAR, weight=10.0), 1)
    rung.evaluate(proposed(DEAR, weight=0.01), 2)
    assert [row.status for row in ledger.rows()[2:]] == [STOPPED, OK]
    assert ledger.rows()[-1].reward == pytest.approx(-1.9 - 0.01 * 3.5625)


def test_a_tree_for_several_weights_at_once_is_stopped_where_none_wants_it(make):
    rung, _, ledger = make(nll=TreeNll(**NLL), margin=0.1)
    scores = rung.evaluate([*proposed(DEAR, weight=10.0), *proposed(DEAR, weight=0.01)], 1)
    assert [row.status for row in ledger.rows()[2:]] == [OK, CACHED]
    assert scores[0] is scores[1]
    rung, executor, ledger = make(nll=TreeNll(**NLL), margin=0.1)
    rung.evaluate([*proposed(DEAR, weight=10.0), *proposed(DEAR, weight=5.0)], 1)
    rows = ledger.rows()[2:]
    assert [row.status for row in rows] == [STOPPED, STOPPED]
    for row in rows:  # each reason at its own λ
        assert f"at most {-2.0 - row.cost_weight * 3.5625:.4f} " in row.reason
    assert DEAR.hash not in executor.ran


@pytest.mark.parametrize("position", [0, 1])
def test_builders_are_never_stopped(make, position):
    candidates = proposed(DEAR)
    candidates.insert(position, Candidate(DEAR, BUILDER, "dear"))
    rung, _, ledger = make(nll=TreeNll(**NLL), margin=1e-6, subset_tokens=3)
    assert all(rung.evaluate(candidates, 1))
    assert sorted(row.status for row in ledger.rows()[2:]) == [CACHED, OK]


def test_what_must_be_finished_is(make):
    rung, _, ledger = make(nll=TreeNll(**NLL), margin=1e-6, subset_tokens=3)
    rung.evaluate(proposed(DEAR), 1, finish=True)
    assert (ledger.rows()[-1].status, ledger.rows()[-1].subset_nll) == (OK, 2.5 * SUBSET_FACTOR)


# -- behind: after the subset


@pytest.mark.parametrize("slack", [-1e-9, 1e-9])
def test_behind_on_the_subset_to_the_margin(make, slack):
    """On the subset Huffman ends at -2.5 - 0.9375 and PAIR at -2.75 - 1.01875."""
    nll = TreeNll(**NLL | {"PAIR": 2.2})
    gap = 0.2 * SUBSET_FACTOR + LAMBDA * (2.0375 - 1.875)
    rung, executor, ledger = make(nll=nll, margin=gap + slack, subset_tokens=3)
    (score,) = rung.evaluate(proposed(PAIR), 1)
    row = ledger.rows()[-1]
    assert row.subset_nll == pytest.approx(2.2 * SUBSET_FACTOR)
    assert [tokens for tree, _, tokens in executor.asked if tree == PAIR] == ([3, None] if slack > 0 else [3])
    if slack > 0:
        assert (row.status, row.valid_nll) == (OK, pytest.approx(2.2))
        return
    assert row.status == STOPPED
    assert row.reward is row.valid_nll is None
    reward = -2.2 * SUBSET_FACTOR - LAMBDA * cost(PAIR)
    assert row.reason == f"behind: reward {reward:.4f} on the subset, where the best is -3.4375"
    # The subset costs SUBSET_FACTOR of the whole for every tree, so that the estimate is exact.
    assert score.valid_nll == pytest.approx(2.2)
    assert score.node_nll.tolist() == pytest.approx((nll(PAIR) / NUM_TOKENS).tolist())


def test_subset_scores_are_kept_for_the_finished(make):
    _, executor, ledger = make(margin=9.0, subset_tokens=4)
    for row in ledger.rows():
        assert row.subset_nll == pytest.approx(SUBSET_FACTOR * row.valid_nll)
    assert [tokens for _, _, tokens in executor.asked] == [4, 4, None, None]


def test_without_a_subset_rung_there_are_no_such_scores(make):
    _, executor, ledger = make(margin=9.0)
    assert {row.subset_nll for row in ledger.rows()} == {None}
    assert {tokens for _, _, tokens in executor.asked} == {None}


def test_what_fails_on_the_subset_fails_on_the_whole(make):
    rung, _, ledger = make(margin=9.0, subset_tokens=4, fails=lambda tree: "ValueError: x" if tree == PAIR else None)
    assert rung.evaluate(proposed(PAIR), 1) == [None]
    assert (ledger.rows()[-1].status, ledger.rows()[-1].reason) == (FAILED, "ValueError: x")


def test_a_stopped_tree_is_not_scored_on_the_subset_again(make):
    rung, executor, ledger = make(nll=TreeNll(**NLL | {"PAIR": 2.2}), margin=0.1, subset_tokens=3)
    for batch in (1, 2):
        rung.evaluate(proposed(PAIR), batch)
    assert [row.status for row in ledger.rows()[2:]] == [STOPPED, STOPPED]
    assert executor.ran.count(PAIR.hash) == 1


# -- both


@pytest.mark.parametrize("subset_tokens", [None, 3])
@pytest.mark.parametrize("margin", [0.2, 0.6])
def test_estimates_are_finite_and_reasons_one_line(make, margin, subset_tokens):
    rung, _, ledger = make(margin=margin, subset_tokens=subset_tokens)
    trees = distinct(40, but=[HUFFMAN, FLAT])
    scores = [score for i in range(0, 40, 8) for score in rung.evaluate(proposed(*trees[i : i + 8]), i)]
    rows = ledger.rows()[2:]
    assert {row.status for row in rows} == {OK, STOPPED}
    for row, score, tree in zip(rows, scores, trees, strict=True):
        assert np.isfinite(score.node_nll).all()
        assert math.isfinite(score.reward(LAMBDA))
        assert score.node_nll.shape == (tree.num_internal,)
        assert score.cost.cost == row.cost
        assert (row.reason is None) == (row.status == OK)
        if row.status == STOPPED:
            assert len(row.reason.splitlines()) == 1
            assert rung.known(tree) is None
        else:
            assert score.valid_nll == pytest.approx(mean_nll(tree))


@pytest.mark.parametrize("subset_tokens", [None, 3])
def test_the_ledger_does_not_depend_on_who_finishes_first(make, subset_tokens):
    trees = distinct(40, but=[HUFFMAN, FLAT])
    rng = np.random.default_rng(0)

    def shuffled(tasks):
        return [tasks[i] for i in rng.permutation(len(tasks))]

    seen = []
    for order, workers in ((lambda tasks: tasks, 1), (reversed, 3), (shuffled, 8)):
        rung, _, ledger = make(
            margin=0.1, subset_tokens=subset_tokens, executor={"order": order, "num_workers": workers}
        )
        told = [rung.evaluate(proposed(*trees[i : i + 8], trees[0]), i) for i in range(0, 40, 8)]
        content = [row.content() for row in ledger.rows()]
        seen.append((content, [[score.node_nll.tolist() for score in scores] for scores in told]))
    assert seen[0] == seen[1] == seen[2]
    assert {row["status"] for row in seen[0][0]} >= {OK, STOPPED}


def test_early_stop_leaves_the_best_tree_alone(make):
    trees = distinct(60, but=[HUFFMAN, FLAT])
    best = []
    for margin in (None, 0.2):
        rung, _, ledger = make(margin=margin, subset_tokens=None if margin is None else 3)
        for i in range(0, 60, 10):
            rung.evaluate(proposed(*trees[i : i + 10]), i)
        best.append(max((row.reward, row.tree_hash) for row in ledger.rows() if row.reward is not None))
    assert best[0] == best[1]
