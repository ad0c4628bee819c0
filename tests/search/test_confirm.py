import json
import math
from collections import Counter

import numpy as np
import pytest

from treesearch import Tree
from treesearch.cost import CostModel, tree_cost
from treesearch.errors import ExecutionError
from treesearch.search.confirm import (
    Confirmed,
    Finalist,
    Places,
    at_best_rate,
    choose_finalists,
    confirm,
    with_more_seeds,
)
from treesearch.search.correction import Correction
from treesearch.search.evaluation_row import CACHED, CONFIRM, FAILED, FROZEN, JOINT, OK, STOPPED, WARM, EvaluationRow
from treesearch.search.executors import Executor, Outcome
from treesearch.search.frozen_rung import BUILDER
from treesearch.search.joint_rung import JointRung
from treesearch.search.ledger import Ledger
from treesearch.search.promotion import BASELINE, DIVERSE, FOUND, Promoted, builder_labels, diverse, promote
from treesearch.search.worker import JointScores

COUNTS = np.array([8.0, 4, 2, 1, 1])
COST_WEIGHT = 0.1

FEATURES = 6
COST_MODEL = CostModel(FEATURES, COST_WEIGHT)
# FLAT and WIDE cost less than Huffman, the others more; see the first test.
HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]])
FLAT = Tree.from_nested([0, 1, 2, 3, 4])
WIDE = Tree.from_nested([0, [1, 2, 3, 4]])
PAIR = Tree.from_nested([[0, 1], [2, 3, 4]])
DEEP = Tree.from_nested([4, [3, [2, [1, 0]]]])
DEAR = Tree.from_nested([3, [4, [2, [1, 0]]]])


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "search.db", create=True) as ledger:
        yield ledger


def record(ledger, *entries, encoder="e0"):
    """Frozen rows from (agent, label, tree, reward under the run's λ[, actions]); no reward is a failure."""
    for agent, label, tree, reward, *actions in entries:
        cost = tree_cost(tree, COUNTS, in_features=FEATURES)
        row = EvaluationRow(
            id=ledger.next_id(),
            rung=FROZEN,
            batch=0,
            agent=agent,
            label=label,
            tree_hash=tree.hash,
            status=FAILED if reward is None else OK,
            # Under a λ of the proposal's own: what is promoted must not depend on it.
            cost_weight=7.0,
            reward=None if reward is None else reward + (COST_WEIGHT - 7.0) * cost.cost,
            valid_nll=None if reward is None else -reward - COST_WEIGHT * cost.cost,
            cost=cost.cost,
            expected_depth=cost.expected_depth,
            actions=json.dumps(actions[0]) if actions else None,
            encoder=encoder,
        )
        ledger.record(row, tree)


def promoted_names(ledger, num_trees=1, **options):
    promoted = promote(ledger, counts=COUNTS, cost_model=COST_MODEL, num_trees=num_trees, **options)
    return [(p.name, p.kind, p.tree) for p in promoted]


# -- promotion


def test_the_costs_that_these_tests_rely_on():
    costs = [tree_cost(t, COUNTS, in_features=FEATURES).cost for t in (FLAT, WIDE, HUFFMAN, PAIR, DEEP, DEAR)]
    expected = [1.25, 1 + 0.5 * 1.2, 1.875, 1 + 0.75 + 0.25 * 1.15, 3.5625, 3.5625]
    assert costs == pytest.approx(expected)


def test_huffman_is_first_and_of_each_kind_go_the_best_and_the_best_cheap_ones(ledger):
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -5.0),
        (BUILDER, "flat", FLAT, -9.0),
        (BUILDER, "deep", DEEP, -3.0),
        ("agent", None, PAIR, -4.0),
        ("agent", None, WIDE, -6.0),
        ("agent", None, DEAR, -4.5),
    )
    assert promoted_names(ledger) == [
        ("huffman", BASELINE, HUFFMAN),
        ("deep", BASELINE, DEEP),  # best builder of any cost; the best cheap one is Huffman itself
        ("found #4", FOUND, PAIR),
        ("found #5", FOUND, WIDE),  # the best that costs no more than Huffman
        ("flat", BASELINE, FLAT),  # the only builder that costs no more than that
    ]
    assert promoted_names(ledger, num_trees=2) == [
        ("huffman", BASELINE, HUFFMAN),
        ("deep", BASELINE, DEEP),
        ("flat", BASELINE, FLAT),
        ("found #4", FOUND, PAIR),
        ("found #6", FOUND, DEAR),
        ("found #5", FOUND, WIDE),
    ]


