"""`HierarchicalSoftmax` against the layers that people use, in one process, one thread, every contender in turn.

Batch 512, 128 features, targets drawn by Zipf's law, fresh ones at every step; medians. A *step* is forward and
backward: loss, gradients of the inputs and of all parameters. Ours has ``sparse=True`` throughout.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from treesearch.bench.frozen import gensim_pass
from treesearch.bench.timing import median_seconds
from treesearch.builders import build_tree
from treesearch.errors import MissingExtraError
from treesearch.evaluation.calibration import training_step
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import evaluate_frozen, initial_state
from treesearch.evaluation.frozen_kernels import run_epoch
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.cpu_kernels import backward_pass, forward_pass
from treesearch.softmax.cpu_plan import kernel_layout
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.optim import RowwiseAdagrad
from treesearch.tree import Tree

BATCH, NUM_FEATURES = 512, 128
POOL = 64  # batches of targets, used in turn
SMALL, LARGE, HUGE = 10_000, 100_000, 1_000_000
TRAINING_TOKENS = 1_000_000  # of the model that is asked for its best classes
LEAF_NOISE = 2.2  # standard deviation of a feature around its class: a perplexity of a few hundred

Run = Callable[[], object]


class Claim(NamedTuple):
    """A ratio of two times, and what it should be."""

    what: str
    slower: str  # contender
    faster: str
    at_least: float  # slower / faster


def run(repeats: int = 15) -> list[dict[str, Any]]:
    """Times of all contenders in microseconds, and the ratios that the layer is held to.

    Raises:
        MissingExtraError: gensim or hierarchicalsoftmax is not installed.
    """
    with one_thread():
        rows: list[dict[str, Any]] = []
        for part in (_training_small, _training_large, _training_huge, _path_nodes, _best_classes, _all_classes):
            rows += part(repeats)
            gc.collect()
        return rows


# -- training steps --------------------------------------------------------------------------------------------------


def _training_small(repeats: int) -> list[dict[str, Any]]:
    counts, targets = _zipf(SMALL)
    cutoffs = [SMALL // 20, SMALL // 4]
    contenders = {
        "flat": _flat_step(SMALL, targets),
        "torch adaptive, div 1": _module_step(_adaptive(SMALL, cutoffs, 1.0), targets),
        "torch adaptive, div 4": _module_step(_adaptive(SMALL, cutoffs, 4.0), targets),
        "Huffman": _tree_step(build_tree("huffman", counts=counts), targets),
        "Huffman 16-way": _tree_step(build_tree("huffman", counts=counts, arity=16), targets),
        "adaptive tree, div 1": _tree_step(_adaptive_tree(counts, cutoffs, 1.0), targets),
        "adaptive tree, div 4": _tree_step(_adaptive_tree(counts, cutoffs, 4.0), targets),
        "two-level tree": _tree_step(build_tree("two-level", counts=counts), targets),
        "hierarchicalsoftmax, two-level": _package_step(build_tree("two-level", counts=counts), targets),
    }
    claims = [
        Claim("step, V = 10k", "flat", "Huffman", 40),
        Claim("step, V = 10k", "torch adaptive, div 4", "Huffman", 5),
        Claim("step, V = 10k", "torch adaptive, div 1", "adaptive tree, div 1", 1),
        Claim("step, V = 10k", "torch adaptive, div 4", "adaptive tree, div 4", 1),
        Claim("step, V = 10k", "hierarchicalsoftmax, two-level", "two-level tree", 100),
    ]
    return _rows("step, V = 10k", _times(contenders, repeats), claims)


def _training_large(repeats: int) -> list[dict[str, Any]]:
    counts, targets = _zipf(LARGE)
    cutoffs = [LARGE // 20, LARGE // 4]
    contenders = {
        "flat": _flat_step(LARGE, targets),
        "torch adaptive, div 1": _module_step(_adaptive(LARGE, cutoffs, 1.0), targets),
        "torch adaptive, div 4": _module_step(_adaptive(LARGE, cutoffs, 4.0), targets),
        "Huffman": _tree_step(build_tree("huffman", counts=counts), targets),
        "adaptive tree, div 1": _tree_step(_adaptive_tree(counts, cutoffs, 1.0), targets),
        "adaptive tree, div 4": _tree_step(_adaptive_tree(counts, cutoffs, 4.0), targets),
    }
    claims = [
        Claim("step, V = 100k", "flat", "Huffman", 400),
        Claim("step, V = 100k", "torch adaptive, div 4", "Huffman", 40),
        Claim("step, V = 100k", "torch adaptive, div 1", "adaptive tree, div 1", 1),
        Claim("step, V = 100k", "torch adaptive, div 4", "adaptive tree, div 4", 1),
    ]
    return _rows("step, V = 100k", _times(contenders, max(3, repeats // 3)), claims)


def _training_huge(repeats: int) -> list[dict[str, Any]]:
    contenders = {}
    for num_classes, name in ((SMALL, "Huffman, V = 10k"), (HUGE, "Huffman, V = 1M")):
        counts, targets = _zipf(num_classes)
        contenders[name] = _tree_step(build_tree("huffman", counts=counts), targets)
    claims = [Claim("step, V = 1M", "Huffman, V = 10k", "Huffman, V = 1M", 0.5)]
    return _rows("step, V = 1M", _times(contenders, repeats), claims)


def _zipf(num_classes: int) -> tuple[NDArray[np.float64], Iterator[Tensor]]:
    counts = 1e6 / np.arange(2, num_classes + 2)
    rng = np.random.default_rng(0)
    pool = torch.from_numpy(rng.choice(num_classes, (POOL, BATCH), p=counts / counts.sum()))
    return counts, cycle(pool.unbind())


def _adaptive(num_classes: int, cutoffs: list[int], div_value: float) -> nn.Module:
    return nn.AdaptiveLogSoftmaxWithLoss(NUM_FEATURES, num_classes, cutoffs, div_value=div_value)


def _adaptive_tree(counts: NDArray[np.float64], cutoffs: list[int], div_value: float) -> Tree:
    return build_tree("adaptive", counts=counts, cutoffs=cutoffs, div_value=div_value, in_features=NUM_FEATURES)


def _inputs(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, NUM_FEATURES, generator=torch.Generator().manual_seed(0)).requires_grad_()


def _module_step(layer: nn.Module, targets: Iterator[Tensor], batch: int = BATCH) -> Run:
    return training_step(layer, _inputs(batch), targets)


def _tree_step(tree: Tree, targets: Iterator[Tensor]) -> Run:
    return _module_step(HierarchicalSoftmax(NUM_FEATURES, tree, sparse=True), targets)


def _flat_step(num_classes: int, targets: Iterator[Tensor]) -> Run:
    layer, input = nn.Linear(NUM_FEATURES, num_classes), _inputs()

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        input.grad = None
        nn.functional.cross_entropy(layer(input), next(targets)).backward()  # type: ignore[no-untyped-call]

    return step


def _package_step(tree: Tree, targets: Iterator[Tensor]) -> Run:
    try:
        from hierarchicalsoftmax import HierarchicalSoftmaxLinear, HierarchicalSoftmaxLoss, SoftmaxNode
    except ImportError:
        raise MissingExtraError("hierarchicalsoftmax", "bench") from None
    nodes = [SoftmaxNode("root")]
    for node in range(1, tree.num_nodes):
        nodes.append(SoftmaxNode(str(node), parent=nodes[tree.parent[node]]))
    nodes[0].set_indexes()
    leaf = {int(cls): nodes[0].node_to_id[nodes[tree.num_internal + i]] for i, cls in enumerate(tree.leaf_class)}
    layer, loss = HierarchicalSoftmaxLinear(root=nodes[0], in_features=NUM_FEATURES), HierarchicalSoftmaxLoss(nodes[0])
    input = _inputs()

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        input.grad = None
        ids = torch.tensor([leaf[cls] for cls in next(targets).tolist()])
        loss(layer(input), ids).backward()

    return step


# -- per path node ---------------------------------------------------------------------------------------------------


def _path_nodes(repeats: int) -> list[dict[str, Any]]:
    """Nanoseconds per path node, forward, backward and update; gensim's pass is over a corpus of its own.

    Where the layer's time goes: its kernels alone; with what autograd adds; with the update.
    """
    counts, targets = _zipf(SMALL)
    tree = build_tree("huffman", counts=counts)
    pool = [next(targets) for _ in range(POOL)]
    depth = float(np.mean([tree.depths[batch.numpy()].mean() for batch in pool]))
    rng = np.random.default_rng(0)
    labels = rng.choice(SMALL, 200_000, p=counts / counts.sum()).astype(np.int32)
    features = Features(rng.standard_normal((labels.size, NUM_FEATURES), np.float32), labels)
    nothing = Features(features.x[:0], labels[:0])
    gensim, gensim_nodes = gensim_pass(labels)
    what, layer, frozen = "path node with update, ns", "Huffman", "Huffman, frozen evaluator"
    larger = cycle([torch.cat(pool[i : i + 8]) for i in range(0, POOL, 8)])
    contenders: dict[str, tuple[Run, float]] = {
        "gensim": (gensim, gensim_nodes),
        frozen: (
            lambda: evaluate_frozen(tree, train=features, valid=nothing, counts=counts),
            float(tree.depths[labels].sum()),
        ),
        layer: (_update_step(tree, targets, BATCH), BATCH * depth),
        "Huffman, batch 4096": (_update_step(tree, larger, 8 * BATCH), 8 * BATCH * depth),
        "Huffman, no update": (_tree_step(tree, targets), BATCH * depth),
        "Huffman, no update, kernels alone": (_kernels(tree, targets), BATCH * depth),
    }
    times = _times({name: call for name, (call, _) in contenders.items()}, max(3, repeats // 3))
    per_node = {name: value / contenders[name][1] * 1e3 for name, value in times.items()}
    return _rows(what, per_node, [Claim(what, "gensim", name, 1 / 0.75) for name in (frozen, layer)])


def _update_step(tree: Tree, targets: Iterator[Tensor], batch: int) -> Run:
    layer = HierarchicalSoftmax(NUM_FEATURES, tree, sparse=True)
    optimizer = RowwiseAdagrad(layer.parameters(), lr=0.01)
    step = _module_step(layer, targets, batch)

    def train() -> None:
        step()
        optimizer.step()

    return train


def _kernels(tree: Tree, targets: Iterator[Tensor]) -> Run:
    """What the layer's step calls, without autograd around it."""
    weight = np.random.default_rng(0).standard_normal((tree.num_internal, NUM_FEATURES), np.float32)
    bias = np.zeros(tree.num_internal, np.float32)
    layout = kernel_layout(SoftmaxLayout.of(tree, NUM_FEATURES))
    input, scale = _inputs(BATCH).detach().numpy(), np.full(BATCH, 1 / BATCH, np.float32)
    none = np.zeros(0, np.int64)

    def address(array: NDArray[Any]) -> NDArray[np.int64]:
        return np.array([array.ctypes.data])

    def step() -> None:
        of_weight, of_bias = address(weight), address(bias)
        _, saved = forward_pass(layout, of_weight, of_bias, True, none, input, next(targets).numpy(), True, True)
        rows = int(saved.touched[0])
        shapes = ((rows,), np.int64), ((rows, NUM_FEATURES), np.float32), ((rows,), np.float32)
        grads: list[NDArray[Any]] = [np.empty(*shape) for shape in shapes]
        backward_pass(layout, saved, input, scale, True, *map(address, grads), True, none)

    return step


