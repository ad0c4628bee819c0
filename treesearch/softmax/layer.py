"""`HierarchicalSoftmax`: the output layer over a tree, a drop-in for `torch.nn.AdaptiveLogSoftmaxWithLoss`.

Shapes: **B** batch, **D** features, **C** classes, **R** logit rows.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.paths import row_ptr
from treesearch.softmax import cpu, reference
from treesearch.softmax.cpu_kernels import Layout
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree, check_counts


class SoftmaxOutput(NamedTuple):
    """What `HierarchicalSoftmax.forward` returns, like torch's adaptive softmax."""

    output: Tensor  # [B] log-probability of each target, nats
    loss: Tensor  # scalar, mean negative log-probability


class HierarchicalSoftmax(nn.Module):
    """Log-probabilities of classes on a tree: one small softmax per internal node on the path.

    A binary node has one weight row, ``P(child 0) = sigmoid``; a node of arity k > 2 has k rows. Rows stand together
    per node, nodes in canonical order, so a depth-1 tree over C > 2 classes is ``nn.Linear(D, C)`` and ``log_softmax``.

    Args:
        in_features: D.
        tree: Over C classes.
        bias: Whether logits have a bias.
        device: As in `nn.Linear`.
        dtype: As in `nn.Linear`.
        kernel: ``reference`` (torch operations), ``cpu`` (compiled; float32 on the CPU), or ``auto``: the latter where
            it can be used.

    Attributes:
        weights: One matrix [rows, width] per distinct input width, the widest (D) first.
        biases: One vector [rows] per width; empty without bias.
        projections: One matrix [d, source d] per projecting node, in canonical order.

    Raises:
        TreeError: A projection is larger than ``in_features``.
    """

    def __init__(
        self,
        in_features: int,
        tree: Tree,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        kernel: Literal["auto", "reference", "cpu"] = "auto",
    ) -> None:
        super().__init__()
        if kernel not in ("auto", "reference", "cpu"):
            raise DataError(f"kernel must be 'auto', 'reference' or 'cpu', but got {kernel!r}")
        self.kernel = kernel
        self.in_features = in_features
        self.tree = tree
        self.layout = SoftmaxLayout.of(tree, in_features)
        sizes = list(zip(self.layout.rows_per_width, self.layout.widths, strict=True))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(rows, width, device=device, dtype=dtype)) for rows, width in sizes
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) for rows, _ in sizes if bias
        )
        self.projections = nn.ParameterList(
            nn.Parameter(torch.empty(dim, source, device=device, dtype=dtype))
            for dim, source in zip(self.layout.scope_dim, self.layout.source_dim, strict=True)
        )
        self.reset_parameters()

    def reset_parameters(self, counts: ArrayLike | None = None, generator: torch.Generator | None = None) -> None:
        """Draw weights as `nn.Linear` does; biases are zero, or predict ``counts`` where they are given.

        Args:
            counts: [C] class counts; a class without any is given half a count.
            generator: Of the weights, on the CPU.

        Raises:
            DataError: The counts do not fit the tree.
        """
        with torch.no_grad():
            for matrix in [*self.weights, *self.projections]:
                bound = 1 / math.sqrt(matrix.shape[1])
                drawn = torch.rand(matrix.shape, generator=generator, dtype=torch.float32) * (2 * bound) - bound
                matrix.copy_(drawn)
            starts = None if counts is None else torch.from_numpy(log_mass_biases(self.tree, counts))
            begin = 0
            for vector in self.biases:
                rows = self.layout.row_order[begin : begin + vector.numel()]
                begin += vector.numel()
                vector.copy_(torch.zeros(rows.size) if starts is None else starts[rows])

    def forward(self, input: Tensor, target: Tensor) -> SoftmaxOutput:
        """Log-probability of the targets.

        Args:
            input: [B, D], or [D] for one example.
            target: int64 [B], or a scalar.

        Returns:
            ``output`` [B] (or scalar) and ``loss``, the mean negative ``output``.

        Raises:
            DataError: Shapes do not fit, or a target lies outside [0, C).
        """
        self._check_input(input)
        if target.shape != input.shape[:-1]:
            raise DataError(f"target must have shape {tuple(input.shape[:-1])}, but got {tuple(target.shape)}")
        if target.is_floating_point():
            raise DataError(f"target must hold integer class ids, but got {target.dtype}; use target.long()")
        flat_input, flat_target = input.reshape(-1, self.in_features), target.reshape(-1)
        if flat_target.numel() and not 0 <= int(flat_target.min()) <= int(flat_target.max()) < self.tree.num_classes:
            raise DataError(
                f"targets must lie in [0, {self.tree.num_classes}),"
                f" but range from {int(flat_target.min())} to {int(flat_target.max())}"
            )
        weights, biases, projections = list(self.weights), self._bias_list(), list(self.projections)
        if self._use_cpu_kernels(flat_input, [*weights, *biases, *projections]):
            flat_output = cpu.target_log_prob(
                self._kernel_layout, flat_input, flat_target, weights, biases, projections
            )
        else:
            flat_output = reference.target_log_prob(self._tables, flat_input, flat_target, weights, biases, projections)
        output = flat_output.reshape(target.shape)
        return SoftmaxOutput(output, -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes, [B, C] (or [C]), in nats.

        Raises:
            DataError: The last dimension is not D.
        """
        self._check_input(input)
        flat_input = input.reshape(-1, self.in_features)
        scores = reference.full_log_prob(
            self._tables, flat_input, list(self.weights), self._bias_list(), list(self.projections)
        )
        return scores.reshape(*input.shape[:-1], self.tree.num_classes)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each example, int64 [B]; exact."""
        return self.log_prob(input).argmax(-1)

    def topk(self, input: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable classes, best first; exact: log-probabilities [B, k] and class ids [B, k].

        Raises:
            DataError: k is not in [1, C].
        """
        if not 1 <= k <= self.tree.num_classes:
            raise DataError(f"k must lie in [1, {self.tree.num_classes}], but got {k}")
        values, indices = self.log_prob(input).topk(k, -1)
        return values, indices

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"in_features={self.in_features}, num_classes={self.tree.num_classes}, bias={len(self.biases) > 0}"

    def _use_cpu_kernels(self, input: Tensor, parameters: list[Tensor]) -> bool:
        if self.kernel == "reference":
            return False
        supported = cpu.supports(input, parameters)
        if self.kernel == "cpu" and not supported:
            raise DataError("kernel 'cpu' needs float32 tensors on the CPU; use kernel='auto' or 'reference'")
        return supported

    @cached_property
    def _tables(self) -> reference.Tables:
        return reference.Tables.of(self.layout, self.weights[0].device)

    @cached_property
    def _kernel_layout(self) -> Layout:
        return cpu.kernel_layout(self.layout)

    def _bias_list(self) -> list[Tensor]:
        if len(self.biases):
            return list(self.biases)
        return [matrix.new_zeros(matrix.shape[0]) for matrix in self.weights]

    def _check_input(self, input: Tensor) -> None:
        if input.dim() < 1 or input.shape[-1] != self.in_features:
            raise DataError(f"input must have {self.in_features} features, but got shape {tuple(input.shape)}")


def log_mass_biases(tree: Tree, counts: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Biases that make a tree with zero weights predict the class frequencies, float32 [R], rows in canonical order.

    A class without count is given half a count.
    """
    mass = tree.node_mass(np.maximum(check_counts(counts, tree.num_classes), 0.5))
    log_mass = np.log(mass[tree.child_idx])  # one entry per edge, edges grouped by node
    rows = row_ptr(tree)
    first_edge = tree.child_ptr[:-1]
    edge_node = np.repeat(np.arange(tree.num_internal), tree.arities)
    position = np.arange(edge_node.size) - first_edge[edge_node]
    wide = tree.arities[edge_node] != 2
    biases = np.empty(rows[-1], np.float32)
    biases[(rows[edge_node] + position)[wide]] = (log_mass - np.log(mass[edge_node]))[wide]
    binary = np.flatnonzero(tree.arities == 2)
    biases[rows[binary]] = log_mass[first_edge[binary]] - log_mass[first_edge[binary] + 1]
    return biases
