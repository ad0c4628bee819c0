"""An audit of one example for people: a `rich` tree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree as RichTree

from treesearch.decisions.audit_records import feature_rows, node_name

if TYPE_CHECKING:
    from treesearch.decisions.audit import Audit


def audit_view(audit: Audit, example: int, *, first: int = 0) -> RichTree:
    """The path of an example: a line per decision, below it the alternatives and what speaks for and against."""
    num = int(audit.length[example])
    leaf = int(audit.tree.class_leaf[audit.classes[example]])
    root = RichTree(Text(f"example {first + example}: {_label(audit, leaf)}  {_prob(audit.class_log_prob[example])}"))
    for place in range(num):
        node, taken = int(audit.node[example, place]), int(audit.taken[example, place])
        line = Text(f"{_label(audit, node)} > {_label(audit, taken)}  {_prob(audit.log_prob[example, place])}")
        line.append(f"  path {_prob(audit.path_log_prob[example, place])}")
        margin = float(audit.margin[example, place])
        line.append(f"  margin {margin:+.2f}" + (", not the likeliest child" if margin < 0 else ""))
        below = root.add(line)
        others = [
            f"{_label(audit, other)} {_prob(value)}"
            for other, value in zip(
                audit.alternative[example, place].tolist(),
                audit.alternative_log_prob[example, place].tolist(),
                strict=True,
            )
            if other >= 0
        ]
        if others:
            below.add(Text("or " + ", ".join(others)))
        features = feature_rows(audit, example, place)
        if features:
            shares = (
                f"{row['contribution']:+.2f} {row['name'] or 'feature ' + str(row['feature'])}" for row in features
            )
            below.add(Text("for " + ", ".join(shares)))
    return root


def _label(audit: Audit, node: int) -> str:
    name = node_name(audit, node)
    if name is not None:
        return name
    inner = audit.tree.num_internal
    return f"node {node}" if node < inner else f"class {audit.tree.leaf_class[node - inner]}"


def _prob(log_prob: float) -> str:
    """A probability in three digits."""
    return f"{math.exp(log_prob):.3g}"
