"""The decisions of a position in words: where the model goes, what drives it there, and whether an expert would agree.

Shapes: **F** features, **G** factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from treesearch.applications.chess.reasons import Reasons
from treesearch.decisions.alignment import MEASURES
from treesearch.decisions.audit import Audit
from treesearch.decisions.audit_records import node_name
from treesearch.decisions.expert import RuleBook

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
        of other children, best first), ``drivers`` (factors of the largest contributions to the logit of the child
        against the best alternative, each with its features), ``expert`` (rules of the branch: factor, direction,
        source), ``driver_agrees`` and ``direction_agrees`` (None where the expert has no rule, or its factor is not in
        play).
    """
    audit, found = reasons.audit, reasons.alignment
    decisions = []
    for level in range(int(audit.length[row])):
        node, taken = (_name(audit, nodes[row, level]) for nodes in (audit.node, audit.taken))
        alternatives = [
            {"name": _name(audit, child), "probability": math.exp(log_prob)}
            for child, log_prob in zip(
                audit.alternative[row, level], audit.alternative_log_prob[row, level].tolist(), strict=True
            )
            if child != audit.NO_NODE
        ]
        agreement = {
            f"{measure}_agrees": bool(found.agrees[measure][row, level]) if found.counts[measure][row, level] else None
            for measure in MEASURES
        }
        decisions.append(
            {
                "node": node,
                "taken": taken,
                "probability": math.exp(audit.log_prob[row, level]),
                "path_probability": math.exp(audit.path_log_prob[row, level]),
                "alternatives": alternatives,
                "drivers": _drivers(reasons, row, level, book),
                "expert": [
                    {"factor": rule.factor, "direction": rule.direction, "source": rule.source}
                    for rule in book.rules
                    if (rule.node, rule.branch) == (node, taken)
                ],
            }
            | agreement
        )
    leaf = book.tree.class_leaf[audit.classes[row]]
    return {
        "moves": moves,
        "predicted": _name(audit, leaf),
        "probability": math.exp(audit.class_log_prob[row]),
        "decisions": decisions,
    }


def _name(audit: Audit, node: int | np.integer) -> str:
    name = node_name(audit, int(node))
    assert name is not None, "all nodes of the ECO tree have names"
    return name


def _drivers(reasons: Reasons, row: int, level: int, book: RuleBook) -> list[Record]:
    by_factor_G, by_feature_F = reasons.alignment.contribution[row, level], reasons.attribution[row, level]
    names = reasons.audit.feature_names
    assert names is not None, "they were given"
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
            f"  driven by, against {one['alternatives'][0]['name']}, in nats:",
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
