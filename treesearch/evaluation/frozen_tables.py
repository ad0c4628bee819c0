"""Index tables for the frozen rung on torch: which nodes of several trees learn together, and from which tokens.

A *unit* learns independently of all others: a node that sees the features, or a block (all below a topmost projection).
Units that are alike form a `Family`.

Shapes: **K** trees, **C** classes of each, **N** internal nodes of all trees, **n** nodes of one rectangle, **A** rows
of the widest of them, **P** path entries, **U** units of a family, **S** nested projections of a family, **L** their
levels, **T** tokens, **t** chunks. Paths are numbered ``tree * (C + 1) + class``; class C, of tokens that only fill up
a chunk, has no entries.
Everything here runs on the host, in NumPy, once per call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.evaluation.features import CHUNK
from treesearch.evaluation.frozen_kernels import MINIBATCH, VERY_WIDE, WIDE_MINIBATCH
from treesearch.paths import block_roots, class_paths, input_dims, source_dims
from treesearch.softmax.forest import ARITY_CLASSES
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.tree import Tree

Array = NDArray[Any]
Device = torch.device | str

WARM_UP = 16  # token-by-token families begin with so many batches' tokens, in batches that are so many times smaller


@dataclass(frozen=True, eq=False)
class Decisions:
    """Nodes of similar arity, and where each class's path meets them."""

    binary: bool
    length: int  # most entries on any path
    node: Tensor  # [n] among the nodes of all trees
    rows: Tensor  # [n, A] rows in the family's matrix; a narrow node repeats its last
    padding: Tensor  # bool [n, A], true where repeated
    dim: Tensor  # [n] size of what the node sees
    level: Tensor  # [n] how many projections of its block what it sees has passed, less one
    path_ptr: Tensor  # [K * (C + 1) + 1] where the entries of each path begin
    path_place: Tensor  # [P] which of the n nodes
    path_branch: Tensor  # [P] which child
    entries: Array  # [C] on the host: entries of each class, in all trees together


@dataclass(frozen=True, eq=False)
class Family:
    """Units that learn in minibatches of one size and whose top nodes are of similar arity.

    What its nodes see is padded with zeros to ``dim``; weights for the padding are never moved from zero.
    """

    TOKEN_BY_TOKEN = 1

    size: int  # tokens of a minibatch of each unit; TOKEN_BY_TOKEN for binary nodes, of any number of tokens
    dim: int
    num_rows: int
    row_start: Array  # [rows] of each row, its place among the canonical rows of all trees
    top: Decisions  # [U] the units' topmost nodes
    inner: tuple[Decisions, ...]  # the other nodes of the blocks
    top_scopes: Array  # [U] the units' first projections among those of all trees; empty without blocks
    nested_scopes: Array  # [S] the other projections
    nested_source_dim: Tensor  # [S + 1] their input size; the last stands for none
    nested_of_path: Tensor  # [L, K * (C + 1)] the nested projection of each level on each path, S where there is none

    @property
    def scoped(self) -> bool:
        """Whether the units are blocks."""
        return self.top_scopes.size > 0


@dataclass(frozen=True, eq=False)
class Schedule:
    """How a family reads a stretch of a split; all that shapes depend on."""

    begin: int
    end: int
    chunk: int  # tokens read at a time
    num_slots: int  # most entries at top nodes in any chunk
    num_units: tuple[int, ...]  # for each round of minibatches, the most units that take part in any chunk


