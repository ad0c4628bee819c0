"""What an agent sees of an open node: bounded numbers that mean the same in every vocabulary.

Shapes: **F** features of an observation, **n** classes of the node.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.nodes import OpenNode
from envs.task import ConstructionTask

OBSERVATION_FEATURES: tuple[str, ...] = (
    "log_mass",  # ln of the share of examples that pass the node / 20
    "log_size",  # log2 n / 20
    "relative_log_size",  # log n / log C
    "entropy",  # of the classes inside, bits / 20
    "relative_entropy",  # the same / log2 n
    "top_share",  # of the heaviest class
    "top10_share",  # of the ten heaviest
    "spread",  # r / (1 + r), r = variance of the vectors inside / variance of all
    "depth",  # edges from the root / 20
    "input_dim",  # what the node's decision sees / D
    "projected",  # 1 under a projection
    "decisions_left",  # share of the budget
    "cost_weight",  # log10 λ / 4 + 1
    "is_root",
)
NUM_FEATURES = len(OBSERVATION_FEATURES)
LOW, HIGH = -1.0, 1.0  # every feature is clipped to this range


def set_features(task: ConstructionTask, node: OpenNode) -> tuple[float, float, float, float]:
    """What depends on the class set alone: entropy (bits), top share, top-10 share, spread. O(n D)."""
    share = task.probability[node.classes]
    total = share.sum()
    share = share / total if total > 0 else np.full(node.size, 1 / node.size)
    positive = share[share > 0]
    entropy = float(-positive @ np.log2(positive))
    top = np.partition(share, -10)[-10:] if node.size > 10 else share
    ratio = task.variance(node.classes) / task.total_variance if task.total_variance > 0 else 0.0
    return entropy, float(share.max()), float(top.sum()), ratio / (1 + ratio)


def observe(
    task: ConstructionTask,
    node: OpenNode,
    of_set: tuple[float, float, float, float],
    *,
    decisions_left: float,
    cost_weight: float,
) -> NDArray[np.float32]:
    """The observation of ``node``, float32 [F], each entry inside [-1, 1]; `OBSERVATION_FEATURES` names them."""
    entropy, top, top10, spread = of_set
    log_size = math.log2(node.size)
    features = (
        math.log(max(node.mass, 1e-30)) / 20,
        log_size / 20,
        log_size / math.log2(task.num_classes),
        entropy / 20,
        entropy / log_size,
        top,
        top10,
        spread,
        node.depth / 20,
        node.input_dim / task.in_features,
        float(node.projected),
        decisions_left,
        _weight_feature(cost_weight),
        float(node.depth == 0),
    )
    return np.clip(np.array(features, np.float32), LOW, HIGH)


def seen_under(observations: NDArray[np.float32], cost_weight: float) -> NDArray[np.float32]:
    """The same observations [.., F] for another λ."""
    changed = observations.copy()
    changed[..., OBSERVATION_FEATURES.index("cost_weight")] = np.clip(_weight_feature(cost_weight), LOW, HIGH)
    return changed


def _weight_feature(cost_weight: float) -> float:
    return math.log10(max(cost_weight, 1e-30)) / 4 + 1