@pytest.mark.parametrize(("tree", "rivals"), [(WIDE, ["flat"]), (FLAT, []), (PAIR, [])])
def test_with_a_found_tree_goes_the_best_builder_of_at_most_its_cost(ledger, tree, rivals):
    """None costs as little as FLAT, and PAIR's is Huffman's tree, which goes anyway."""
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -2.0),
        (BUILDER, "deep", DEEP, -1.0),
        (BUILDER, "wide" if tree == FLAT else "flat", WIDE if tree == FLAT else FLAT, -9.0),
        ("agent", None, tree, -1.5),
    )
    names = [name for name, kind, _ in promoted_names(ledger) if kind == BASELINE]
    assert names == ["huffman", "deep", *rivals]


def test_with_a_correction_the_first_half_goes_by_frozen_reward_and_the_rest_by_what_is_left(ledger):
    """It never touches builders, which are one decision."""
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -5.0),
        (BUILDER, "deep", DEEP, -3.0),
        ("agent", None, PAIR, -4.0, ["kway-2", "kway-4", "close-flat"]),
        ("agent", None, WIDE, -4.01, ["kway-2", "kway-4", "close-flat"]),
        ("agent", None, DEAR, -4.05, ["kway-2", "kway-2"]),
    )

    def found(num_trees, **options):
        return {name for name, kind, _ in promoted_names(ledger, num_trees, **options) if kind == FOUND}

    slight, enough = Correction(slope=0.03), Correction(slope=0.04)  # times log 3, against 0.04
    cheap = {"found #3", "found #4"}  # that cost no more than Huffman: they are promoted anyway
    assert found(1) == found(1, correction=enough) == {"found #3"} | (cheap - {"found #3"})
    assert found(2) == found(2, correction=slight) == cheap
    assert found(2, correction=enough) == cheap | {"found #5"}


def test_a_builders_tree_is_not_found_whoever_proposed_it(ledger):
    record(
        ledger,
        ("agent", None, FLAT, -1.0),  # even before the builder did
        (BUILDER, "huffman", HUFFMAN, -5.0),
        (BUILDER, "flat", FLAT, -1.0),
        ("agent", None, HUFFMAN, -5.0),
        ("agent", None, PAIR, -6.0),
    )
    assert promoted_names(ledger) == [
        ("huffman", BASELINE, HUFFMAN),
        ("flat", BASELINE, FLAT),
        ("found #5", FOUND, PAIR),
    ]


def test_nor_is_it_found_where_the_builders_own_evaluation_failed(ledger):
    record(ledger, (BUILDER, "huffman", HUFFMAN, -5.0), (BUILDER, "flat", FLAT, None), ("agent", None, FLAT, -1.0))
    assert promoted_names(ledger) == [("huffman", BASELINE, HUFFMAN), ("flat", BASELINE, FLAT)]


def test_huffmans_row_keeps_its_name_where_another_builder_has_the_same_tree(ledger):
    record(ledger, (BUILDER, "balanced", HUFFMAN, -5.0), (BUILDER, "huffman", HUFFMAN, -5.0))
    assert promoted_names(ledger) == [("huffman", BASELINE, HUFFMAN)]


def test_trees_proposed_twice_are_promoted_once_under_their_first_id(ledger):
    entries = [("agent", None, tree, -1.0) for tree in (FLAT, PAIR, FLAT, PAIR)]
    record(ledger, (BUILDER, "huffman", HUFFMAN, -5.0), *entries)
    assert [name for name, _, _ in promoted_names(ledger, num_trees=9)] == ["huffman", "found #2", "found #3"]


