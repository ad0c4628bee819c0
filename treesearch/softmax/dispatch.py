"""One dispatcher for all kernels: which of them scores a batch, and the tables that each needs of the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.softmax import cpu, gpu, reference, topk
from treesearch.softmax.checks import is_plain
from treesearch.softmax.cpu_plan import kernel_layout
from treesearch.softmax.full_kernels import full_tables
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.node_targets import NodeTargets, check_nodes, check_targets
from treesearch.softmax.topk import TopK

Kernel = Literal["auto", "reference", "cpu", "gpu"]
KERNELS: tuple[Kernel, ...] = ("auto", "reference", "cpu", "gpu")


class Parameters(NamedTuple):
    """The parameters of a layer."""

    weights: list[Tensor]  # one matrix [rows, width] per width
    biases: list[Tensor]  # one vector per width, or none at all
    projections: list[Tensor]  # one matrix [d, source d] per scope

    def with_biases(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The same with zeros for biases that are not there."""
        biases = self.biases or [matrix.new_zeros(matrix.shape[0]) for matrix in self.weights]
        return self.weights, biases, self.projections


class Dispatcher:
    """Chooses a kernel for each call and keeps the tables of one tree; copies and pickles build their own tables.

    Args:
        layout: Of the tree.
        kernel: ``auto``, or the one to take always.

    Raises:
        DataError: Unknown kernel.
    """

    def __init__(self, layout: SoftmaxLayout, kernel: Kernel) -> None:
        if kernel not in KERNELS:
            raise DataError(f"kernel must be one of {', '.join(map(repr, KERNELS))}, but got {kernel!r}")
        self.layout = layout
        self.kernel = kernel
        self._tables: dict[str, Any] = {}
        self._forest: gpu.ForestTables | None = None

    def move(self, device: torch.device) -> None:
        """Make ready for parameters on ``device``: what a compiler traces must not build tables."""
        on_host = device.type in ("cpu", "meta")
        if self.kernel == "gpu" or self._forest is not None or (self.kernel == "auto" and not on_host):
            self._forest_on(device, build=True)

    def target_log_prob(self, input: Tensor, target: Tensor, parameters: Parameters, *, sparse: bool) -> Tensor:
        """Log-probability of each target, [B], in nats."""
        match self._choose(input, parameters):
            case "cpu":
                return cpu.target_log_prob(self._built("cpu", kernel_layout), input, target, *parameters, sparse=sparse)
            case "gpu":
                forest = self._forest_on(input.device, build=is_plain(input))
                return gpu.target_log_prob(forest, input, target, *parameters.with_biases(), sparse=sparse)
        tables = self._reference(input.device)
        return reference.target_log_prob(tables, input, target, *parameters.with_biases(), sparse=sparse)

    def node_log_probs(
        self, input: Tensor, target: Tensor, parameters: Parameters, *, sparse: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each decision on the targets' paths, and the nodes, [B, L]."""
        if self._choose(input, parameters) == "gpu":
            forest = self._forest_on(input.device, build=is_plain(input))
            return gpu.node_log_probs(forest, input, target, *parameters.with_biases(), sparse=sparse)
        tables = self._reference(input.device)
        return reference.node_log_probs(tables, input, target, *parameters.with_biases(), sparse=sparse)

    @torch.compiler.disable  # shapes depend on the targets; compilers go round it
    def node_cross_entropy(
        self, input: Tensor, targets: NodeTargets, parameters: Parameters, *, sparse: bool
    ) -> Tensor:
        """Cross-entropy of the masses of the decisions that the targets list, by row, [B], in nats.

        Raises:
            DataError: The targets do not fit, or the call is traced.
        """
        _refuse_tracing("node_cross_entropy", input)
        check_targets(targets, self.layout.tree, input)
        if self._choose(input, parameters) == "cpu":
            return cpu.node_cross_entropy(self._built("cpu", kernel_layout), input, targets, *parameters, sparse=sparse)
        tables = self._reference(input.device)
        return reference.node_cross_entropy(tables, input, targets, *parameters.with_biases(), sparse=sparse)

    @torch.compiler.disable
    def subtree_log_probs(self, input: Tensor, nodes: Tensor | None, parameters: Parameters) -> Tensor:
        """Log-probabilities of passing these nodes, [B, K], or all, [B, M], in nats.

        Raises:
            DataError: The nodes do not fit, or the call is traced.
        """
        _refuse_tracing("subtree_log_probs", input)
        if nodes is None:
            nodes = torch.arange(self.layout.tree.num_nodes, device=input.device)
        check_nodes(nodes, self.layout.tree)
        tables, nodes = self._reference(input.device), nodes.to(input.device, torch.int64)
        return reference.subtree_log_probs(tables, input, nodes, *parameters.with_biases())

    def full_log_prob(self, input: Tensor, parameters: Parameters) -> Tensor:
        """Log-probabilities of all classes, [B, C], in nats."""
        match self._choose(input, parameters):
            case "cpu":
                tables = self._built("full", full_tables)
                return cpu.full_log_prob(tables, self.layout, input, *parameters.with_biases())
            case "gpu":
                forest = self._forest_on(input.device, build=is_plain(input))
                return gpu.full_log_prob(forest, input, *parameters.with_biases())
        return reference.full_log_prob(self._reference(input.device), input, *parameters.with_biases())

    def topk(self, input: Tensor, k: int, parameters: Parameters, *, max_nodes: int | None) -> TopK:
        """The k most probable classes, [B, k]: best first on the CPU, else from the scores of all classes.

        Raises:
            DataError: ``max_nodes`` where all classes are scored.
        """
        dtype = parameters.weights[0].dtype
        if input.device.type == "cpu" and dtype in (torch.float32, torch.float64) and is_plain(input):
            self._check(input, parameters)
            return topk.best_first(self._built("topk", topk.topk_tables), input, k, *parameters, max_nodes=max_nodes)
        if max_nodes is not None:
            raise DataError(
                f"max_nodes needs float32 or float64 on the CPU, but the layer is {dtype} on {input.device};"
                " leave it out, or move the layer"
            )
        return topk.from_full(self.full_log_prob(input, parameters), k, num_nodes=self.layout.tree.num_internal)

    def _choose(self, input: Tensor, parameters: Parameters) -> Kernel:
        dtype, kernel = parameters.weights[0].dtype, self.kernel
        if kernel == "auto":
            if input.device.type != "cpu" or not (is_plain(input) or torch.compiler.is_dynamo_compiling()):
                kernel = "gpu"
            else:
                kernel = "cpu" if dtype == torch.float32 else "reference"
        if kernel == "cpu":
            if dtype != torch.float32 or input.device.type != "cpu":
                raise DataError(
                    f"kernel 'cpu' needs float32 on the CPU, but the layer is {dtype} on {input.device};"
                    " use kernel='auto'"
                )
            self._check(input, parameters)
        return kernel

    def _check(self, input: Tensor, parameters: Parameters) -> None:
        """Compiled kernels read memory as it is: every parameter must be where and what the layout says."""
        shapes = self.layout.parameter_shapes(len(parameters.biases) > 0)
        for tensors, own in zip(iter(parameters), shapes, strict=True):
            for tensor, shape in zip(tensors, own, strict=True):
                if tensor.shape != shape or tensor.dtype != input.dtype or tensor.device != input.device:
                    raise DataError(
                        f"a parameter must be {input.dtype} {shape} on {input.device} as layer and input are, but one"
                        f" is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; move or load the whole layer"
                    )

    def _built(self, name: str, build: Callable[[SoftmaxLayout], Any]) -> Any:
        if name not in self._tables:
            with torch.inference_mode(False):  # tables outlive the call, and gradients may pass them later
                self._tables[name] = build(self.layout)
        return self._tables[name]

    def _reference(self, device: torch.device) -> reference.Tables:
        tables: reference.Tables = self._built(
            f"reference {device}", lambda layout: reference.Tables.of(layout, device)
        )
        return tables

    def _forest_on(self, device: torch.device, *, build: bool) -> gpu.ForestTables:
        if self._forest is None or self._forest.device != device:
            if not build:
                raise DataError(
                    f"a layer that is traced must have its tables on {device} already;"
                    " make it with kernel='gpu', on that device"
                )
            with torch.inference_mode(False):
                self._forest = gpu.ForestTables.of([self.layout], device)
        return self._forest

    def __getstate__(self) -> dict[str, Any]:
        device = None if self._forest is None else self._forest.device
        return {"layout": self.layout, "kernel": self.kernel, "device": device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["layout"], state["kernel"])  # type: ignore[misc]
        if state["device"] is not None:
            self._forest_on(state["device"], build=True)


def _refuse_tracing(name: str, input: Tensor) -> None:
    if not is_plain(input):
        raise DataError(f"{name} cannot be traced, exported or transformed by torch.func; call it eagerly")
