"""`SoftmaxForest`: several trees over the same classes, scored in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.softmax.checks import check_range, flat_input, flat_target
from treesearch.softmax.dispatch import Parameters
from treesearch.softmax.forest import ForestTables
from treesearch.softmax.gpu import forest_log_prob
from treesearch.softmax.initialization import draw_uniform
from treesearch.softmax.layer import HierarchicalSoftmax
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree


class TreeParameters(NamedTuple):
    """The parameters of one tree of a forest, as `HierarchicalSoftmax` keeps them: views, no copies."""

    weights: list[Tensor]  # one matrix [rows, width] per width of this tree
    biases: list[Tensor]  # one vector per width; empty without bias
    projections: list[Tensor]


class SoftmaxForest(nn.Module):
    """Hierarchical softmax over several trees at once: the same inputs, targets and classes, parameters of their own.

    It gives what one `HierarchicalSoftmax` per tree gives, in one pass: to compare trees, or to mix them.

    Args:
        in_features: D.
        trees: All over the same C classes.
        bias: Whether logits have a bias.
        device: As in `nn.Linear`.
        dtype: As in `nn.Linear`.

    Attributes:
        weights: One matrix [rows of all trees, width] per width, the widest (D) first.
        biases: One vector per width; empty without bias.
        projections: One matrix [d, source d] per projecting node of all trees.

    Raises:
        DataError: There are no trees, or their numbers of classes differ.
        TreeError: A projection is larger than ``in_features``.
    """

    def __init__(
        self,
        in_features: int,
        trees: Sequence[Tree],
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_classes = sorted({tree.num_classes for tree in trees})
        if len(num_classes) != 1:
            raise DataError(f"a forest needs one or more trees over the same classes, but got sizes {num_classes}")
        self.in_features = in_features
        self.trees = tuple(trees)
        self.num_classes = num_classes[0]
        layouts = [SoftmaxLayout.of(tree, in_features) for tree in trees]
        self.tables = ForestTables.of(layouts, device)
        sizes = list(zip(self.tables.rows_per_width, self.tables.widths, strict=True))
        scopes = zip(self.tables.scope_dim, self.tables.source_dim, strict=True)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(rows, width, device=device, dtype=dtype)) for rows, width in sizes
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) for rows, _ in sizes if bias
        )
        self.projections = nn.ParameterList(
            nn.Parameter(torch.empty(dim, source, device=device, dtype=dtype)) for dim, source in scopes
        )
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights as `nn.Linear` does; biases are zero.

        Args:
            generator: Of the weights, on the CPU.
        """
        with torch.no_grad():
            for matrix in [*self.weights, *self.projections]:
                draw_uniform(matrix, generator)
            for vector in self.biases:
                vector.zero_()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probability of the targets under each tree, [K, B], in nats.

        Args:
            input: [B, D], of the type of the parameters; under autocast any that `nn.Linear` takes there.
            target: Integers [B], in [0, C).

        Raises:
            DataError: Shapes or types do not fit; on the CPU, a target outside [0, C).
        """
        if input.dim() != 2:
            raise DataError(f"input must have shape [B, {self.in_features}], but got {tuple(input.shape)}")
        inputs = flat_input(input, self.in_features, self.weights[0].dtype)
        targets = flat_target(target, input)
        check_range(targets, self.num_classes)
        parameters = Parameters(list(self.weights), list(self.biases), list(self.projections))
        shared_KB = targets.expand(len(self.trees), -1)
        return forest_log_prob(self.tables, inputs, shared_KB, *parameters.with_biases())

    def tree_parameters(self, index: int) -> TreeParameters:
        """Views of the parameters of one tree, in the order of its own layer."""
        tables = self.tables
        begin, end = tables.tree_rows[index], tables.tree_rows[index + 1]
        own = [tables.widths.index(width) for width in tables.layouts[index].widths]
        return TreeParameters(
            weights=[self.weights[width][begin[width] : end[width]] for width in own],
            biases=[self.biases[width][begin[width] : end[width]] for width in own if len(self.biases)],
            projections=list(self.projections)[tables.tree_scopes[index] : tables.tree_scopes[index + 1]],
        )

    @torch.no_grad()
    def load_tree(self, index: int, layer: HierarchicalSoftmax) -> None:
        """Copy the parameters of a layer over tree ``index`` into the forest.

        Raises:
            DataError: The layer has another tree, or a bias where the forest has none, or the reverse.
        """
        if layer.tree != self.trees[index]:
            raise DataError(f"the layer must be over tree {index} of the forest, but is over {layer.tree!r}")
        if bool(len(layer.biases)) != bool(len(self.biases)):
            raise DataError(f"bias must be the same in both, but the layer has {len(layer.biases)} bias vectors")
        theirs = layer.weights, layer.biases, layer.projections
        for own, given in zip(self.tree_parameters(index), theirs, strict=True):
            for target, source in zip(own, given, strict=True):
                target.copy_(source)

    @torch.no_grad()
    def to_layer(self, index: int) -> HierarchicalSoftmax:
        """A layer of its own with a copy of the parameters of tree ``index``."""
        first = self.weights[0]
        layer = HierarchicalSoftmax(
            self.in_features, self.trees[index], bool(len(self.biases)), device=first.device, dtype=first.dtype
        )
        theirs = layer.weights, layer.biases, layer.projections
        for own, taken in zip(theirs, self.tree_parameters(index), strict=True):
            for target, source in zip(own, taken, strict=True):
                target.copy_(source)
        return layer

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return (
            f"in_features={self.in_features}, num_trees={len(self.trees)}, num_classes={self.num_classes},"
            f" bias={len(self.biases) > 0}"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> SoftmaxForest:
        # The tables follow the parameters; they are built anew, since those on the meta device hold nothing to move.
        apply: Any = super()._apply
        apply(fn, recurse)
        device = self.weights[0].device
        if device != self.tables.device:
            self.tables = ForestTables.of(self.tables.layouts, device)
        return self