@dataclass(frozen=True, eq=False)
class FrozenTables:
    """What `treesearch.evaluation.frozen_torch` loops over."""

    trees: tuple[Tree, ...]
    num_classes: int  # C
    families: tuple[Family, ...]
    first_node: Array  # [K + 1] where each tree's nodes begin, and the end

    @classmethod
    def of(cls, trees: Sequence[Tree], in_features: int, device: Device) -> FrozenTables:
        """Build the tables, in O(path entries).

        Raises:
            DataError: There are no trees, or their numbers of classes differ.
            TreeError: A projection is larger than ``in_features``.
        """
        num_classes = sorted({tree.num_classes for tree in trees})
        if len(num_classes) != 1:
            raise DataError(f"a forest needs one or more trees over the same classes, but got sizes {num_classes}")
        nodes = _Nodes.of(trees, in_features)
        paths = _Paths.of(trees, nodes.first)
        families = [
            _family(nodes, paths, np.flatnonzero(nodes.family == index), device)
            for index in range(nodes.family.max(initial=-1) + 1)
        ]
        return cls(tuple(trees), num_classes[0], tuple(families), nodes.first)

    def schedules(self, labels_T: Array, batch_size: int) -> list[list[Schedule]]:
        """For each family how it reads these labels, in order; ``batch_size`` is that of token-by-token families.

        Their first tokens come in smaller batches: there each token's square lowers the rate of the next, and a batch
        that knows the sum of its squares before its first step would learn less.
        """
        num_tokens = labels_T.size
        passes_tN = np.array([self._passes(labels_T[at : at + CHUNK]) for at in range(0, num_tokens, CHUNK)])
        schedules = []
        for family in self.families:
            stretches = [(0, num_tokens, CHUNK)]
            if family.size == Family.TOKEN_BY_TOKEN:
                warm = min(WARM_UP * batch_size, num_tokens)
                stretches = [(0, warm, max(1, batch_size // WARM_UP)), (warm, num_tokens, batch_size)]
            own = []
            for begin, end, chunk in stretches:
                if begin == end:
                    continue
                chunk = min(chunk, end - begin)
                entries_T = family.top.entries[labels_T[begin:end]]
                num_slots = int(np.add.reduceat(entries_T, np.arange(0, end - begin, chunk)).max())
                if not num_slots:
                    continue
                num_units = [num_slots]
                if family.size != Family.TOKEN_BY_TOKEN:
                    passes_tU = passes_tN[:, family.top.node.cpu().numpy()]
                    rounds = range(0, int(passes_tU.max()), family.size)
                    num_units = [int((passes_tU > before).sum(1).max()) for before in rounds]
                own.append(Schedule(begin, end, chunk, num_slots, tuple(num_units)))
            schedules.append(own)
        return schedules

    def _passes(self, labels_T: Array) -> Array:
        seen_C = np.bincount(labels_T, minlength=self.num_classes)
        return np.concatenate([tree.node_mass(seen_C)[: tree.num_internal] for tree in self.trees])


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Facts of the nodes of all trees."""

    first: Array  # [K + 1] where each tree's begin
    arity: Array  # [N]
    num_rows: Array  # [N]
    first_row: Array  # [N] canonical, counted through all trees
    arity_class: Array  # [N]
    unit: Array  # [N] topmost node of the unit
    scoped: Array  # [N]
    level: Array  # [N] of the projection that the node sees in its block; 0 outside
    dim: Array  # [N] size of what the node sees
    projection_dim: Array  # [N]
    source_dim: Array  # [N] size of what a projection at the node reads
    family: Array  # [N]

    @classmethod
    def of(cls, trees: Sequence[Tree], in_features: int) -> _Nodes:
        layouts = [SoftmaxLayout.of(tree, in_features) for tree in trees]
        first = np.cumsum([0, *(tree.num_internal for tree in trees)])
        arity = np.concatenate([tree.arities for tree in trees]).astype(np.int64)
        num_rows = np.concatenate([layout.num_rows for layout in layouts])
        above = [block_roots(tree) for tree in trees]
        scoped = np.concatenate(above) >= 0
        own = np.arange(arity.size)
        unit = np.where(scoped, np.concatenate([a + at for a, at in zip(above, first, strict=False)]), own)
        level = np.concatenate(
            [np.append(layout.scope_level, 0)[layout.node_scope] for layout in layouts]  # NO_SCOPE reads the last
        )
        arity_class = np.searchsorted(ARITY_CLASSES, arity)
        top_arity = arity[unit]
        kind = np.stack([scoped, top_arity >= VERY_WIDE, arity_class[unit]], 1)
        _, family = np.unique(kind, axis=0, return_inverse=True)
        return cls(
            first=first,
            arity=arity,
            num_rows=num_rows,
            first_row=np.cumsum(num_rows) - num_rows,
            arity_class=arity_class,
            unit=unit,
            scoped=scoped,
            level=level,
            dim=np.concatenate([input_dims(tree, in_features) for tree in trees]).astype(np.int64),
            projection_dim=np.concatenate([tree.projection_dim for tree in trees]).astype(np.int64),
            source_dim=np.concatenate([source_dims(tree, in_features) for tree in trees]),
            family=family.reshape(-1),
        )


@dataclass(frozen=True, eq=False)
class _Paths:
    """All path entries, by path, root first."""

    shape: tuple[int, int]  # K, C + 1
    path: Array  # [P]
    node: Array  # [P] among the nodes of all trees
    branch: Array  # [P]

    @classmethod
    def of(cls, trees: Sequence[Tree], first_node: Array) -> _Paths:
        paths = [class_paths(tree) for tree in trees]
        shape = len(trees), trees[0].num_classes + 1
        length = np.concatenate([np.append(np.diff(path.ptr), 0) for path in paths])
        return cls(
            shape=shape,
            path=np.repeat(np.arange(length.size), length),
            node=np.concatenate([path.node + at for path, at in zip(paths, first_node, strict=False)]),
            branch=np.concatenate([path.branch for path in paths]).astype(np.int64),
        )


def _family(nodes: _Nodes, paths: _Paths, members: Array, device: Device) -> Family:
    is_top = nodes.unit[members] == members
    tops, inner = members[is_top], members[~is_top]
    scoped, widest = bool(nodes.scoped[tops[0]]), int(nodes.arity[tops].max())
    size = WIDE_MINIBATCH if widest >= VERY_WIDE else MINIBATCH
    if widest == 2 and not scoped:
        size = Family.TOKEN_BY_TOKEN
    row_N = np.zeros_like(nodes.num_rows)
    row_N[members] = np.cumsum(nodes.num_rows[members]) - nodes.num_rows[members]
    place_N = np.full(nodes.arity.size, -1)

    def decisions(own: Array) -> Decisions:
        slot_A = np.arange(nodes.num_rows[own].max())
        last = nodes.num_rows[own, None] - 1
        place_N[:] = -1
        place_N[own] = np.arange(own.size)
        entries = np.flatnonzero(place_N[paths.node] >= 0)
        count = np.bincount(paths.path[entries], minlength=paths.shape[0] * paths.shape[1])
        arrays = {
            "node": own,
            "rows": row_N[own, None] + np.minimum(slot_A, last),
            "padding": slot_A > last,
            "dim": nodes.dim[own],
            "level": nodes.level[own],
            "path_ptr": np.concatenate([[0], np.cumsum(count)]),
            "path_place": place_N[paths.node[entries]],
            "path_branch": paths.branch[entries],
        }
        tensors = {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}
        entries_C = count.reshape(paths.shape).sum(0)[:-1]
        return Decisions(binary=slot_A.size == 1, length=int(count.max()), entries=entries_C, **tensors)

    nested = inner[nodes.projection_dim[inner] > 0]
    place_N[:] = -1
    place_N[nested] = np.arange(nested.size)
    opening = np.flatnonzero(place_N[paths.node] >= 0)
    nested_of_path = np.full((nodes.level[nested].max(initial=0), paths.shape[0] * paths.shape[1]), nested.size)
    nested_of_path[nodes.level[paths.node[opening]] - 1, paths.path[opening]] = place_N[paths.node[opening]]
    scope_N = np.cumsum(nodes.projection_dim > 0) - 1
    return Family(
        size=size,
        dim=int(nodes.dim[members].max()),
        num_rows=int(nodes.num_rows[members].sum()),
        row_start=np.concatenate(
            [np.arange(at, at + num) for at, num in zip(nodes.first_row[members], nodes.num_rows[members], strict=True)]
        ),
        top=decisions(tops),
        inner=tuple(
            decisions(inner[nodes.arity_class[inner] == index]) for index in np.unique(nodes.arity_class[inner])
        ),
        top_scopes=scope_N[tops if scoped else tops[:0]],
        nested_scopes=scope_N[nested],
        nested_source_dim=torch.as_tensor(np.append(nodes.source_dim[nested], 1), device=device),
        nested_of_path=torch.as_tensor(nested_of_path, device=device),
    )
