"""The decisions of a batch in plain torch: the vector that each of them sees, and what its logits give.

Shapes: **B** batch, **D** features, **E** decisions of the batch (**e** of them), **O** openings, **K** arity, **R**
logit rows, **S** scopes, **G** groups of similar size, **c** entries of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.reference_plan import Decisions
from treesearch.softmax.reference_tables import Tables
from treesearch.softmax.sparse import all_rows, gather_rows

# Groups are padded to the largest of their size class; the classes keep the padding below a factor of 8.
COUNT_CLASSES = (1, 8, 64, 512, 1 << 62)
ARITY_CLASSES = (4, 8, 16, 32, 64, 128, 512, 2048, 8192, 1 << 62)


class Outcome(Protocol):
    """What a decision adds to the sum of its row, given its logits."""

    def binary(self, entry_e: Tensor, logit_e: Tensor) -> Tensor:
        """Of these decisions, [e]; the logits are those of child 0."""

    def wide(self, entry_Gc: Tensor, logit_GcK: Tensor, padding_GK: Tensor) -> Tensor:
        """Of these decisions, [G, c]; the largest logit of each is 0, and padding is -inf."""


class TakenBranch:
    """The log-probability of one child of each decision, int64 [E]."""

    def __init__(self, branch_E: Tensor) -> None:
        self._branch_E = branch_E

    def binary(self, entry_e: Tensor, logit_e: Tensor) -> Tensor:
        """See `Outcome`."""
        return functional.logsigmoid(logit_e * (1 - 2 * self._branch_E[entry_e]))

    def wide(self, entry_Gc: Tensor, logit_GcK: Tensor, padding_GK: Tensor) -> Tensor:
        """See `Outcome`."""
        taken_Gc = logit_GcK.gather(2, self._branch_E[entry_Gc][..., None]).squeeze(2)
        return taken_Gc - logit_GcK.logsumexp(2)


class WeightedBranches:
    """The log-probabilities of all children, weighted by their masses; one without mass adds nothing, even at -inf."""

    def __init__(self, targets: NodeTargets) -> None:
        self._ptr, self._mass_Q = targets.ptr, targets.mass.detach()

    def binary(self, entry_e: Tensor, logit_e: Tensor) -> Tensor:
        """See `Outcome`."""
        first_e = self._ptr[entry_e]
        mass_e2 = self._mass_Q[torch.stack([first_e, first_e + 1], -1)]
        log_prob_e2 = functional.logsigmoid(torch.stack([logit_e, -logit_e], -1))
        log_prob_e2 = log_prob_e2.to(torch.promote_types(logit_e.dtype, torch.float32))
        return (mass_e2.to(log_prob_e2.dtype) * log_prob_e2.masked_fill(mass_e2 == 0, 0)).sum(-1)

    def wide(self, entry_Gc: Tensor, logit_GcK: Tensor, padding_GK: Tensor) -> Tensor:
        """See `Outcome`."""
        column_K = torch.arange(logit_GcK.shape[2], device=entry_Gc.device)
        place_GcK = self._ptr[entry_Gc][..., None] + column_K.where(~padding_GK, 0)[:, None]
        mass_GcK = self._mass_Q[place_GcK].to(logit_GcK.dtype).masked_fill(padding_GK[:, None], 0)
        weighted_Gc = (mass_GcK * logit_GcK.masked_fill(mass_GcK == 0, 0)).sum(2)
        return weighted_Gc - mass_GcK.sum(2) * logit_GcK.logsumexp(2)


def outcomes(
    tables: Tables,
    decisions: Decisions,
    outcome: Outcome,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    sparse: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the decisions add to the sums of their rows, a part at a time: places among the E decisions, values."""
    node_E = decisions.node
    sources, source_row_E = _sources(tables, decisions, input_BD, [all_rows(matrix, sparse) for matrix in projections])
    arity_E, width_E = tables.node_arity[node_E], tables.node_width[node_E]
    for width, source in enumerate(sources):
        entries = ((arity_E == 2) & (width_E == width)).nonzero().squeeze(1)
        if entries.numel():
            row = tables.node_row[node_E[entries]]
            inputs = source.index_select(0, source_row_E[entries])
            weight_Ed, bias_E = gather_rows(weights[width], row, sparse), gather_rows(bias_R[width], row, sparse)
            yield entries, outcome.binary(entries, (weight_Ed * inputs).sum(-1) + bias_E)
        entries = ((arity_E > 2) & (width_E == width)).nonzero().squeeze(1)
        if entries.numel():
            yield _wide(
                tables, outcome, source, source_row_E, entries, node_E[entries], weights[width], bias_R[width], sparse
            )


def grouped_matmul(x_Ed: Tensor, group_E: Tensor, take: Callable[[Tensor], Tensor]) -> Tensor:
    """``out[e] = matrix(group[e]) @ x[e]`` as a few padded batched products.

    Args:
        x_Ed: Vectors.
        group_E: int64 group of each vector.
        take: From group ids [G] to their matrices [G, O, d].

    Returns:
        [E, O].
    """
    pieces, places = [], []
    for groups_G, entry_Gc, real in _size_classes(group_E):
        x_Gcd = x_Ed.index_select(0, entry_Gc.flatten()).view(*entry_Gc.shape, -1)
        out_GcO = torch.bmm(x_Gcd, take(groups_G).transpose(1, 2))
        pieces.append(out_GcO.flatten(0, 1).index_select(0, real))
        places.append(entry_Gc.flatten()[real])
    place_E = torch.cat(places)
    inverse_E = torch.empty_like(place_E)
    inverse_E[place_E] = torch.arange(place_E.numel(), device=place_E.device)
    return torch.cat(pieces).index_select(0, inverse_E)


