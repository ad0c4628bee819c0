"""Hierarchical softmax in plain torch operations: the reference for every other kernel. CPU and CUDA, any dtype.

Shapes: **B** batch, **D** features, **C** classes, **M** all nodes, **E** decisions of the batch, **R** logit rows. No
loop runs over samples or nodes; loops run over size classes, nesting levels and tree depths, and over the projections
where all classes are scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.reference_decisions import Outcome, TakenBranch, WeightedBranches, outcomes
from treesearch.softmax.reference_plan import Decisions, listed_decisions, path_decisions
from treesearch.softmax.reference_tables import Tables

__all__ = [
    "Tables",
    "all_logits",
    "certain",
    "full_log_prob",
    "node_cross_entropy",
    "node_log_probs",
    "subtree_log_probs",
    "target_log_prob",
]


def target_log_prob(
    tables: Tables,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Log-probability of each target, [B], in nats.

    Args:
        tables: Of the tree.
        input_BD: Inputs.
        target_B: int64 class ids.
        weights: One matrix of rows per width.
        bias_R: One vector per width.
        projections: One matrix [d, source d] per scope.
        sparse: Whether gradients of parameters are row-sparse.
    """
    decisions, entry_E = path_decisions(tables, target_B)
    outcome = TakenBranch(tables.path_branch[entry_E])
    return _row_sums(tables, decisions, outcome, input_BD, weights, bias_R, projections, sparse)


