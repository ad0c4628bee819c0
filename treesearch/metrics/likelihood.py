"""Likelihood of the targets, and how rare classes fare beside frequent ones.

Shapes: **B** batch, **C** classes, **K** buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from treesearch.errors import DataError
from treesearch.metrics.base import Metric, check_scores, check_whole, ratio
from treesearch.tree import check_counts

EDGES = (5, 20, 100)


class MeanNLL(Metric):
    """Mean negative log-likelihood of the targets, in nats; infinite if one has probability 0.

    Args:
        num_classes: C.

    Raises:
        DataError: C is no whole number >= 1.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = check_whole("num_classes", num_classes, 1)
        super().__init__((num_classes,), {"nll": (), "num": ()})

    def update(self, log_prob: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            log_prob: [B, C] log-probabilities of the classes, nats.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or values are no log-probabilities or classes.
        """
        log_prob_BC, target_B = check_scores(log_prob, target, self.num_classes)
        self._add(nll=_target_nll(log_prob_BC, target_B).sum(), num=len(target_B))

    def compute(self) -> float:
        """The mean; NaN if there is no example so far."""
        return float(ratio(self._sums["nll"], self._sums["num"]))


class BucketScores(NamedTuple):
    """What `CountBuckets` computes; [K] each, and the same over rare classes together."""

    num: list[float]  # examples
    accuracy: list[float]
    nll: list[float]  # nats
    rare_accuracy: float
    rare_nll: float


class CountBuckets(Metric):
    """Accuracy and mean NLL by the training count of the target's class.

    Bucket 0 is of classes that training has not seen, then each edge closes one: with the default edges 1-5, 6-20,
    21-100 and >100. *Rare* are classes of at most the first edge, unseen ones included.

    Args:
        counts: [C] training counts.
        edges: The greatest count of each bucket but the last; > 0 and ascending.

    Attributes:
        labels: What each bucket holds, [K]: ``0``, ``1-5``, ...

    Raises:
        DataError: Counts cannot be used, or edges are not positive and ascending.
    """

    def __init__(self, counts: ArrayLike, *, edges: Sequence[int] = EDGES) -> None:
        counts_C = check_counts(counts)
        limits = [0, *edges]
        if not all(isinstance(edge, int) for edge in edges) or len(limits) < 2:
            raise DataError(f"edges must be whole numbers, at least one, but got {edges!r:.60}")
        if any(low >= high for low, high in pairwise(limits)):
            raise DataError(f"edges must be > 0 and ascending, but got {edges!r:.60}; sort them")
        self.labels = ("0", *(f"{low + 1}-{high}" for low, high in pairwise(limits)))
        self.labels += (f">{limits[-1]}",)
        self._bucket_C = torch.from_numpy(np.searchsorted(limits, counts_C, side="left"))
        shape = (len(self.labels),)
        super().__init__((tuple(limits), self._bucket_C.numpy().tobytes()), {"num": shape, "hits": shape, "nll": shape})

    @property
    def num_classes(self) -> int:
        """C."""
        return self._bucket_C.numel()

    def update(self, log_prob: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            log_prob: [B, C] log-probabilities of the classes, nats.
            target: Classes [B].

        Raises:
            DataError: Shapes do not fit, or values are no log-probabilities or classes.
        """
        log_prob_BC, target_B = check_scores(log_prob, target, self.num_classes)
        bucket_B = self._bucket_C[target_B.cpu()]
        values = {
            "num": torch.ones_like(target_B),
            "hits": log_prob_BC.argmax(1) == target_B,
            "nll": _target_nll(log_prob_BC, target_B),
        }
        for name, value_B in values.items():
            self._sums[name].index_add_(0, bucket_B, value_B.cpu().to(torch.float64))

    def compute(self) -> BucketScores:
        """The means; NaN in a bucket, or over rare classes, without an example so far."""
        num, hits, nll = (self._sums[name] for name in ("num", "hits", "nll"))
        return BucketScores(
            num.tolist(),
            ratio(hits, num),
            ratio(nll, num),
            ratio(hits[:2].sum(), num[:2].sum()),
            ratio(nll[:2].sum(), num[:2].sum()),
        )


def _target_nll(log_prob_BC: Tensor, target_B: Tensor) -> Tensor:
    return -log_prob_BC.gather(1, target_B[:, None])[:, 0].to(torch.float64)
