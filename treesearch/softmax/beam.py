"""The most probable classes by a beam of fixed size, level by level: for compilers, exporters and other runtimes.

Every Python loop runs over the levels of the tree and the sizes of what their nodes see, every shape but the batch is
known beforehand, and nothing waits for the device. `treesearch.softmax.topk.best_first` visits fewer nodes on the CPU.

Shapes: **B** batch, **D** features, **N** internal nodes of one depth, **E** edges below them, **W** nodes of the beam,
**A** children of the widest node; here **k** counts classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from treesearch.softmax.gpu import accumulate_type, edge_log_probs, look_up, source_stacks
from treesearch.softmax.levels import BeamTables, FetchedNodes, Level
from treesearch.softmax.reference import certain

NO_CLASS = -1


class _Front(NamedTuple):
    """The internal nodes of one depth that are still followed."""

    log_prob: Tensor  # [B, W] of reaching them; -inf for a place that nothing has taken
    node: Tensor | None  # int64 [B, W] place among the nodes of the depth, N where there is none; None: all, in order


def beam_search(
    tables: BeamTables,
    input_BD: Tensor,
    k: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The k most probable classes among those that the beam reaches, most probable first; of equals any.

    Args:
        tables: Of the tree and the size of the beam.
        input_BD: Inputs.
        k: Number of classes, 1 to C.
        weights: One matrix of rows per width.
        biases: One vector per width.
        projections: One matrix [d, source d] per scope.

    Returns:
        Log-probabilities [B, k] in nats, float32 at least, -inf where fewer classes were reached; class ids, int64
        [B, k], -1 there; and whether certainly no other class is more probable, bool [B].
    """
    log_prob_BW = certain(input_BD, weights[0])[:, None]
    front = _Front(log_prob_BW, None)
    lost_B = torch.full_like(log_prob_BW[:, 0], -torch.inf)  # the most probable node that was not followed
    found = [(log_prob_BW, torch.zeros_like(log_prob_BW, dtype=torch.int64))] if not tables.levels else []
    stacks = source_stacks(tables.widths, tables.scope_batches, input_BD, projections)
    steps: Iterator[Tensor] = iter(())
    if tables.scan is not None:
        sizes = [level.num_edges for level in tables.levels if level.fetched is None]
        steps = iter(torch.split(edge_log_probs(tables.scan, input_BD, stacks, weights, biases), sizes, 1))
    for level in tables.levels:
        if level.fetched is None:
            log_prob_BE = _spread(front, level.num_nodes).index_select(1, level.parent) + next(steps)
            child_BE = None
        else:
            log_prob_BE, child_BE = _fetched_children(level.fetched, level.num_nodes, front, stacks, weights, biases)
        if level.leaf_class.numel():
            found.append(_best_leaves(level, log_prob_BE, child_BE, k))
        if level.num_inner:
            front, best_lost_B = _best_nodes(level, log_prob_BE, child_BE, tables.beam)
            lost_B = lost_B if best_lost_B is None else torch.maximum(lost_B, best_lost_B)
    log_prob_Bk, class_Bk = _best(found, k)
    # A child is never more probable than its parent, rounding or not.
    return log_prob_Bk, class_Bk, (log_prob_Bk[:, -1] >= lost_B) & ~log_prob_Bk.isnan().any(1)


def _spread(front: _Front, num_nodes: int) -> Tensor:
    """The log-probability of reaching each node of the depth, [B, N]; -inf where it is not followed."""
    if front.node is None:
        return front.log_prob
    with_spare = front.log_prob.new_full((front.log_prob.shape[0], num_nodes + 1), -torch.inf)
    return with_spare.scatter(1, front.node, front.log_prob)[:, :num_nodes]


