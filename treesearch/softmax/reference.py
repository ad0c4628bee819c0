"""Hierarchical softmax in plain torch operations: the reference for every other kernel. CPU and CUDA, any dtype.

Shapes: **B** batch, **D** features, **C** classes, **E** path entries of the batch, **K** arity, **R** logit rows,
**S** scopes. No loop runs over samples or nodes; loops run over size classes, nesting levels and tree depths, and over
the projections where all classes are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from treesearch.paths import class_paths
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.sparse import all_rows, gather_rows

# Groups are padded to the largest of their size class; the classes keep the padding below a factor of 8.
COUNT_CLASSES = (1, 8, 64, 512, 1 << 62)
ARITY_CLASSES = (4, 8, 16, 32, 64, 128, 512, 2048, 8192, 1 << 62)


@dataclass(frozen=True, eq=False)
class Tables:
    """Index tensors of one tree on one device, all int64; **M** all nodes, **P** path entries of all classes."""

    layout: SoftmaxLayout
    path_ptr: Tensor  # [C+1]
    path_node: Tensor  # [P]
    path_branch: Tensor  # [P]
    node_arity: Tensor  # [N]
    node_width: Tensor  # [N]
    node_row: Tensor  # [N]
    node_scope: Tensor  # [N]
    scope_level: Tensor  # [S]
    class_scope_ptr: Tensor  # [C+1]
    class_scope: Tensor  # [sum of scopes per class] root first
    edge_child: Tensor  # [M-1] child at the end of each edge, edges grouped by node
    edge_node: Tensor  # [M-1] node at the start of each edge
    edge_row: Tensor  # [M-1] row of the edge's logit, widths one after another (a binary node's two edges share it)
    class_leaf: Tensor  # [C]
    depth_edges: Tensor  # [M-1] edges by depth of their child
    edges_per_depth: tuple[int, ...]

    @classmethod
    def of(cls, layout: SoftmaxLayout, device: torch.device | str | None = None) -> Tables:
        """Build the tables of a layout."""
        tree = layout.tree
        paths = class_paths(tree)
        opens = tree.projection_dim[paths.node] > 0
        opened_scope = layout.node_scope[paths.node[opens]]
        edge_node = np.repeat(np.arange(tree.num_internal), tree.arities)
        position = np.arange(edge_node.size) - tree.child_ptr[edge_node]
        child_depth = tree.node_depths[tree.child_idx]
        arrays = {
            "path_ptr": paths.ptr,
            "path_node": paths.node,
            "path_branch": paths.branch,
            "node_arity": tree.arities,
            "node_width": layout.node_width,
            "node_row": layout.node_row,
            "node_scope": layout.node_scope,
            "scope_level": layout.scope_level,
            "class_scope_ptr": np.concatenate([[0], np.cumsum(opens)])[paths.ptr],
            "class_scope": opened_scope,
            "edge_child": tree.child_idx,
            "edge_node": edge_node,
            "edge_row": layout.first_logit[edge_node] + np.where(tree.arities[edge_node] == 2, 0, position),
            "class_leaf": tree.class_leaf,
            "depth_edges": np.argsort(child_depth, kind="stable"),
        }
        tensors = {name: torch.as_tensor(np.asarray(array, np.int64), device=device) for name, array in arrays.items()}
        return cls(layout, **tensors, edges_per_depth=tuple(np.bincount(child_depth, minlength=1)[1:].tolist()))


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
    entry_E, token_E = _ranges(tables.path_ptr, target_B)
    if not entry_E.numel():  # an empty batch, or one class
        return certain(input_BD, weights[0])
    log_prob_B = input_BD.new_zeros(input_BD.shape[0], dtype=torch.promote_types(input_BD.dtype, torch.float32))
    for place, step in _decisions(tables, input_BD, target_B, entry_E, token_E, weights, bias_R, projections, sparse):
        log_prob_B = log_prob_B.index_add(0, token_E[place], step.to(log_prob_B.dtype))
    return log_prob_B


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
    entry_E, token_E = _ranges(tables.path_ptr, target_B)
    node_BL = torch.full((batch, longest), -1, device=input_BD.device)
    if not entry_E.numel():
        return certain(input_BD, weights[0])[:, None].expand(-1, longest), node_BL
    log_prob_BL = input_BD.new_zeros(batch * longest, dtype=torch.promote_types(input_BD.dtype, torch.float32))
    cell_E = token_E * longest + entry_E - tables.path_ptr[target_B][token_E]
    node_BL.view(-1)[cell_E] = tables.path_node[entry_E]
    for place, step in _decisions(tables, input_BD, target_B, entry_E, token_E, weights, bias_R, projections, sparse):
        log_prob_BL = log_prob_BL.index_add(0, cell_E[place], step.to(log_prob_BL.dtype))
    return log_prob_BL.view(batch, longest), node_BL


def _decisions(
    tables: Tables,
    input_BD: Tensor,
    target_B: Tensor,
    entry_E: Tensor,
    token_E: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    sparse: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Log-probabilities of the branches taken at the path entries, a part at a time: places in ``entry_E``, values."""
    node_E, branch_E = tables.path_node[entry_E], tables.path_branch[entry_E]
    projections = [all_rows(matrix, sparse) for matrix in projections]
    sources, source_row_E = _sources(tables, input_BD, target_B, token_E, node_E, projections)
    arity_E, width_E = tables.node_arity[node_E], tables.node_width[node_E]
    for width, source in enumerate(sources):
        chosen = (arity_E == 2) & (width_E == width)
        entries = chosen.nonzero().squeeze(1)
        if entries.numel():
            row = tables.node_row[node_E[entries]]
            inputs = source.index_select(0, source_row_E[entries])
            weight_Ed, bias_E = gather_rows(weights[width], row, sparse), gather_rows(bias_R[width], row, sparse)
            logit = (weight_Ed * inputs).sum(-1) + bias_E
            sign = 1 - 2 * branch_E[entries]
            yield entries, functional.logsigmoid(logit * sign)
        entries = ((arity_E > 2) & (width_E == width)).nonzero().squeeze(1)
        if entries.numel():
            place, step = _wide_log_prob(
                tables, source, source_row_E[entries], node_E[entries], branch_E[entries], weights[width],
                bias_R[width], sparse,
            )  # fmt: skip
            yield entries[place], step


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
    layout, batch = tables.layout, input_BD.shape[0]
    if not layout.tree.num_internal:
        return certain(input_BD, weights[0])[:, None]
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
    return node_MB[tables.class_leaf].T


