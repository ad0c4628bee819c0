"""`TopFeatures`: the features that say most about each decision of a batch of paths.

Shapes: **B** batch, **D** features of the layer, **E** decisions, **F** input features, **L** path length, **T** top
features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.decisions.attribution import (
    Score,
    branch_rows,
    check_baseline,
    integrated_gradients,
    linear_contributions,
)
from treesearch.decisions.branches import NO_NODE, PathBranches
from treesearch.decisions.posthoc import PosthocTree
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax

NO_FEATURE = -1
NUMBERS_AT_ONCE = 1 << 22  # contributions, and for integrals inputs and outputs, that are held at a time


@dataclass(frozen=True, eq=False)
class TopFeatures:
    """Shares of the features in the branch logit of each decision, taken against the best alternative."""

    feature: NDArray[np.int64]  # [B, L, T] largest absolute contribution first; NO_FEATURE where there is none
    contribution: NDArray[np.float64]  # [B, L, T] nats; > 0 speaks for the child taken
    total: NDArray[np.float64]  # [B, L] sum over all features: the margin less that of the baseline


def top_features(
    layer: HierarchicalSoftmax | PosthocTree,
    input: Tensor,
    branches: PathBranches,
    *,
    encoder: Callable[[Tensor], Tensor] | None,
    num_features: int,
    baseline: Tensor | None,
    tolerance: float,
) -> TopFeatures:
    """The features with the largest contributions to each decision; arguments as in `explain`.

    All contributions are held for a few decisions at a time.

    Raises:
        DataError: The input is no float [B, F], the baseline does not fit, or contributions do not add up.
    """
    if input.dim() != 2 or not input.is_floating_point():
        raise DataError("features need a floating input [B, F]; embed ids first, and explain the embeddings")
    baseline_BF = check_baseline(baseline, input)
    row_E, depth_E = (branches.node != NO_NODE).nonzero(as_tuple=True)
    shape = (*branches.node.shape, min(num_features, input.shape[1]))
    feature = np.full(shape, NO_FEATURE, np.int64)
    contribution, total = np.zeros(shape), np.zeros(shape[:2])
    width = input.shape[1] if encoder is None and isinstance(layer, HierarchicalSoftmax) else _width(layer, input)
    for part in torch.split(torch.arange(row_E.numel()), max(1, NUMBERS_AT_ONCE // max(width, 1))):
        at_e = row_E[part], depth_E[part]
        decisions = [ids[at_e] for ids in (branches.node, branches.taken, branches.alternative[:, :, 0])]
        row = at_e[0].to(input.device)
        if encoder is None and isinstance(layer, HierarchicalSoftmax):
            columns = [ids[:, None] for ids in decisions]
            values_eF = linear_contributions(layer, input[row], baseline_BF[row], *columns)[:, 0]
        else:
            score = _score(layer, encoder, *decisions)
            values_eF = integrated_gradients(score, input[row], baseline_BF[row], tolerance=tolerance).values
        values_eF = values_eF.double().cpu()
        chosen_eT = values_eF.abs().topk(shape[2], dim=1).indices
        place_e = at_e[0].numpy(), at_e[1].numpy()
        feature[place_e] = chosen_eT.numpy()
        contribution[place_e] = values_eF.gather(1, chosen_eT).numpy()
        total[place_e] = values_eF.sum(1).numpy()
    return TopFeatures(feature, contribution, total)


def _score(
    layer: HierarchicalSoftmax | PosthocTree,
    encoder: Callable[[Tensor], Tensor] | None,
    node_e: Tensor,
    taken_e: Tensor,
    rival_e: Tensor,
) -> Score:
    """The branch logit of one decision for each example."""
    if isinstance(layer, PosthocTree):
        return lambda x: layer.branch_logit(x if encoder is None else encoder(x), taken_e, rival_e)
    weight_eD, bias_e = branch_rows(layer, node_e, taken_e, rival_e)

    def score(x: Tensor) -> Tensor:
        hidden = x if encoder is None else encoder(x)
        return (weight_eD * hidden.to(weight_eD.dtype)).sum(1) + bias_e

    return score


def _width(layer: HierarchicalSoftmax | PosthocTree, input: Tensor) -> int:
    """Numbers that one example of an integral takes: its features, and what the layer makes of them."""
    return 4 * (input.shape[1] + (layer.num_classes if isinstance(layer, PosthocTree) else layer.in_features))