# -- prediction ------------------------------------------------------------------------------------------------------


def _best_classes(repeats: int) -> list[dict[str, Any]]:
    """Exact top-1 and top-10 of one example at a time, with a trained model over 100,000 classes."""
    flat = nn.Linear(NUM_FEATURES, LARGE)
    rows = []
    for name, layer, queries in trained_layers():
        query = cycle(queries.unbind())

        def best(k: int, layer: HierarchicalSoftmax = layer, query: Iterator[Tensor] = query) -> Run:
            return lambda: layer.topk(next(query)[None], k)

        def flat_best(k: int, query: Iterator[Tensor] = query) -> Run:
            return lambda: flat(next(query)[None]).topk(k)

        def flat_argmax(query: Iterator[Tensor] = query) -> Tensor:
            return flat(next(query)[None]).argmax(-1)

        with torch.no_grad():
            contenders = {"flat argmax": flat_argmax, "flat top-10": flat_best(10)}
            contenders |= {f"{name}, top-1": best(1), f"{name}, top-10": best(10)}
            times = _times(contenders, repeats)
            found = layer.topk(queries, 1)
        claims = [
            Claim("", "flat argmax", f"{name}, top-1", 20),
            Claim("", "flat top-10", f"{name}, top-10", 5),
        ]
        visits = f"{found.num_nodes.double().mean():.0f} nodes visited, p(best) {found.log_prob.exp().mean():.2f}"
        rows += _rows(f"one example, V = 100k, {visits}", times, claims)
    return rows