def certain(input_BD: Tensor, weight_Rd: Tensor) -> Tensor:
    """Zeros [B] where nothing is to decide; part of the graph, so that `backward` works as for any other tree."""
    zeros_B = (input_BD[:, :0].to(weight_Rd.dtype) @ weight_Rd[:0, :0].T).sum(-1)
    return zeros_B.to(torch.promote_types(input_BD.dtype, torch.float32))


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


def _wide_log_prob(
    tables: Tables,
    source: Tensor,
    source_row_E: Tensor,
    node_E: Tensor,
    branch_E: Tensor,
    weight_Rd: Tensor,
    bias_R: Tensor,
    sparse: bool,
) -> tuple[Tensor, Tensor]:
    """Log-probability of the branch taken at wide nodes, in some order: entry [E] and log-probability [E]."""
    arity_E = tables.node_arity[node_E]
    plan = []
    low = 2
    for high in ARITY_CLASSES:
        entries = ((arity_E > low) & (arity_E <= high)).nonzero().squeeze(1)
        low = high
        if entries.numel():
            for node_G, entry_Gc, real in _size_classes(node_E[entries]):
                arity_G = tables.node_arity[node_G, None]
                column_K = torch.arange(int(arity_G.max()), device=node_E.device)
                row_GK = tables.node_row[node_G, None] + torch.minimum(column_K, arity_G - 1)
                plan.append((entries[entry_Gc], real, row_GK, column_K >= arity_G))
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
        taken_Gc = logit_GcK.gather(2, branch_E[entry_Gc][..., None]).squeeze(2)
        places.append(entry_Gc.flatten()[real])
        steps.append((taken_Gc - logit_GcK.logsumexp(2)).flatten().index_select(0, real))
    return torch.cat(places), torch.cat(steps)


