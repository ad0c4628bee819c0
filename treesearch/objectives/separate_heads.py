"""`SeparateHeads`: a flat softmax for each level and a penalty where levels disagree, the rival of a tree.

A hierarchical softmax is consistent by construction; here consistency is a soft term of the loss, as where constraints
such as p(child) <= p(parent) are trained and not built in (Giunchiglia & Lukasiewicz 2020 discuss both).

Shapes: **B** batch (any leading shape will do), **D** features, **C** classes, **T** nodes of the taxonomy, **L**
levels below the root, **O** outcomes of one level (see `treesearch.metrics.levels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.metrics.levels import Levels
from treesearch.softmax.checks import check_range, flat_input, flat_target
from treesearch.softmax.layer import SoftmaxOutput
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


class SeparateHeads(nn.Module):
    """One linear head and softmax per level, over the nodes there and the classes that have ended above.

    A class that ends above a level is padded with itself, so that each head is a distribution over all outcomes of its
    level and the deepest one over the classes. The heads together have as many rows as there are outcomes: T - 1 where
    all classes stand at the same depth, up to L C on a ragged taxonomy.

    The loss is Σ_l w_l (mean cross-entropy of level l) + penalty · mean Σ_l KL(p_l ‖ p'_l), where p'_l are the sums of
    p_{l+1} over the children of each outcome: zero where the levels agree. Nats. The direction of the divergence is our
    choice: a head is not to put mass where the next one has none below.

    Args:
        in_features: D.
        taxonomy: Of C classes; a tree counts as the taxonomy of its own nodes.
        penalty: Weight of the divergences, >= 0; 0 trains the heads independently.
        level_weights: [L] weights w of the levels, >= 0; None for 1 each.
        bias: Whether logits have a bias.
        device: As in `nn.Linear`.
        dtype: As in `nn.Linear`.

    Attributes:
        heads: `nn.Linear` (D, O) of levels 1 to L.

    Raises:
        DataError: A setting is out of range, or the taxonomy has the root alone.
    """

    def __init__(
        self,
        in_features: int,
        taxonomy: Taxonomy | Tree,
        *,
        penalty: float = 1.0,
        level_weights: Sequence[float] | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(in_features, int) or in_features < 1:
            raise DataError(f"in_features must be a whole number >= 1, but got {in_features!r}")
        self.levels = Levels(taxonomy)
        if not self.levels.num_levels:
            raise DataError("separate heads need at least one level below the root, but the taxonomy has none")
        weights = [1.0] * self.levels.num_levels if level_weights is None else [float(w) for w in level_weights]
        if len(weights) != self.levels.num_levels:
            raise DataError(
                f"level_weights must have one number per level, but got {len(weights)} for {self.levels.num_levels}"
                " levels"
            )
        for name, value in [("penalty", penalty), *(("each of level_weights", weight) for weight in weights)]:
            if not 0 <= value < float("inf"):
                raise DataError(f"{name} must be finite and >= 0, but got {value!r}")
        self.in_features = in_features
        self.penalty = penalty
        self.level_weights = tuple(weights)
        self.heads = nn.ModuleList(
            nn.Linear(in_features, node_O.numel(), bias, device, dtype) for node_O in self.levels.outcomes
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return self.levels.num_classes

    @property
    def taxonomy(self) -> Taxonomy:
        """Of the classes."""
        return self.levels.taxonomy

    # -- targets -------------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor, target: Tensor) -> SoftmaxOutput:
        """Log-probability of the targets by the deepest head, and the loss of all heads.

        Args:
            input: [B, D].
            target: Classes, int64 [B]; they are known at all levels.

        Returns:
            ``output`` [B], nats, and ``loss``, which is not its mean; see the class.

        Raises:
            DataError: Shapes or types do not fit, or a target lies outside [0, C).
        """
        flat, target_B = flat_input(input, self.in_features, self._dtype), flat_target(target, input)
        check_range(target_B, self.num_classes)
        levels, log_probs = self._levels(flat), self._log_probs(flat)
        loss, output = self._penalty(log_probs), flat.new_zeros(0)
        for weight, log_prob_BO, outcome_C in zip(self.level_weights, log_probs, levels.outcome_of_class, strict=True):
            output = log_prob_BO.gather(1, outcome_C[target_B][:, None]).squeeze(1)
            loss = loss - weight * output.mean()
        return SoftmaxOutput(output.reshape(target.shape), loss)

    def node_loss(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss for targets at nodes of any depth: "some bird". Levels below a target's node are not known.

        A target at a node with others below it means the node or anything below, also where it is a class. Below a node
        without children all levels are known, so that such targets have the loss of their classes. The
        cross-entropy of a level is the mean over the examples that know it, 0 if none does.

        Args:
            input: [B, D].
            target: Nodes of the taxonomy, int64 [B]; the root tells nothing.

        Raises:
            DataError: Shapes or types do not fit, or a target lies outside [0, T).
        """
        flat, node_B = flat_input(input, self.in_features, self._dtype), flat_target(target, input)
        check_range(node_B, self.taxonomy.num_nodes)
        levels, log_probs = self._levels(flat), self._log_probs(flat)
        class_B, known_B = self._known(levels, node_B)
        loss = self._penalty(log_probs)
        places = zip(self.level_weights, log_probs, levels.outcome_of_class, strict=True)
        for level, (weight, log_prob_BO, outcome_C) in enumerate(places, start=1):
            counts_B = known_B >= level
            nll_B = -log_prob_BO.gather(1, outcome_C[class_B][:, None]).squeeze(1)
            # A level that is not known has no part even where its probability is zero.
            loss = loss + weight * torch.where(counts_B, nll_B, 0.0).sum() / counts_B.sum().clamp(min=1)
        return loss

    @staticmethod
    def _known(levels: Levels, node_B: Tensor) -> tuple[Tensor, Tensor]:
        """A class at or below each node, and down to which level the node's outcomes are those of that class."""
        return levels.class_below[node_B], torch.where(
            levels.heights[node_B] == 0, levels.num_levels, levels.depth[node_B]
        )

    def _penalty(self, log_probs: list[Tensor]) -> Tensor:
        """Penalty times the mean divergence of each level from the sums of the next, summed over the levels."""
        total = log_probs[0].new_zeros(())
        if not self.penalty:
            return total
        levels = self._levels(log_probs[0])
        for level, (upper_BO, lower_BO) in enumerate(pairwise(log_probs), start=1):
            difference_BO = upper_BO - levels.log_sums(lower_BO, level)
            total = total + (upper_BO.exp() * difference_BO).sum(1).mean()
        return self.penalty * total

    # -- predictions ---------------------------------------------------------------------------------------------------

    def log_prob(self, input: Tensor) -> list[Tensor]:
        """Log-probabilities of the outcomes of levels 1 to L, [B, O] each, nats; the heads do not depend on each other.

        Their nodes are ``levels.outcomes``.

        Raises:
            DataError: The last dimension is not D, or the type does not fit.
        """
        log_probs = self._log_probs(flat_input(input, self.in_features, self._dtype))
        return [log_prob_BO.reshape(*input.shape[:-1], -1) for log_prob_BO in log_probs]

    def class_log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of the classes by the deepest head, [B, C], nats.

        Raises:
            DataError: As in `log_prob`.
        """
        deepest = self.log_prob(input)[-1]
        return deepest[..., self._levels(deepest).outcome_of_class[-1]]

    @torch.no_grad()
    def predict(self, input: Tensor) -> Tensor:
        """The most probable outcome of each level on its own, int64 [B, L]: a node there, or an end above.

        An end is the node of its class, of lesser depth than the level, as `consistency_violations` takes it.

        Raises:
            DataError: As in `log_prob`.
        """
        log_probs = self.log_prob(input)
        levels = self._levels(log_probs[0])
        best = [node_O[log_prob_BO.argmax(-1)] for node_O, log_prob_BO in zip(levels.outcomes, log_probs, strict=True)]
        return torch.stack(best, -1)

    @torch.no_grad()
    def predict_class(self, input: Tensor) -> Tensor:
        """The most probable class by the deepest head, int64 [B]; of equals the smaller id.

        Raises:
            DataError: As in `log_prob`.
        """
        return self.class_log_prob(input).argmax(-1)

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, penalty={self.penalty}"

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _levels(self, tensor: Tensor) -> Levels:
        return self.levels.on(tensor.device)

    def _log_probs(self, flat: Tensor) -> list[Tensor]:
        return [head(flat).log_softmax(1) for head in self.heads]
