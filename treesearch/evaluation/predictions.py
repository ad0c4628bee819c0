"""What users ask of predictions beside their likelihood: accuracy, and the place of the answer in a list of k.

Shapes: **B** batch, **T** examples, **m** classes asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.data import Seen, Split
from treesearch.evaluation.encoders import Encoder, encode
from treesearch.evaluation.metric_names import ACCURACY, HIT_RATE, NDCG
from treesearch.softmax import HierarchicalSoftmax

LIST_LENGTH = 10
BATCH = 512


@torch.no_grad()
def accuracy(encoder: Encoder, layer: HierarchicalSoftmax, split: Split) -> dict[str, float]:
    """Share of the examples whose most probable class is theirs."""
    device = next(layer.parameters()).device
    hits = 0
    for begin in range(0, len(split), BATCH):
        hidden_BD = torch.from_numpy(encode(encoder, split.inputs[begin : begin + BATCH])).to(device)
        hits += int((layer.predict(hidden_BD).cpu().numpy() == split.labels[begin : begin + BATCH]).sum())
    return {ACCURACY: hits / len(split)}


@torch.no_grad()
def ranking(encoder: Encoder, layer: HierarchicalSoftmax, split: Split, seen: Seen) -> dict[str, float]:
    """Hit rate and NDCG of the answer among the ten most probable classes that the user has not seen.

    With one answer of rank r (from 1), NDCG is 1 / log2(r + 1), and 0 beyond the list (Järvelin & Kekäläinen 2002).
    Lists are exact: as many classes more are asked for as there may be seen ones among them.

    Args:
        encoder: Of the inputs.
        layer: On its features.
        split: T examples.
        seen: Classes that are no answer, for each example; its own class must not be among them.
    """
    device = next(layer.parameters()).device
    num_seen_T = np.diff(seen.ptr)
    order_T = np.argsort(num_seen_T, kind="stable")  # batches of examples that need lists of like length
    gain = hits = 0.0
    for begin in range(0, len(split), BATCH):
        rows_B = order_T[begin : begin + BATCH]
        hidden_BD = torch.from_numpy(encode(encoder, split.inputs[rows_B])).to(device)
        length = min(LIST_LENGTH + int(num_seen_T[rows_B].max()), layer.num_classes)
        class_Bm = layer.topk(hidden_BD, length)[1].cpu().numpy()
        rank_B = _ranks(class_Bm, split.labels[rows_B], [seen.of(row) for row in rows_B.tolist()])
        inside_B = rank_B <= LIST_LENGTH
        hits += float(inside_B.sum())
        gain += float((1 / np.log2(rank_B[inside_B] + 1)).sum())
    return {HIT_RATE: hits / len(split), NDCG: gain / len(split)}


def _ranks(
    class_Bm: NDArray[np.int64], target_B: NDArray[np.int32], seen: list[NDArray[np.int32]]
) -> NDArray[np.float64]:
    """Rank of each target from 1, seen classes left out; infinity where it is not listed."""
    rank_B = np.full(len(target_B), np.inf)
    for row, (listed, target) in enumerate(zip(class_Bm, target_B, strict=True)):
        place = np.flatnonzero(listed == target)
        if place.size:
            rank_B[row] = 1 + place[0] - np.isin(listed[: place[0]], seen[row]).sum()
    return rank_B
