"""Several trees as one output layer: what an encoder is trained with that is to favour none of them.

Shapes: **B** batch, **D** features, **C** classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.layer import SoftmaxOutput


class SoftmaxMean(nn.Module):
    """Hierarchical softmaxes over the same classes, each with parameters of its own; losses are their mean.

    Args:
        layers: At least one; each sees the same features.

    Raises:
        DataError: No layer, or one of other classes or features.
    """

    def __init__(self, layers: Sequence[HierarchicalSoftmax]) -> None:
        super().__init__()
        sizes = {(layer.num_classes, layer.in_features) for layer in layers}
        if len(sizes) != 1:
            raise DataError(f"layers must agree on (classes, features), but got {sorted(sizes)}; give one at least")
        self.layers = nn.ModuleList(layers)
        self.num_classes = layers[0].num_classes

    def forward(self, input: Tensor, target: Tensor) -> SoftmaxOutput:
        """Mean log-probability of each target, [B], and mean loss.

        Args:
            input: [B, D].
            target: int64 [B].
        """
        outputs = [layer(input, target) for layer in self.layers]
        return SoftmaxOutput(
            torch.stack([one.output for one in outputs]).mean(0), torch.stack([one.loss for one in outputs]).mean()
        )

    def parameter_groups(self, counts: ArrayLike) -> list[dict[str, Any]]:
        """Those of all layers, see `HierarchicalSoftmax.parameter_groups`."""
        layers = cast("list[HierarchicalSoftmax]", list(self.layers))
        return [group for layer in layers for group in layer.parameter_groups(counts)]
