"""How sure a path is, in one number, or in one for each level.

Shapes: **B** batch, **L** decisions of the longest path, **V** levels of the hierarchy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.decisions.audit import Audit
from treesearch.errors import DataError, did_you_mean
from treesearch.metrics.levels import tree_levels
from treesearch.taxonomy import Taxonomy
from treesearch.taxonomy.taxonomy import METADATA

Numbers = NDArray[np.float64]
Kind = Literal["product", "minimum"]


def product(log_prob: ArrayLike) -> Numbers:
    """The probability of the class: the product of its decisions.

    Args:
        log_prob: [B, L] log-probabilities of decisions, nats; 0 beyond the end of a path.

    Returns:
        [B], in [0, 1].

    Raises:
        DataError: They are none.
    """
    return np.exp(_checked(log_prob).sum(1))


def minimum(log_prob: ArrayLike) -> Numbers:
    """The probability of the least certain decision: the weakest link; 1 where there is none. Arguments as above."""
    return np.exp(_checked(log_prob).min(1, initial=0.0))


KINDS: dict[Kind, Callable[[ArrayLike], Numbers]] = {"product": product, "minimum": minimum}


def path_confidence(audit: Audit, kind: Kind = "product") -> Numbers:
    """One number per path, [B].

    Args:
        audit: Of a batch.
        kind: ``product`` or ``minimum`` of the decisions.

    Raises:
        DataError: The kind is unknown.
    """
    if kind not in KINDS:
        raise DataError(f"unknown confidence {kind!r:.40}{did_you_mean(str(kind), KINDS)}")
    return KINDS[kind](audit.log_prob)


def level_confidence(audit: Audit, hierarchy: Taxonomy | None = None) -> Numbers:
    """The probability of the class's path down to each level: never rising from level to level.

    At a level below the end of the class's path it is the probability of the class itself.

    Args:
        audit: Of a batch.
        hierarchy: Over the same classes; its nodes must be in the audit's tree (`Taxonomy.nodes_in`). None: the
            taxonomy in the tree's metadata, if it has one, else the tree itself, whose levels are its depths.

    Returns:
        [B, V], level 1 first; the last is the probability of the class.

    Raises:
        DataError: The hierarchy is no taxonomy, or has a node on a path that the tree has not.
        TreeError: It is over another number of classes, or the one in the tree's metadata is damaged.
    """
    tree = audit.tree
    if hierarchy is None:
        hierarchy = Taxonomy.of(tree) if METADATA in tree.metadata else tree_levels(tree)
    if not isinstance(hierarchy, Taxonomy):
        raise DataError(f"a hierarchy must be a Taxonomy, but got {type(hierarchy).__name__}; use as_taxonomy")
    node_of = hierarchy.nodes_in(tree)
    rows_B = np.arange(len(audit))
    # Before the first decision the path is certain.
    running_BL = np.concatenate([np.zeros((len(audit), 1)), audit.path_log_prob], axis=1)
    found_BV = np.empty((len(audit), hierarchy.num_levels))
    for level in range(1, hierarchy.num_levels + 1):
        node_B = hierarchy.ancestors(level)[audit.classes]
        ended_B = node_B == Taxonomy.NO_NODE
        own_B = np.where(ended_B, tree.class_leaf[audit.classes], node_of[np.where(ended_B, 0, node_B)])
        missing = np.flatnonzero(own_B == Taxonomy.NO_NODE)
        if missing.size:
            name = hierarchy.names[node_B[missing[0]]]
            raise DataError(
                f"the tree must refine the hierarchy, but no node of it has the classes of {name!r:.60}; take the"
                " taxonomy's own tree, or the levels of the tree"
            )
        found_BV[:, level - 1] = running_BL[rows_B, tree.node_depths[own_B]]
    return np.exp(found_BV)


def _checked(log_prob: ArrayLike) -> Numbers:
    log_prob_BL = np.asarray(log_prob, np.float64)
    if log_prob_BL.ndim != 2 or not bool((log_prob_BL <= 1e-6).all()):
        raise DataError(f"log-probabilities of decisions must be [B, L] and <= 0, but got shape {log_prob_BL.shape}")
    return log_prob_BL
