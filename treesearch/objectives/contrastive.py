"""A contrastive loss on class vectors: classes that are alike are pulled together, others pushed apart.

Shapes: **B** pairs, **C** classes, **D** features, **K** candidates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from treesearch.errors import DataError
from treesearch.objectives.leaf_pairs import PositivePairs

SHORTEST = 1e-6  # length of a vector below which its direction counts for less; of a zero vector there is none


def info_nce(
    vectors: Tensor,
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float = 0.1,
    negatives: Tensor | None = None,
    pairs: PositivePairs | None = None,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) of pairs of classes, by the cosine of their vectors.

    The mean over pairs of ``-log(e^s(a,p) / (e^s(a,p) + sum_n e^s(a,n)))``, ``s`` the cosine over the temperature. An
    anchor's negatives are the candidates that are neither the anchor nor a positive of it, in this batch or in
    ``pairs``; each class counts once however often it was drawn. A pair that is left without negatives has loss zero.

    Only the rows that are named are read: O((B + K) D + B K), whatever C.

    Args:
        vectors: [C, D], such as `LeafVectorSoftmax.leaf_vectors` or `tied_leaf_vectors`. The gradient is dense.
        anchors: int64 [B], like all ids on any device.
        positives: int64 [B], each a class other than its anchor.
        temperature: > 0; lower puts more weight on the nearest negatives.
        negatives: int64 [K] candidates for all anchors; None: the positives of the batch.
        pairs: What is known of positives outside the batch; None: nothing.

    Returns:
        A scalar, nats.

    Raises:
        DataError: Shapes, types, classes or the temperature do not fit, or there is no pair.
    """
    _check(vectors, anchors, positives, temperature, negatives, pairs)
    num_classes, device = vectors.shape[0], vectors.device
    anchors, positives = anchors.to(device), positives.to(device)  # `sample` draws them on the CPU
    negatives = None if negatives is None else negatives.to(device)
    candidate_K = torch.unique(positives if negatives is None else negatives)
    pair_B = torch.unique(anchors * num_classes + positives)
    excluded_BK = torch.isin(anchors[:, None] * num_classes + candidate_K, pair_B) | (anchors[:, None] == candidate_K)
    if pairs is not None:
        excluded_BK |= pairs.contains(anchors, candidate_K)

    anchor_BD, positive_BD, candidate_KD = (
        functional.normalize(vectors[ids], dim=1, eps=SHORTEST) for ids in (anchors, positives, candidate_K)
    )
    own_B = (anchor_BD * positive_BD).sum(1) / temperature
    other_BK = (anchor_BD @ candidate_KD.T / temperature).masked_fill(excluded_BK, -math.inf)
    return (torch.cat([own_B[:, None], other_BK], dim=1).logsumexp(1) - own_B).mean()


def _check(
    vectors: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: float,
    negatives: Tensor | None,
    pairs: PositivePairs | None,
) -> None:
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise DataError(f"vectors must be floating [C, D], but got {vectors.dtype} {tuple(vectors.shape)}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"temperature must be finite and > 0, but got {temperature}; common values are 0.05 to 0.5")
    if pairs is not None and pairs.num_classes != vectors.shape[0]:
        raise DataError(f"pairs must be of the {vectors.shape[0]} classes of vectors, but are of {pairs.num_classes}")
    for name, ids in (("anchors", anchors), ("positives", positives), ("negatives", negatives)):
        if ids is None:
            continue
        if ids.dim() != 1 or ids.dtype != torch.int64:
            raise DataError(f"{name} must be int64 and one-dimensional, but got {ids.dtype} {tuple(ids.shape)}")
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vectors.shape[0]:
            raise DataError(f"{name} must lie in [0, {vectors.shape[0]}), but range from {ids.min()} to {ids.max()}")
    if anchors.shape != positives.shape or not anchors.numel():
        raise DataError(
            f"there must be a positive for each anchor, one at least, but got {anchors.numel()} anchors and"
            f" {positives.numel()} positives"
        )
    anchors, positives = anchors.cpu(), positives.cpu()
    if bool((anchors == positives).any()):
        raise DataError(
            f"an anchor must differ from its positive, but class {anchors[anchors == positives][0]} is paired with"
            " itself; leave such pairs out"
        )
