"""What a search worker does: score a tree on frozen features, or train encoder and tree together.

The worker is built once per process from shared read-only arrays; see `treesearch.search.executors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.config import EncoderConfig, FrozenConfig, JointConfig
from treesearch.data import Dataset, InputSpec, Seen, Split
from treesearch.evaluation.encoders import Encoder
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import NodeScores, evaluate_frozen
from treesearch.evaluation.frozen_torch import evaluate_forest
from treesearch.evaluation.joint import resolve_device, token_nll, train_joint
from treesearch.evaluation.predictions import accuracy, ranking
from treesearch.evaluation.preparation import Preparation
from treesearch.evaluation.threads import one_thread
from treesearch.evaluation.trainer import make_model
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree

SEEN_PTR, SEEN = "test.seen_ptr", "test.seen"  # names of arrays
ENCODER_PREFIX = "encoder."  # of the arrays that are parameters of the search's encoder


@dataclass(frozen=True)
class FrozenTask:
    """Train the nodes of ``tree`` on the cached features; the result is `NodeScores`."""

    tree: Tree
    wanted: NDArray[np.bool_] | None = None  # [N] the nodes to train; None for all
    max_tokens: int | None = None  # training tokens to read; None for all


@dataclass(frozen=True)
class ForestTask:
    """Train several trees in one pass over the cached features, in torch.

    The result is a list, `NodeScores` or, for a tree whose training diverged, what was wrong.
    """

    trees: tuple[Tree, ...]
    max_tokens: int | None = None


@dataclass(frozen=True)
class JointTask:
    """Train encoder and ``tree`` together; the result is `JointScores`."""

    tree: Tree
    learning_rate: float
    seed: int
    use_test: bool  # score the test split as well
    warm: bool = False  # begin with the search's encoder and train one epoch


@dataclass(frozen=True)
class JointScores:
    """Mean NLL in nats per token, of the best epoch on validation data."""

    valid_nll: float
    test_nll: float | None
    epochs: int  # trained, the last of which may be worse than the best
    test_token_nll: NDArray[np.float32] | None = None  # [T] of each token of the test split
    test_metrics: Mapping[str, float] = field(default_factory=dict)  # see `treesearch.evaluation.predictions`


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker needs beside the arrays."""

    encoder: EncoderConfig
    frozen: FrozenConfig
    joint: JointConfig
    spec: InputSpec  # of the inputs
    classify: bool = False  # whether test scores tell the accuracy


def worker_arrays(dataset: Dataset, preparation: Preparation) -> dict[str, NDArray[Any]]:
    """The data that workers share.

    ``train.inputs``, ``train.labels`` and so on: the splits, see `treesearch.data.Split`; ``train.x``, ``train.y``,
    ``train.rows``, ``valid.x`` ..: what the frozen rung learns from and is scored on, see `Features`;
    ``test.seen_ptr``, ``test.seen``: of `Seen`, where there is one; ``counts``: float64 [C]; ``vectors``: float32
    [C, D]; ``encoder.*``: what the search's encoder has learned.
    """
    arrays: dict[str, NDArray[Any]] = {
        "counts": dataset.counts.astype(np.float64),
        "vectors": preparation.vectors,
        **{f"{ENCODER_PREFIX}{name}": value for name, value in preparation.encoder.items()},
    }
    for name in ("train", "valid", "test"):
        split: Split = getattr(dataset, name)
        arrays |= {f"{name}.inputs": split.inputs, f"{name}.labels": split.labels}
    if dataset.seen is not None:
        arrays |= {SEEN_PTR: dataset.seen.ptr, SEEN: dataset.seen.classes}
    for name, features in (("train", preparation.train), ("valid", preparation.valid)):
        arrays |= {f"{name}.x": features.x, f"{name}.y": features.y}
        if features.rows is not None:
            arrays[f"{name}.rows"] = features.rows
    return arrays


