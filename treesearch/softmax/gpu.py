"""Hierarchical softmax for GPUs: no wait for the device, no shape that depends on values, one pass for many trees.

Every Python loop runs over the static structure of the trees (groups of decisions, products, projection shapes,
levels), so a call is a fixed sequence of kernels: it can be compiled whole, exported with a dynamic batch size and
captured in a CUDA graph. It runs on any device; `treesearch.softmax.reference` gives the same numbers.

Shapes: **B** batch, **D** features, **C** classes, **K** trees, **T** = K * B paths, tree by tree, **G** groups, **L**
decisions of one group on a path, **A** rows of one decision, **S** sources of one width, **R** columns of dense logits.

Target ids outside [0, C) are an error of torch on the CPU (IndexError or RuntimeError) and a device-side assertion on
CUDA; to say so earlier would mean to wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from treesearch.errors import DataError
from treesearch.softmax.forest import DenseNodes, EdgeScan, ForestTables, Group, Product, ScopeBatch
from treesearch.softmax.reference import certain
from treesearch.softmax.sparse import all_rows, gather_many

__all__ = [
    "ForestTables",
    "accumulate_type",
    "edge_log_probs",
    "forest_log_prob",
    "full_log_prob",
    "look_up",
    "node_log_probs",
    "source_stacks",
    "target_log_prob",
]


class _Steps(NamedTuple):
    """The decisions of one group on each path."""

    facts: Tensor  # [K, B, L, F] `ForestTables.edge_facts`
    live: Tensor  # bool [K, B, L], false beyond the end
    log_prob: Tensor  # [K, B, L], 0 there


def target_log_prob(
    tables: ForestTables,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Log-probability of each target under the only tree, [B], in nats; float32 at least.

    Args:
        tables: Of one tree.
        input_BD: Inputs.
        target_B: Integer class ids.
        weights: One matrix of rows per width.
        biases: One vector per width.
        projections: One matrix [d, source d] per scope.
        sparse: Whether the gradients of the parameters are row-sparse; not while compiling. A row that no target
            needs may stand in them with a zero gradient.

    Raises:
        DataError: The tables are of several trees, shapes do not fit, or ``sparse`` in compiled code.
    """
    _check_one_tree(tables)
    return forest_log_prob(tables, input_BD, target_B[None], weights, biases, projections, sparse=sparse)[0]