@pytest.mark.parametrize("reward", [None, "absent"])
def test_without_huffman_nothing_can_be_compared(ledger, reward):
    record(ledger, (BUILDER, "flat", FLAT, -1.0))
    if reward is None:
        record(ledger, (BUILDER, "huffman", HUFFMAN, None))
    with pytest.raises(ExecutionError, match="Huffman tree could not be evaluated"):
        promoted_names(ledger)


# Rewards under λ = 0.1 and NLLs: FLAT -4.000 3.875, PAIR -3.900 3.696, DEEP -3.800 3.444; see `record`.
FRONT = (
    (BUILDER, "huffman", HUFFMAN, -5.0),
    ("agent", None, FLAT, -4.0),
    ("agent", None, PAIR, -3.9),
    ("agent", None, DEEP, -3.8),
)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ((), [DEEP, FLAT]),  # the best, and the best of at most Huffman's cost
        ((0.0,), [DEEP, FLAT]),
        ((0.1,), [DEEP, FLAT]),
        ((0.2,), [DEEP, FLAT, PAIR]),  # 4.125, 4.104, 4.156
        ((1.0,), [DEEP, FLAT]),
        ((1.0, 0.2, 0.0), [DEEP, FLAT, PAIR]),
    ],
)
def test_of_either_kind_the_best_under_each_further_weight_goes_as_well(ledger, weights, found):
    record(ledger, *FRONT)
    assert [tree for _, kind, tree in promoted_names(ledger, cost_weights=weights) if kind == FOUND] == found


def test_builders_go_for_further_weights_too(ledger):
    record(ledger, *((BUILDER, label or f"b{i}", tree, reward) for i, (_, label, tree, reward) in enumerate(FRONT)))
    assert [tree for _, _, tree in promoted_names(ledger)] == [HUFFMAN, DEEP, FLAT]
    assert [tree for _, _, tree in promoted_names(ledger, cost_weights=(0.2,))] == [HUFFMAN, DEEP, FLAT, PAIR]


def test_num_trees_is_per_weight(ledger):
    record(ledger, *FRONT)
    assert len(promoted_names(ledger, num_trees=3, cost_weights=(0.0, 0.2))) == 4


def test_stopped_trees_are_not_promoted(ledger):
    record(ledger, FRONT[0], FRONT[1])
    row = EvaluationRow(
        id=9, rung=FROZEN, batch=1, agent="agent", label=None, tree_hash=PAIR.hash, status=STOPPED, cost=1.0
    )
    ledger.record(row, PAIR)
    assert [tree for _, _, tree in promoted_names(ledger, num_trees=9)] == [HUFFMAN, FLAT]


def test_encoders_are_not_mixed(ledger):
    """Under the first encoder every reward is better by far, and another tree is best."""
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -1.0),
        (BUILDER, "flat", FLAT, -0.5),
        ("agent", None, DEAR, -0.1),
        encoder="e0",
    )
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -5.0),
        (BUILDER, "wide", WIDE, -4.5),
        ("agent", None, PAIR, -4.0),
        ("agent", None, FLAT, -4.2),
        encoder="e1",
    )
    promoted = promote(ledger, counts=COUNTS, cost_model=COST_MODEL, num_trees=9, encoder="e1")
    assert {p.row.encoder for p in promoted} == {"e1"}
    assert [(p.name, p.kind) for p in promoted] == [
        ("huffman", BASELINE),
        ("flat, earlier encoder #2", BASELINE),  # an agent built it under the new one, but a builder did before
        ("wide", BASELINE),
        ("found #6", FOUND),
    ]
    first = promote(ledger, counts=COUNTS, cost_model=COST_MODEL, num_trees=9, encoder="e0")
    assert [(p.name, p.row.encoder) for p in first] == [("huffman", "e0"), ("flat", "e0"), ("found #3", "e0")]


