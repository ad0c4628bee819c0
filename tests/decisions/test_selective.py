"""Guarantees by simulation, and the policies against naive walks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from tests.decisions.probs import children, few, path, random_probs, trees
from treesearch import Tree
from treesearch.decisions.node_probs import NodeProbs
from treesearch.decisions.selective import GRID, ConformalTree, SelectivePolicy, contains
from treesearch.errors import DataError

TREE = Tree.from_nested([[0, 1, 2], [3, [4, 5]]])
POOL = 20_000


def population(seed: int, *, sharpness: float, outside: float = 0.05) -> tuple[NodeProbs, torch.Tensor]:
    """Truths from random class probabilities, some out of scope, and a model that takes the logits too large."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(POOL, TREE.num_classes, generator=generator, dtype=torch.float64)
    cls = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    truth = torch.from_numpy(TREE.class_leaf.astype(np.int64))[cls]
    truth[torch.rand(POOL, generator=generator) < outside] = 0
    return NodeProbs.of_log_prob(TREE, (sharpness * logits).log_softmax(1)), truth


def accuracy(policy: SelectivePolicy, probs: NodeProbs, truth: torch.Tensor) -> float:
    answer = policy.decide(probs)
    return float(contains(probs.tree, answer, truth)[answer > 0].double().mean())


@given(tree=trees())
def test_contains(tree: Tree) -> None:
    nodes = range(tree.num_nodes)
    naive = [[a == 0 or a in path(tree, y) for y in nodes] for a in nodes]
    every = torch.arange(tree.num_nodes)
    assert contains(tree, every[:, None], every[None, :]).tolist() == naive


@few
@given(tree=trees(), seed=st.integers(0, 99), threshold=st.floats(0, 1), leaves=st.booleans(), level=st.integers(1, 2))
def test_decisions_are_walks(tree: Tree, seed: int, threshold: float, leaves: bool, level: int) -> None:
    level = min(level, tree.max_depth)
    nodes = "leaves" if leaves else "all"
    probs = random_probs(tree, 5, seed)
    policy = SelectivePolicy(tree, threshold, 0.9, 0.1, level, nodes, num_examples=1)  # type: ignore[arg-type]
    wanted = []
    for prob, cls in zip(probs.prob.tolist(), probs.class_log_prob.argmax(1).tolist(), strict=True):
        node = 0
        while children(tree, node):
            best = max(children(tree, node), key=lambda child: prob[child])
            if prob[best] < threshold:
                break
            node = best
        if leaves:
            leaf = int(tree.class_leaf[cls])
            node = leaf if prob[leaf] >= threshold else 0
        elif node < tree.num_internal and len(path(tree, node)) < level:
            node = 0
        wanted.append(node)
    assert policy.decide(probs).tolist() == wanted


def test_the_threshold_is_the_last_that_a_bound_allows() -> None:
    """Clopper-Pearson lower bounds on the four fifths that test, walked by hand from the best start of the others."""
    probs, truth = population(0, sharpness=2.0)
    probs, truth = probs[:600], truth[:600]
    policy = SelectivePolicy.fit(probs, truth, target_accuracy=0.8, delta=0.1, seed=7)
    order = np.random.default_rng(7).permutation(600).tolist()

    def counts(threshold: float, rows: list[int]) -> tuple[int, int]:
        answer = SelectivePolicy(TREE, threshold, 0.8, 0.1, num_examples=1).decide(probs[torch.tensor(rows)]).tolist()
        pairs = [(a, int(truth[row])) for a, row in zip(answer, rows, strict=True) if a]
        return len(pairs), sum(a in path(TREE, y) for a, y in pairs)

    def surplus(threshold: float) -> float:
        num, right = counts(threshold, order[:120])
        return (right / num - 0.8) * num**0.5 if num else 0.0

    allowed: list[tuple[float, int, int]] = []
    for threshold in GRID.tolist()[int(np.argmax([surplus(threshold) for threshold in GRID])) :]:
        num, right = counts(threshold, order[120:])
        if beta.ppf(0.1, right, num - right + 1) < 0.8:
            break
        allowed.append((threshold, num, right))
    assert len(allowed) > 3
    assert (policy.threshold, policy.num_answered, policy.num_right) == allowed[-1]
    assert f"answered {policy.num_answered} of 480, {policy.num_right} right" in repr(policy)


