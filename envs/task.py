"""The instance of a tree construction: classes, how often they occur, what is known of them, what compute costs.

Shapes: **C** classes, **D** features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from envs.units import DECIDABLE, Refine, Units
from treesearch.builders.assembly import ClassIds
from treesearch.builders.clustering import attention, start_direction
from treesearch.builders.reassignment import NodeDirections
from treesearch.builders.registry import check_vectors
from treesearch.errors import ConfigError, DataError
from treesearch.taxonomy import Taxonomy
from treesearch.tree import check_counts

MIN_CLASSES = 3  # two classes have one tree: nothing to decide


@dataclass(frozen=True, eq=False)
class ConstructionTask:
    """What a tree is built for.

    Args:
        counts: [C] class counts, C >= 3, finite, >= 0, not all zero; kept as float64.
        vectors: [C, E] class vectors for splits by similarity, kept as float32; usually E = D. None where nothing is
            known but the counts.
        in_features: D, the input size of the layer that will use the tree; 0 takes E.
        cost_weight: λ, nats per unit of analytic cost.
        seed: Decides every random choice of the splits and closers.
        categories: int [C], the category of each class, for splits by category; None where there are none.
        directions: Trains the softmax of a node, for splits that reassign classes; None where nothing can be trained.
        taxonomy: Of the same classes, for splits by taxonomy, or to be refined; None where there is none.
        refine: Keep all nodes of the taxonomy in every tree: ``parents``: decide among the classes right below
            a node, which are a part of their own where it has other children too; ``anywhere``: how the children of
            every node are grouped (`envs.units`). None: keep nothing.

    Raises:
        ConfigError: D cannot be told, a setting is out of range, or the taxonomy leaves nothing to refine.
        DataError: Counts, vectors, categories or taxonomy do not fit the classes.
    """

    counts: NDArray[np.float64]
    vectors: NDArray[np.float32] | None = None
    in_features: int = 0
    cost_weight: float = 0.005
    seed: int = 0
    categories: NDArray[np.int64] | None = None
    directions: NodeDirections | None = None
    taxonomy: Taxonomy | None = None
    refine: Refine | None = None

    def __post_init__(self) -> None:
        counts_C = np.ascontiguousarray(check_counts(self.counts))
        if counts_C.size < MIN_CLASSES:
            raise DataError(
                f"a construction needs >= {MIN_CLASSES} classes, but got {counts_C.size}; fewer have one tree"
            )
        object.__setattr__(self, "counts", counts_C)
        if self.vectors is not None:
            object.__setattr__(self, "vectors", check_vectors(self.vectors, counts_C.size))
            if self.in_features == 0:
                object.__setattr__(self, "in_features", self.vectors.shape[1])
        if not isinstance(self.in_features, (int, np.integer)) or self.in_features < 1:
            raise ConfigError(f"in_features must be an integer >= 1, but got {self.in_features!r}; pass it or vectors")
        if not 0 <= self.cost_weight < np.inf:
            raise ConfigError(f"cost_weight must be finite and >= 0, but got {self.cost_weight!r}")
        if not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ConfigError(f"seed must be an integer >= 0, but got {self.seed!r}")
        if self.categories is not None:
            categories_C = np.asarray(self.categories)
            if categories_C.shape != counts_C.shape or categories_C.dtype.kind not in "iu":
                raise DataError(
                    f"categories must be integers, one per class ({counts_C.size}), but got {categories_C.dtype} of"
                    f" shape {categories_C.shape}"
                )
            object.__setattr__(self, "categories", categories_C.astype(np.int64))
        self._check_taxonomy()

    def _check_taxonomy(self) -> None:
        if self.taxonomy is not None and not isinstance(self.taxonomy, Taxonomy):
            raise DataError(
                f"the taxonomy must be a Taxonomy, but got {type(self.taxonomy).__name__}; use load_taxonomy, or"
                " Taxonomy.of for a tree"
            )
        if self.taxonomy is not None and self.taxonomy.num_classes != self.counts.size:
            raise DataError(
                f"the taxonomy must have the {self.counts.size} classes of the counts, but has"
                f" {self.taxonomy.num_classes}; load it with classes="
            )
        if self.refine is None:
            return
        if self.refine not in get_args(Refine):
            raise ConfigError(f"refine must be 'parents', 'anywhere' or None, but got {self.refine!r:.40}")
        if self.taxonomy is None:
            raise ConfigError(f"refine={self.refine!r} needs a taxonomy, but the task has none")
        if self.widest.size < DECIDABLE:
            where = "classes right below it" if self.refine == "parents" else "children"
            raise ConfigError(
                f"refine: {self.refine} needs a node of the taxonomy with >= {DECIDABLE} {where}, but none has more"
                f" than {self.widest.size}: there is nothing to decide; drop it"
            )

    def __deepcopy__(self, memo: dict[int, object]) -> ConstructionTask:
        # Nothing in it changes, and Gymnasium copies the arguments of each environment that it makes of a spec.
        return self

    @property
    def num_classes(self) -> int:
        """C."""
        return self.counts.size

    @cached_property
    def units(self) -> Units | None:
        """What stays together under ``refine``."""
        if self.refine is None or self.taxonomy is None:
            return None
        return Units(self.taxonomy.tree, self.refine)

    @cached_property
    def over_units(self) -> ConstructionTask:
        """The task that actions see: its class ids are units under ``refine``, else it is this task."""
        units = self.units
        if units is None:
            return self
        vectors, categories, directions = self.vectors, self.categories, self.directions
        return _UnitTask(
            np.maximum(units.sums(self.counts), 0),  # differences of sums: rounding must not leave a debt
            None if vectors is None else units.means(vectors, self.attention),
            self.in_features,
            self.cost_weight,
            self.seed,
            None if categories is None else units.categories(categories),
            None if directions is None else units.directions(directions, self.counts),
            own_classes=self.counts.size,
        )

    @cached_property
    def root(self) -> ClassIds:
        """Classes, or units, of the root."""
        return np.arange(self.num_classes) if self.units is None else self.units.root

    @cached_property
    def widest(self) -> ClassIds:
        """Classes, or units, of an open node that none exceeds in number."""
        return np.arange(self.num_classes) if self.units is None else self.units.widest()

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        """Share of each class, float64 [C]."""
        return cast(NDArray[np.float64], self.counts / self.counts.sum())

    @cached_property
    def attention(self) -> NDArray[np.float32]:
        """Weight of each class in a mean of vectors, float32 [C]."""
        return attention(self.counts)

    def start(self, number: int = 0) -> NDArray[np.float32]:
        """Seeded direction from which splits by similarity start, float32 [E]; 0 is the builders'.

        Raises:
            DataError: The task has no vectors.
        """
        if number not in self._starts:
            self._starts[number] = start_direction(self.require_vectors(), [self.seed, number] if number else self.seed)
        return self._starts[number]

    @cached_property
    def _starts(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def require_vectors(self) -> NDArray[np.float32]:
        """The vectors, or a DataError that says what needs them."""
        if self.vectors is None:
            raise DataError("splits by similarity need class vectors [C, D], but the task has none")
        return self.vectors

    def variance(self, classes: NDArray[np.int64]) -> float:
        """Mean squared distance of the vectors to their mean, weighted by attention; 0 without vectors. O(n D)."""
        if self.vectors is None:
            return 0.0
        points, weights = self.vectors[classes], self.attention[classes]
        if not weights.any():
            weights = np.ones_like(weights)
        # einsum, not BLAS: a sum must not depend on the number of threads.
        weights = weights / weights.sum()
        centred = points - np.einsum("n,nd->d", weights, points)
        return float(np.einsum("n,n->", weights, np.einsum("nd,nd->n", centred, centred)))

    @cached_property
    def total_variance(self) -> float:
        """`variance` of the whole vocabulary."""
        return self.variance(np.arange(self.num_classes))


@dataclass(frozen=True, eq=False)
class _UnitTask(ConstructionTask):
    """A task over units; its first C class ids are classes, and the others stand for classes among them."""

    own_classes: int = 0  # C

    @property
    def num_classes(self) -> int:
        return self.own_classes

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        return cast(NDArray[np.float64], self.counts / self.counts[: self.own_classes].sum())


def zipf_task(
    num_classes: int = 200, *, in_features: int = 16, cost_weight: float = 0.005, seed: int = 0
) -> ConstructionTask:
    """A toy vocabulary: class i has the count C / (i + 1), vectors are standard normal."""
    counts_C = num_classes / np.arange(1, num_classes + 1)
    vectors_CD = np.random.default_rng(seed).standard_normal((num_classes, in_features), np.float32)
    return ConstructionTask(counts_C, vectors_CD, in_features, cost_weight, seed)
