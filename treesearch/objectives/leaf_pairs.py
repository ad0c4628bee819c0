"""Pairs of classes that are alike by an external similarity: what a contrastive loss pulls together.

Shapes: **B** pairs of a batch, **C** classes, **E** pairs in all, **K** candidates, **M** nodes of a taxonomy.

Nothing here has C x C numbers: `LeafPairs` keeps the pairs it was given, `SiblingPairs` a group for each class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from treesearch.errors import DataError

IntArray = NDArray[np.int64]
BLOCK_NUMBERS = 1 << 24  # similarities held at a time while neighbours are searched


class PositivePairs(Protocol):
    """Pairs (anchor, positive) of different classes to draw from."""

    @property
    def num_classes(self) -> int:
        """C."""

    def sample(self, num_pairs: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw pairs with replacement: anchors and positives, int64 [B] each."""

    def contains(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Whether each candidate, int64 [K], is a positive of each anchor, int64 [B]: bool [B, K]."""


@dataclass(frozen=True, eq=False)
class LeafPairs:
    """Weighted pairs in compressed sparse rows; positives of class c are entries ``ptr[c] .. ptr[c+1]``, rising."""

    ptr: IntArray  # [C+1]
    positive: IntArray  # [E]
    weight: NDArray[np.float64]  # [E] > 0

    @property
    def num_classes(self) -> int:
        """C."""
        return self.ptr.size - 1

    @classmethod
    def from_similarity(cls, similarity: Any) -> LeafPairs:
        """Pairs of a sparse similarity such as counts of co-occurrence; entries > 0 off the diagonal are pairs.

        Args:
            similarity: scipy sparse array or matrix [C, C], finite, >= 0; row c has the positives of anchor c.

        Raises:
            DataError: It is not sparse, square, finite and >= 0, or has no pair.
        """
        is_sparse: bool = sparse.issparse(similarity)
        if not is_sparse or similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
            raise DataError(
                f"similarity must be a sparse matrix [C, C], but got {type(similarity).__name__} of shape"
                f" {np.shape(similarity)}; use scipy.sparse.csr_array, or from_vectors for dense class vectors"
            )
        entries = similarity.astype(np.float64).tocoo()
        entries.sum_duplicates()
        if not np.isfinite(entries.data).all() or (entries.data < 0).any():
            raise DataError("similarities must be finite and >= 0, but some are not; clip or correct them")
        kept = (entries.data > 0) & (entries.row != entries.col)
        return _pairs(entries.row[kept], entries.col[kept], entries.data[kept], similarity.shape[0])

    @classmethod
    def from_vectors(cls, vectors: ArrayLike, *, num_neighbours: int) -> LeafPairs:
        """Each class with its nearest others by cosine, weighted by it; classes at cosine <= 0 are no neighbours.

        O(C^2 D) time, in blocks of rows. A zero vector has no neighbours.

        Args:
            vectors: Float [C, D], finite; such as embeddings of the classes' descriptions.
            num_neighbours: Positives of a class at most, 1 to C - 1.

        Raises:
            DataError: Vectors or number do not fit, or no two vectors are alike.
        """
        vectors_CD = np.asarray(vectors, np.float32)
        if vectors_CD.ndim != 2 or not np.isfinite(vectors_CD).all():
            raise DataError(f"vectors must be finite numbers [C, D], but got shape {vectors_CD.shape}; correct them")
        num_classes = vectors_CD.shape[0]
        if not 1 <= num_neighbours < num_classes:
            raise DataError(f"num_neighbours must be from 1 to C - 1 = {num_classes - 1}, but got {num_neighbours}")
        norm_C1 = np.linalg.norm(vectors_CD, axis=1, keepdims=True)
        unit_CD = vectors_CD / np.where(norm_C1 > 0, norm_C1, 1)
        rows = max(1, BLOCK_NUMBERS // num_classes)
        nearest, cosine = [], []
        for begin in range(0, num_classes, rows):
            cosine_bC = unit_CD[begin : begin + rows] @ unit_CD.T
            place = np.arange(cosine_bC.shape[0])
            cosine_bC[place, begin + place] = -np.inf  # not its own neighbour
            nearest.append(np.argpartition(cosine_bC, -num_neighbours, axis=1)[:, -num_neighbours:])
            cosine.append(np.take_along_axis(cosine_bC, nearest[-1], axis=1))
        anchor_E = np.repeat(np.arange(num_classes), num_neighbours)
        positive_E, weight_E = np.concatenate(nearest).ravel(), np.concatenate(cosine).ravel().astype(np.float64)
        kept = weight_E > 0
        return _pairs(anchor_E[kept], positive_E[kept], weight_E[kept], num_classes)

    def sample(self, num_pairs: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw pairs with replacement: the anchor evenly among classes with positives, the positive by weight.

        Returns:
            Anchors and positives, int64 [B] each, on the CPU.
        """
        anchors = np.flatnonzero(np.diff(self.ptr))
        drawn = anchors[rng.integers(0, anchors.size, num_pairs)]
        cumulative = self._cumulative
        before = np.where(self.ptr[drawn] > 0, cumulative[self.ptr[drawn] - 1], 0.0)
        goal = before + rng.random(num_pairs) * (cumulative[self.ptr[drawn + 1] - 1] - before)
        entry = np.searchsorted(cumulative, goal, side="right")
        entry = np.clip(entry, self.ptr[drawn], self.ptr[drawn + 1] - 1)  # rounding must not lead to a neighbour's
        return torch.from_numpy(drawn), torch.from_numpy(self.positive[entry])

    def contains(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Whether each candidate, int64 [K], is a positive of each anchor, int64 [B]: bool [B, K], on their device."""
        code_BK = anchors.cpu().numpy()[:, None] * self.num_classes + candidates.cpu().numpy()
        place = np.minimum(np.searchsorted(self._codes, code_BK), self._codes.size - 1)
        return torch.from_numpy(self._codes[place] == code_BK).to(anchors.device)

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        """Running sum of the weights, scaled to sum 1 for each anchor: heavy anchors cost light ones no digits."""
        total_C = np.bincount(self._anchor, self.weight, minlength=self.num_classes)
        return np.cumsum(self.weight / total_C[self._anchor])

    @cached_property
    def _codes(self) -> IntArray:
        """One number for each pair, rising."""
        return self._anchor * self.num_classes + self.positive

    @property
    def _anchor(self) -> IntArray:
        return np.repeat(np.arange(self.num_classes), np.diff(self.ptr))


@dataclass(frozen=True, eq=False)
class SiblingPairs:
    """All pairs of classes in the same group, such as the children of one node of a taxonomy; O(C), never listed."""

    group: IntArray  # [C] 0 .. G-1; NO_GROUP for a class that is in none

    NO_GROUP: ClassVar[int] = -1

    @property
    def num_classes(self) -> int:
        """C."""
        return self.group.size

    @classmethod
    def from_groups(cls, group: ArrayLike) -> SiblingPairs:
        """Classes of the same group.

        Args:
            group: int [C], any numbers >= 0; negative for a class that is in no group.

        Raises:
            DataError: They are no whole numbers, or no two classes share a group.
        """
        given_C = np.asarray(group)
        if given_C.ndim != 1 or not np.issubdtype(given_C.dtype, np.integer):
            raise DataError(f"groups must be whole numbers, one per class, but got {given_C.dtype} {given_C.shape}")
        names, group_C, size = np.unique(given_C, return_inverse=True, return_counts=True)
        alone = (size[group_C] < 2) | (names[group_C] < 0)
        if alone.all():
            raise DataError(f"two classes must share a group, but all {given_C.size} are alone; group more coarsely")
        return cls(np.where(alone, cls.NO_GROUP, group_C).astype(np.int64))

    @classmethod
    def from_parents(cls, parent: ArrayLike, class_node: ArrayLike) -> SiblingPairs:
        """Classes whose nodes in a taxonomy have the same parent.

        Args:
            parent: int [M], the parent of each node, negative at a root; classes at roots are no siblings.
            class_node: int [C], the node of each class.

        Raises:
            DataError: A class's node is none, or no two classes are siblings.
        """
        parent_M, node_C = np.asarray(parent), np.asarray(class_node)
        if node_C.size and not (node_C.min() >= 0 and node_C.max() < parent_M.size):
            raise DataError(
                f"nodes of classes must lie in [0, {parent_M.size}), but range from {node_C.min()} to {node_C.max()}"
            )
        return cls.from_groups(parent_M[node_C])

    def sample(self, num_pairs: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw pairs with replacement: the anchor evenly among classes with siblings, then evenly one of these.

        Returns:
            Anchors and positives, int64 [B] each, on the CPU.
        """
        member, first, size = self._members
        place = rng.integers(0, member.size, num_pairs)
        group = self.group[member[place]]
        # Another place of the group: the anchor's own, moved on by less than a whole turn.
        turn = 1 + rng.integers(0, size[group] - 1)
        other = first[group] + (place - first[group] + turn) % size[group]
        return torch.from_numpy(member[place]), torch.from_numpy(member[other])

    def contains(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Whether each candidate, int64 [K], is a sibling of each anchor, int64 [B]: bool [B, K], on their device."""
        group = torch.from_numpy(self.group).to(anchors.device)
        same = (group[anchors][:, None] == group[candidates]) & (group[candidates] != self.NO_GROUP)
        return same & (anchors[:, None] != candidates)

    @cached_property
    def _members(self) -> tuple[IntArray, IntArray, IntArray]:
        """Classes with siblings by group; first place and size of each group."""
        member = np.argsort(self.group, kind="stable")[int((self.group == self.NO_GROUP).sum()) :]
        size = np.bincount(self.group[member])
        return member, np.cumsum(size) - size, size


def _pairs(anchor_E: IntArray, positive_E: IntArray, weight_E: NDArray[np.float64], num_classes: int) -> LeafPairs:
    if not anchor_E.size:
        raise DataError(f"there must be a pair of different classes, but none of {num_classes} classes is like another")
    order = np.lexsort((positive_E, anchor_E))
    ptr = np.concatenate([[0], np.cumsum(np.bincount(anchor_E, minlength=num_classes))]).astype(np.int64)
    return LeafPairs(ptr, positive_E[order].astype(np.int64), weight_E[order])
