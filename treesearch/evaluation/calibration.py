"""Measures what nodes cost on the device at hand, for `treesearch.cost_table.CostTable`.

A node's time cannot be read off directly; a difference of two trees gives it. In both a *fan* leads a batch's examples
to J places, and below each place all its examples go down a *chain* of nodes of one kind; the chains of the second
tree are H nodes longer. So J times H equal nodes, each passed by the same number of examples, are all that differs.

A call of the search takes microseconds before it begins, and more with every parameter of the layer. Visits are
therefore timed in calls of many examples, and compared only between layers with equally many parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from treesearch.cost_table import CostTable
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

ARITIES = (2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
FAN = 8  # arity of the tree that leads to the chains
MAX_ROWS = 8_192  # logit rows of all chains: a step on a real tree touches no more
MAX_ENTRIES = 16_384  # decisions of a batch in all chains
MAX_CHAIN = 16
ROWS = 64  # examples of a search in which visits are timed
REPEATS = 9
LEARNING_RATE = 1e-4  # of the updates that are timed
SECONDS = 0.03  # of one measurement, where fewer calls than REPEATS would be done earlier


def calibrate(
    in_features: int, *, batch_size: int = 512, device: torch.device | str = "cpu", max_arity: int = 8192
) -> CostTable:
    """Measure a cost table; one thread, half a minute on a CPU.

    On other devices a search scores all classes, whatever its path: a visit is then the time that one more node in the
    tree takes, and a projection's is not seen.

    Args:
        in_features: D.
        batch_size: Examples of a training step.
        device: Where the layer stands.
        max_arity: Largest arity to measure; larger nodes are extrapolated.
    """
    device = torch.device(device)
    dims = tuple(sorted({max(1, in_features // 16), max(1, in_features // 4), in_features}))
    arities = tuple(arity for arity in ARITIES if arity == 2 or arity <= max_arity)
    visits = tuple(sorted({1, 2, 4, 8, 16, 64, batch_size} - set(range(batch_size + 1, 65))))
    with one_thread():
        bench = _Bench(in_features, batch_size, device)
        training = np.array([[[bench.node_us(k, m, d) for m in visits] for k in arities] for d in dims])
        binary = np.array([bench.node_us(2, m, in_features) for m in visits])
        projection = np.array([[bench.projection_us(m, d) for m in visits] for d in dims])
        projection += binary - training[:, 0]  # the node that carries it sees d inputs, the one without D
        inference_call, inference = bench.inference(dims, arities)
        inference_projection = bench.inference_projections(dims) - inference[:, 0] + inference[-1, 0]
        two = bench.step_us(Tree.from_nested([0, 1]), np.zeros(batch_size, np.int64), 0)
    return CostTable(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        in_features=in_features,
        batch_size=batch_size,
        dims=dims,
        arities=arities,
        visits=visits,
        training_us=_rounded(training),
        projection_us=_rounded(projection),
        call_us=round(max(0.0, two - float(binary[-1])), 3),
        inference_us=_rounded(inference),
        inference_projection_us=_rounded(inference_projection),
        inference_call_us=round(inference_call, 3),
    )


def training_step(
    layer: nn.Module, input: Tensor, targets: Iterator[Tensor], optimizer: Optimizer | None = None
) -> Callable[[], None]:
    """A call that goes forward and backward on the next targets; gradients of the last one are dropped.

    Args:
        layer: Returns its ``loss`` as torch's adaptive softmax does.
        input: Wants its gradient.
        targets: One batch for each call.
        optimizer: Makes its step too; None for no update.
    """

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        input.grad = None
        layer(input, next(targets)).loss.backward()
        if optimizer is not None:
            optimizer.step()

    return step


_Chains = tuple[Tree, NDArray[np.int64]]  # a tree, and the class at the end of each chain
_NOWHERE = np.zeros(0, np.int64)


class _Bench:
    def __init__(self, in_features: int, batch_size: int, device: torch.device) -> None:
        self.in_features, self.batch_size, self.device = in_features, batch_size, device
        self.generator = torch.Generator().manual_seed(0)

    def node_us(self, arity: int, visits: int, dim: int) -> float:
        """A training step's time in one node."""
        places = max(1, min(self.batch_size // visits, MAX_ROWS // arity))
        length = max(1, min(MAX_CHAIN, MAX_ROWS // (places * arity), MAX_ENTRIES // (places * visits)))
        project = 0 if dim == self.in_features else dim
        longer, shorter = (_fan_with_chains(places, arity, end) for end in (1 + length, 1))
        return max(1e-3, self._difference(longer, shorter, visits, project) / (places * length))

    def projection_us(self, visits: int, dim: int) -> float:
        """A training step's time in one projection from D, and in its binary node, less a binary node without."""
        places = max(1, min(self.batch_size // visits, 64))
        plain = _fan_with_chains(places, 2, 1)
        return self._difference(plain, plain, visits, 0, below=dim) / places

    def _difference(self, more: _Chains, less: _Chains, visits: int, project: int, below: int = 0) -> float:
        steps = []
        for (tree, ends), below_dim in ((more, below), (less, 0)):
            targets = np.repeat(ends, visits)
            steps.append(self.step(_projected(tree, project, below_dim, ends), targets))
        return _difference_us(*steps)

    def step(self, tree: Tree, targets: NDArray[np.int64]) -> Callable[[], object]:
        """A training step on these targets, in random order."""
        layer = HierarchicalSoftmax(self.in_features, tree, device=self.device, sparse=True)
        order = torch.randperm(targets.size, generator=self.generator)
        target = torch.from_numpy(targets)[order].to(self.device)
        input = torch.randn(targets.size, self.in_features, generator=self.generator).to(self.device).requires_grad_()

        return training_step(layer, input, repeat(target), RowwiseAdam(layer.parameters(), lr=LEARNING_RATE))

    def step_us(self, tree: Tree, targets: NDArray[np.int64], project: int) -> float:
        """Median time of a training step."""
        return _median_us(self.step(_projected(tree, project, 0, _NOWHERE), targets))

    def inference(self, dims: tuple[int, ...], arities: tuple[int, ...]) -> tuple[float, NDArray[np.float64]]:
        """Time of a call, and of a visit [W, A], in a top-1 search that does not hesitate."""
        table = np.array([[self._visit_us(arity, dim) for arity in arities] for dim in dims])
        return max(0.0, _median_us(self._greedy(Tree.from_nested([0, 1]), 1, rows=1)) - float(table[-1, 0])), table

    def _visit_us(self, arity: int, dim: int) -> float:
        length = max(1, min(64, MAX_ROWS // arity))
        project = 0 if dim == self.in_features else dim
        searches = []
        for nodes in (1 + length, 1):
            tree, ends = _fan_with_chains(1, arity, nodes)
            searches.append(self._greedy(_projected(tree, project, 0, _NOWHERE), int(ends[0]), rows=ROWS))
        return max(1e-3, _difference_us(*searches) / (length * ROWS))

    def inference_projections(self, dims: tuple[int, ...]) -> NDArray[np.float64]:
        """Time of a visit of a binary node with projection, less one without, [W].

        One tree has both; the classes below them are likely in turn.
        """
        pairs = Tree.from_nested([[0, 1], [2, 3]])
        times = []
        for dim in dims:
            tree = _projected(pairs, 0, dim, np.array([0]))
            through, beside = (self._greedy(tree, likely, rows=ROWS) for likely in (0, 2))
            times.append(_difference_us(through, beside) / ROWS)
        return np.array(times)

    def _greedy(self, tree: Tree, likely_class: int, *, rows: int) -> Callable[[], object]:
        """A top-1 search for so many examples that goes straight to this class: it alone has a likely path."""
        layer = HierarchicalSoftmax(self.in_features, tree, device=self.device)
        likely = np.full(tree.num_classes, 1.0)
        likely[likely_class] = 1e9
        layer.reset_parameters(likely, self.generator)
        with torch.no_grad():
            for parameter in layer.weights:
                parameter.mul_(1e-3)
        input = torch.randn(rows, self.in_features, generator=self.generator).to(self.device)
        return lambda: layer.topk(input, 1)


def _fan_with_chains(places: int, arity: int, length: int) -> _Chains:
    """A fan to ``places`` chains of ``length`` nodes."""
    parents: list[int] = []
    leaf_parents: list[int] = []
    ends: list[int] = []

    def node(above: int) -> int:
        parents.append(above)
        return len(parents) - 1

    def chain(above: int) -> None:
        for _ in range(length):
            above = node(above)
            leaf_parents.extend([above] * (arity - 1))
        leaf_parents.append(above)
        ends.append(len(leaf_parents) - 1)

    def fan(above: int, size: int) -> None:
        if size == 1:
            chain(above)
            return
        here = node(above)
        for part in range(min(FAN, size)):
            fan(here, size // min(FAN, size) + (part < size % min(FAN, size)))

    fan(-1, places)
    tree = Tree.from_parents(parents + leaf_parents, np.arange(len(leaf_parents)))
    return tree, np.array(ends, np.int64)


def _projected(tree: Tree, root_dim: int, below_dim: int, ends: NDArray[np.int64]) -> Tree:
    """The tree with a projection at its root, and at the parents of these classes."""
    if not (root_dim or below_dim):
        return tree
    dims = np.zeros(tree.num_internal, np.int64)
    dims[0] = root_dim
    if below_dim:
        dims[tree.parent[tree.class_leaf[ends]]] = below_dim
    return Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)


def _difference_us(more: Callable[[], object], less: Callable[[], object]) -> float:
    """Median of the differences of two calls made in turn: what disturbs the machine disturbs both."""
    more(), less()
    differences: list[float] = []
    until = perf_counter() + SECONDS
    while len(differences) < REPEATS or perf_counter() < until:
        differences.append(_seconds(more) - _seconds(less))
    return 1e6 * median(differences)


def _median_us(call: Callable[[], object]) -> float:
    return _difference_us(call, lambda: None)


def _seconds(call: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - begin


def _rounded(values: NDArray[np.float64]):  # type: ignore[no-untyped-def]
    """As nested tuples, to a nanosecond."""
    return tuple(map(_rounded, values)) if values.ndim else round(max(float(values), 0.0), 3)
