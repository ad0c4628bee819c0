"""`HierarchicalSoftmax` on a GPU against what people use there: time and memory of training steps, and of top-10.

4,096 examples of 512 features, targets drawn by Zipf's law. A *step* is forward and backward, with the gradients of the
inputs and of all parameters; *with update* an optimizer moves the parameters too: torch's fused Adam, or `RowwiseAdam`
where gradients are row-sparse. Times are medians between events on the device, waiting for nothing in between; memory
is the most that was allocated at any time, parameters and state included. Every contender stands alone on the device.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treesearch.builders import build_tree
from treesearch.errors import ConfigError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.frozen_torch import evaluate_forest
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

BATCH, NUM_FEATURES = 4096, 512
QUERIES, LIST_LENGTH = 256, 10  # examples whose best classes are asked for, and how many of them
SIZES = (10_000, 100_000, 1_000_000)
COMPILED_SIZES = (10_000, 100_000)  # compilers take minutes for more trees than these
FROZEN_CLASSES, FROZEN_TOKENS, FROZEN_FEATURES, FROZEN_TREES = 10_000, 100_000, 128, 16
WARM_UP, CALLS, SECONDS = 3, 30, 2.0  # of one measurement: at most so many calls, or as many as fit into the time
PARTS = ("eager", "compiled", "frozen")

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A layer, its loss, and how it is trained."""

    name: str
    layer: nn.Module
    loss: Loss
    best: Callable[[Tensor], object]  # its most probable classes
    by_row: bool = False  # whether gradients are row-sparse

    def optimizer(self) -> torch.optim.Optimizer:
        """One that takes its gradients."""
        if self.by_row:
            return RowwiseAdam(self.layer.parameters())
        return torch.optim.Adam(self.layer.parameters(), fused=True)


def run(
    device: str = "cuda",
    *,
    sizes: Sequence[int] = SIZES,
    batch: int = BATCH,
    num_features: int = NUM_FEATURES,
    parts: Sequence[str] = PARTS,
) -> list[dict[str, Any]]:
    """Times in milliseconds and megabytes of memory; None where the device has too little.

    Args:
        device: Where to measure.
        sizes: Numbers of classes.
        batch: Examples of a step.
        num_features: D.
        parts: Which of `PARTS`.

    Raises:
        ConfigError: There is no such device.
    """
    on = torch.device(device)
    if on.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("benchmark 'gpu' needs a CUDA device, but torch sees none here; run it on such a machine")
    rows: list[dict[str, Any]] = []
    for num_classes in sizes:
        counts = 1e6 / np.arange(2, num_classes + 2)
        labels = np.random.default_rng(0).choice(num_classes, batch, p=counts / counts.sum())
        target = torch.from_numpy(labels).to(on)
        for compiled in (False, True):
            if ("compiled" if compiled else "eager") not in parts or (compiled and num_classes not in COMPILED_SIZES):
                continue
            for dtype in (torch.float32, torch.bfloat16):
                for name, make in contenders(num_classes, num_features, counts, on).items():
                    if compiled and name.endswith("row-sparse"):
                        continue  # compilers do not trace sparse tensors
                    if on.type == "cpu" and name == "torch adaptive" and dtype != torch.float32:
                        continue  # torch's layer mixes types under autocast there
                    rows.append({"classes": num_classes, "type": str(dtype)[6:], "compiled": compiled, "layer": name})
                    rows[-1] |= _measured(make, target, num_features, on, dtype, compiled)
    if "frozen" in parts:
        rows += _frozen(on)
    return rows


