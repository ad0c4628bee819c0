"""`CompletionIndex`: the most probable completions of a prefix, exactly, on any tree over them.

Shapes: **C** completions, **M** all nodes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.applications.autocomplete.completions import Completions
from treesearch.applications.autocomplete.match_kernels import wavelet_matrix
from treesearch.applications.autocomplete.search_kernels import MatchTables, search
from treesearch.applications.autocomplete.sorted_texts import SortedTexts
from treesearch.errors import DataError, TreeError
from treesearch.softmax.topk_kernels import NODE_COLUMNS, TopKTables
from treesearch.tree import Tree
from treesearch.tree_kernels import spread_up

NO_LAYER = TopKTables(np.zeros((0, NODE_COLUMNS), np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.int64), 0, 0, 0)
NO_BOUNDS = np.zeros(0)


class Completion(NamedTuple):
    """A completion and its probability among all completions, matching or not."""

    completion: str
    probability: float


class Found(NamedTuple):
    """What a search found: classes, best first, and their scores."""

    classes: NDArray[np.int64]
    scores: NDArray[np.floating]
    num_visited: int  # internal nodes


class CompletionIndex:
    """Texts in order, a tree over them, and what tells quickly which subtrees hold a match of a prefix.

    Args:
        completions: C texts with counts.
        tree: Over C classes; class c is the c-th text in order.
        ignore_case: Whether a prefix matches whatever the case; completions are shown as they are.
        class_probabilities: [C] any probabilities that do not depend on the query, such as those of `NodeProbs`; None:
            the shares of the counts.

    Raises:
        TreeError: The tree is not over C classes.
        DataError: The probabilities are not numbers >= 0, one a class.
    """

    def __init__(
        self,
        completions: Completions,
        tree: Tree,
        *,
        ignore_case: bool = False,
        class_probabilities: ArrayLike | None = None,
    ) -> None:
        if tree.num_classes != len(completions):
            raise TreeError(
                f"the tree must be over the {len(completions)} completions, but has {tree.num_classes} classes"
            )
        self.completions, self.tree, self.ignore_case = completions, tree, ignore_case
        given = completions.probabilities if class_probabilities is None else class_probabilities
        self.probability_C = np.asarray(given, np.float64)
        if self.probability_C.shape != (len(completions),) or not (self.probability_C >= 0).all():
            raise DataError("class_probabilities must be numbers >= 0, one for each completion")
        self._keys, class_at_rank = _folded(completions) if ignore_case else (completions.texts, None)
        self._class_at_rank = class_at_rank  # None: rank and class are the same
        class_order = tree.class_order
        rank_of_class = np.arange(len(completions), dtype=np.int32)
        if class_at_rank is not None:
            rank_of_class[class_at_rank] = np.arange(len(completions), dtype=np.int32)
        rank_at_place = rank_of_class[class_order]
        place_of_rank = np.empty_like(rank_at_place)
        place_of_rank[rank_at_place] = np.arange(len(completions), dtype=np.int32)
        first_place, num_places = tree.leaf_intervals
        bits, num_zeros = wavelet_matrix(rank_at_place, max(1, int(len(completions) - 1).bit_length()))
        self.tables = MatchTables(
            tree.child_ptr, tree.child_idx, first_place, num_places, rank_at_place, place_of_rank, bits, num_zeros
        )

    @cached_property
    def _bound_M(self) -> NDArray[np.float64]:
        """The largest probability of a class below each node."""
        leaf = self.probability_C[self.tree.leaf_class]
        bound_M = np.concatenate([np.zeros(self.tree.num_internal), leaf])
        spread_up(self.tree.parent, bound_M.copy(), bound_M)
        return bound_M

    def matches(self, prefix: str) -> tuple[int, int]:
        """First and one behind the last of the ranks that match.

        Raises:
            DataError: The prefix is no valid Unicode.
        """
        return self._keys.range(prefix.casefold() if self.ignore_case else prefix)

    def complete(self, prefix: str, k: int) -> list[Completion]:
        """The k most probable completions that begin with ``prefix``, best first; of equals the first in order.

        The order is that of the texts, with ``ignore_case`` of the texts in one case first.

        Args:
            prefix: Any text; of the empty one all are completions.
            k: At least 1; fewer are returned where fewer match.

        Raises:
            DataError: k is no such number, or the prefix no valid Unicode.
        """
        found = self.search(prefix, k)
        return [
            Completion(self.completions.texts[cls], float(self.probability_C[cls])) for cls in found.classes.tolist()
        ]

    def search(self, prefix: str, k: int) -> Found:
        """As `complete`, by class; scores are probabilities."""
        return self.best_first(prefix, k, self._bound_M, NO_LAYER, np.zeros(0, np.int64), 0, NO_BOUNDS)

    def best_first(
        self,
        prefix: str,
        k: int,
        bound_M: NDArray[np.float64],
        layer: TopKTables,
        addresses: NDArray[np.int64],
        num_biases: int,
        input_D: NDArray[np.floating],
    ) -> Found:
        """Search by bounds or by the decisions of a layer; see `search_kernels.search`."""
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise DataError(f"k must be a whole number >= 1, but got {k!r}")
        low, high = self.matches(prefix)
        score_k = np.empty(min(int(k), high - low), input_D.dtype)
        rank_k = np.empty(score_k.size, np.int64)
        visited = 0
        if self.tree.num_internal == 0:  # one class, which is certain
            score_k[:], rank_k[:] = (self.probability_C[0] if bound_M.size else 0.0), 0
        elif score_k.size:
            visited = search(self.tables, bound_M, layer, addresses, num_biases, input_D, low, high, score_k, rank_k)
        if visited < 0:
            raise DataError(
                "the layer's log-probabilities must be numbers, but one is not; take one that did not diverge"
            )
        best = np.lexsort((rank_k, -score_k))
        ranks = rank_k[best]
        classes = ranks if self._class_at_rank is None else self._class_at_rank[ranks].astype(np.int64)
        return Found(classes, score_k[best], int(visited))

    @property
    def nbytes(self) -> int:
        """Memory of texts, tree, bounds and tables."""
        arrays: list[NDArray[Any]] = [*self.tables, self._bound_M, self.probability_C, self.completions.counts]
        arrays += [self.tree.parent, self.tree.leaf_class, self.tree.projection_dim, self.tree.class_order]
        extra = 0 if self._class_at_rank is None else self._keys.nbytes + self._class_at_rank.nbytes
        return sum(array.nbytes for array in arrays) + self.completions.texts.nbytes + extra


def _folded(completions: Completions) -> tuple[SortedTexts, NDArray[np.int32]]:
    """Texts without case, in order, and the class of each; equals in the order of the texts."""
    folded = [name.casefold() for name in completions.names]
    order = sorted(range(len(folded)), key=folded.__getitem__)  # stable: classes are in order already
    return SortedTexts.of([folded[cls] for cls in order]), np.array(order, np.int32)