def test_without_huffman_under_the_last_encoder_nothing_can_be_compared(ledger):
    record(ledger, (BUILDER, "huffman", HUFFMAN, -1.0), encoder="e0")
    record(ledger, (BUILDER, "flat", FLAT, -1.0), encoder="e1")
    with pytest.raises(ExecutionError, match="Huffman tree could not be evaluated"):
        promoted_names(ledger, encoder="e1")


def test_builder_labels_prefer_the_encoder_in_question(ledger):
    record(ledger, (BUILDER, "a", FLAT, -1.0), (BUILDER, "b", FLAT, -1.0), encoder="e0")
    record(ledger, ("agent", None, PAIR, -1.0), (BUILDER, "c", FLAT, None), (BUILDER, "d", WIDE, -1.0), encoder="e1")
    rows = ledger.rows()
    assert builder_labels(rows, "e1") == {FLAT.hash: "c", WIDE.hash: "d"}
    assert builder_labels(rows, "e0") == {FLAT.hash: "a", WIDE.hash: "d, earlier encoder #5"}
    assert builder_labels(rows) == {FLAT.hash: "a", WIDE.hash: "d"}


def test_the_frozen_reward_is_under_the_runs_weight(ledger):
    record(ledger, *FRONT)
    rewards = {
        p.tree: p.frozen_reward(COST_MODEL) for p in promote(ledger, counts=COUNTS, cost_model=COST_MODEL, num_trees=9)
    }
    assert rewards == pytest.approx({tree: reward for _, _, tree, reward in FRONT})


def test_of_near_copies_the_better_one_is_promoted(ledger):
    near = Tree.from_nested([3, [4, [2, [0, 1]]]])  # all of DEAR but the order of two leaves: the same decisions
    half = Tree.from_nested([3, [4, [1, [0, 2]]]])
    record(
        ledger,
        (BUILDER, "huffman", HUFFMAN, -9.0),
        ("agent", None, DEAR, -1.0),
        ("agent", None, half, -2.0),
        ("agent", None, PAIR, -3.0),
    )
    assert near == DEAR

    def found(**options):
        return [tree for _, kind, tree in promoted_names(ledger, num_trees=2, **options) if kind == FOUND][:2]

    assert found() == [DEAR, half]
    # Of every 16 examples 16, 15, 14 and 10 make the decisions of ``half``, of which DEAR has the first two.
    assert found(max_shared=31.1 / 55) == [DEAR, half]
    assert found(max_shared=30.9 / 55) == [DEAR, PAIR]


# -- diverse trees


def test_diverse_trees_are_far_apart_and_huffman_is_first(ledger):
    record(
        ledger,
        ("agent", None, PAIR, -4.0),
        (BUILDER, "huffman", HUFFMAN, -5.0),
        ("agent", None, FLAT, -9.0),
        ("agent", None, WIDE, -6.0),
        ("agent", None, DEEP, -3.0),
        ("agent", None, DEAR, None),
    )
    record(ledger, ("agent", None, DEAR, -1.0), encoder="other")

    def names(num):
        chosen = diverse(ledger, counts=COUNTS, cost_model=COST_MODEL, num_trees=num, encoder="e0")
        assert {p.kind for p in chosen} == {DIVERSE}
        assert {p.row.encoder for p in chosen} == {"e0"}
        return [p.name for p in chosen]

    # Ranks of cost, NLL, depth and nodes; Huffman has 2, 2, 2 (FLAT 0, WIDE 1, PAIR 3, DEEP 4 by cost and by NLL
    # backwards). FLAT differs most from it, then DEEP from both.
    assert names(1) == ["huffman"]
    assert names(3) == ["huffman", "found #3", "found #5"]
    assert names(4)[:3] == names(3)
    assert sorted(names(99)) == ["found #1", "found #3", "found #4", "found #5", "huffman"]


# -- joint training


EPOCHS = 3  # that every fake training takes


