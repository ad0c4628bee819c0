"""An audit as plain dictionaries, for JSON.

A record has these keys, always all of them, in this order:

- ``example``: its number, from 0 (or from ``first``).
- ``class``, ``class_name``: the class that is explained; the name is null where the tree has none.
- ``log_prob``, ``prob``: of the class; nats and probability, as everywhere below.
- ``minimum``: the lowest probability of a decision, 1 where there is none.
- ``decisions``: root first, each with
    - ``node``, ``name``: the internal node, by its number in the tree; null where it has no name.
    - ``taken``, ``taken_name``: the child on the path; a leaf has the name of its class.
    - ``log_prob``, ``prob``: of the child given the node; ``path_log_prob``, ``path_prob``: of the path so far.
    - ``margin``: log-probability of the child less that of the best alternative; ``likeliest``: whether it is >= 0.
    - ``alternatives``: the other children, most probable first, each ``node``, ``name``, ``log_prob``, ``prob``.
    - ``features``: largest contribution first, each ``feature``, ``name``, ``contribution``; empty if none were asked.
    - ``contribution_total``: of all features together; null if none were asked.

Where a number would be infinite (the logarithm of 0) it is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from treesearch.decisions.audit import Audit

ROWS_AT_ONCE = 1024  # examples whose arrays are turned into lists at a time
JSON = dict[str, Any]


def node_name(audit: Audit, node: int) -> str | None:
    """The name of a node, a leaf's that of its class; None where there is none."""
    tree = audit.tree
    if node >= tree.num_internal:
        names, place = tree.class_names, int(tree.leaf_class[node - tree.num_internal])
    else:
        names, place = tree.node_names, node
    return (names[place] or None) if names is not None else None


def records(audit: Audit, *, first: int = 0) -> Iterator[JSON]:
    """One record per example; see the module.

    Args:
        audit: Of a batch.
        first: Number of its first example, where it is part of a longer one.
    """
    names: dict[int, str | None] = {}

    def name(node: int) -> str | None:
        if node not in names:
            names[node] = node_name(audit, node)
        return names[node]

    leaf_C = audit.tree.class_leaf
    for begin in range(0, len(audit), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        with np.errstate(under="ignore"):
            probs = [np.exp(array[rows]).tolist() for array in (audit.log_prob, audit.path_log_prob)]
        columns = [
            array[rows].tolist()
            for array in (audit.node, audit.taken, audit.log_prob, audit.path_log_prob, audit.margin)
        ]
        others, other_log_probs = audit.alternative[rows].tolist(), audit.alternative_log_prob[rows].tolist()
        totals = None if audit.features is None else audit.features.total[rows].tolist()
        lengths = audit.length[rows].tolist()
        for row, (cls, num) in enumerate(zip(audit.classes[rows].tolist(), lengths, strict=True)):
            decisions = []
            for place in range(num):
                node, taken, log_prob, path_log_prob, margin = (column[row][place] for column in columns)
                decisions.append(
                    {
                        "node": node,
                        "name": name(node),
                        "taken": taken,
                        "taken_name": name(taken),
                        "log_prob": _finite(log_prob),
                        "prob": probs[0][row][place],
                        "path_log_prob": _finite(path_log_prob),
                        "path_prob": probs[1][row][place],
                        "margin": _finite(margin),
                        "likeliest": margin >= 0,
                        "alternatives": [
                            {"node": other, "name": name(other), "log_prob": _finite(value), "prob": math.exp(value)}
                            for other, value in zip(others[row][place], other_log_probs[row][place], strict=True)
                            if other >= 0
                        ],
                        "features": [] if totals is None else feature_rows(audit, begin + row, place),
                        "contribution_total": None if totals is None else totals[row][place],
                    }
                )
            yield {
                "example": first + begin + row,
                "class": cls,
                "class_name": name(int(leaf_C[cls])),
                "log_prob": decisions[-1]["path_log_prob"] if decisions else 0.0,
                "prob": decisions[-1]["path_prob"] if decisions else 1.0,
                "minimum": min((decision["prob"] for decision in decisions), default=1.0),
                "decisions": decisions,
            }


def feature_rows(audit: Audit, example: int, place: int) -> list[JSON]:
    """The top features of one decision."""
    if audit.features is None:
        return []
    names = audit.feature_names
    return [
        {"feature": feature, "name": None if names is None else names[feature], "contribution": contribution}
        for feature, contribution in zip(
            audit.features.feature[example, place].tolist(),
            audit.features.contribution[example, place].tolist(),
            strict=True,
        )
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
