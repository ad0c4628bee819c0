"""What nodes cost on one device, in microseconds.

Shapes: **N** internal nodes, **D** features, **A** arities, **V** visits, **W** input sizes of a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import DataError
from treesearch.paths import input_dims, source_dims
from treesearch.tree import Tree

if TYPE_CHECKING:
    from scipy.interpolate import RegularGridInterpolator

FloatArray = NDArray[np.float64]
TABLE_FORMAT = "treesearch.cost-table/2"


@dataclass(frozen=True)
class CostTable:
    """What nodes cost on one device, measured by `treesearch.evaluation.calibration.calibrate`.

    All times are microseconds. ``training_us[w][a][v]`` is one step, forward, backward with row-sparse gradients and
    update by `RowwiseAdam`, of all the ``visits[v]`` examples of a batch that pass one node of arity ``arities[a]``
    whose input has size ``dims[w]``; ``inference_us[w][a]`` is one visit in an exact top-1 search for a single example.
    """

    device: str
    in_features: int  # D
    batch_size: int
    dims: tuple[int, ...]  # [W] rising, the last is D
    arities: tuple[int, ...]  # [A] rising, the first is 2
    visits: tuple[int, ...]  # [V] rising, from 1 to batch_size
    training_us: tuple[tuple[tuple[float, ...], ...], ...]  # [W, A, V]
    projection_us: tuple[tuple[float, ...], ...]  # [W, V] a projection from D to dims[w]
    call_us: float  # of a training step, whatever the tree
    inference_us: tuple[tuple[float, ...], ...]  # [W, A]
    inference_projection_us: tuple[float, ...]  # [W]
    inference_call_us: float  # of a call with one example, whatever the tree; no part of the times below

    def training_node_us(self, tree: Tree, counts: ArrayLike) -> FloatArray:
        """Expected time in each node per example of a training batch, float64 [N].

        The number of a batch's examples that pass a node is taken as Poisson-distributed: nodes off the beaten track
        are seldom visited, but each visit pays the node's overhead alone.

        Raises:
            DataError: The counts do not fit the tree.
        """
        mean_N = self.batch_size * tree.pass_shares(counts)
        dims_N = input_dims(tree, self.in_features)
        log_mean_N = np.log(np.clip(mean_N, *self._means[[0, -1]]))
        node_us = self._training_grid(np.stack([dims_N, tree.arities, log_mean_N], axis=1))
        carries = tree.projection_dim > 0
        if carries.any():
            points = np.stack([tree.projection_dim[carries], log_mean_N[carries]], axis=1)
            narrower = source_dims(tree, self.in_features)[carries] / self.in_features
            node_us[carries] += self._projection_grid(points) * narrower
        return np.asarray(node_us * np.minimum(mean_N / self._means[0], 1) / self.batch_size)

    def training_us_per_example(self, tree: Tree, counts: ArrayLike) -> float:
        """Time of a training step per example."""
        return float(self.training_node_us(tree, counts).sum()) + self.call_us / self.batch_size

    def inference_node_us(self, tree: Tree, counts: ArrayLike) -> FloatArray:
        """Expected time in each node of an exact top-1 search that visits the path of its answer alone, float64 [N].

        That is a confident model's search; one that hesitates visits more nodes, in proportion alike.

        Raises:
            DataError: The counts do not fit the tree.
        """
        return tree.pass_shares(counts) * self._visit_us(tree)

    def _visit_us(self, tree: Tree) -> FloatArray:
        visit_us = self._inference_grid(np.stack([input_dims(tree, self.in_features), tree.arities], axis=1))
        extra = np.interp(tree.projection_dim, self.dims, self.inference_projection_us)
        narrower = source_dims(tree, self.in_features) / self.in_features
        return np.asarray(visit_us + np.where(tree.projection_dim > 0, extra * narrower, 0.0))

    # -- interpolation -----------------------------------------------------------------------------------------------

    @cached_property
    def _means(self) -> FloatArray:
        return np.geomspace(1e-2, self.batch_size, 80)

    @cached_property
    def _expectation(self) -> FloatArray:
        """Weight of each entry of ``visits`` in the expected time at each mean, [means, V]."""
        from scipy.stats import poisson  # here, and below: these modules take a second to import

        number = np.arange(1, 2 * self.batch_size + 1)
        within = np.minimum(number, self.batch_size)  # more than a batch cannot be: the root is passed by all
        share = np.stack([np.interp(within, self.visits, unit) for unit in np.eye(len(self.visits))], axis=1)
        return np.asarray(poisson.pmf(number[None], self._means[:, None]) @ share)

    @cached_property
    def _training_grid(self) -> RegularGridInterpolator:
        expected = np.array(self.training_us) @ self._expectation.T
        axes = (np.array(self.dims, float), np.array(self.arities, float), np.log(self._means))
        return _grid(axes, expected)

    @cached_property
    def _projection_grid(self) -> RegularGridInterpolator:
        expected = np.array(self.projection_us) @ self._expectation.T
        return _grid((np.array(self.dims, float), np.log(self._means)), expected)

    @cached_property
    def _inference_grid(self) -> RegularGridInterpolator:
        return _grid((np.array(self.dims, float), np.array(self.arities, float)), np.array(self.inference_us))

    # -- files -------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The table as JSON."""
        return json.dumps({"format": TABLE_FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `to_json` gave.

        Raises:
            DataError: The file is missing or holds no cost table: other fields, axes that do not rise or do not end
                where they must, times that are negative or not finite, sizes that do not fit together.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("format") != TABLE_FORMAT or set(content) != {field.name for field in fields(cls)}:
                raise ValueError("another format")
            table = cls(**{name: _tuples(value) for name, value in content.items()})
            _check_axes(table)
            _check_times(table)
            shape = len(table.dims), len(table.arities), len(table.visits)
            fits = (
                np.shape(table.training_us) == shape
                and np.shape(table.projection_us) == (shape[0], shape[2])
                and np.shape(table.inference_us) == shape[:2]
                and np.shape(table.inference_projection_us) == shape[:1]
            )
            if not fits:
                raise ValueError("sizes that do not fit together")
            return table
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{str(path)!r} must be a cost table that a search wrote, but: {error}") from None


def _check_axes(table: CostTable) -> None:
    if not isinstance(table.device, str):
        raise ValueError(f"device must be text, but is {table.device!r:.40}")
    for name in ("in_features", "batch_size"):
        if not _is_size(getattr(table, name)):
            raise ValueError(f"{name} must be a whole number >= 1, but is {getattr(table, name)!r:.40}")
    for name in ("dims", "arities", "visits"):
        axis: Any = getattr(table, name)
        sizes = isinstance(axis, tuple) and len(axis) > 0 and all(map(_is_size, axis))
        if not sizes or any(left >= right for left, right in pairwise(axis)):
            raise ValueError(f"{name} must be rising whole numbers >= 1, but is {axis!r:.80}")
    for name, first in (("arities", 2), ("visits", 1)):
        if getattr(table, name)[0] != first:
            raise ValueError(f"{name} must begin with {first}, but begin with {getattr(table, name)[0]}")
    for name, end in (("dims", "in_features"), ("visits", "batch_size")):
        if getattr(table, name)[-1] != getattr(table, end):
            raise ValueError(
                f"{name} must end with {end}, {getattr(table, end)}, but end with {getattr(table, name)[-1]}"
            )


def _check_times(table: CostTable) -> None:
    for name in ("training_us", "projection_us", "inference_us", "inference_projection_us"):
        for time in _flat(getattr(table, name)):
            if not _is_time(time):
                raise ValueError(f"{name} must hold finite numbers >= 0, but has {time!r:.40}")
    for name in ("call_us", "inference_call_us"):
        if not _is_time(getattr(table, name)):
            raise ValueError(f"{name} must be a finite number >= 0, but is {getattr(table, name)!r:.40}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: Any) -> bool:
    # Compared, not converted: a whole number of JSON may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value


def _grid(axes: tuple[FloatArray, ...], values: FloatArray) -> RegularGridInterpolator:
    from scipy.interpolate import RegularGridInterpolator

    return RegularGridInterpolator(axes, values, bounds_error=False, fill_value=None)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