def node_cross_entropy(
    tables: Tables,
    input_BD: Tensor,
    targets: NodeTargets,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Cross-entropy of the children's masses at the decisions that the targets list, summed by row: [B], in nats.

    Other arguments as for `target_log_prob`.
    """
    decisions, outcome = listed_decisions(tables, targets), WeightedBranches(targets)
    return -_row_sums(tables, decisions, outcome, input_BD, weights, bias_R, projections, sparse)


def node_log_probs(
    tables: Tables,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each decision on the targets' paths, root first: [B, L], 0 beyond the end; nodes [B, L], -1.

    Arguments as for `target_log_prob`.
    """
    batch, longest = input_BD.shape[0], len(tables.edges_per_depth)
    decisions, entry_E = path_decisions(tables, target_B)
    node_BL = torch.full((batch, longest), -1, device=input_BD.device)
    if not entry_E.numel():
        return certain(input_BD, weights[0])[:, None].expand(-1, longest), node_BL
    log_prob_BL = input_BD.new_zeros(batch * longest, dtype=torch.promote_types(input_BD.dtype, torch.float32))
    cell_E = decisions.row * longest + entry_E - tables.path_ptr[target_B][decisions.row]
    node_BL.view(-1)[cell_E] = decisions.node
    outcome = TakenBranch(tables.path_branch[entry_E])
    for place, step in outcomes(tables, decisions, outcome, input_BD, weights, bias_R, projections, sparse):
        log_prob_BL = log_prob_BL.index_add(0, cell_E[place], step.to(log_prob_BL.dtype))
    return log_prob_BL.view(batch, longest), node_BL


def _row_sums(
    tables: Tables,
    decisions: Decisions,
    outcome: Outcome,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    sparse: bool,
) -> Tensor:
    """What the decisions of each row add up to, [B]."""
    if not decisions.row.numel():  # an empty batch, or one class
        return certain(input_BD, weights[0])
    total_B = input_BD.new_zeros(input_BD.shape[0], dtype=torch.promote_types(input_BD.dtype, torch.float32))
    for place, step in outcomes(tables, decisions, outcome, input_BD, weights, bias_R, projections, sparse):
        total_B = total_B.index_add(0, decisions.row[place], step.to(total_B.dtype))
    return total_B


def all_logits(
    layout: SoftmaxLayout,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """The logits of all rows, [R, B], widths one after another."""
    hidden: list[Tensor] = []
    for own, parent in enumerate(layout.scope_parent):
        hidden.append((input_BD if parent < 0 else hidden[parent]) @ projections[own].T)
    parts = []
    for weight_Rd, bias, scopes in zip(weights, bias_R, layout.scope_rows, strict=True):
        if [scope for scope, _ in scopes] == [layout.NO_SCOPE]:
            parts.append(torch.addmm(bias[:, None], weight_Rd, input_BD.T))
        elif scopes:
            pieces = []
            for scope, rows in scopes:
                row = torch.from_numpy(rows).to(input_BD.device)
                source_Bd = input_BD if scope < 0 else hidden[scope]
                pieces.append(torch.addmm(bias[row, None], weight_Rd[row], source_Bd.T))
            place_R = torch.from_numpy(np.argsort(np.concatenate([rows for _, rows in scopes])))
            parts.append(torch.cat(pieces)[place_R.to(input_BD.device)])
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def full_log_prob(
    tables: Tables,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """Log-probabilities of all classes, [B, C]: all logits at once, then a scan down the levels."""
    return subtree_log_probs(tables, input_BD, tables.class_leaf, weights, bias_R, projections)


def subtree_log_probs(
    tables: Tables,
    input_BD: Tensor,
    nodes_K: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """Log-probabilities of passing these nodes (int64 ids), [B, K]; other arguments as for `target_log_prob`."""
    layout, batch = tables.layout, input_BD.shape[0]
    if not layout.tree.num_internal:
        return certain(input_BD, weights[0])[:, None].expand(-1, nodes_K.numel())
    logit_RB = all_logits(layout, input_BD, weights, bias_R, projections)
    # One entry per edge: a binary node's second edge has the negated logit; wide nodes share a normaliser.
    logit_RB = logit_RB.to(torch.promote_types(logit_RB.dtype, torch.float32))
    edge_EB = logit_RB[tables.edge_row]
    num_edges = tables.edge_row.numel()
    first = torch.ones(num_edges, dtype=torch.bool, device=edge_EB.device)
    if num_edges:
        first[1:] = tables.edge_node[1:] != tables.edge_node[:-1]
    binary = tables.node_arity[tables.edge_node] == 2
    sign = torch.where(first, 1.0, -1.0).to(edge_EB.dtype)[:, None]
    num_internal = tables.node_arity.numel()
    top_NB = torch.full((num_internal, batch), -torch.inf, dtype=edge_EB.dtype, device=edge_EB.device)
    index = tables.edge_node[:, None].expand(-1, batch)
    top_NB = top_NB.scatter_reduce(0, index, edge_EB.detach(), "amax")
    # The largest logit stays apart: added to the small logarithm, it would round it away. The sum is in double
    # precision where there is one: it may have 100,000 terms, one of them 1 and the others too small to be added to it.
    below_EB = edge_EB - top_NB[tables.edge_node]
    sum_type = below_EB.dtype if below_EB.device.type == "mps" else torch.float64
    total_NB = torch.zeros_like(top_NB, dtype=sum_type).index_add(0, tables.edge_node, below_EB.exp().to(sum_type))
    log_total_NB = total_NB.log().to(below_EB.dtype)
    edge_EB = torch.where(
        binary[:, None], functional.logsigmoid(sign * edge_EB), below_EB - log_total_NB[tables.edge_node]
    )
    node_MB = edge_EB.new_zeros(layout.tree.num_nodes, batch)
    for edges in torch.split(tables.depth_edges, list(tables.edges_per_depth)):
        reached = node_MB[tables.edge_node[edges]] + edge_EB[edges]
        node_MB = node_MB.index_copy(0, tables.edge_child[edges], reached)
    return node_MB[nodes_K].T


def certain(input_BD: Tensor, weight_Rd: Tensor) -> Tensor:
    """Zeros [B] where nothing is to decide; part of the graph, so that `backward` works as for any other tree."""
    zeros_B = (input_BD[:, :0].to(weight_Rd.dtype) @ weight_Rd[:0, :0].T).sum(-1)
    return zeros_B.to(torch.promote_types(input_BD.dtype, torch.float32))