def _size_classes(group_E: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Entries by group, groups of similar size together.

    Yields:
        Groups [G]; their entries [G, c], short groups padded with their last entry; and the positions in the flattened
        [G * c] that are no padding.
    """
    sorted_group_E, order_E = group_E.sort(stable=True)
    groups_G, count_G = torch.unique_consecutive(sorted_group_E, return_counts=True)
    start_G = count_G.cumsum(0) - count_G
    low = 0
    for high in COUNT_CLASSES:
        own = ((count_G > low) & (count_G <= high)).nonzero().squeeze(1)
        low = high
        if own.numel():
            counts = count_G[own, None]
            slot_c = torch.arange(int(counts.max()), device=group_E.device)
            entry_Gc = order_E[start_G[own, None] + torch.minimum(slot_c, counts - 1)]
            yield groups_G[own], entry_Gc, (slot_c < counts).flatten().nonzero().squeeze(1)


def _wide(
    tables: Tables,
    outcome: Outcome,
    source: Tensor,
    source_row_E: Tensor,
    entry_e: Tensor,
    node_e: Tensor,
    weight_Rd: Tensor,
    bias_R: Tensor,
    sparse: bool,
) -> tuple[Tensor, Tensor]:
    """The outcomes of decisions at wide nodes, in some order: places [e] and values [e]."""
    arity_e = tables.node_arity[node_e]
    plan = []
    low = 2
    for high in ARITY_CLASSES:
        entries = ((arity_e > low) & (arity_e <= high)).nonzero().squeeze(1)
        low = high
        if entries.numel():
            for node_G, entry_Gc, real in _size_classes(node_e[entries]):
                arity_G = tables.node_arity[node_G, None]
                column_K = torch.arange(int(arity_G.max()), device=node_e.device)
                row_GK = tables.node_row[node_G, None] + torch.minimum(column_K, arity_G - 1)
                plan.append((entry_e[entries[entry_Gc]], real, row_GK, column_K >= arity_G))
    # One gather of all rows: its gradient then fills one dense matrix, not one per size class.
    row = torch.cat([row_GK.flatten() for _, _, row_GK, _ in plan])
    sizes = [row_GK.numel() for _, _, row_GK, _ in plan]
    weight_parts = torch.split(gather_rows(weight_Rd, row, sparse), sizes)
    bias_parts = torch.split(gather_rows(bias_R, row, sparse), sizes)
    places, steps = [], []
    for (entry_Gc, real, row_GK, padding_GK), weight, bias in zip(plan, weight_parts, bias_parts, strict=True):
        x_Gcd = source.index_select(0, source_row_E[entry_Gc.flatten()]).view(*entry_Gc.shape, -1)
        weight_GKd, bias_GK = weight.view(*row_GK.shape, -1), bias.view(row_GK.shape)
        bias_GK = bias_GK.masked_fill(padding_GK, -torch.inf)
        logit_GcK = torch.baddbmm(bias_GK[:, None], x_Gcd, weight_GKd.transpose(1, 2))
        logit_GcK = logit_GcK.to(torch.promote_types(logit_GcK.dtype, torch.float32))
        # Added to the small logarithm of the sum, a large logit would round it away.
        logit_GcK = logit_GcK - logit_GcK.detach().amax(2, keepdim=True)
        places.append(entry_Gc.flatten()[real])
        steps.append(outcome.wide(entry_Gc, logit_GcK, padding_GK).flatten().index_select(0, real))
    return torch.cat(places), torch.cat(steps)


def _sources(
    tables: Tables, decisions: Decisions, input_BD: Tensor, projections: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """What each decision sees: a matrix of source rows per width, and each decision's row in its width's matrix."""
    layout, (scope_O, opened_row_O, above_O) = tables.layout, decisions.openings
    sources: list[list[Tensor]] = [[] for _ in layout.widths]
    sources[0].append(input_BD)
    source_row_O = torch.zeros_like(scope_O)
    filled = [input_BD.shape[0]] + [0] * (len(layout.widths) - 1)
    # Sources of one level are complete before the next level starts.
    by_shape: dict[tuple[int, int, int], list[int]] = {}
    for scope, shape in enumerate(zip(tables.scope_level.tolist(), layout.scope_dim, layout.source_dim, strict=True)):
        by_shape.setdefault(shape, []).append(scope)
    for (level, dim, source_dim), scopes in sorted(by_shape.items()):
        member = torch.full((len(projections),), -1, device=scope_O.device)
        member[scopes] = torch.arange(len(scopes), device=scope_O.device)
        own = (member[scope_O] >= 0).nonzero().squeeze(1)
        if not own.numel():
            continue
        if level == 0:
            inputs = input_BD.index_select(0, opened_row_O[own])
        else:
            above = sources[layout.widths.index(source_dim)]
            inputs = torch.cat(above).index_select(0, source_row_O[above_O[own]])
        stacked_Sds = torch.stack([projections[scope] for scope in scopes])
        hidden = grouped_matmul(inputs, member[scope_O[own]], stacked_Sds.__getitem__)
        width = layout.widths.index(dim)
        source_row_O[own] = filled[width] + torch.arange(own.numel(), device=own.device)
        filled[width] += own.numel()
        sources[width].append(hidden)
    scoped_E = tables.node_scope[decisions.node] >= 0
    row_E = decisions.row
    if source_row_O.numel():
        row_E = torch.where(scoped_E, source_row_O[torch.where(scoped_E, decisions.opening, 0)], row_E)
    return [torch.cat(s) if s else input_BD.new_zeros(0, w) for s, w in zip(sources, layout.widths, strict=True)], row_E
