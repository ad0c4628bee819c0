"""Scores of trees that were trained with different seeds, worked out by hand."""

import pytest

from treesearch.search.evaluation_row import FAILED, JOINT, OK, EvaluationRow
from treesearch.search.trained_scores import trained_scores


def row(number: int, tree: str, seed: int, rate: float, nll: float | None) -> EvaluationRow:
    return EvaluationRow(
        id=number,
        rung=JOINT,
        batch=0,
        agent="hybrid",
        label=None,
        tree_hash=tree,
        status=OK if nll is not None else FAILED,
        seed=seed,
        learning_rate=rate,
        valid_nll=nll,
    )


def test_a_kind_seed_does_not_put_a_tree_before_one_that_has_seen_an_unkind_one() -> None:
    rows = [
        row(1, "good", 0, 0.1, 3.9355),
        row(2, "good", 0, 0.2, 4.5),
        row(3, "lucky", 0, 0.1, 4.2),
        row(4, "lucky", 0, 0.2, 3.9404),
        row(5, "huffman", 0, 0.1, 3.9498),
        row(6, "good", 1, 0.1, 3.9470),
        row(7, "huffman", 1, 0.1, 3.9583),
    ]
    scores = trained_scores(rows)
    nll = {tree: score.valid_nll for tree, score in scores.items()}
    assert nll["good"] == pytest.approx((3.9355 + 3.9470) / 2)
    assert nll["huffman"] == pytest.approx((3.9498 + 3.9583) / 2)
    dearer = ((3.9470 - 3.9355) + (3.9583 - 3.9498)) / 2  # the second seed
    assert nll["lucky"] == pytest.approx(3.9404 + dearer / 2)
    assert nll["good"] < nll["lucky"] < nll["huffman"]
    assert [(scores[tree].num_seeds, scores[tree].row.id) for tree in ("good", "lucky", "huffman")] == [
        (2, 1),
        (1, 4),
        (2, 5),
    ]


def test_what_diverged_counts_for_nothing() -> None:
    rows = [
        row(1, "a", 7, 0.1, None),
        row(2, "a", 7, 0.2, 3.0),
        row(3, "b", 7, 0.1, None),
        row(4, "a", 8, 0.2, None),
        row(5, "c", 7, 0.1, float("inf")),
    ]
    scores = trained_scores(rows)
    assert {tree: (score.valid_nll, score.num_seeds) for tree, score in scores.items()} == {"a": (3.0, 1)}
    assert trained_scores([]) == {}
