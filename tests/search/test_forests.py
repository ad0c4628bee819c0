"""Several trees in one pass of the torch kernel give what the compiled kernel gives one by one, through the worker."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.evaluation.oracle import planted
from treesearch import Tree, build_tree
from treesearch.config import EncoderConfig, FrozenConfig, JointConfig
from treesearch.data import InputSpec
from treesearch.evaluation.frozen import NodeScores
from treesearch.evaluation.frozen_torch import evaluate_forest
from treesearch.evaluation.memo import NodeMemo
from treesearch.search import worker
from treesearch.search.executors import LocalExecutor
from treesearch.search.nodes import NodeEvaluator, Verdict
from treesearch.search.worker import EvaluationWorker, WorkerSettings

TRAIN, VALID, COUNTS = planted(60, 6000)
VECTORS = np.random.default_rng(0).standard_normal((60, 4))
TREES = [
    build_tree(name, counts=COUNTS, vectors=VECTORS, **options)
    for name, options in (
        ("huffman", {}),
        ("clustered", {"arity": 4}),
        ("flat", {}),
        ("balanced", {}),
        ("two-level", {}),
    )
]


def verdicts(trees: list[Tree], *, forest_size: int | None) -> list[Verdict]:
    arrays = {
        "counts": COUNTS,
        "vectors": VECTORS,
        "train.x": TRAIN.x,
        "train.y": TRAIN.y,
        "valid.x": VALID.x,
        "valid.y": VALID.y,
    }
    frozen = FrozenConfig(learning_rate=0.3, device="cpu")
    settings = WorkerSettings(EncoderConfig(), frozen, JointConfig(), InputSpec(4))
    with LocalExecutor(EvaluationWorker, arrays=arrays, settings=settings) as executor:
        evaluator = NodeEvaluator(executor, memo=NodeMemo(), forest_size=forest_size)
        first = sorted(evaluator.run(trees), key=lambda verdict: verdict.position)
        again = list(evaluator.run(trees[:1]))
        assert again[0].num_trained == 0  # what is known is not trained again
    return first


@pytest.mark.slow
@pytest.mark.parametrize("forest_size", [1, 2, 8])
def test_forests_agree_with_the_compiled_kernel(forest_size: int) -> None:
    for own, other in zip(verdicts(TREES, forest_size=None), verdicts(TREES, forest_size=forest_size), strict=True):
        assert own.node_nll is not None
        assert other.node_nll is not None
        assert other.node_nll.sum() == pytest.approx(own.node_nll.sum(), abs=0.005)
        assert other.seconds > 0


def test_a_tree_that_diverges_does_not_take_its_forest_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trees: Sequence[Tree], **options: Any) -> list[NodeScores]:
        scores = evaluate_forest(trees, **options)
        return [
            replace(one, nll=one.nll * (np.nan if tree == TREES[1] else 1))
            for tree, one in zip(trees, scores, strict=True)
        ]

    monkeypatch.setattr(worker, "evaluate_forest", broken)
    found = verdicts(TREES, forest_size=5)
    assert [verdict.node_nll is None for verdict in found] == [False, True, False, False, False]
    assert found[1].reason == "FloatingPointError: validation NLL is nan; lower frozen.learning_rate"
