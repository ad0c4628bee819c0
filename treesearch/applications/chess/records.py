"""The decisions of a position in words: where the model goes, what drives it there, and whether an expert would agree.

Shapes: **F** features, **G** factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treesearch.applications.chess.board import feature_names
from treesearch.applications.chess.reasons import Reasons
from treesearch.decisions.alignment import RuleBook
from treesearch.taxonomy import ROOT

NUM_ALTERNATIVES = 3
NUM_DRIVERS = 3

Record = dict[str, Any]


def position_record(reasons: Reasons, row: int, book: RuleBook, *, moves: str) -> Record:
    """A position's decisions, JSON-able.

    Args:
        reasons: Of a model.
        row: The position's place in it.
        book: Rules on the ECO tree.
        moves: That lead to the position.

    Returns:
        ``moves``, ``predicted`` (a class), ``probability`` and ``decisions``, root first: ``node``, ``taken``,
        ``probability`` (of the child, given the node), ``path_probability``, ``alternatives`` (names and probabilities
        of other children, best first), ``rival`` (the best), ``drivers`` (factors of the largest contributions to the
        logit of the child against the rival, each with its features), ``expert`` (rules of the branch: factor,
        direction, source), ``driver_agrees`` and ``direction_agrees`` (None where the expert has no rule, or its factor
        is not in play).
    """
    tree, found = book.tree, reasons.alignment
    assert tree.class_names is not None, "a book's tree has names"
    decisions = []
    for level in np.flatnonzero(reasons.taken[row] >= 0).tolist():
        taken = int(reasons.taken[row, level])
        node = int(tree.parent[taken])
        others = [int(child) for child in tree.children(node) if child != taken]
        conditional_M = reasons.probs.conditional[row]
        others.sort(key=lambda child: -float(conditional_M[child]))
        decisions.append(
            {
                "node": node_name(book, node),
                "taken": node_name(book, taken),
                "probability": float(conditional_M[taken]),
                "path_probability": float(reasons.probs.prob[row, taken]),
                "rival": node_name(book, int(reasons.rival[row, level])),
                "alternatives": [
                    {"name": node_name(book, child), "probability": float(conditional_M[child])}
                    for child in others[:NUM_ALTERNATIVES]
                ],
                "drivers": _drivers(reasons, row, level, book),
                "expert": [
                    {"factor": rule.factor, "direction": rule.direction, "source": rule.source}
                    for rule in book.rules
                    if (rule.node, rule.branch) == (node_name(book, node), node_name(book, taken))
                ],
                **{
                    f"{measure}_agrees": bool(found.agrees[measure][row, level])
                    if found.counts[measure][row, level]
                    else None
                    for measure in found.counts
                },
            }
        )
    predicted = int(reasons.predicted[row])
    return {
        "moves": moves,
        "predicted": tree.class_names[predicted],
        "probability": float(reasons.probs.prob[row, int(tree.class_leaf[predicted])]),
        "decisions": decisions,
    }


def node_name(book: RuleBook, node: int) -> str:
    """The name of a node of the book's tree."""
    tree = book.tree
    assert tree.class_names is not None and tree.node_names is not None, "a book's tree has names"  # noqa: PT018
    if node == 0:
        return ROOT
    inner = node < tree.num_internal
    return tree.node_names[node] if inner else tree.class_names[int(tree.leaf_class[node - tree.num_internal])]


def _drivers(reasons: Reasons, row: int, level: int, book: RuleBook) -> list[Record]:
    by_factor_G, by_feature_F = reasons.alignment.contribution[row, level], reasons.attribution[row, level]
    names = feature_names()
    drivers = []
    for factor in np.argsort(-np.abs(by_factor_G), kind="stable")[:NUM_DRIVERS].tolist():
        own = [one for one in np.flatnonzero(book.groups.factor == factor).tolist() if by_feature_F[one]]
        own.sort(key=lambda one: -abs(by_feature_F[one]))
        if own:
            features = [{"name": names[one], "contribution": float(by_feature_F[one])} for one in own]
            drivers.append(
                {"factor": book.groups.names[factor], "contribution": float(by_factor_G[factor]), "features": features}
            )
    return drivers


def record_lines(record: Record) -> list[str]:
    """A record for people."""
    lines = [record["moves"], f"-> {record['predicted']}, probability {record['probability']:.3f}"]
    for one in record["decisions"]:
        others = ", ".join(f"{other['name']} {other['probability']:.3f}" for other in one["alternatives"])
        lines += [
            "",
            f"{one['node']} -> {one['taken']}, probability {one['probability']:.3f} (others: {others})",
            f"  driven by, against {one['rival']}, in nats:",
            *(f"    {_driver_line(driver)}" for driver in one["drivers"]),
            *_expert_lines(one),
        ]
    return lines


def _driver_line(driver: Record) -> str:
    features = ", ".join(f"{one['name']} {one['contribution']:+.2f}" for one in driver["features"])
    return f"{driver['contribution']:+.2f}  {driver['factor']}: {features}"


def _expert_lines(decision: Record) -> list[str]:
    rules: Sequence[Record] = decision["expert"]
    if not rules:
        return ["  the expert has no rule here"]
    factors = " or ".join(rule["factor"] for rule in rules)
    driver = "agrees" if decision["driver_agrees"] else "does not agree"
    direction = {True: "the direction too", False: "the direction is against it", None: "but it is not in play"}
    if decision["driver_agrees"] is False and decision["direction_agrees"]:
        direction[True] = "though its direction does"
    tail = direction[decision["direction_agrees"]]
    return [f"  the expert: {factors} ({rules[0]['source']}): {driver}, {tail}"]
