"""The directions that a node's softmax learns on frozen features.

Shapes: **T** tokens, **D** features, **C** classes, **n** classes of a node, **K** parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from treesearch.builders import build_tree
from treesearch.evaluation.class_vectors import class_means
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import initial_state
from treesearch.evaluation.frozen_kernels import run_epoch
from treesearch.evaluation.threads import one_blas_thread


class TrainedDirections:
    """Trains single nodes on cached features, one pass each; a `treesearch.builders.reassignment.NodeDirections`.

    Args:
        train: Features and labels.
        counts: [C] training counts.
        learning_rate: Of the row-wise Adagrad.
        max_tokens: Tokens read at most, the first ones.
    """

    def __init__(
        self, train: Features, counts: NDArray[np.float64], *, learning_rate: float, max_tokens: int = 300_000
    ) -> None:
        self._all = train
        self._max_tokens = max_tokens
        self._counts = counts
        self._learning_rate = learning_rate

    @cached_property
    def _train(self) -> Features:
        """What nodes learn from; a search without reassignment never needs it."""
        return self._all.first(self._max_tokens).in_memory()

    @cached_property
    def _means(self) -> NDArray[np.float32]:
        """Mean feature of each class, [C, D]: a pass over all tokens that a search without reassignment never needs."""
        return class_means(self._all, self._counts.size)

    def __call__(self, parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Mean logits [n, K] of each class (rising) in a softmax among ``parts`` (disjoint class sets, K >= 2)."""
        num, dim = len(parts), self._train.num_features
        part_of_C = np.full(self._counts.size, -1, np.int32)
        for index, part in enumerate(parts):
            part_of_C[part] = index
        label_T = part_of_C[self._train.y]
        inside = label_T >= 0
        mass_K = np.array([self._counts[part].sum() for part in parts])
        node = build_tree("flat", counts=np.maximum(mass_K, 1e-9))
        layout, parameters = initial_state(node, dim, np.maximum(mass_K, 1e-9))
        tokens = Features(self._train.x[inside], label_T[inside])
        with one_blas_thread():
            for x, y in tokens.blocks():
                run_epoch(layout, parameters, x, y, np.float32(self._learning_rate), True, np.zeros(1))
        weight, bias = parameters.weight.reshape(-1, dim), parameters.bias
        if num == 2:  # one row: the logit of the first part
            weight, bias = np.concatenate([weight, np.zeros_like(weight)]), np.append(bias, np.float32(0.0))
        # einsum, not BLAS: what is chosen must not depend on the number of threads.
        means = self._means[np.sort(np.concatenate(parts))]
        logits: NDArray[np.float64] = np.einsum("nd,kd->nk", means, weight).astype(np.float64) + bias
        return logits
