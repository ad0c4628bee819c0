"""What a layer does when it serves, as modules that compilers and exporters take whole.

Shapes: **B** batch, **D** features, **C** classes; **k** counts classes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax, beam, gpu
from treesearch.softmax.dispatch import Parameters
from treesearch.softmax.forest import ForestTables
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax
from treesearch.softmax.levels import BeamTables
from treesearch.softmax.topk import check_arguments


class ServingModule(nn.Module):
    """A layer without targets. Parameters are the layer's own; tables stay on the device that it is on now.

    Of a `LeafVectorSoftmax` it has a copy of the derived rows.

    Attributes:
        output_names: Names of what `forward` returns, in order.
    """

    output_names: ClassVar[tuple[str, ...]]

    def __init__(self, layer: HierarchicalSoftmax) -> None:
        super().__init__()
        if not isinstance(layer, HierarchicalSoftmax):
            raise DataError(f"layer must be a HierarchicalSoftmax, but got {type(layer).__name__}; pass its head")
        if isinstance(layer, LeafVectorSoftmax):
            layer = layer.to_rows()
        self.in_features = layer.in_features
        self.tree_hash = layer.tree.hash
        self.weights, self.biases, self.projections = layer.weights, layer.biases, layer.projections
        self.eval()

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self.weights[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters and of the input."""
        return self.weights[0].dtype

    def checked(self, input: Tensor) -> Tensor:
        """The input, if it fits.

        Raises:
            DataError: Its shape is not [B, D], or its type not the layer's.
        """
        if input.dim() != 2 or input.shape[1] != self.in_features or input.dtype != self.dtype:
            raise DataError(
                f"input must be {self.dtype} of shape [B, {self.in_features}], but got {input.dtype} of shape"
                f" {tuple(input.shape)}; reshape or convert it"
            )
        return input

    def parameter_lists(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weights, biases (zeros where the layer has none) and projections."""
        return Parameters(list(self.weights), list(self.biases), list(self.projections)).with_biases()


class ScoringModule(ServingModule):
    """All classes: ``input`` [B, D] -> ``log_prob`` [B, C] in nats, as `HierarchicalSoftmax.log_prob`.

    One call takes several (rows + edges) * B numbers of memory: some 5 MB per example at 100,000 classes in a binary
    tree. The number of operations grows with the depth of the tree.
    """

    output_names = ("log_prob",)

    def __init__(self, layer: HierarchicalSoftmax) -> None:
        super().__init__(layer)
        self._tables = ForestTables.of([layer.layout], self.device)

    def forward(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes, [B, C].

        Raises:
            DataError: The input does not fit.
        """
        return gpu.full_log_prob(self._tables, self.checked(input), *self.parameter_lists())


class BeamModule(ServingModule):
    """The k most probable classes: ``input`` [B, D] -> ``log_prob`` [B, k], ``indices`` int64 [B, k], ``exact`` [B].

    Level by level the ``beam`` most probable nodes are followed, as `HierarchicalSoftmax.topk` with ``max_nodes`` does;
    one is the greedy walk. Where fewer than k classes are reached, -inf and -1 stand for the rest. ``exact`` (bool)
    says that no node that was given up was more probable than the k-th class, so that no other class is: always so
    where the beam holds all nodes of every level. Of equally probable classes any may come first, or come at all.

    A level costs the rows of the beam's nodes, or of all its nodes where they are few; every projection of the tree is
    computed.
    """

    output_names = ("log_prob", "indices", "exact")

    def __init__(self, layer: HierarchicalSoftmax, k: int, *, beam: int | None = None) -> None:
        super().__init__(layer)
        if beam is not None and (not isinstance(beam, (int, np.integer)) or beam < 1):
            raise DataError(f"beam must be an integer >= 1, or None to follow all nodes, but got {beam!r}")
        check_arguments(k, layer.num_classes, None)
        self.k = int(k)
        self._tables = BeamTables.of(layer.layout, beam, self.device)

    @property
    def beam(self) -> int:
        """Nodes that are followed a level, at most."""
        return self._tables.beam

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class.

        Raises:
            DataError: The input does not fit.
        """
        return beam.beam_search(self._tables, self.checked(input), self.k, *self.parameter_lists())


def scoring_module(layer: HierarchicalSoftmax) -> ScoringModule:
    """The scores of all classes as a module to export; see `ScoringModule`.

    Raises:
        DataError: ``layer`` is none.
    """
    return ScoringModule(layer)


def beam_module(layer: HierarchicalSoftmax, k: int, *, beam: int | None = None) -> BeamModule:
    """The k most probable classes as a module to export; see `BeamModule`.

    Args:
        layer: The trained layer.
        k: Number of classes, 1 to C.
        beam: Nodes to follow a level, at most: 1 is greedy, None follows all and is exact.

    Raises:
        DataError: ``layer`` is none, or ``k`` or ``beam`` out of range.
    """
    return BeamModule(layer, k, beam=beam)
