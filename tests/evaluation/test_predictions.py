"""Accuracy and ranked lists against brute force over all classes."""

import numpy as np
import pytest
import torch

from treesearch import HierarchicalSoftmax, build_tree
from treesearch.data import Seen, Split
from treesearch.evaluation import predictions
from treesearch.evaluation.encoders import IdentityEncoder
from treesearch.evaluation.predictions import accuracy, ranking

NUM_CLASSES, SIZE, NUM = 40, 5, 120
RNG = np.random.default_rng(0)
X = RNG.standard_normal((NUM, SIZE)).astype(np.float32)
Y = RNG.integers(NUM_CLASSES, size=NUM).astype(np.int32)
SPLIT, ENCODER = Split(X, Y), IdentityEncoder(SIZE)
SETS = [np.setdiff1d(RNG.choice(NUM_CLASSES, size=RNG.integers(0, 39), replace=False), [y]) for y in Y.tolist()]
SEEN = Seen(np.cumsum([0, *map(len, SETS)]), np.concatenate(SETS).astype(np.int32))


def layer() -> HierarchicalSoftmax:
    made = HierarchicalSoftmax(SIZE, build_tree("huffman", counts=np.arange(1, NUM_CLASSES + 1)))
    made.reset_parameters(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in made.weights:
            weight *= 8  # decisions that are not all alike
    return made


@torch.no_grad()
def all_log_probs() -> np.ndarray:
    return layer().log_prob(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("batch", [1, 50, 500])
def test_accuracy(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH", batch)
    assert accuracy(ENCODER, layer(), SPLIT) == {"accuracy": (all_log_probs().argmax(1) == Y).mean()}


@pytest.mark.parametrize("batch", [1, 50, 500])
def test_ranking(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH", batch)
    log_prob = all_log_probs()
    ranks = []
    for row, target, seen in zip(log_prob, Y.tolist(), SETS, strict=True):
        masked = row.copy()
        masked[seen] = -np.inf
        ranks.append(1 + int((masked > masked[target]).sum()))
    rank = np.array(ranks)
    found = ranking(ENCODER, layer(), SPLIT, SEEN)
    assert found["hit_rate@10"] == pytest.approx((rank <= 10).mean())
    assert found["ndcg@10"] == pytest.approx(np.where(rank <= 10, 1 / np.log2(rank + 1), 0).mean())
    assert 0.1 < found["ndcg@10"] < found["hit_rate@10"] < 0.95  # neither list is trivial
    nothing = Seen(np.zeros(NUM + 1, np.int64), np.zeros(0, np.int32))
    assert ranking(ENCODER, layer(), SPLIT, nothing)["hit_rate@10"] < found["hit_rate@10"]
