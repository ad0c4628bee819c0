"""Scores node by node: with memo exactly those without, each node trained once, whatever finishes first."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.frozen_fakes import NUM_TOKENS, FakeExecutor, distinct, mean_nll, node_nll
from treesearch import Tree
from treesearch.evaluation.memo import NodeMemo, memo_keys
from treesearch.search.nodes import NodeEvaluator

# A and B share the node {3, 4}, A and C the node {0, 1}; B has all nodes of D but its root.
A = Tree.from_nested([[0, 1], 2, [3, 4]])
B = Tree.from_nested([0, [1, 2, [3, 4]]])
C = Tree.from_nested([[0, 1], [2, 3, 4]])
D = Tree.from_nested([0, 1, [2, [3, 4]]])
NO_MEMO, SMALL, LARGE = None, 5, 4_000_000


def evaluator(executor, memo=LARGE, **options):
    if memo is None:
        return NodeEvaluator(executor, memo=NodeMemo(), reuse=False, **options)
    return NodeEvaluator(executor, memo=NodeMemo(max_entries=memo), **options)


def run(evaluator, trees):
    """Verdicts in the order of the trees; checks that each came exactly once."""
    verdicts = sorted(evaluator.run(trees), key=lambda verdict: verdict.position)
    assert [verdict.position for verdict in verdicts] == list(range(len(trees)))
    return verdicts


def distinct_nodes(trees):
    return {key.tobytes() for tree in trees for key in memo_keys(tree)}


@st.composite
def conversations(draw):
    """Batches of distinct trees over six classes, some with projections, and an order of finishing for each task."""
    pool = distinct(12, seed=draw(st.integers(0, 5)), num_classes=6)
    for position in draw(st.lists(st.integers(0, 11), max_size=4)):
        tree = pool[position]
        dims = draw(st.lists(st.integers(0, 2), min_size=tree.num_internal, max_size=tree.num_internal))
        pool[position] = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)
    batches = draw(st.lists(st.lists(st.integers(0, 11), max_size=6, unique=True), max_size=5))
    failing = draw(st.sets(st.integers(0, 11), max_size=4))
    return pool, [[pool[i] for i in batch] for batch in batches], {pool[i] for i in failing}, draw(st.integers(0, 99))


@settings(max_examples=150, deadline=None)
@given(conversations(), st.sampled_from([1, 3, SMALL, 12, LARGE]))
def test_results_with_memo_are_those_without(conversation, max_entries):
    _, batches, failing, seed = conversation
    rng = np.random.default_rng(seed)

    def shuffled(tasks):
        return [tasks[i] for i in rng.permutation(len(tasks))]

    def reason(tree):
        return "ValueError: no" if tree in failing else None

    executor = FakeExecutor(reason, order=shuffled)
    with_memo, without = evaluator(executor, max_entries), evaluator(FakeExecutor(reason), NO_MEMO)
    for batch in batches:
        before = len(executor.trained)
        verdicts, plain = run(with_memo, batch), run(without, batch)
        assert sum(verdict.num_trained for verdict in verdicts) == len(executor.trained) - before
        for tree, verdict, expected in zip(batch, verdicts, plain, strict=True):
            if verdict.num_trained == 0:  # a tree that fails can be put together from what others had trained
                assert verdict.node_nll is not None
            elif verdict.node_nll is None:
                assert tree in failing
                assert verdict.reason == expected.reason == "ValueError: no"
            if verdict.node_nll is not None:
                assert verdict.reason is None
                assert verdict.node_nll.tolist() == (node_nll(tree) / NUM_TOKENS).tolist()
                assert tree in failing or verdict.node_nll.tolist() == expected.node_nll.tolist()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_each_node_of_a_batch_is_trained_once_for_the_first_tree_that_has_it(order):
    trees = [B, D, A]
    executor = FakeExecutor(order=lambda tasks: [tasks[i] for i in order])
    verdicts = run(evaluator(executor), trees)
    assert Counter(executor.trained) == dict.fromkeys(distinct_nodes(trees), 1)
    # B: root, {1, 2, 34}, {3, 4}; D lacks its root and {2, 34}; A its root and {0, 1}.
    assert [verdict.num_trained for verdict in verdicts] == [3, 2, 2]
    assert [verdict.node_nll.sum() for verdict in verdicts] == pytest.approx([mean_nll(tree) for tree in trees])


def test_a_verdict_comes_as_soon_as_its_last_node_is_there():
    executor = FakeExecutor(order=lambda tasks: tasks)
    arrived = []
    for verdict in evaluator(executor).run([B, C, A]):
        arrived.append((verdict.position, len(executor.asked)))
    assert arrived == [(0, 1), (1, 2), (2, 3)], "B and C wait for nobody"
    arrived = []
    executor = FakeExecutor(order=reversed)
    for verdict in evaluator(executor).run([B, C, A]):
        arrived.append((verdict.position, len(executor.asked)))
    assert arrived == [(1, 2), (0, 3), (2, 3)], "A is trained first but waits for both"


def test_what_earlier_batches_trained_is_not_trained_again():
    executor = FakeExecutor()
    scorer = evaluator(executor)
    run(scorer, [A, B])
    (again, new) = run(scorer, [B, C])
    assert Counter(executor.trained) == dict.fromkeys(distinct_nodes([A, B, C]), 1)
    assert (again.num_trained, again.attempts, again.seconds, again.worker) == (0, 0, 0.0, "")
    assert new.num_trained == 2, "the node {0, 1} was A's"
    assert scorer.known_nll(C) == pytest.approx(mean_nll(C))


def test_known_nll_is_that_of_the_known_nodes():
    scorer = evaluator(FakeExecutor())
    assert scorer.known_nll(A) == 0
    run(scorer, [B])
    shared = [key.tobytes() in distinct_nodes([B]) for key in memo_keys(A)]
    assert sum(shared) == 1
    assert scorer.known_nll(A) == pytest.approx(node_nll(A)[shared].sum() / NUM_TOKENS)
    plain = evaluator(FakeExecutor(), NO_MEMO)
    run(plain, [B])
    assert plain.known_nll(B) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nodes_of_a_tree_that_fails_are_trained_for_those_that_waited(order):
    def fails(tree):
        return "worker lost: killed" if tree == B else None

    executor = FakeExecutor(fails, order=lambda tasks: [tasks[i] for i in order if i < len(tasks)])
    lost, first, second = run(evaluator(executor), [B, D, A])
    assert (lost.node_nll, lost.reason, lost.num_trained) == (None, "worker lost: killed", 3)
    # D and A waited for {3, 4}: now D, the first of them, trains it. Both had trained the rest already.
    assert [verdict.num_trained for verdict in (first, second)] == [2 + 1, 2]
    assert [verdict.node_nll.sum() for verdict in (first, second)] == pytest.approx([mean_nll(D), mean_nll(A)])
    assert first.seconds == 1.0, "of both tasks"
    assert Counter(executor.trained)[memo_keys(D)[-1].tobytes()] == 2


def test_all_fail():
    verdicts = run(evaluator(FakeExecutor(lambda tree: "ValueError: x")), [A, B, C, D])
    assert all(verdict.node_nll is None and verdict.reason == "ValueError: x" for verdict in verdicts)


@pytest.mark.parametrize("max_entries", [1, 3, SMALL, 7, 11])
def test_what_a_full_memo_forgets_does_not_depend_on_who_finished_first(max_entries):
    seen = []
    for order in (reversed, lambda tasks: tasks):
        scorer, rows = evaluator(FakeExecutor(order=order), max_entries), []
        for batch in ([A, B], [C, D, A], [B, D], [A, C]):
            rows.append([(v.num_trained, v.node_nll.tolist()) for v in run(scorer, batch)])
        seen.append(rows)
    assert seen[0] == seen[1]


def test_without_a_memo_every_tree_is_trained_whole():
    executor = FakeExecutor()
    scorer = evaluator(executor, NO_MEMO)
    for _ in range(2):
        assert [v.num_trained for v in run(scorer, [A, B])] == [3, 3]
    assert len(executor.trained) == 12


@pytest.mark.parametrize("memo", [NO_MEMO, LARGE])
def test_the_edges(memo):
    assert run(evaluator(FakeExecutor(), memo), []) == []
    (verdict,) = run(evaluator(FakeExecutor(), memo), [Tree.from_nested(0)])
    assert (verdict.node_nll.tolist(), verdict.num_trained) == ([], 0)


def test_tokens_are_passed_on():
    executor = FakeExecutor()
    run(evaluator(executor, max_tokens=7), [A])
    assert [tokens for _, _, tokens in executor.asked] == [7]
