"""The frozen rung for several trees at once, on torch: for CUDA.

`evaluate_forest` does what `treesearch.evaluation.frozen.evaluate_frozen` does, for several trees in one pass. No
operation of the training loop waits for the device, and no shape depends on values there.

Wide nodes and blocks learn from the very minibatches of `evaluate_frozen`; since units are independent, the first
minibatches in a chunk of all units are one rectangle, and so are all second ones, and so on. Only binary nodes, which
learn token by token there, differ: here they learn from all tokens of a batch that pass them at once, and in a block
from `BLOCK_PART` tokens.

Shapes: those of `treesearch.evaluation.frozen_tables`, and **M** units (or entries) of a rectangle, **m** tokens of
each, **Q** = M * m, **D** features, **d** size of what a family's nodes see, **E** entries: tokens at nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from treesearch.errors import DataError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import INITIAL_SQUARE, NodeScores, check_splits, passes, projection_starts
from treesearch.evaluation.frozen_kernels import PROJECTION_RATE
from treesearch.evaluation.frozen_tables import Decisions, Family, FrozenTables, Schedule
from treesearch.softmax.initialization import log_mass_biases
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree

BATCH_SIZE = 128
BLOCK_PART = 8  # tokens of a block's minibatch from which its binary nodes learn at once


@torch.no_grad()
def evaluate_forest(
    trees: Sequence[Tree],
    *,
    train: Features,
    valid: Features,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    learning_rate: float = 0.025,
    epochs: int = 1,
    device: torch.device | str,
    batch_size: int = BATCH_SIZE,
) -> list[NodeScores]:
    """Train every node of every tree on ``train`` in one pass and score it on ``valid``.

    Starting values, update rule and order of the tokens are those of `evaluate_frozen`; minibatches differ at binary
    nodes only. Trees do not influence each other.

    Args:
        trees: All over the same C classes.
        train: Features to learn from.
        valid: Features to score.
        counts: [C] training counts, for the biases.
        vectors: [C, D] class vectors; needed where a projection shrinks.
        learning_rate: Of the row-wise Adagrad.
        epochs: Passes over ``train``.
        device: Where to compute; both splits are copied there whole, also where they are on disk.
        batch_size: Successive tokens from which binary nodes learn at once.

    Returns:
        One score per tree, in nats.

    Raises:
        DataError: Trees, features, counts and vectors do not fit together, or ``batch_size`` is not positive.
        TreeError: A projection is larger than the features.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be >= 1, but got {batch_size}")
    train, valid = train.in_memory(), valid.in_memory()
    tables = FrozenTables.of(trees, train.num_features, device)
    check_splits(train, valid, tables.num_classes)
    bias_R = np.concatenate([log_mass_biases(tree, counts) for tree in trees])
    layouts = [SoftmaxLayout.of(tree, train.x.shape[1]) for tree in trees]
    starts = [start for layout in layouts for start in projection_starts(layout, counts, vectors)]
    learners = [_Learner.start(family, bias_R, starts, train.x.shape[1], device) for family in tables.families]
    nll_N = torch.zeros(int(tables.first_node[-1]), dtype=torch.float64, device=device)
    for split, times, rate in ((train, epochs, learning_rate), (valid, 1, None)):
        tokens = _Tokens.of(split, tables, device)
        for learner, schedules in zip(learners, tables.schedules(split.y, batch_size), strict=True):
            for schedule in schedules * times:
                learner.read(tokens, schedule, rate, nll_N)
    scores = np.split(nll_N.cpu().numpy(), tables.first_node[1:-1])
    return [NodeScores(nll, passes(tree, valid.y), valid.y.size) for tree, nll in zip(trees, scores, strict=True)]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """A split on the device."""

    x: Tensor  # [T, D]
    y: Tensor  # int64 [T]
    first_path: Tensor  # [K, 1] where each tree's paths begin
    no_class: int

    @classmethod
    def of(cls, split: Features, tables: FrozenTables, device: torch.device | str) -> _Tokens:
        x_TD = torch.tensor(np.ascontiguousarray(split.x, np.float32), device=device)
        y_T = torch.tensor(split.y.astype(np.int64), device=device)
        first = torch.arange(len(tables.trees), device=device)[:, None] * (tables.num_classes + 1)
        return cls(x_TD, y_T, first, tables.num_classes)

    def chunks(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        """Features [chunk, D] and paths [K * chunk] of successive tokens, the last filled up with empty paths."""
        for begin in range(schedule.begin, schedule.end, schedule.chunk):
            end = min(begin + schedule.chunk, schedule.end)
            x, y = self.x[begin:end], self.y[begin:end]
            if missing := schedule.chunk - y.shape[0]:
                x = functional.pad(x, (0, 0, 0, missing))
                y = functional.pad(y, (0, missing), value=self.no_class)
            yield x, (self.first_path + y).reshape(-1)


class _Rectangle(NamedTuple):
    """One decision for each of M units or entries, met by m tokens each."""

    place: Tensor  # [M] among the nodes of a `Decisions`
    token: Tensor  # [M, m] in the chunk
    path: Tensor  # [M, m]
    branch: Tensor  # [M, m]
    live: Tensor  # bool [M, m], false where there are fewer than m


@dataclass(frozen=True, eq=False)
class _Learner:
    """All that the units of one family learn, and the Adagrad accumulators; changed in place."""

    family: Family
    weight: Tensor  # [rows, d]
    bias: Tensor  # [rows]
    square: Tensor  # [rows]
    top: Tensor  # [U, d, D] first projection of each block
    top_square: Tensor  # [U, d]
    nested: Tensor  # [S + 1, d, d] the other projections; the last stands for none
    nested_square: Tensor  # [S + 1, d]

    @classmethod
    def start(
        cls,
        family: Family,
        bias_R: NDArray[np.float32],
        starts: Sequence[NDArray[np.float32]],
        in_features: int,
        device: torch.device | str,
    ) -> _Learner:
        def projections(scopes: NDArray[np.int64], source_dim: int) -> Tensor:
            matrices = np.zeros((len(scopes), family.dim, source_dim), np.float32)
            for matrix, scope in zip(matrices, scopes.tolist(), strict=True):
                dim, source = starts[scope].shape
                matrix[:dim, :source] = starts[scope]
            return torch.tensor(matrices, device=device)

        bias = torch.tensor(bias_R[family.row_start], device=device)
        top = projections(family.top_scopes, in_features)
        nested = functional.pad(projections(family.nested_scopes, family.dim), (0, 0, 0, 0, 0, 1))
        return cls(
            family,
            weight=bias.new_zeros(bias.shape[0], family.dim),
            bias=bias,
            square=torch.full_like(bias, INITIAL_SQUARE),
            top=top,
            top_square=torch.full_like(top[..., 0], INITIAL_SQUARE),
            nested=nested,
            nested_square=torch.full_like(nested[..., 0], INITIAL_SQUARE),
        )

    def read(self, tokens: _Tokens, schedule: Schedule, rate: float | None, nll_N: Tensor) -> None:
        """Read tokens in order: learn with this ``rate``, or add each node's NLL to ``nll_N``."""
        for x_TD, path_T in tokens.chunks(schedule):
            for rectangle in _rounds(self.family, path_T, schedule):
                if self.family.scoped:
                    self._block_step(rectangle, x_TD, rate, nll_N)
                else:
                    self._decide(self.family.top, rectangle, x_TD[rectangle.token], rate, nll_N)

    def _decide(
        self, decisions: Decisions, rectangle: _Rectangle, source_Mmd: Tensor, rate: float | None, nll_N: Tensor
    ) -> Tensor:
        """Learn, or add to ``nll_N``; returns the gradient of the source, [M, m, d], where a block learns.

        A node may have several entries: all squares are gathered before the first step is taken.
        """
        place_M, live_Mm = rectangle.place, rectangle.live
        rows_MA = decisions.rows[place_M]
        weight_MAd = self.weight[rows_MA]
        logit_MmA = torch.einsum("ued,uad->uea", source_Mmd, weight_MAd) + self.bias[rows_MA][:, None]
        if not decisions.binary:
            logit_MmA = logit_MmA.masked_fill(decisions.padding[place_M][:, None], -torch.inf)
        if rate is None:
            nll_Mm = torch.where(live_Mm, _nll(decisions, logit_MmA, rectangle.branch), 0.0)
            nll_N.index_add_(0, decisions.node[place_M], nll_Mm.sum(1, dtype=torch.float64))
            return source_Mmd
        residual_MmA = _residuals(decisions, logit_MmA, rectangle.branch) * live_Mm[..., None]
        row = rows_MA.reshape(-1)
        norm_Mm = (source_Mmd.square().sum(-1) + 1) / (decisions.dim[place_M] + 1)[:, None]
        gathered_MA = torch.einsum("uea,ue->ua", residual_MmA.square(), norm_Mm)
        self.square.index_add_(0, row, gathered_MA.reshape(-1))
        step_MA = -rate * self.square[rows_MA].rsqrt()
        change_MAd = torch.einsum("uea,ued->uad", residual_MmA, source_Mmd) * step_MA[..., None]
        self.weight.index_add_(0, row, change_MAd.flatten(0, 1))
        self.bias.index_add_(0, row, (residual_MmA.sum(1) * step_MA).reshape(-1))
        # Features stay as they are: only projections want this gradient.
        return torch.einsum("uea,uad->ued", residual_MmA, weight_MAd) if self.family.scoped else source_Mmd

    def _block_step(self, tops: _Rectangle, x_TD: Tensor, rate: float | None, nll_N: Tensor) -> None:
        """One minibatch of each block: all projections, all decisions, all projections backward."""
        family, unit_M = self.family, tops.place
        x_MmD = x_TD[tops.token]
        path_Q = tops.path.reshape(-1)
        hidden = torch.einsum("uef,udf->ued", x_MmD, self.top[unit_M])
        levels = [hidden.flatten(0, 1)]
        for scope_P in family.nested_of_path:
            levels.append(torch.einsum("qdf,qf->qd", self.nested[scope_P[path_Q]], levels[-1]))
        hidden_QLd = torch.stack(levels, 1)
        grad_QLd = torch.zeros_like(hidden_QLd)
        pair_Mm = torch.arange(path_Q.shape[0], device=path_Q.device).view(tops.path.shape)
        for part in _parts(family.top, family.size):
            own = _Rectangle(unit_M, *(field[:, part] for field in tops[1:]))
            grad = self._decide(family.top, own, hidden[:, part], rate, nll_N)
            grad_QLd[pair_Mm[:, part].reshape(-1), 0] = grad.flatten(0, 1)
        for inner in family.inner:
            for part in _parts(inner, family.size):
                pair_E, entries = _inner_entries(inner, tops, pair_Mm[:, part].reshape(-1))
                index_E = pair_E * len(levels) + inner.level[entries.place]
                source_E1d = hidden_QLd.flatten(0, 1)[index_E][:, None]
                grad_E1d = self._decide(inner, entries, source_E1d, rate, nll_N)
                grad_QLd.view(-1, family.dim).index_add_(0, index_E, grad_E1d[:, 0])
        if rate is None:
            return
        for level in range(len(levels) - 1, 0, -1):
            scope_Q, grad_Qd = family.nested_of_path[level - 1][path_Q], grad_QLd[:, level]
            grad_QLd[:, level - 1] += torch.einsum("qd,qdf->qf", grad_Qd, self.nested[scope_Q])
            size_Q = family.nested_source_dim[scope_Q]
            _learn(self.nested, self.nested_square, scope_Q, levels[level - 1][:, None], grad_Qd[:, None], size_Q, rate)
        size_M = torch.full_like(unit_M, x_TD.shape[1])
        _learn(self.top, self.top_square, unit_M, x_MmD, grad_QLd[:, 0].view_as(hidden), size_M, rate)


def _rounds(family: Family, path_T: Tensor, schedule: Schedule) -> Iterator[_Rectangle]:
    """The minibatches of all units in one chunk: the first of each, then the second of each, .."""
    top = family.top
    end_T = top.path_ptr[path_T + 1]
    total_T = (end_T - top.path_ptr[path_T]).cumsum(0)
    slot_E = torch.arange(schedule.num_slots, device=path_T.device)
    live_E = slot_E < total_T[-1]
    owner_E = torch.searchsorted(total_T, slot_E, right=True).clamp(max=path_T.shape[0] - 1)
    # Slots beyond the last entry are spread, so that the zeros that they add do not queue for one row.
    entry_E = torch.where(live_E, end_T[owner_E] - total_T[owner_E] + slot_E, slot_E % top.path_place.shape[0])
    token_E, path_E = owner_E % schedule.chunk, path_T[owner_E]
    place_E, branch_E = top.path_place[entry_E], top.path_branch[entry_E]
    if family.size == Family.TOKEN_BY_TOKEN:
        yield _Rectangle(place_E, token_E[:, None], path_E[:, None], branch_E[:, None], live_E[:, None])
        return
    num_units = top.node.shape[0]
    sorted_E, order_E = torch.where(live_E, place_E, num_units).sort(stable=True)
    start = torch.searchsorted(sorted_E, torch.arange(num_units + 1, device=path_T.device))
    count_U, by_count_U = start.diff().sort(descending=True, stable=True)
    slot_m = torch.arange(family.size, device=path_T.device)
    for index, num in enumerate(schedule.num_units):
        unit_M = by_count_U[:num]
        rank_m = index * family.size + slot_m
        position_Mm = (start[unit_M][:, None] + rank_m).clamp(max=schedule.num_slots - 1)
        entry_Mm = order_E[position_Mm]
        live_Mm = rank_m < count_U[:num, None]
        yield _Rectangle(unit_M, token_E[entry_Mm], path_E[entry_Mm], branch_E[entry_Mm], live_Mm)


def _parts(decisions: Decisions, size: int) -> list[slice]:
    """The tokens of a block's minibatch from which a node learns at once."""
    step = BLOCK_PART if decisions.binary else size
    return [slice(at, at + step) for at in range(0, size, step)]


def _inner_entries(inner: Decisions, tops: _Rectangle, pair_Q: Tensor) -> tuple[Tensor, _Rectangle]:
    """What tokens of blocks, given by their places in ``tops``, decide further down: the place and decision of each."""
    path_Q, live_Q = (field.reshape(-1)[pair_Q] for field in (tops.path, tops.live))
    slot_L = torch.arange(inner.length, device=path_Q.device)
    first_Q1, end_Q1 = inner.path_ptr[path_Q][:, None], inner.path_ptr[path_Q + 1][:, None]
    live_E = ((first_Q1 + slot_L < end_Q1) & live_Q[:, None]).reshape(-1)
    spread_E = torch.arange(live_E.shape[0], device=path_Q.device) % inner.path_place.shape[0]
    entry_E = torch.where(live_E, (first_Q1 + slot_L).reshape(-1), spread_E)
    pair_E = pair_Q[:, None].expand(-1, inner.length).reshape(-1)
    token_E, path_E = (field.reshape(-1)[pair_E] for field in (tops.token, tops.path))
    columns = token_E, path_E, inner.path_branch[entry_E], live_E
    return pair_E, _Rectangle(inner.path_place[entry_E], *(column[:, None] for column in columns))


def _residuals(decisions: Decisions, logit_MmA: Tensor, branch_Mm: Tensor) -> Tensor:
    """Gradient of the NLL by the logits, [M, m, A]: probability less target."""
    if decisions.binary:
        return logit_MmA.sigmoid() - (1 - branch_Mm[..., None])
    minus_one = logit_MmA.new_full((), -1.0).expand(*branch_Mm.shape, 1)
    return logit_MmA.softmax(-1).scatter_add_(-1, branch_Mm[..., None], minus_one)


def _nll(decisions: Decisions, logit_MmA: Tensor, branch_Mm: Tensor) -> Tensor:
    """Negative log-likelihood of each decision in nats, [M, m]."""
    if decisions.binary:
        return -functional.logsigmoid(logit_MmA[..., 0] * (1 - 2 * branch_Mm))
    return -logit_MmA.log_softmax(-1).gather(-1, branch_Mm[..., None])[..., 0]


def _learn(
    matrix_Sdf: Tensor,
    square_Sd: Tensor,
    scope_M: Tensor,
    source_Mmf: Tensor,
    grad_Mmd: Tensor,
    source_dim_M: Tensor,
    rate: float,
) -> None:
    """Move projections ``scope_M``, each by the tokens [m] that passed it."""
    norm_Mm = source_Mmf.square().sum(-1) / source_dim_M[:, None]
    square_Sd.index_add_(0, scope_M, torch.einsum("ued,ue->ud", grad_Mmd.square(), norm_Mm))
    step_Md = -float(PROJECTION_RATE) * rate * square_Sd[scope_M].rsqrt()
    change_Mdf = torch.einsum("ued,uef->udf", grad_Mmd, source_Mmf) * step_Md[..., None]
    matrix_Sdf.index_add_(0, scope_M, change_Mdf)