def forest_log_prob(
    tables: ForestTables,
    input_BD: Tensor,
    target_KB: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Log-probability of each tree's targets, [K, B], in nats; float32 at least.

    Args:
        tables: Of K trees.
        input_BD: Inputs, shared by the trees.
        target_KB: Integer class ids, of each tree's own classes.
        weights: One matrix per width: the rows of all trees.
        biases: One vector per width.
        projections: One matrix per scope of all trees.
        sparse: As in `target_log_prob`.

    Raises:
        DataError: Shapes do not fit, or ``sparse`` in compiled code.
    """
    groups = _path_steps(tables, input_BD, target_KB, weights, biases, projections, sparse)
    if not groups:
        return certain(input_BD, weights[0]).expand(target_KB.shape)
    total_KB = groups[0].log_prob.sum(-1)
    for steps in groups[1:]:
        total_KB = total_KB + steps.log_prob.sum(-1)
    return total_KB


def node_log_probs(
    tables: ForestTables,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each decision on the target's path, root first; arguments and errors as `target_log_prob`.

    Returns:
        [B, L] in nats, 0 beyond the path's end, and the internal nodes, int64 [B, L], -1 beyond; L is the depth of the
        tree.
    """
    _check_one_tree(tables)
    shape = (target_B.shape[0], tables.max_depth)
    groups = _path_steps(tables, input_BD, target_B[None], weights, biases, projections, sparse)
    dtype = accumulate_type(input_BD.dtype)
    log_prob_BL = torch.zeros(shape, dtype=dtype, device=input_BD.device) if groups else input_BD[:, :0].to(dtype)
    node_BL = torch.full(shape, -1, dtype=torch.int64, device=input_BD.device)
    for steps in groups:
        facts = steps.facts[0].long()
        depth = facts[..., ForestTables.DEPTH]
        # Slots beyond the end name some depth too, and add nothing there.
        log_prob_BL = log_prob_BL.scatter_add(1, depth, steps.log_prob[0])
        node_BL = node_BL.scatter_add(1, depth, (facts[..., ForestTables.NODE] + 1) * steps.live[0])
    return log_prob_BL, node_BL


def full_log_prob(
    tables: ForestTables,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """Log-probabilities of all classes of the only tree, [B, C]; arguments and errors as `target_log_prob`."""
    _check_one_tree(tables)
    scan = tables.full
    assert scan is not None
    if not scan.level_sizes:
        return certain(input_BD, weights[0])[:, None]
    stacks = source_stacks(tables.widths, tables.scope_batches, input_BD, projections)
    edge_BE = edge_log_probs(scan.edges, input_BD, stacks, weights, biases)
    reached_BM = edge_BE.new_zeros(input_BD.shape[0], 1)
    levels = []
    level_starts = torch.split(scan.parent, list(scan.level_sizes))
    for start, step in zip(level_starts, torch.split(edge_BE, list(scan.level_sizes), 1), strict=True):
        reached_BM = reached_BM.index_select(1, start) + step
        levels.append(reached_BM)
    every_BE = torch.cat(levels, 1)
    return every_BE if scan.class_place is None else every_BE.index_select(1, scan.class_place)


def _path_steps(
    tables: ForestTables,
    input_BD: Tensor,
    target_KB: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    projections: Sequence[Tensor],
    sparse: bool,
) -> list[_Steps]:
    """The decisions of all paths, one group after the other."""
    batch = input_BD.shape[0]
    if target_KB.shape != (tables.num_trees, batch):
        raise DataError(f"targets must have shape {(tables.num_trees, batch)}, but got {tuple(target_KB.shape)}")
    if sparse and torch.compiler.is_compiling():
        raise DataError("sparse=True cannot be compiled; use sparse=False or run this module eagerly")
    walks = _walk(tables, target_KB, sparse)
    stacks = source_stacks(tables.widths, tables.scope_batches, input_BD, projections, sparse)
    rows = [(group.width, _group_rows(group, facts)) for group, facts, _ in walks if not group.dense]
    of_products, of_groups = _fetch(_requests(tables.dense, sparse), rows, weights, biases, sparse)
    logit_BR, normalisers = None, None
    if tables.dense.products:
        logit_BR = _dense_logits(tables.dense, of_products, input_BD, stacks)
        normalisers = _normalisers(tables.dense, logit_BR)
    gathered = iter(of_groups)
    steps = []
    for group, facts, live in walks:
        if group.dense:
            assert logit_BR is not None
            log_prob = _dense_steps(group, facts, logit_BR, normalisers)
        else:
            weight, bias = next(gathered)
            log_prob = _gathered_steps(group, facts, input_BD, stacks, weight, bias)
        steps.append(_Steps(facts, live, log_prob.where(live, 0.0)))
    return steps


def _walk(tables: ForestTables, target_KB: Tensor, sparse: bool) -> list[tuple[Group, Tensor, Tensor]]:
    """For each group, the facts of the edges on each path [K, B, L, F] and which slots are in use [K, B, L]."""
    shape = target_KB.shape
    # Negative ids would wrap, and large ones reach the next tree: both become an index that is out of range.
    valid = (target_KB >= 0) & (target_KB < tables.num_classes)
    beyond = tables.class_entry.shape[0]
    class_T = torch.where(valid, target_KB + tables.first_class, beyond).reshape(-1)
    entry_T = tables.class_entry.index_select(0, class_T)
    offset_TG = tables.pattern_offset.index_select(0, tables.class_pattern.index_select(0, class_T))
    walks = []
    for index, group in enumerate(tables.groups):
        count_T1 = (offset_TG[:, index + 1] - offset_TG[:, index])[:, None]
        slot_L = torch.arange(group.length, dtype=count_T1.dtype, device=count_T1.device)
        live_TL = slot_L < count_T1
        # Slots beyond the end repeat the path's last edge, so that no row is fetched that the path does not need ..
        place_TL = (entry_T + offset_TG[:, index])[:, None] + torch.minimum(slot_L, count_T1 - 1)
        edge_TL = look_up(tables.path_edge, place_TL.clamp(min=0))
        if group.optional:
            # .. and those of paths without any are spread: gradients, though zero, would queue for one row.
            spread = group.pad_edges.shape[0] if not sparse else 1
            path_T = torch.arange(class_T.shape[0], device=class_T.device)
            pad_T1 = group.pad_edges.index_select(0, path_T % spread)[:, None]
            edge_TL = torch.where(count_T1 > 0, edge_TL, pad_T1)
        facts_TLF = look_up(tables.edge_facts, edge_TL)
        walks.append(
            (
                group,
                facts_TLF.view(*shape, group.length, facts_TLF.shape[-1]),
                live_TL.view(*shape, group.length),
            )
        )
    return walks


def _group_rows(group: Group, facts_KBLF: Tensor) -> Tensor:
    """Rows of a gathered group, [K, B, L, A]; a narrow node repeats its last row."""
    first = facts_KBLF[..., ForestTables.ROW, None]
    if group.binary:
        return first
    column_A = torch.arange(group.arity, dtype=first.dtype, device=first.device)
    if group.ragged:
        return first + torch.minimum(column_A, facts_KBLF[..., ForestTables.ARITY, None] - 1)
    return first + column_A


def _gathered_steps(
    group: Group, facts_KBLF: Tensor, input_BD: Tensor, stacks: list[Tensor], weight: Tensor, bias: Tensor
) -> Tensor:
    """Log-probability of each decision of a gathered group, [K, B, L]: rows [K, B, L, A, d] by what they see."""
    if group.scoped:
        stack_BSd = stacks[group.width]
        batch, num_sources, dim = stack_BSd.shape
        first_B1 = torch.arange(batch, device=weight.device)[:, None] * num_sources
        place_KBL = first_B1 + facts_KBLF[..., ForestTables.SOURCE]
        vector = look_up(stack_BSd.reshape(batch * num_sources, dim), place_KBL)
        product = _dot(weight, vector)
    else:
        # One vector for all decisions of a path: their rows are one matrix.
        product = _dot(weight.flatten(2, 3), input_BD).view(bias.shape)
    dtype = accumulate_type(input_BD.dtype)
    logit_KBLA = product.to(dtype) + bias.to(dtype)
    branch_KBL = facts_KBLF[..., ForestTables.BRANCH]
    if group.binary:
        return functional.logsigmoid(logit_KBLA[..., 0] * (1 - 2 * branch_KBL))
    if group.ragged:
        column_A = torch.arange(group.arity, device=weight.device)
        logit_KBLA = logit_KBLA.masked_fill(column_A >= facts_KBLF[..., ForestTables.ARITY, None], -torch.inf)
    return logit_KBLA.log_softmax(-1).gather(-1, branch_KBL.long()[..., None])[..., 0]


def _dot(rows_Ad: Tensor, vector_d: Tensor) -> Tensor:
    """``rows @ vector`` over leading dimensions, [..., A]."""
    if torch.compiler.is_compiling():
        # Compilers fuse this with the fetch of the rows, which then are never written.
        dtype = accumulate_type(torch.promote_types(rows_Ad.dtype, vector_d.dtype))
        return (rows_Ad.to(dtype) * vector_d.to(dtype)[..., None, :]).sum(-1)
    return torch.matmul(rows_Ad, vector_d[..., None])[..., 0]


def _dense_steps(
    group: Group, facts_KBLF: Tensor, logit_BR: Tensor, normalisers: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Log-probability of each decision of a dense group, [K, B, L]."""
    taken_KBL = _take_columns(logit_BR, facts_KBLF[..., ForestTables.ROW])
    if group.binary:
        return functional.logsigmoid(taken_KBL * (1 - 2 * facts_KBLF[..., ForestTables.BRANCH]))
    assert normalisers is not None
    top_KBL, rest_KBL = (_take_columns(part_BN, facts_KBLF[..., ForestTables.SOURCE]) for part_BN in normalisers)
    return (taken_KBL - top_KBL) - rest_KBL


def _take_columns(values_BR: Tensor, column_KBL: Tensor) -> Tensor:
    """``values[b, column[k, b, l]]``, [K, B, L]."""
    trees, batch, length = column_KBL.shape
    column_BKL = column_KBL.transpose(0, 1).long()
    taken = values_BR.gather(1, column_BKL.reshape(batch, trees * length))
    return taken.view(batch, trees, length).transpose(0, 1)


def _requests(dense: DenseNodes, sparse: bool) -> list[tuple[int, Tensor | Product]]:
    """What `_fetch` is to fetch for the products: rows, or a slice of the matrix (never where gradients are sparse)."""
    return [
        (product.width, product.rows if sparse or product.first_row == Product.NOT_A_RANGE else product)
        for product in dense.products
    ]


def _fetch(
    products: Sequence[tuple[int, Tensor | Product]],
    groups: Sequence[tuple[int, Tensor]],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    sparse: bool,
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Weights [..., d] and biases [...] of the rows [...] of each product and group.

    The rows of one width are fetched together: the gradient then fills one matrix, not one per group.
    """
    requests = [*products, *groups]
    found: list[tuple[Tensor, Tensor]] = [(weights[width], biases[width]) for width, _ in requests]
    for width, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        wanted: list[tuple[int, Tensor]] = []
        for index, (own, what) in enumerate(requests):
            if own == width and isinstance(what, Tensor):
                wanted.append((index, what))
            elif own == width and isinstance(what, Product):
                start, size = what.first_row, what.rows.shape[0]
                if size < weight.shape[0]:
                    found[index] = (weight.narrow(0, start, size), bias.narrow(0, start, size))
        if wanted:
            rows = [what for _, what in wanted]
            parts = zip(gather_many(weight, rows, sparse), gather_many(bias, rows, sparse), strict=True)
            for (index, _), part in zip(wanted, parts, strict=True):
                found[index] = part
    return found[: len(products)], found[len(products) :]


def source_stacks(
    widths: Sequence[int],
    scope_batches: Sequence[ScopeBatch],
    input_BD: Tensor,
    projections: Sequence[Tensor],
    sparse: bool = False,
) -> list[Tensor]:
    """All vectors of each width, [B, S, d]: the raw input first among the widest, then what the projections give."""
    batch = input_BD.shape[0]
    pieces: list[list[Tensor]] = [[] for _ in widths]
    pieces[0].append(input_BD[:, None])
    by_level: dict[tuple[int, int], list[Tensor]] = {}
    for own in scope_batches:
        matrices = [all_rows(projections[scope], sparse) for scope in own.scopes]
        if own.parents is None:
            flat = functional.linear(input_BD, matrices[0] if len(matrices) == 1 else torch.cat(matrices))
            hidden_BSd = flat.view(batch, len(matrices), own.dim)
        else:
            above = _cat(by_level[own.level - 1, own.source_dim])
            source_BSs = above.index_select(1, own.parents)
            hidden_BSd = torch.einsum("bps,pds->bpd", source_BSs, torch.stack(matrices))
        pieces[own.width].append(hidden_BSd)
        by_level.setdefault((own.level, own.dim), []).append(hidden_BSd)
    return [_cat(piece) for piece in pieces]


def _dense_logits(
    dense: DenseNodes, parts: Sequence[tuple[Tensor, Tensor]], input_BD: Tensor, stacks: list[Tensor]
) -> Tensor:
    """Logits of all dense rows, [B, R], float32 at least."""
    pieces = []
    for product, (weight, bias) in zip(dense.products, parts, strict=True):
        num_sources = len(product.sources)
        if num_sources == 0:
            pieces.append(functional.linear(input_BD, weight, bias))
        elif num_sources == 1:
            pieces.append(functional.linear(stacks[product.width][:, product.sources[0]], weight, bias))
        else:
            source_BSd = stacks[product.width].index_select(1, product.source_index)
            weight_Srd = weight.view(num_sources, weight.shape[0] // num_sources, weight.shape[1])
            pieces.append(torch.einsum("bsd,srd->bsr", source_BSd, weight_Srd).flatten(1) + bias)
    return _cat(pieces).to(accumulate_type(input_BD.dtype))


def _normalisers(dense: DenseNodes, logit_BR: Tensor) -> tuple[Tensor, Tensor] | None:
    """The logsumexp of each wide dense node in two parts, [B, nodes] each; None where there is none.

    The largest logit, and the logarithm of the sum of ``exp(logit - largest)``: their sum would lose the digits of the
    second where the first is large.
    """
    tops, rests = [], []
    for own in dense.normalisers:
        if own.columns is None or own.padding is None:
            columns = logit_BR.narrow(1, own.first_column, own.nodes * own.arity)
            logit_BNA = columns.view(-1, own.nodes, own.arity)
        else:
            padded = logit_BR.index_select(1, own.columns.reshape(-1)).view(-1, own.nodes, own.arity)
            logit_BNA = padded.masked_fill(own.padding, -torch.inf)
        top_BN = logit_BNA.detach().amax(-1)
        tops.append(top_BN)
        rests.append((logit_BNA - top_BN[..., None]).exp().sum(-1).log())
    return (_cat(tops), _cat(rests)) if tops else None


def edge_log_probs(
    scan: EdgeScan, input_BD: Tensor, stacks: list[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Log-probability of each edge of the scan given its start, [B, E], float32 at least; stacks of `source_stacks`."""
    parts, _ = _fetch(_requests(scan.dense, False), [], weights, biases, False)
    logit_BR = _dense_logits(scan.dense, parts, input_BD, stacks)
    logit_BE = logit_BR if scan.columns is None else logit_BR.index_select(1, scan.columns)
    binary_BE = functional.logsigmoid(logit_BE * scan.sign) if scan.any_binary else logit_BE
    if not scan.any_wide:
        return binary_BE
    normalisers = _normalisers(scan.dense, logit_BR)
    assert normalisers is not None
    top_BE, rest_BE = (part_BN.index_select(1, scan.normaliser) for part_BN in normalisers)
    wide_BE = (logit_BE - top_BE) - rest_BE
    return torch.where(scan.binary, binary_BE, wide_BE) if scan.any_binary else wide_BE


def accumulate_type(dtype: torch.dtype) -> torch.dtype:
    """The type of sums and log-probabilities."""
    return torch.promote_types(dtype, torch.float32)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``, where a negative index is out of range too."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, *table.shape[1:])


def _cat(pieces: list[Tensor]) -> Tensor:
    """Side by side; empty for none."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)


def _check_one_tree(tables: ForestTables) -> None:
    if tables.num_trees != 1:
        raise DataError(f"one tree is needed here, but the tables are of {tables.num_trees}; use forest_log_prob")
