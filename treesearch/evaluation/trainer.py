"""A step of joint training: forward, backward, and the optimizers of encoder and output layer.

Shapes: **B** batch, **D** features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.optim import Optimizer

from treesearch.config import EncoderConfig
from treesearch.data import InputSpec
from treesearch.evaluation.encoders import Encoder, untrained_encoder
from treesearch.evaluation.softmax_mean import SoftmaxMean
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdam
from treesearch.tree import Tree

BETAS = (0.9, 0.99)
OutputLayer = HierarchicalSoftmax | SoftmaxMean


class JointTrainer:
    """Trains an encoder and a hierarchical softmax together, in place, a batch at a time.

    Adam: by row (`RowwiseAdam`) for the output layer, whose nodes learn the more slowly the fewer examples pass them
    (`HierarchicalSoftmax.parameter_groups`), and for what the encoder says has row-sparse gradients; torch's own for
    the rest.

    Args:
        encoder: On the device of ``layer``.
        layer: Best made with ``sparse=True``, so that a step moves the rows on the batch's paths alone.
        counts: [C] class counts of the training data.
        learning_rate: Of the first step.
        num_steps: The rate falls linearly to zero over so many steps; None: it stays.
    """

    def __init__(
        self,
        encoder: Encoder,
        layer: OutputLayer,
        *,
        counts: ArrayLike,
        learning_rate: float,
        num_steps: int | None = None,
    ) -> None:
        self.encoder, self.layer = encoder, layer
        self.learning_rate, self.num_steps = learning_rate, num_steps
        self.steps_done = 0
        by_row = encoder.row_sparse_parameters()
        ids = set(map(id, by_row))
        rest = [parameter for parameter in encoder.parameters() if id(parameter) not in ids]
        self._of_layer: list[Optimizer] = [RowwiseAdam(layer.parameter_groups(counts), betas=BETAS)]
        self._of_encoder: list[Optimizer] = []
        if by_row:
            self._of_encoder.append(RowwiseAdam(by_row, betas=BETAS))
        if rest:
            self._of_encoder.append(torch.optim.Adam(rest, betas=BETAS, fused=True))

    def step(self, inputs_B: Tensor, target_B: Tensor) -> None:
        """One step of encoder and layer.

        Training that diverges leaves parameters that are not finite; the caller sees it in the score.

        Args:
            inputs_B: What the encoder reads.
            target_B: int64.
        """
        self.step_on(lambda: self.layer(self.encoder(inputs_B), target_B).loss)

    def step_on(self, loss: Callable[[], Tensor]) -> None:
        """One step of encoder and layer on another loss of theirs, such as one that a teacher has a part in."""
        self._move([*self._of_layer, *self._of_encoder], loss)

    def head_step(self, hidden_BD: Tensor, target_B: Tensor) -> None:
        """The part of `step` above the encoder, down to the gradient of ``hidden_BD``, a leaf that wants it."""
        self._move(self._of_layer, lambda: self.layer(hidden_BD, target_B).loss)

    def _move(self, optimizers: Sequence[Optimizer], loss: Callable[[], Tensor]) -> None:
        share = 1.0 if self.num_steps is None else 1 - self.steps_done / self.num_steps
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * share
        loss().backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        self.steps_done += 1


def make_model(
    tree: Tree, settings: EncoderConfig, spec: InputSpec, *, counts: ArrayLike, seed: int, device: torch.device
) -> tuple[Encoder, HierarchicalSoftmax]:
    """An untrained encoder and an output layer over ``tree`` with row-sparse gradients.

    Args:
        tree: Over the C classes.
        settings: Of the encoder.
        spec: Of its inputs.
        counts: [C] with which the layer's biases begin.
        seed: Of all parameters; the encoder's are the same for every tree.
        device: Where to put them.

    Raises:
        ConfigError: There is no such encoder for such inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder = untrained_encoder(settings, spec, generator)
    layer = HierarchicalSoftmax(encoder.out_features, tree, sparse=True)
    layer.reset_parameters(counts, generator)
    return encoder.to(device), layer.to(device)
