"""Why a model decides as it does at the nodes of the ECO tree, beside what an expert says.

Shapes: **B** positions, **C** classes, **F** features, **L** path length.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.applications.chess.board import factor_groups, feature_names
from treesearch.applications.chess.rules import expert_rules
from treesearch.decisions.alignment import Alignment, align, audit_attribution
from treesearch.decisions.audit import Audit, explain
from treesearch.decisions.expert import RuleBook
from treesearch.decisions.posthoc import PosthocTree
from treesearch.softmax import HierarchicalSoftmax
from treesearch.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Reasons:
    """What a model decided for positions, and why."""

    audit: Audit  # on the ECO tree, of the most probable classes, with all features
    attribution: NDArray[np.float64]  # [B, L, F] to log P(taken) - log P(most probable other child)
    alignment: Alignment


def eco_rules(taxonomy: Taxonomy) -> RuleBook:
    """The table of rules on the tree of a taxonomy, without those of volumes and families that it does not have.

    A volume of one family decides nothing: going to the volume is going to that family.
    """
    num_families = Counter(name[0] for name in taxonomy.class_names)
    single = {name[0]: name for name in taxonomy.class_names if num_families[name[0]] == 1}
    rules = [
        replace(rule, branch=single.get(rule.branch, rule.branch))
        for rule in expert_rules()
        if {rule.node, rule.branch} <= set(taxonomy.names) and rule.node not in single
    ]
    return RuleBook.of(taxonomy.tree, factor_groups(), rules)


def reasons_of(
    layer: HierarchicalSoftmax, x: NDArray[np.float32], book: RuleBook, *, baseline: NDArray[np.float32] | None = None
) -> Reasons:
    """The reasons of a model's predictions, at the decisions of the ECO tree whatever tree the model has.

    For a layer on the ECO tree these decisions are its own, and contributions are exact. Another model's probabilities
    are summed over the classes below each node, and contributions to their logarithms are integrated gradients.

    Args:
        layer: Over C classes and F features.
        x: [B, F].
        book: Rules on the ECO tree.
        baseline: [F], what a position is compared with; None: the starting position, where all features are 0.
    """
    exact = copy.deepcopy(layer).double()  # sums of many shares are compared with a difference
    base = np.zeros_like(x[0]) if baseline is None else baseline
    audit = explain(
        exact if layer.tree == book.tree else PosthocTree(exact.log_prob, book.tree),
        torch.from_numpy(x).double(),
        num_features=x.shape[1],
        baseline=torch.from_numpy(base).double(),
        feature_names=feature_names(),
    )
    attribution_BLF = audit_attribution(audit, num_features=x.shape[1])
    alignment = align(book, branch=audit.taken, attribution=attribution_BLF, state=x - base)
    return Reasons(audit, attribution_BLF, alignment)