def test_the_warm_rung_starts_from_the_searchs_encoder_and_leaves_the_test_split_alone(ledger):
    rung, trainer, _ = joint_rung(ledger)
    best = at_best_rate(CONTENDERS[:2], rung, learning_rates=[0.4], seed=3, name=WARM)
    assert [(job.warm, job.use_test, job.seed) for job in trainer.jobs] == [(True, False, 3)] * 2
    assert {row.rung for row in ledger.rows()} == {WARM}
    assert best[HUFFMAN.hash].valid_nll == 5.003
    rung.train(JOINT, [(CONTENDERS[0], 0.1, 0)])
    assert not trainer.jobs[-1].warm


def test_more_trees_than_one_under_each_further_weight():
    trained = {one.tree.hash: Finalist(one, 0.1, BASE[one.tree]) for one in CONTENDERS}
    options = {"cost_model": COST_MODEL, "cost_weights": [0.0]}
    one, two = (choose_finalists(trained, places=Places(1, num, 1), **options) for num in (1, 2))
    assert {f.promoted.name for f in two} - {f.promoted.name for f in one} == {"found #6"}


class FakeTrainer(Executor):
    """Finishes backwards. ``nll(tree, rate, seed)`` is the validation NLL, None for a failure; test is 1 more."""

    num_workers = 2
    num_busy = 0

    def __init__(self, nll):
        super().__init__()
        self.nll = nll
        self.jobs = []

    def _outcomes(self, tasks):
        for task in reversed(list(tasks)):
            job = task.payload
            self.jobs.append(job)
            nll = self.nll(job.tree, job.learning_rate, job.seed)
            if nll is None:
                yield Outcome(task, None, "FloatingPointError: nan", 1, 0.1, "fake-1")
            else:
                tokens = np.array([nll, nll + 2], np.float32) if job.use_test else None
                scores = JointScores(nll, nll + 1 if job.use_test else None, EPOCHS, tokens)
                yield Outcome(task, scores, None, 1, 0.1, "fake-0")

    def _replace(self, arrays):
        raise NotImplementedError

    def _release(self):
        pass


def as_promoted(name, kind, tree):
    agent = BUILDER if kind == BASELINE else "agent"
    row = EvaluationRow(id=1, rung=FROZEN, batch=0, agent=agent, label=name, tree_hash=tree.hash, status=CACHED)
    return Promoted(name, kind, row, tree, tree_cost(tree, COUNTS, in_features=FEATURES))


CONTENDERS = [
    as_promoted("huffman", BASELINE, HUFFMAN),
    as_promoted("flat", BASELINE, FLAT),
    as_promoted("deep", BASELINE, DEEP),
    as_promoted("found #4", FOUND, PAIR),
    as_promoted("found #5", FOUND, WIDE),
    as_promoted("found #6", FOUND, DEAR),
]
RATES = (0.1, 0.2, 0.4)
BASE = {HUFFMAN: 5.0, FLAT: 6.0, DEEP: 4.0, PAIR: 3.0, WIDE: 5.5, DEAR: 3.5}
BEST_RATE = {HUFFMAN: 0.4, FLAT: 0.1, DEEP: 0.2, PAIR: 0.1, WIDE: 0.4, DEAR: 0.2}


def typical(tree, rate, seed):
    """Every tree has its own best rate; the others cost as many nats as they are away."""
    return BASE[tree] + abs(math.log2(rate / BEST_RATE[tree])) + seed / 1000


def joint_rung(ledger, nll=typical):
    announced = []
    trainer = FakeTrainer(nll)
    return JointRung(trainer, ledger, cost_model=COST_MODEL, on_row=announced.append), trainer, announced


def finalists(ledger, nll=typical, contenders=CONTENDERS, **options):
    return choose_finalists(trained(ledger, nll, contenders), cost_model=COST_MODEL, **options)


def trained(ledger, nll=typical, contenders=CONTENDERS):
    rung, _, _ = joint_rung(ledger, nll)
    return at_best_rate(contenders, rung, learning_rates=RATES, seed=0)


