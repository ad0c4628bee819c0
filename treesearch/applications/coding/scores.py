"""What a coder's confidence is worth on held-out terms: by level, and where it stops at the deepest safe node.

Shapes: **B** batch, **C** classes, **L** levels below the root, **M** nodes of the tree, **T** nodes of the taxonomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.applications.coding.task import CodingTask, label_nodes
from treesearch.applications.taxonomy.training import TextClassifier
from treesearch.decisions.node_probs import NodeProbs
from treesearch.metrics import LevelAccuracy, LevelCalibration, Levels
from treesearch.taxonomy import Taxonomy

BATCH = 64  # all nodes of all rows are held
NUM_BINS = 10
THRESHOLDS = (0.5, 0.8, 0.9, 0.95)


def safe_nodes(probs: NodeProbs, taxonomy: Taxonomy, threshold: float) -> NDArray[np.int64]:
    """The deepest node of the taxonomy with at least this probability, int64 [B]; the likelier of equally deep ones.

    Above a half these nodes are one path. The root, node 0, stands for "no decision is safe", also where a single node
    below it is certain.

    Args:
        probs: On the taxonomy's own tree.
        taxonomy: All classes are leaves.
        threshold: 0 to 1.
    """
    depth_M = torch.from_numpy(probs.tree.node_depths.astype(np.int64))
    # A probability is at most 1, so it decides among nodes of one depth only.
    rank_BM = torch.where(probs.prob >= threshold, 2.0 * depth_M + probs.prob, -1.0)
    end_M = np.zeros(probs.tree.num_nodes, np.int64)
    end_M[taxonomy.tree_node] = np.arange(taxonomy.num_nodes)  # of a chain the deepest comes last, and stays
    end_M[0] = 0  # a single chapter below the root is no answer
    return end_M[rank_BM.argmax(1).numpy()]


def held_out_scores(
    model: TextClassifier, task: CodingTask, *, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Any]:
    """Scores on the test split.

    At each level the prediction is the node above the most probable code. A label at an inner node counts at the levels
    down to it. An answer below such a label is right if the label is above it: nothing says which code is meant.

    Returns:
        ``levels``, a list with ``num`` test terms, ``accuracy``, mean ``confidence`` and ``calibration_error`` (10
        bins) of each level, from the first; ``code_accuracy`` of the terms whose label is a code; ``nll`` in nats;
        ``safe``, a list with, by ``threshold``, the share ``answered`` (below the root), the ``accuracy`` and the mean
        ``level`` of these, and the share of all terms answered with a ``code``. None for a mean over nothing.
    """
    taxonomy, levels = task.taxonomy, Levels.of(task.taxonomy)
    node_B = label_nodes(taxonomy, task.test.labels)
    class_B = levels.class_below.numpy()[node_B]  # one that passes the label
    depth_B = taxonomy.depth[node_B]
    of_depth = {
        depth: (LevelAccuracy(levels), LevelCalibration(levels, num_bins=NUM_BINS)) for depth in np.unique(depth_B)
    }
    code_hits, nll, safe = 0, 0.0, np.empty((len(thresholds), node_B.size), np.int64)
    for depth, (accuracy, calibration) in of_depth.items():
        rows = np.flatnonzero(depth_B == depth)
        for begin in range(0, rows.size, BATCH):
            own = rows[begin : begin + BATCH]
            log_prob_BC, nll_B = _scored(model, task, own)
            target_B, best_B = torch.from_numpy(class_B[own]), log_prob_BC.argmax(1)
            accuracy.update(best_B, target_B)
            calibration.update(log_prob_BC, target_B)
            code_hits += int((best_B.numpy() == task.test.labels[own]).sum())
            nll += float(nll_B.double().sum())
            probs = NodeProbs.of_log_prob(taxonomy.tree, log_prob_BC)
            for place, threshold in enumerate(thresholds):
                safe[place, own] = safe_nodes(probs, taxonomy, threshold)
    num_codes = int((task.test.labels < taxonomy.num_classes).sum())
    return {
        "levels": [_level_row(level, levels, of_depth) for level in range(1, int(depth_B.max()) + 1)],
        "code_accuracy": code_hits / num_codes if num_codes else None,
        "nll": nll / node_B.size,
        "safe": [_safe_row(float(t), safe[place], node_B, taxonomy) for place, t in enumerate(thresholds)],
    }


@torch.no_grad()
def _scored(model: TextClassifier, task: CodingTask, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    hidden_BD = model(torch.from_numpy(task.test.inputs[rows]).long())
    nll_B = model.head.nll(hidden_BD, torch.from_numpy(task.test.labels[rows]).long())
    return model.head.log_prob(hidden_BD), nll_B


def _level_row(
    level: int, levels: Levels, of_depth: dict[int, tuple[LevelAccuracy, LevelCalibration]]
) -> dict[str, Any]:
    accuracy, calibration = LevelAccuracy(levels), LevelCalibration(levels, num_bins=NUM_BINS)
    for depth, (own_accuracy, own_calibration) in of_depth.items():
        if depth >= level:
            accuracy.merge(own_accuracy)
            calibration.merge(own_calibration)
    bins = calibration.bins(level)
    num_K = np.array(bins["num"])
    return {
        "level": level,
        "num": int(num_K.sum()),
        "accuracy": accuracy.at(level),
        "confidence": float(num_K @ np.nan_to_num(bins["confidence"]) / num_K.sum()),
        "calibration_error": calibration.compute()[level - 1],
    }


def _safe_row(
    threshold: float, safe_B: NDArray[np.int64], node_B: NDArray[np.int64], taxonomy: Taxonomy
) -> dict[str, Any]:
    answered = safe_B > 0
    common_B = taxonomy.lowest_common_ancestors(safe_B, node_B)
    right = (common_B == safe_B) | (common_B == node_B)
    some = bool(answered.any())
    return {
        "threshold": threshold,
        "answered": float(answered.mean()),
        "accuracy": float(right[answered].mean()) if some else None,
        "level": float(taxonomy.depth[safe_B[answered]].mean()) if some else None,
        "code": float((taxonomy.class_at[safe_B] >= 0).mean()),
    }