def trained_layers(
    num_classes: int = LARGE, *, num_examples: int = TRAINING_TOKENS, num_held_out: int = 1000
) -> Iterator[tuple[str, HierarchicalSoftmax, Tensor]]:
    """Trained layers, on the Huffman tree and on a clustered one, and inputs that they have not seen.

    A class is a leaf of a random 10-level walk, so that classes are alike in groups; a feature is its class and noise.

    Args:
        num_classes: C.
        num_examples: To draw, those held out included.
        num_held_out: Inputs for each layer.

    Yields:
        Name of the tree, layer, inputs [num_held_out, 128].
    """
    rng = np.random.default_rng(0)
    counts, _ = _zipf(num_classes)
    vectors = np.zeros((num_classes, NUM_FEATURES), np.float32)
    groups = np.zeros(num_classes, np.int64)
    for level in range(1, 6):
        groups = groups * 10 + rng.integers(10, size=num_classes)
        steps = rng.standard_normal((10**level, NUM_FEATURES), np.float32)
        vectors += steps[groups]
    labels = rng.choice(num_classes, num_examples, p=counts / counts.sum()).astype(np.int32)
    features = vectors[labels]
    features += LEAF_NOISE * rng.standard_normal(features.shape, np.float32)
    features /= np.sqrt(5 + LEAF_NOISE**2)
    held_out = torch.from_numpy(features[-num_held_out:])
    trees = {
        "Huffman": build_tree("huffman", counts=counts),
        "clustered": build_tree("clustered", counts=counts, vectors=vectors),
    }
    for name, tree in trees.items():
        layout, parameters = initial_state(tree, NUM_FEATURES, counts)
        ignored = np.zeros(tree.num_internal)
        seen = slice(0, num_examples - num_held_out)
        run_epoch(layout, parameters, features[seen], labels[seen], np.float32(0.025), True, ignored)
        layer = HierarchicalSoftmax(NUM_FEATURES, tree)
        with torch.no_grad():
            layer.weights[0].copy_(torch.from_numpy(parameters.weight).view_as(layer.weights[0]))
            layer.biases[0].copy_(torch.from_numpy(parameters.bias))
        yield name, layer, held_out