@pytest.mark.parametrize(("nodes", "sharpness"), [("all", 2.0), ("all", 0.7), ("leaves", 2.0)])
def test_the_target_is_reached_in_most_resamplings(nodes: str, sharpness: float) -> None:
    """200 calibration sets of 500; accuracy on a large population; not more misses than delta and luck allow."""
    probs, truth = population(1, sharpness=sharpness)
    rng, target, delta = np.random.default_rng(0), 0.8, 0.05
    misses, answered = 0, 0
    for _ in range(200):
        some = torch.from_numpy(rng.choice(POOL, 500, replace=False))
        policy = SelectivePolicy.fit(probs[some], truth[some], target_accuracy=target, delta=delta, nodes=nodes)  # type: ignore[arg-type]
        if np.isfinite(policy.threshold):
            answered += 1
            misses += accuracy(policy, probs[::4], truth[::4]) < target
    assert misses <= binom.ppf(0.999, 200, delta)
    assert answered > 80


def test_where_no_threshold_is_good_enough_few_are_taken() -> None:
    """The worst case: right ones are just rarer than the target at every threshold, so all answers are misses."""
    pair, rng, target, delta = Tree.from_nested([0, 1]), np.random.default_rng(0), 0.8, 0.1
    taken = 0
    for _ in range(400):
        top = rng.beta(3, 1, 200) / 2 + 0.5
        probs = NodeProbs.of_log_prob(pair, torch.from_numpy(np.log(np.stack([top, 1 - top], 1))))
        truth = torch.from_numpy(np.where(rng.random(200) < target - 0.001, 1, 2))
        taken += np.isfinite(SelectivePolicy.fit(probs, truth, target_accuracy=target, delta=delta).threshold)
    assert 0 < taken <= binom.ppf(0.999, 400, delta)


def test_a_policy_that_can_show_nothing_abstains() -> None:
    probs, _ = population(2, sharpness=1.0)
    policy = SelectivePolicy.fit(probs[:200], torch.zeros(200).long(), target_accuracy=0.9, delta=0.1)
    assert policy.threshold == np.inf
    assert policy.decide(probs).count_nonzero() == 0
    assert policy.num_answered == 0


def test_a_model_that_is_always_right_answers_always() -> None:
    probs, _ = population(3, sharpness=1.0)
    truth = torch.from_numpy(TREE.class_leaf.astype(np.int64))[probs.class_log_prob.argmax(1)]
    leaves = SelectivePolicy.fit(probs[:300], truth[:300], target_accuracy=0.95, delta=0.1, nodes="leaves")
    assert leaves.threshold == 0
    assert torch.equal(leaves.decide(probs), truth)


@few
@given(tree=trees(), seed=st.integers(0, 99), alpha=st.sampled_from([0.05, 0.1, 0.3]))
def test_conformal_answers_are_the_deepest_that_cover_enough(tree: Tree, seed: int, alpha: float) -> None:
    """On the calibration set: at least ⌈(n + 1)(1 - alpha)⌉ truths are covered, and with any smaller quantile among
    the path's probabilities fewer are."""
    num = 40
    probs = random_probs(tree, num, seed)
    truth = torch.from_numpy(np.random.default_rng(seed).integers(tree.num_nodes, size=num))
    found = ConformalTree.fit(probs, truth, alpha=alpha)
    need = int(np.ceil(round((num + 1) * (1 - alpha), 9)))

    def walk(quantile: float) -> list[int]:
        answers = []
        for prob, cls in zip(probs.prob.tolist(), probs.class_log_prob.argmax(1).tolist(), strict=True):
            line = [0, *path(tree, int(tree.class_leaf[cls]))]
            answers.append(max((node for node in line if prob[node] > quantile or node == 0), key=line.index))
        return answers

    def covered(answers: list[int]) -> int:
        return sum(a == 0 or a in path(tree, y) for a, y in zip(answers, truth.tolist(), strict=True))

    assert found.decide(probs).tolist() == walk(found.quantile)
    assert covered(walk(found.quantile)) >= need
    assert found.quantile == 0 or covered(walk(np.nextafter(found.quantile, 0))) < need