def test_every_tree_is_trained_with_every_rate_and_keeps_its_own_best(ledger):
    rung, trainer, announced = joint_rung(ledger)
    best = at_best_rate(CONTENDERS, rung, learning_rates=RATES, seed=7)
    assert list(best) == [p.tree.hash for p in CONTENDERS]
    chosen = choose_finalists(best, cost_model=COST_MODEL)
    trained = Counter((job.tree, job.learning_rate, job.seed) for job in trainer.jobs)
    assert trained == {(p.tree, rate, 7): 1 for p in CONTENDERS for rate in RATES}
    assert [(f.promoted.name, f.learning_rate) for f in chosen] == [
        ("huffman", 0.4),
        ("deep", 0.2),  # best builder of any cost
        ("flat", 0.1),  # best one of at most Huffman's cost
        ("found #4", 0.1),
        ("found #5", 0.4),
    ]
    assert [f.valid_nll for f in chosen] == pytest.approx([BASE[f.promoted.tree] + 0.007 for f in chosen])
    assert sorted(announced, key=lambda row: row.id) == ledger.rows(JOINT)


def test_more_seeds_make_the_score_a_mean_over_all_runs_at_the_trees_own_rate(ledger):
    rung, trainer, _ = joint_rung(ledger)
    best = at_best_rate(CONTENDERS[:3], rung, learning_rates=RATES, seed=0)
    trainer.jobs.clear()
    better = with_more_seeds(list(best.values())[:2], rung, seeds=[1])
    better = with_more_seeds(list(better.values()), rung, seeds=[2, 5])
    assert list(better) == [HUFFMAN.hash, FLAT.hash]
    jobs = Counter((job.tree, job.learning_rate, job.seed, job.use_test, job.warm) for job in trainer.jobs)
    assert jobs == {(tree, BEST_RATE[tree], s, False, False): 1 for tree in (HUFFMAN, FLAT) for s in (1, 2, 5)}
    assert [one.num_seeds for one in better.values()] == [4, 4]
    assert [one.valid_nll for one in better.values()] == pytest.approx([5.0 + 0.008 / 4, 6.0 + 0.008 / 4])
    assert {row.rung for row in ledger.rows()} == {JOINT}


def test_a_tree_that_diverges_with_a_further_seed_is_out(ledger):
    rung, _, _ = joint_rung(ledger, lambda tree, rate, seed: None if (tree, seed) == (FLAT, 2) else 5.0)
    best = at_best_rate(CONTENDERS[:2], rung, learning_rates=RATES, seed=0)
    assert list(with_more_seeds(list(best.values()), rung, seeds=[1, 2])) == [HUFFMAN.hash]


def test_of_each_family_the_likeliest_go_on(ledger):
    names = {"huffman": HUFFMAN, "wide(a=1)": FLAT, "wide(a=2)": WIDE, "wide(a=3)": PAIR, "slim": DEEP}
    base = {HUFFMAN: 5.0, FLAT: 4.21, WIDE: 4.2, PAIR: 4.1, DEEP: 3.0}
    best = trained(ledger, lambda tree, rate, seed: base[tree], [as_promoted(n, BASELINE, t) for n, t in names.items()])

    def chosen(places, **options):
        return [f.promoted.name for f in choose_finalists(best, cost_model=COST_MODEL, places=places, **options)]

    assert chosen(Places(1, 1, 1)) == ["huffman", "slim", "wide(a=1)"]  # the last is the best of Huffman's cost or less
    assert chosen(Places(1, 1, 1), families=["wide"]) == ["huffman", "slim", "wide(a=1)", "wide(a=3)"]
    assert chosen(Places(1, 1, 2), families=["wide"]) == ["huffman", "slim", "wide(a=1)", "wide(a=3)", "wide(a=2)"]


def test_the_choice_is_by_reward_not_by_likelihood(ledger):
    # DEAR costs 1.525 units more than PAIR: at λ = 0.1 that is worth 0.1525 nats.
    contenders = [CONTENDERS[0], CONTENDERS[5], CONTENDERS[3]]
    close = {HUFFMAN: 5.0, DEAR: 3.0, PAIR: 3.1}
    chosen = finalists(ledger, lambda tree, rate, seed: close[tree], contenders)
    assert [f.promoted.name for f in chosen] == ["huffman", "found #4"]
    assert chosen[1].validation_reward(COST_MODEL) == pytest.approx(-3.1 - 0.1 * chosen[1].promoted.cost.cost)