def _all_classes(repeats: int) -> list[dict[str, Any]]:
    counts, _ = _zipf(SMALL)
    flat, input = nn.Linear(NUM_FEATURES, SMALL), _inputs()
    trees = {
        "Huffman": build_tree("huffman", counts=counts),
        "Huffman 16-way": build_tree("huffman", counts=counts, arity=16),
    }
    contenders: dict[str, Run] = {"flat": lambda: flat(input).log_softmax(-1)}
    for name, tree in trees.items():
        layer = HierarchicalSoftmax(NUM_FEATURES, tree)
        contenders[name] = lambda layer=layer: layer.log_prob(input)  # type: ignore[misc]
    with torch.no_grad():
        times = _times(contenders, repeats)
    claims = [Claim("", "flat", name, 1 / 1.5) for name in trees]
    return _rows("all classes, V = 10k", times, claims)


# -- tables ----------------------------------------------------------------------------------------------------------


def _times(contenders: dict[str, Run], repeats: int) -> dict[str, float]:
    """Median microseconds of each, in turn."""
    return {name: 1e6 * seconds for name, seconds in median_seconds(contenders, repeats).items()}


def _rows(what: str, times: dict[str, float], claims: Sequence[Claim]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, value in times.items():
        of = [claim for claim in claims if claim.faster == name]
        for claim in of:
            ratio = times[claim.slower] / value
            rows.append(
                {
                    "what": what,
                    "contender": name,
                    "time": value,
                    "against": claim.slower,
                    "times_faster": ratio,
                    "at_least": claim.at_least,
                    "met": ratio >= claim.at_least,
                }
            )
        if not of:
            rows.append(
                {"what": what, "contender": name, "time": value, "against": "", "times_faster": None, "at_least": None,
                 "met": None}
            )  # fmt: skip
    return rows
