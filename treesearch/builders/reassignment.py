"""Reassigning classes to the parts of a node by the directions that the node has learned (after Mnih & Hinton 2008).

Shapes: **C** classes, **n** classes of a node, **K** parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from treesearch.builders.assembly import ClassIds, TreeAssembly
from treesearch.builders.balanced import check_arity
from treesearch.builders.clustering import attention, clustered, require_vectors, similarity_parts, start_direction
from treesearch.errors import ConfigError, DataError
from treesearch.tree import Tree

# From the class sets of a node's children, what a softmax among them learns: for each class of the node, rising, the
# mean logit that its examples give each child, float64 [n, K].
NodeDirections = Callable[[Sequence[ClassIds]], NDArray[np.float64]]

PRICE_ROUNDS = 60
PRICE_STEP = 0.5
PRICE_DECAY = 0.96
NOTHING = 1e-3  # mass of an empty part, in shares of an average one


def reassigned(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    seed: int = 0,
    directions: NodeDirections | None = None,
    arity: int = 16,
    rounds: int = 2,
    min_share: float = 0.01,
) -> Tree:
    """Similarity clustering whose heavy nodes are trained, and their classes reassigned by what the nodes have learned.

    A node begins with the parts of `clustered`. Then its softmax is trained on examples, and every class goes to the
    part whose learned direction fits its examples best, at prices that keep the parts' masses (`reassign`); so again
    ``rounds`` times. That is the idea of Mnih & Hinton 2008 and of Jernite et al. 2017, for any arity.

    Args:
        counts: [C] class counts; the mass.
        vectors: [C, D] class vectors.
        seed: Starting direction of the power iteration.
        directions: Trains a node.
        arity: Children per node, >= 2.
        rounds: Trainings of each node, >= 0.
        min_share: Nodes that a smaller share of the examples passes are left as `clustered` makes them.

    O(C D depth log arity), and ``rounds`` times the training of the nodes with at least ``min_share``.

    Raises:
        DataError: No vectors, or nothing that trains nodes.
        ConfigError: An option is out of range.
    """
    check_arity(arity)
    if not isinstance(rounds, int) or rounds < 0:
        raise ConfigError(f"rounds must be an integer >= 0, but got {rounds!r}")
    if not (isinstance(min_share, (int, float, np.number)) and 0 < min_share <= 1):
        raise ConfigError(f"min_share must lie inside (0, 1], but got {min_share!r}")
    points = require_vectors("reassigned", vectors)
    if directions is None:
        raise DataError(
            "builder 'reassigned' trains nodes and needs directions, but got none; use it in a search, or"
            " build it with --config"
        )
    start, weights, total = start_direction(points, seed), attention(counts), counts.sum()
    assembly = TreeAssembly()
    stack: list[tuple[ClassIds, int]] = [(np.arange(counts.size), Tree.NO_PARENT)]
    while stack:
        classes, parent = stack.pop()
        if classes.size <= arity or counts[classes].sum() < min_share * total:
            own = counts[classes] if counts[classes].any() else np.ones(classes.size)
            assembly.graft(parent, clustered(counts=own, vectors=points[classes], seed=seed, arity=arity), classes)
            continue
        parts = similarity_parts(points, weights, counts, classes, start, arity)
        for _ in range(rounds):
            parts = reassign(parts, directions(parts), counts=counts)
        node = assembly.open_node(parent)
        for part in parts:
            if part.size == 1:
                assembly.add_leaves(node, part)
            else:
                stack.append((part, node))
    return assembly.finish()[0]


def reassign(
    parts: Sequence[ClassIds], worth_nK: NDArray[np.float64], *, counts: NDArray[np.float64]
) -> list[ClassIds]:
    """Move classes to the parts that a trained node would rather find them in, the parts' masses kept.

    A class is worth its mean logit in a part: up to a term that all parts share, the mean log-probability that its
    examples give the part. Each part has a price, raised while it holds more mass than before and lowered while it
    holds less; a class goes where worth less price is highest, ties to the earlier part.

    Args:
        parts: Rising class ids of each of K >= 2 parts.
        worth_nK: What `NodeDirections` gives for them.
        counts: [C] class counts.

    Returns:
        At least two parts of rising ids, in order of K; parts that are left empty are dropped. Where less than two are
        left, the parts as they were.
    """
    classes = np.sort(np.concatenate(parts))
    mass_n = np.maximum(counts[classes], counts.sum() * 1e-12)
    wanted_K = np.array([counts[part].sum() for part in parts])
    floor = NOTHING * mass_n.sum() / len(parts)
    price_K = np.zeros(len(parts))
    step = PRICE_STEP
    for _ in range(PRICE_ROUNDS):
        mass_K = np.bincount((worth_nK - price_K).argmax(1), mass_n, len(parts))
        price_K += step * np.log((mass_K + floor) / (wanted_K + floor))
        step *= PRICE_DECAY
    choice_n = (worth_nK - price_K).argmax(1)
    moved = [classes[choice_n == part] for part in range(len(parts))]
    filled = [part for part in moved if part.size]
    return filled if len(filled) >= 2 else list(parts)
