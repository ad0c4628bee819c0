"""Why a model decides as it does at the nodes of the ECO tree, beside what an expert says.

Shapes: **B** positions, **C** classes, **F** features, **L** path length, **M** nodes of the ECO tree.

All models are read at the same decisions: those of the ECO tree on the path of the class they predict. For a layer on
that tree these are its own, and contributions are exact; another model's probabilities are summed over the classes
below each node, and contributions to their logarithms are integrated gradients.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.applications.chess.board import factor_groups
from treesearch.applications.chess.rules import expert_rules
from treesearch.decisions.alignment import Alignment, RuleBook, align
from treesearch.decisions.attribution import integrated_gradients, linear_contributions
from treesearch.decisions.node_probs import NodeProbs
from treesearch.softmax import HierarchicalSoftmax
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree

NO_NODE = -1  # where a path has ended


@dataclass(frozen=True, eq=False)
class Reasons:
    """What a model decided for positions, and why."""

    probs: NodeProbs  # on the ECO tree
    predicted: NDArray[np.int64]  # [B] most probable class
    taken: NDArray[np.int64]  # [B, L] child taken, NO_NODE beyond the end
    rival: NDArray[np.int64]  # [B, L] most probable other child
    attribution: NDArray[np.float64]  # [B, L, F] to log P(taken) - log P(rival)
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
    """Predictions of a layer on any tree over the classes, and the reasons of its decisions on the ECO tree.

    Args:
        layer: Over C classes and F features.
        x: [B, F].
        book: Rules on the ECO tree.
        baseline: [F], what a position is compared with; None: the starting position, where all features are 0.
    """
    tree = book.tree
    layer = copy.deepcopy(layer).double()
    input_BF = torch.from_numpy(x).double()
    base_F = torch.zeros_like(input_BF[0]) if baseline is None else torch.from_numpy(baseline).double()
    with torch.no_grad():
        probs = NodeProbs.of_log_prob(tree, layer.log_prob(input_BF))
    predicted_B = probs.class_log_prob.argmax(1)
    taken_BL = path_nodes(tree)[predicted_B]
    rival_BL = _rivals(probs, taken_BL)
    if layer.tree == tree:
        node_BL = torch.where(taken_BL >= 0, torch.from_numpy(tree.parent.astype(np.int64))[taken_BL], NO_NODE)
        attribution_BLF = linear_contributions(layer, input_BF, base_F, node_BL, taken_BL, rival_BL)
    else:
        attribution_BLF = _integrated(layer, input_BF, base_F, taken_BL, rival_BL, tree)
    attribution = attribution_BLF.numpy()
    alignment = align(book, branch=taken_BL.numpy(), attribution=attribution, state=(input_BF - base_F).numpy())
    return Reasons(probs, predicted_B.numpy(), taken_BL.numpy(), rival_BL.numpy(), attribution, alignment)


def _rivals(probs: NodeProbs, taken_BL: Tensor) -> Tensor:
    """The most probable other child at each decision."""
    parent_M = torch.from_numpy(probs.tree.parent.astype(np.int64))
    rival_BL = torch.full_like(taken_BL, NO_NODE)
    for level in range(taken_BL.shape[1]):
        taken_B = taken_BL[:, level]
        other_BM = parent_M[taken_B][:, None] == parent_M
        other_BM[torch.arange(len(taken_B)), taken_B] = False
        best_B = torch.where(other_BM, probs.log_conditional, -torch.inf).argmax(1)
        rival_BL[:, level] = torch.where(taken_B >= 0, best_B, NO_NODE)
    return rival_BL


def _integrated(
    layer: HierarchicalSoftmax, input_BF: Tensor, base_F: Tensor, taken_BL: Tensor, rival_BL: Tensor, tree: Tree
) -> Tensor:
    """Integrated gradients of log P(taken) - log P(rival), each the sum over the classes below, [B, L, F]."""
    first_M, count_M = (torch.from_numpy(values.astype(np.int64)) for values in tree.leaf_intervals)
    place_C = first_M[torch.from_numpy(tree.class_leaf.astype(np.int64))]
    shares = torch.zeros(*taken_BL.shape, input_BF.shape[1], dtype=input_BF.dtype)
    for level in range(taken_BL.shape[1]):
        rows = torch.nonzero(taken_BL[:, level] >= 0).squeeze(1)
        if not len(rows):
            continue
        below = []
        for node_b in (taken_BL[rows, level], rival_BL[rows, level]):
            first_b1, end_b1 = first_M[node_b][:, None], (first_M + count_M)[node_b][:, None]
            below.append((place_C >= first_b1) & (place_C < end_b1))

        def score(at_bF: Tensor, below: list[Tensor] = below) -> Tensor:
            log_prob_bC = layer.log_prob(at_bF)
            taken_b, rival_b = (log_prob_bC.masked_fill(~mask, -torch.inf).logsumexp(1) for mask in below)
            return taken_b - rival_b

        shares[rows, level] = integrated_gradients(score, input_BF[rows], base_F).values
    return shares


def path_nodes(tree: Tree) -> Tensor:
    """The nodes below the root on the path of each class, int64 [C, L], its leaf last; `NO_NODE` beyond it."""
    node_CL = np.full((tree.num_classes, tree.max_depth), NO_NODE, np.int64)
    for class_, leaf in enumerate(tree.class_leaf.tolist()):
        node, depth = leaf, int(tree.depths[class_])
        while node != 0:
            depth -= 1
            node_CL[class_, depth] = node
            node = int(tree.parent[node])
    return torch.from_numpy(node_CL)