def test_joint_rows(ledger):
    finalists(ledger)
    rows = ledger.rows(JOINT)
    assert [row.id for row in rows] == list(range(1, 19))
    assert [(row.label, row.learning_rate) for row in rows] == [(p.name, r) for p in CONTENDERS for r in RATES]
    row = rows[9]
    assert (row.label, row.agent, row.tree_hash) == ("found #4", "agent", PAIR.hash)
    assert row.reward == pytest.approx(-row.valid_nll - COST_WEIGHT * row.cost)
    assert {row.epochs for row in rows} == {EPOCHS}
    assert all(row.test_nll is None for row in rows), "the test split is not for choosing"


def test_a_tree_that_diverges_at_every_rate_is_left_out_and_the_ledger_says_why(ledger):
    chosen = finalists(ledger, lambda tree, rate, seed: None if tree == PAIR else typical(tree, rate, seed))
    assert [f.promoted.name for f in chosen] == ["huffman", "deep", "flat", "found #6", "found #5"]
    assert {row.reason for row in ledger.rows(JOINT) if row.label == "found #4"} == {"FloatingPointError: nan"}


def test_one_rate_that_works_is_enough(ledger):
    chosen = finalists(ledger, lambda tree, rate, seed: typical(tree, rate, seed) if rate == 0.2 else None)
    assert {f.learning_rate for f in chosen} == {0.2}
    assert len(chosen) == 5


def test_huffman_must_not_diverge(ledger):
    with pytest.raises(ExecutionError, match=r"diverged at its rate of joint.learning_rates; add a smaller one"):
        finalists(ledger, lambda tree, rate, seed: None if tree == HUFFMAN else 5.0)


def test_one_tree_can_be_best_and_best_cheap(ledger):
    chosen = finalists(ledger, contenders=[CONTENDERS[0], CONTENDERS[4]])
    assert [f.promoted.name for f in chosen] == ["huffman", "found #5"]


def test_several_finalists_of_each_kind(ledger):
    # By reward: found PAIR, DEAR, WIDE, of which WIDE alone is cheap; builders DEEP, FLAT, of which FLAT is.
    names = [f.promoted.name for f in finalists(ledger, places=Places(2, 1, 1))]
    assert names == ["huffman", "deep", "flat", "found #4", "found #6", "found #5"]


@pytest.mark.parametrize(
    ("weights", "further"),
    [
        ((), []),
        ((0.3,), []),
        ((0.27,), []),
        ((0.25,), ["found #6"]),
        ((0.0, 0.1, 0.4), ["found #6"]),
    ],
)
def test_finalists_for_further_weights(ledger, weights, further):
    # DEAR beats PAIR by 0.4 nats here and costs 1.525 more: under λ < 0.262 it is the better one. WIDE is far off.
    base = {HUFFMAN: 5.0, FLAT: 6.0, DEEP: 4.0, PAIR: 3.4, WIDE: 5.5, DEAR: 3.0}
    model = CostModel(FEATURES, 0.3)
    best = trained(ledger, lambda tree, rate, seed: base[tree])
    chosen = choose_finalists(best, cost_model=model, cost_weights=weights)
    names = [f.promoted.name for f in chosen]
    assert names == ["huffman", "deep", "flat", "found #4", "found #5", *further]


