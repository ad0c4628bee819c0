"""`NodeTargets`: what should be learned at the internal nodes, as a mass for every child of the decisions of a batch.

Shapes: **B** rows of the batch, **E** decisions listed, **Q** children of all of them together, **N** internal nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.tree import Tree


@dataclass(frozen=True, eq=False)
class NodeTargets:
    """Decisions of a batch, each with a mass >= 0 for every child; a decision that is not listed costs nothing.

    A decision with masses m costs ``-sum_k m_k log P(child k | node)``. Masses need not sum to one: a decision of total
    mass 0.3 counts 0.3 times. The path of a class with one-hot masses is the usual target.

    The constructor checks nothing, for code that makes valid arrays; `of` is for everyone else.
    """

    row: Tensor  # int64 [E] row of the batch, never falling
    node: Tensor  # int64 [E] internal node; rising within a row
    ptr: Tensor  # int64 [E+1] where the masses of each decision begin; the last entry is Q
    mass: Tensor  # floating [Q] masses of the children, in the order of `Tree.children`
    num_rows: int  # B

    @classmethod
    def of(
        cls,
        tree: Tree,
        *,
        row: ArrayLike | Tensor,
        node: ArrayLike | Tensor,
        mass: ArrayLike | Tensor,
        num_rows: int,
    ) -> NodeTargets:
        """Check and keep decisions; ``ptr`` follows from the arities of the nodes.

        Args:
            tree: Of the layer.
            row: int [E], in [0, B), never falling.
            node: int [E], internal nodes, rising within a row: ancestors come first.
            mass: [Q], for each decision one number >= 0 per child, in canonical order; float32 or float64 is kept as
                it is, everything else becomes float32.
            num_rows: B.

        Returns:
            The targets, on the device of ``mass``.

        Raises:
            DataError: The arrays do not fit the tree or each other, are not in order, or a mass is negative or not
                finite.
        """
        if isinstance(num_rows, bool) or not isinstance(num_rows, int) or num_rows < 0:
            raise DataError(f"num_rows must be a whole number >= 0, but got {num_rows!r}")
        row_E, node_E = _whole_numbers("row", row), _whole_numbers("node", node)
        if row_E.size != node_E.size:
            raise DataError(f"row and node must be one per decision, but got {row_E.size} and {node_E.size}")
        _check_range("row", row_E, num_rows)
        _check_range("node", node_E, tree.num_internal)
        rises, same = np.diff(row_E), np.diff(node_E)
        if (wrong := np.flatnonzero((rises < 0) | ((rises == 0) & (same <= 0)))).size:
            first = int(wrong[0])
            raise DataError(
                "rows must not fall and nodes must rise within a row, each once, but decision"
                f" {first} is node {node_E[first]} of row {row_E[first]} and the next is node {node_E[first + 1]} of"
                f" row {row_E[first + 1]}; sort them by (row, node)"
            )
        ptr = np.concatenate([[0], np.cumsum(tree.arities[node_E], dtype=np.int64)])
        mass_Q = _masses(mass)
        if mass_Q.shape != (ptr[-1],):
            raise DataError(
                f"mass must hold one number per child of every decision, {ptr[-1]} in all, but got shape"
                f" {tuple(mass_Q.shape)}"
            )
        wrong_Q = ~(torch.isfinite(mass_Q) & (mass_Q >= 0))
        if bool(wrong_Q.any()):
            raise DataError(f"masses must be finite and >= 0, but one is {float(mass_Q[wrong_Q][0])}")
        row, node, starts = (torch.from_numpy(array).to(mass_Q.device) for array in (row_E, node_E, ptr))
        return cls(row, node, starts, mass_Q, num_rows)

    def to(self, device: torch.device | str) -> NodeTargets:
        """The same on another device."""
        row, node, ptr, mass = (tensor.to(device) for tensor in (self.row, self.node, self.ptr, self.mass))
        return NodeTargets(row, node, ptr, mass, self.num_rows)


def check_targets(targets: NodeTargets, tree: Tree, input_BD: Tensor) -> None:
    """Check that targets fit a tree and a batch, where that does not mean to wait for a device.

    What `NodeTargets.of` promises beyond that (values of the masses, order) is taken on trust.

    Raises:
        DataError: They are none, of another batch size, device or tree, or not of the documented types.
    """
    if not isinstance(targets, NodeTargets):
        raise DataError(f"targets must be NodeTargets, but got {type(targets).__name__}; use NodeTargets.of")
    tensors = (targets.row, targets.node, targets.ptr, targets.mass)
    if targets.num_rows != input_BD.shape[0]:
        raise DataError(f"targets must have one row per input, {input_BD.shape[0]}, but have {targets.num_rows}")
    if any(tensor.device != input_BD.device for tensor in tensors):
        raise DataError(
            f"targets must be on the device of the input, {input_BD.device}, but are on {targets.mass.device};"
            " use targets.to(...)"
        )
    if any(tensor.dtype != torch.int64 for tensor in tensors[:3]) or not targets.mass.is_floating_point():
        raise DataError(
            "targets must be int64 and their masses floating, but are"
            f" {', '.join(str(tensor.dtype) for tensor in tensors)}; use NodeTargets.of"
        )
    num = targets.row.numel()
    if targets.row.dim() != 1 or targets.node.shape != (num,) or targets.ptr.shape != (num + 1,):
        raise DataError(
            "row, node and ptr of targets must have shapes (E,), (E,) and (E + 1,), but have"
            f" {', '.join(str(tuple(tensor.shape)) for tensor in tensors[:3])}; use NodeTargets.of"
        )
    if input_BD.device.type == "cpu":
        # Compiled kernels read memory as they are told: what points somewhere must point into the arrays.
        row_E, node_E, ptr = (tensor.numpy() for tensor in tensors[:3])
        _check_range("row", row_E, targets.num_rows)
        _check_range("node", node_E, tree.num_internal)
        arity_E = tree.arities[node_E]
        if ptr[0] != 0 or targets.mass.shape != (ptr[-1],) or not np.array_equal(np.diff(ptr), arity_E):
            raise DataError(
                f"the masses of targets must be one per child of every node, {int(arity_E.sum())} in all, but are"
                f" {targets.mass.numel()}; make the targets with the tree of the layer"
            )


def check_nodes(nodes: Tensor, tree: Tree) -> None:
    """Check ids of nodes [K], internal nodes and leaves; their range where that does not mean to wait for a device.

    Raises:
        DataError: They are no integers [K], or one lies outside [0, M).
    """
    if nodes.dim() != 1 or nodes.is_floating_point() or nodes.is_complex() or nodes.dtype == torch.bool:
        raise DataError(f"nodes must be integers [K], but got {nodes.dtype} of shape {tuple(nodes.shape)}")
    if nodes.device.type == "cpu":
        _check_range("nodes", nodes.numpy(), tree.num_nodes)


def _whole_numbers(name: str, values: ArrayLike | Tensor) -> NDArray[np.int64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise DataError(f"{name} must be whole numbers [E], but got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _masses(mass: ArrayLike | Tensor) -> Tensor:
    if isinstance(mass, Tensor):
        tensor = mass.detach()
    else:
        array = np.asarray(mass)
        if array.dtype.kind not in "fiu":
            raise DataError(f"mass must be numbers, but got {array.dtype}")
        tensor = torch.from_numpy(np.array(array, np.float64 if array.dtype == np.float64 else np.float32))
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)


def _check_range(name: str, values: NDArray[np.integer[Any]], size: int) -> None:
    if values.size and (values.min() < 0 or values.max() >= size):
        raise DataError(f"{name} must lie in [0, {size}), but range from {values.min()} to {values.max()}")