class EvaluationWorker:
    """Evaluates `FrozenTask`, `ForestTask` and `JointTask`.

    Args:
        arrays: Of `worker_arrays`.
        settings: See `WorkerSettings`.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], settings: WorkerSettings) -> None:
        self._arrays = arrays
        self._settings = settings
        if settings.frozen.time_limit is not None or settings.joint.time_limit is not None:
            from treesearch.warmup import compile_kernels  # it imports nearly everything

            compile_kernels()  # a minute on a new machine, which no evaluation is to be blamed for

    def __call__(
        self, payload: FrozenTask | ForestTask | JointTask
    ) -> NodeScores | list[NodeScores | str] | JointScores:
        """Evaluate one task.

        Raises:
            FloatingPointError: Training diverged.
        """
        if isinstance(payload, FrozenTask):
            return self._frozen(payload)
        if isinstance(payload, ForestTask):
            return self._forest(payload)
        with one_thread():
            return self._joint(payload)

    def _frozen(self, task: FrozenTask) -> NodeScores:
        scores = evaluate_frozen(task.tree, wanted=task.wanted, **self._frozen_options(task.max_tokens))
        trained = scores.nll if task.wanted is None else scores.nll[task.wanted]
        if not np.isfinite(trained).all():
            raise FloatingPointError(_diverged(trained))
        return scores

    def _forest(self, task: ForestTask) -> list[NodeScores | str]:
        device = resolve_device(self._settings.frozen.device)
        with one_thread():
            scores = evaluate_forest(task.trees, device=device, **self._frozen_options(task.max_tokens))
        return [
            one if np.isfinite(one.nll).all() else f"{FloatingPointError.__name__}: {_diverged(one.nll)}"
            for one in scores
        ]

    def _frozen_options(self, max_tokens: int | None) -> dict[str, Any]:
        """What both kernels of the frozen rung are told, whatever the trees."""
        settings = self._settings.frozen
        return {
            "train": self._features("train", max_tokens),
            "valid": self._features("valid"),
            "counts": self._arrays["counts"],
            "vectors": self._arrays["vectors"],
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
        }

    def _joint(self, task: JointTask) -> JointScores:
        settings = self._settings.joint
        device = resolve_device(settings.device)
        encoder, layer = make_model(
            task.tree,
            self._settings.encoder,
            self._settings.spec,
            counts=self._arrays["counts"],
            seed=task.seed,
            device=device,
        )
        if task.warm:
            encoder.load_state_dict(self._encoder_state())
        fit = train_joint(
            encoder,
            layer,
            self._split("train"),
            valid=self._split("valid"),
            learning_rate=task.learning_rate,
            epochs=1 if task.warm else settings.epochs,
            batch_size=settings.batch_size,
            seed=task.seed,
        )
        assert fit.valid_nll is not None, "there is a split to validate on"
        if not np.isfinite(fit.valid_nll):
            raise FloatingPointError(
                f"validation NLL is {fit.valid_nll} at learning rate {task.learning_rate}; lower joint.learning_rates"
            )
        test_T = token_nll(encoder, layer, self._split("test")) if task.use_test else None
        test_nll = None if test_T is None else float(test_T.mean(dtype=np.float64))
        metrics = self._metrics(encoder, layer) if task.use_test else {}
        return JointScores(fit.valid_nll, test_nll, fit.epochs, test_T, metrics)

    def _metrics(self, encoder: Encoder, layer: HierarchicalSoftmax) -> dict[str, float]:
        """Of the test split."""
        if SEEN_PTR in self._arrays:
            return ranking(encoder, layer, self._split("test"), Seen(self._arrays[SEEN_PTR], self._arrays[SEEN]))
        return accuracy(encoder, layer, self._split("test")) if self._settings.classify else {}

    def _encoder_state(self) -> dict[str, torch.Tensor]:
        named = {name: values for name, values in self._arrays.items() if name.startswith(ENCODER_PREFIX)}
        return {name.removeprefix(ENCODER_PREFIX): torch.tensor(values) for name, values in named.items()}

    def _features(self, split: str, max_tokens: int | None = None) -> Features:
        rows = self._arrays.get(f"{split}.rows")
        return Features(self._arrays[f"{split}.x"], self._arrays[f"{split}.y"], rows).first(max_tokens)

    def _split(self, name: str) -> Split:
        return Split(self._arrays[f"{name}.inputs"], self._arrays[f"{name}.labels"])


def _diverged(nll: NDArray[np.float64]) -> str:
    return f"validation NLL is {nll.sum()}; lower frozen.learning_rate"
