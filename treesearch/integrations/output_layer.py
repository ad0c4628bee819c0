"""`TreeOutputLayer`: a hierarchical softmax in the place of a linear output layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import overload

from torch import Tensor

from treesearch.softmax.layer import HierarchicalSoftmax, SoftmaxOutput


class TreeOutputLayer(HierarchicalSoftmax):
    """A `HierarchicalSoftmax` that can be called as the `nn.Linear` that it replaces.

    ``layer(input)`` gives the log-probabilities of all classes: logits whose softmax is themselves, O(C).
    ``layer(input, target)`` scores the targets alone, O(depth). Inputs of other floating types are cast to the layer's.

    Args, errors and further attributes are those of `HierarchicalSoftmax`.

    Attributes:
        logits_with_loss: Whether a Hugging Face model that computes its loss by paths gives ``logits`` beside it.
    """

    logits_with_loss = False
    _bypassed = False

    @overload
    def forward(self, input: Tensor) -> Tensor: ...

    @overload
    def forward(self, input: Tensor, target: Tensor) -> SoftmaxOutput: ...

    @overload
    def forward(self, input: Tensor, target: Tensor | None) -> Tensor | SoftmaxOutput: ...

    def forward(self, input: Tensor, target: Tensor | None = None) -> Tensor | SoftmaxOutput:
        """Log-probabilities of all classes, or those of the targets.

        Args:
            input: [B, D].
            target: int64 [B]; None for all classes.

        Returns:
            [B, C], nats; with targets what `HierarchicalSoftmax.forward` returns.

        Raises:
            DataError: As in `HierarchicalSoftmax`.
        """
        if target is not None:
            return super().forward(input, target)
        return input if self._bypassed else self.log_prob(input)

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Within it ``layer(input)`` returns its input: a model then returns what its output layer would see.

        ``with head.bypassed(): hidden = model(x)`` and then ``head(hidden, y).loss`` trains a model at O(depth).
        """
        before, self._bypassed = self._bypassed, True
        try:
            yield
        finally:
            self._bypassed = before

    def _flat_input(self, input: Tensor) -> Tensor:
        return super()._flat_input(input.to(self.weights[0].dtype) if input.is_floating_point() else input)