def test_conformal_coverage() -> None:
    """Mean coverage over 300 calibration sets of 49 lies between 1 - alpha and 1 - alpha + 1 / (n + 1), up to luck."""
    probs, truth = population(4, sharpness=3.0)
    rng, alpha, shares = np.random.default_rng(0), 0.1, []
    for _ in range(300):
        some = torch.from_numpy(rng.choice(POOL, 149, replace=False))
        found = ConformalTree.fit(probs[some[:49]], truth[some[:49]], alpha=alpha)
        new = some[49:]
        shares.append(float(contains(TREE, found.decide(probs[new]), truth[new]).double().mean()))
    slack = 4 * float(np.std(shares)) / np.sqrt(len(shares))
    assert 0.9 - slack <= float(np.mean(shares)) <= 0.9 + 1 / 50 + slack


def fitted(**changes: object) -> SelectivePolicy:
    settings = {"target_accuracy": 0.9, "delta": 0.1, **changes}
    return SelectivePolicy.fit(random_probs(TREE, 26, 0), torch.zeros(26).long(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fitted(target_accuracy=1.0), r"target_accuracy must lie in \(0, 1\), but got 1.0"),
        (lambda: fitted(target_accuracy=float("nan")), "but got nan"),
        (lambda: fitted(delta=0), r"delta must lie in \(0, 1\), but got 0"),
        (lambda: fitted(delta="small"), "but got 'small'"),
        (lambda: fitted(nodes="inner"), "'all' or 'leaves', but got 'inner'"),
        (fitted, "accuracy of 0.9 with confidence 1 - 0.1 needs at least 27 calibration examples, but got 26"),
        (lambda: fitted(target_accuracy=0.5, min_level=4), r"min_level must be a whole number in \[0, 3\], but got 4"),
        (lambda: SelectivePolicy(TREE, 0.9, 0.9, 0.1).decide(random_probs(TREE, 1, 0)), "needs calibration"),
        (lambda: fitted(target_accuracy=0.5).decide(random_probs(Tree.from_nested([0, 1]), 1, 0)), "of the policy"),
        (lambda: SelectivePolicy.fit(random_probs(TREE, 2, 0), torch.zeros(3).long(), target_accuracy=0.9, delta=0.1),
         "one node per example, 2"),
        (lambda: SelectivePolicy.fit(random_probs(TREE, 2, 0), torch.zeros(2), target_accuracy=0.9, delta=0.1),
         "integer ids"),
        (lambda: ConformalTree.fit(random_probs(TREE, 8, 0), torch.zeros(8).long(), alpha=0.1),
         "needs at least 9 calibration examples, but got 8"),
        (lambda: ConformalTree.fit(random_probs(TREE, 8, 0), torch.zeros(8).long(), alpha=1), r"alpha must lie in \(0"),
        (lambda: ConformalTree(TREE, 0.5, 0.1, 9).decide(random_probs(Tree.from_nested([0, 1]), 1, 0)), "of the conf"),
    ],
)  # fmt: skip
def test_bad_guarantees(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


def test_enough_examples_are_enough() -> None:
    """At the numbers that the errors name, and with a truth that is always right."""
    probs, truth = random_probs(TREE, 27, 0), torch.zeros(27).long()
    assert ConformalTree.fit(probs[:9], truth[:9], alpha=0.1).quantile > 0
    sure = NodeProbs.of_log_prob(TREE, torch.full((27, 6), -torch.inf).index_fill_(1, torch.tensor([2]), 0))
    right = torch.full((27,), int(TREE.class_leaf[2]))
    assert SelectivePolicy.fit(sure, right, target_accuracy=0.9, delta=0.1).threshold == 0


def test_a_tree_of_one_class_abstains() -> None:
    tree = Tree.from_nested(0)
    probs = NodeProbs.of_log_prob(tree, torch.zeros(30, 1))
    policy = SelectivePolicy.fit(probs, torch.zeros(30, dtype=torch.int64), target_accuracy=0.9, delta=0.1)
    assert policy.num_answered == 0
    assert not policy.decide(probs).any()