def _sources(
    tables: Tables,
    input_BD: Tensor,
    target_B: Tensor,
    token_E: Tensor,
    node_E: Tensor,
    projections: Sequence[Tensor],
) -> tuple[list[Tensor], Tensor]:
    """What each decision sees: a matrix of source rows per width, and each entry's row in its width's matrix."""
    layout, batch = tables.layout, input_BD.shape[0]
    sources: list[list[Tensor]] = [[] for _ in layout.widths]
    sources[0].append(input_BD)
    if not projections:
        return [torch.cat(s) if s else input_BD for s in sources], token_E
    pair_scope_entry, pair_token = _ranges(tables.class_scope_ptr, target_B)
    pair_scope = tables.class_scope[pair_scope_entry]
    pair_row = torch.zeros_like(pair_scope)
    filled = [batch] + [0] * (len(layout.widths) - 1)
    # A deeper scope's source is the pair before it; sources of one level are complete before the next level starts.
    by_shape: dict[tuple[int, int, int], list[int]] = {}
    for scope, shape in enumerate(zip(tables.scope_level.tolist(), layout.scope_dim, layout.source_dim, strict=True)):
        by_shape.setdefault(shape, []).append(scope)
    for (level, dim, source_dim), scopes in sorted(by_shape.items()):
        member = torch.full((len(projections),), -1, device=pair_scope.device)
        member[scopes] = torch.arange(len(scopes), device=pair_scope.device)
        pairs = (member[pair_scope] >= 0).nonzero().squeeze(1)
        if not pairs.numel():
            continue
        if level == 0:
            inputs = input_BD.index_select(0, pair_token[pairs])
        else:
            above = sources[layout.widths.index(source_dim)]
            inputs = torch.cat(above).index_select(0, pair_row[pairs - 1])
        stacked_Sds = torch.stack([projections[scope] for scope in scopes])
        hidden = grouped_matmul(inputs, member[pair_scope[pairs]], stacked_Sds.__getitem__)
        width = layout.widths.index(dim)
        pair_row[pairs] = filled[width] + torch.arange(pairs.numel(), device=pairs.device)
        filled[width] += pairs.numel()
        sources[width].append(hidden)
    pair_start_B = torch.zeros(batch + 1, dtype=torch.int64, device=pair_token.device)
    pair_start_B[1:] = torch.bincount(pair_token, minlength=batch).cumsum(0)
    scope_E = tables.node_scope[node_E]
    scoped = scope_E >= 0
    level_E = tables.scope_level[scope_E.clamp(min=0)]
    pair_E = torch.where(scoped, pair_start_B[token_E] + level_E, 0)
    row_E = torch.where(scoped, pair_row[pair_E], token_E) if pair_row.numel() else token_E
    return [torch.cat(s) if s else input_BD.new_zeros(0, w) for s, w in zip(sources, layout.widths, strict=True)], row_E


def _ranges(ptr: Tensor, key_B: Tensor) -> tuple[Tensor, Tensor]:
    """All positions ``ptr[k] .. ptr[k+1]`` of each key, [E], and the key's index in the batch, [E]."""
    start_B = ptr[key_B]
    length_B = ptr[key_B + 1] - start_B
    token_E = torch.repeat_interleave(torch.arange(key_B.numel(), device=key_B.device), length_B)
    before_B = length_B.cumsum(0) - length_B
    position_E = torch.arange(token_E.numel(), device=key_B.device) - before_B[token_E]
    return start_B[token_E] + position_E, token_E
