"""Shallow trees: two levels of about sqrt(C) classes, and the shape of adaptive softmax."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from treesearch.builders.assembly import TreeAssembly
from treesearch.builders.balanced import by_falling_count
from treesearch.builders.clustering import attention, require_vectors, similarity_parts, start_direction
from treesearch.errors import ConfigError
from treesearch.tree import Tree


def two_level(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    seed: int = 0,
    by: str = "frequency",
) -> Tree:
    """About sqrt(C) groups under the root, the classes of each group in one flat node (Goodman 2001).

    Args:
        counts: [C] class counts.
        vectors: [C, D] class vectors, for ``by="similarity"``.
        seed: Starting direction of the power iteration, for ``by="similarity"``.
        by: ``frequency``: ceil(sqrt(C)) runs of classes by falling count, ties by smaller id, sizes differing by at
            most one; ``similarity``: the set of most classes is cut by 2-means at half its number until there are
            that many groups.

    O(C log C), or O(C D log C) by similarity. A group of one class is a leaf under the root.

    Raises:
        ConfigError: Unknown ``by``.
        DataError: By similarity without vectors.
    """
    if counts.size == 1:
        return Tree.from_nested(0)
    num_groups = math.ceil(math.sqrt(counts.size))
    if by == "frequency":
        groups = np.array_split(by_falling_count(counts), num_groups)
    elif by == "similarity":
        points = require_vectors("two-level", vectors)
        groups = similarity_parts(
            points,
            attention(counts),
            np.ones_like(counts),
            np.arange(counts.size),
            start_direction(points, seed),
            num_groups,
        )
    else:
        raise ConfigError(f"by must be 'frequency' or 'similarity', but got {by!r}")
    return _root_over_flat_groups(groups, [Tree.NO_PROJECTION] * len(groups), np.zeros(0, np.int64))


def adaptive(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    cutoffs: Sequence[int] | None = None,
    div_value: float = 4.0,
    in_features: int | None = None,
) -> Tree:
    """The tree of `torch.nn.AdaptiveLogSoftmaxWithLoss` (Grave et al. 2017).

    The root decides among the ``cutoffs[0]`` most frequent classes and one entry per tail cluster. Cluster i holds the
    classes of frequency rank ``cutoffs[i] .. cutoffs[i+1]`` in one flat node on a projection to
    ``in_features // div_value ** (i + 1)``.

    Args:
        counts: [C] class counts; ranks by falling count, ties by smaller id.
        vectors: Only used for its width where ``in_features`` is None.
        cutoffs: Rising ranks inside (0, C); None takes ``[C / 20, C / 4]``.
        div_value: Shrinkage of the projections from cluster to cluster, >= 1; 1 keeps D.
        in_features: D of the layer that will use the tree.

    A tail cluster of one class is a leaf under the root. O(C log C).

    Raises:
        ConfigError: Cutoffs not rising or out of range, div_value < 1, a projection of size 0, or D unknown.
    """
    num_classes = counts.size
    if num_classes == 1 and cutoffs is None:
        return Tree.from_nested(0)
    if in_features is None:
        if vectors is None:
            raise ConfigError("builder 'adaptive' needs in_features (the layer's input size) or vectors of that width")
        in_features = vectors.shape[1]
    if not isinstance(in_features, (int, np.integer)) or in_features < 1:
        raise ConfigError(f"in_features must be an integer >= 1, but got {in_features!r}")
    if not (isinstance(div_value, (int, float, np.number)) and div_value >= 1):
        raise ConfigError(f"div_value must be >= 1, but got {div_value!r}")
    if cutoffs is None:
        cutoffs = sorted({max(num_classes // 20, 1), max(num_classes // 4, 1)} - {num_classes})
    if not isinstance(cutoffs, Iterable) or not all(isinstance(cutoff, (int, np.integer)) for cutoff in cutoffs):
        raise ConfigError(f"cutoffs must be integer ranks, but got {cutoffs!r:.80}")
    bounds = [0, *cutoffs, num_classes]
    if len(bounds) == 2 or any(low >= high for low, high in pairwise(bounds)):
        raise ConfigError(f"cutoffs must rise strictly inside (0, {num_classes}), but got {list(cutoffs)}")
    projections = [int(in_features // div_value ** (i + 1)) for i in range(len(cutoffs))]
    if min(projections) < 1:
        raise ConfigError(
            f"in_features // div_value ** {len(cutoffs)} must be >= 1, but got projections {projections};"
            " use fewer cutoffs or a smaller div_value"
        )
    ranked = by_falling_count(counts)
    clusters = [ranked[low:high] for low, high in pairwise(bounds[1:])]
    return _root_over_flat_groups(clusters, projections, ranked[: cutoffs[0]])


def _root_over_flat_groups(
    groups: Sequence[NDArray[np.int64]], projections: Sequence[int], direct: NDArray[np.int64]
) -> Tree:
    assembly = TreeAssembly()
    root = assembly.open_node()
    assembly.add_leaves(root, direct)
    for group, projection in zip(groups, projections, strict=True):
        if group.size == 1:
            assembly.add_leaves(root, group)
        else:
            assembly.add_leaves(assembly.open_node(root, projection_dim=projection), group)
    return assembly.finish()[0]