def _fetched_children(
    nodes: FetchedNodes,
    num_nodes: int,
    front: _Front,
    stacks: list[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The children of the nodes in front: log-probabilities and places among the ends of edges, [B, W * A] each."""
    batch, beam = front.log_prob.shape
    if front.node is None:
        node_BW = torch.arange(beam, device=front.log_prob.device).expand(batch, beam)
    else:
        node_BW = front.node.clamp(max=num_nodes - 1)
    num_children_BW1 = look_up(nodes.num_children, node_BW)[..., None]
    column_A = torch.arange(nodes.arity, device=node_BW.device)
    step_BWA = _branches(nodes, _logits(nodes, node_BW, num_children_BW1, stacks, weights, biases), num_children_BW1)
    beyond = column_A >= num_children_BW1
    log_prob_BWA = (front.log_prob[..., None] + step_BWA).masked_fill(beyond, -torch.inf)
    place_BWA = look_up(nodes.first_child, node_BW)[..., None] + torch.minimum(column_A, num_children_BW1 - 1)
    child_BWA = look_up(nodes.child, place_BWA)
    return log_prob_BWA.flatten(1), child_BWA.flatten(1).long()


def _logits(
    nodes: FetchedNodes,
    node_BW: Tensor,
    num_children_BW1: Tensor,
    stacks: list[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """The logits of the rows of each node, [B, W, rows of the widest]; narrow nodes repeat their last row."""
    first_BW1 = look_up(nodes.row, node_BW)[..., None]
    if nodes.arity == 2:
        row_BWR = first_BW1
    else:
        num_rows_BW1 = torch.where(num_children_BW1 == 2, 1, num_children_BW1)
        column_R = torch.arange(nodes.arity, device=node_BW.device)
        row_BWR = first_BW1 + torch.minimum(column_R, num_rows_BW1 - 1)
    width_BW1 = look_up(nodes.width, node_BW)[..., None]
    logit_BWR = None
    for width, scoped in nodes.widths:
        own_BW1 = width_BW1 == width
        own_row_BWR = row_BWR if len(nodes.widths) == 1 else torch.where(own_BW1, row_BWR, 0)
        weight_BWRd, bias_BWR = look_up(weights[width], own_row_BWR), look_up(biases[width], own_row_BWR)
        if scoped:
            source_BW1 = look_up(nodes.source, node_BW)[..., None].long()
            if len(nodes.widths) > 1:
                source_BW1 = torch.where(own_BW1, source_BW1, 0)
            vector_BWd = stacks[width].gather(1, source_BW1.expand(-1, -1, stacks[width].shape[2]))
        else:
            vector_BWd = stacks[width][:, :1].expand(-1, node_BW.shape[1], -1)
        own_BWR = torch.matmul(weight_BWRd, vector_BWd[..., None])[..., 0] + bias_BWR
        logit_BWR = own_BWR if logit_BWR is None else torch.where(own_BW1, own_BWR, logit_BWR)
    assert logit_BWR is not None
    return logit_BWR.to(accumulate_type(logit_BWR.dtype))


def _branches(nodes: FetchedNodes, logit_BWR: Tensor, num_children_BW1: Tensor) -> Tensor:
    """The log-probability of each branch, [B, W, A]; anything beyond a node's last."""
    if nodes.arity == 2:
        return functional.logsigmoid(torch.cat([logit_BWR, -logit_BWR], -1))
    column_A = torch.arange(nodes.arity, device=logit_BWR.device)
    # sigmoid(z) is a softmax of z against 0
    logit_BWA = logit_BWR.masked_fill((num_children_BW1 == 2) & (column_A == 1), 0.0)
    return logit_BWA.masked_fill(column_A >= num_children_BW1, -torch.inf).log_softmax(-1)


def _best_leaves(level: Level, log_prob_BE: Tensor, child_BE: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The most probable classes at the end of this level's edges, k at most."""
    if child_BE is None:
        leaf_BE = log_prob_BE[:, level.num_inner :]
        if level.leaf_class.numel() <= k:
            return leaf_BE, level.leaf_class.expand_as(leaf_BE)
        top = leaf_BE.topk(k)
        return top.values, look_up(level.leaf_class, top.indices)
    top = log_prob_BE.masked_fill(child_BE < level.num_inner, -torch.inf).topk(min(k, log_prob_BE.shape[1]))
    leaf_Bk = (child_BE.gather(1, top.indices) - level.num_inner).clamp(min=0)
    return top.values, look_up(level.leaf_class, leaf_Bk)


def _best_nodes(level: Level, log_prob_BE: Tensor, child_BE: Tensor | None, beam: int) -> tuple[_Front, Tensor | None]:
    """The nodes of the next level to follow, and the log-probability of the best of the others; None: no others."""
    if child_BE is None:
        inner_BN = log_prob_BE[:, : level.num_inner]
        if level.num_inner <= beam:
            return _Front(inner_BN, None), None
        top = inner_BN.topk(beam + 1)
        node_BW = top.indices
    else:
        inner_BE = log_prob_BE.masked_fill(child_BE >= level.num_inner, -torch.inf)
        top = inner_BE.topk(min(beam + 1, inner_BE.shape[1]))
        # What is not there stands at the spare place, so that it cannot take the place of a node that is.
        node_BW = child_BE.gather(1, top.indices).masked_fill(top.values == -torch.inf, level.num_inner)
    lost_B = top.values[:, beam] if top.values.shape[1] > beam else None
    return _Front(top.values[:, :beam], node_BW[:, :beam]), lost_B


def _best(found: list[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k best of all classes found, [B, k] each; padded where there are fewer."""
    log_prob_BF, class_BF = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    missing = k - log_prob_BF.shape[1]
    if missing > 0:
        log_prob_BF = functional.pad(log_prob_BF, (0, missing), value=-torch.inf)
        class_BF = functional.pad(class_BF, (0, missing), value=NO_CLASS)
    top = log_prob_BF.topk(k)
    return top.values, class_BF.gather(1, top.indices).masked_fill(top.values == -torch.inf, NO_CLASS)