def contenders(
    num_classes: int, num_features: int, counts: np.ndarray[Any, Any], on: torch.device
) -> dict[str, Callable[[], Contender]]:
    """How to make each, by name."""
    cutoffs = [num_classes // 20, num_classes // 4]

    def flat() -> Contender:
        layer = nn.Linear(num_features, num_classes, device=on)
        return Contender(
            "flat",
            layer,
            lambda x, y: nn.functional.cross_entropy(layer(x), y),
            lambda x: layer(x).topk(LIST_LENGTH),
        )

    def adaptive() -> Contender:
        layer = nn.AdaptiveLogSoftmaxWithLoss(num_features, num_classes, cutoffs, device=on)
        return Contender(
            "torch adaptive",
            layer,
            lambda x, y: layer(x, y).loss,
            lambda x: layer.log_prob(x).topk(LIST_LENGTH),
        )

    def of_tree(name: str, by_row: bool, **options: Any) -> Callable[[], Contender]:
        def make() -> Contender:
            tree = build_tree(name, counts=counts, **options)
            layer = HierarchicalSoftmax(num_features, tree, device=on, sparse=by_row)
            return Contender(name, layer, lambda x, y: layer(x, y).loss, lambda x: layer.topk(x, LIST_LENGTH), by_row)

        return make

    trees: dict[str, tuple[str, dict[str, Any]]] = {
        "Huffman": ("huffman", {}),
        "Huffman 64-way": ("huffman", {"arity": 64}),
        "two-level": ("two-level", {}),
        "adaptive tree": ("adaptive", {"cutoffs": cutoffs, "div_value": 4.0, "in_features": num_features}),
    }
    makers: dict[str, Callable[[], Contender]] = {"flat": flat, "torch adaptive": adaptive}
    for label, (name, options) in trees.items():
        makers[label] = of_tree(name, False, **options)
        makers[f"{label}, row-sparse"] = of_tree(name, True, **options)
    return makers


def _measured(
    make: Callable[[], Contender],
    target: Tensor,
    num_features: int,
    on: torch.device,
    dtype: torch.dtype,
    compiled: bool,
) -> dict[str, Any]:
    if on.type == "cuda":
        gc.collect()  # what an earlier contender held would count
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(on)
    found: dict[str, Any] = {"step_ms": None, "step_mb": None, "update_ms": None, "update_mb": None, "best_ms": None}
    try:
        contender = make()
        loss: Loss = torch.compile(contender.loss) if compiled else contender.loss
        generator = torch.Generator().manual_seed(0)
        input = torch.randn(target.shape[0], num_features, generator=generator).to(on).requires_grad_()

        def step() -> None:
            contender.layer.zero_grad(set_to_none=True)
            input.grad = None
            with torch.autocast(on.type, dtype, enabled=dtype != torch.float32):
                value = loss(input, target)
            value.backward()  # type: ignore[no-untyped-call]

        found["step_ms"], found["step_mb"] = milliseconds(step, on), _peak(on)
        found["update_ms"] = milliseconds(_with_update(step, contender.optimizer()), on)
        found["update_mb"] = _peak(on)
        contender.layer.zero_grad(set_to_none=True)
        if not compiled:
            with torch.no_grad(), torch.autocast(on.type, dtype, enabled=dtype != torch.float32):
                found["best_ms"] = milliseconds(lambda: contender.best(input[:QUERIES]), on)
    except torch.OutOfMemoryError:
        pass  # what is missing in the row did not fit
    return found


def _with_update(step: Callable[[], None], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def update() -> None:
        step()
        optimizer.step()

    return update


def milliseconds(call: Callable[[], object], on: torch.device) -> float:
    """Median time of a call on the device."""
    begin = perf_counter()
    for _ in range(WARM_UP):
        call()
    if on.type != "cuda":
        seconds = [-perf_counter() + (call(), perf_counter())[1] for _ in range(CALLS)]
        return 1e3 * median(seconds)
    torch.cuda.synchronize(on)
    calls = max(3, min(CALLS, int(SECONDS * WARM_UP / max(perf_counter() - begin, 1e-9))))
    events: list[Any] = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(calls + 1)
    ]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize(on)
    return median(first.elapsed_time(second) for first, second in pairwise(events))


def _peak(on: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(on) / 1e6 if on.type == "cuda" else None


def _frozen(on: torch.device) -> list[dict[str, Any]]:
    """The frozen rung: some trees in one pass on the device, against one after the other on one core of its host."""
    rng, counts = np.random.default_rng(0), 1e6 / np.arange(2, FROZEN_CLASSES + 2)
    labels = rng.choice(FROZEN_CLASSES, FROZEN_TOKENS, p=counts / counts.sum()).astype(np.int32)
    train = Features(rng.standard_normal((FROZEN_TOKENS, FROZEN_FEATURES), np.float32), labels)
    valid = Features(train.x[:1000], labels[:1000])
    trees = [
        build_tree("huffman", counts=counts[rng.permutation(FROZEN_CLASSES)], arity=arity)
        for _ in range(FROZEN_TREES // 2)
        for arity in (2, 16)
    ]
    evaluators: dict[str, Callable[[Sequence[Tree]], object]] = {
        "numba, one core": lambda own: [evaluate_frozen(t, train=train, valid=valid, counts=counts) for t in own],
        f"torch, {on.type}": lambda own: evaluate_forest(own, train=train, valid=valid, counts=counts, device=on),
    }
    rows = []
    for name, call in evaluators.items():
        for num in (1, FROZEN_TREES):
            with one_thread():
                call(trees[:1])  # compiled, and warm
                begin = perf_counter()
                call(trees[:num])
                seconds = perf_counter() - begin
            rows.append({"layer": f"frozen rung, {name}", "trees": num, "step_ms": 1e3 * seconds})
    return rows