def test_the_builder_that_a_found_tree_must_beat_is_confirmed_with_it(ledger):
    # By cost: WIDE, Huffman, PAIR, the found tree, DEEP. Of the builders DEEP is best, WIDE of Huffman's cost or less.
    tree = Tree.from_nested([3, [4, [0, 1, 2]]])
    builders = {"huffman": HUFFMAN, "wide": WIDE, "pair": PAIR, "deep": DEEP}
    base = {HUFFMAN: 5.0, WIDE: 4.5, PAIR: 4.0, DEEP: 2.0, tree: 3.0}
    contenders = [as_promoted(name, BASELINE, one) for name, one in builders.items()]
    found = as_promoted("found #1", FOUND, tree)
    assert contenders[2].cost.cost < found.cost.cost < contenders[3].cost.cost

    def names(contenders):
        return [f.promoted.name for f in finalists(ledger, lambda tree, rate, seed: base[tree], contenders)]

    assert names([*contenders, found]) == ["huffman", "deep", "wide", "found #1", "pair"]
    assert names(contenders) == ["huffman", "deep", "wide"]


def test_trees_that_were_trained_to_compare_rungs_are_no_finalists(ledger):
    star = as_promoted("found #9", DIVERSE, DEAR)
    assert [f.promoted.name for f in finalists(ledger, contenders=[CONTENDERS[0], star, CONTENDERS[4]])] == [
        "huffman",
        "found #5",
    ]


def test_rewards_of_finalists_and_confirmed_trees(ledger):
    finalist = Finalist(CONTENDERS[3], 0.1, 3.0)
    assert finalist.units(COST_MODEL) == CONTENDERS[3].cost.cost == pytest.approx(2.0375)
    assert finalist.validation_reward(COST_MODEL) == pytest.approx(-3.0 - 0.1 * 2.0375)
    for weight in (0.0, 2.0):
        assert finalist.validation_reward(COST_MODEL, weight) == pytest.approx(-3.0 - weight * 2.0375)
    confirmed = Confirmed(finalist, [3.5, 4.5], [9.0, 9.0])
    assert confirmed.validation_reward(COST_MODEL) == pytest.approx(-4.0 - 0.1 * 2.0375)


# -- confirmation


FINALISTS = [Finalist(promoted, 0.1 * (i + 1), 5.0) for i, promoted in enumerate(CONTENDERS[:3])]


def test_confirmation_pairs_by_seed_and_reads_the_test_split(ledger):
    rung, trainer, _ = joint_rung(ledger, lambda tree, rate, seed: BASE[tree] + seed)
    confirmed = confirm(FINALISTS, rung, seeds=[30, 10, 20])
    for entry in confirmed:
        base = BASE[entry.finalist.promoted.tree]
        assert entry.valid_nll == [base + 30, base + 10, base + 20]
        assert entry.test_nll == [base + 31, base + 11, base + 21]
        assert entry.token_nll is not None
        assert entry.token_nll.tolist() == pytest.approx([base + 20, base + 22])  # means over the seeds
    assert [entry.finalist for entry in confirmed] == FINALISTS
    assert all(job.use_test for job in trainer.jobs)
    rows = ledger.rows(CONFIRM)
    assert [(row.label, row.seed) for row in rows] == [
        (f.promoted.name, seed) for f in FINALISTS for seed in (30, 10, 20)
    ]
    assert [row.learning_rate for row in rows] == [f.learning_rate for f in FINALISTS for _ in range(3)]
    assert all(row.test_nll == row.valid_nll + 1 for row in rows)


def test_a_tree_that_fails_with_one_seed_is_left_out(ledger):
    rung, _, _ = joint_rung(ledger, lambda tree, rate, seed: None if (tree, seed) == (FLAT, 1) else 5.0)
    confirmed = confirm(FINALISTS, rung, seeds=[0, 1])
    assert [entry.finalist.promoted.name for entry in confirmed] == ["huffman", "deep"]
    assert [row.status for row in ledger.rows(CONFIRM)] == [OK, OK, OK, FAILED, OK, OK]


def test_ids_go_on_from_rung_to_rung(ledger):
    record(ledger, (BUILDER, "huffman", HUFFMAN, -5.0))
    rung, _, _ = joint_rung(ledger)
    rung.train(JOINT, [(CONTENDERS[0], 0.1, 0)])
    rung.train(CONFIRM, [(CONTENDERS[1], 0.1, 0)])
    assert [(row.id, row.rung) for row in ledger.rows()] == [(1, FROZEN), (2, JOINT), (3, CONFIRM)]
