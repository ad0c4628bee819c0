"""The tree: one frozen struct of parallel arrays, always in canonical form.

Shapes: **C** classes, **N** internal nodes, **M** nodes in all (internal nodes and leaves).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch import tree_kernels
from treesearch.errors import DataError, TreeError

IntArray = NDArray[np.int32]
Nested = int | Sequence["Nested"]


@dataclass(frozen=True, eq=False, repr=False)
class Tree:
    """A tree with every class at exactly one leaf and at least two children at every internal node.

    Internal nodes are ``0 .. N-1`` and leaves ``N .. M-1``. The arrays are canonical: children are ordered by the
    smallest class id below them, internal nodes are numbered breadth-first (the root is 0), and so are the leaves
    among themselves. Two trees that differ only in child order or node numbers are therefore the same arrays.

    Do not call the constructor; `from_parents`, `from_nested` and `load` validate and bring into canonical form.
    A single class is a tree of one leaf and no internal node.
    """

    parent: IntArray  # [M] parent of each node, NO_PARENT at the root
    child_ptr: IntArray  # [N+1] children of node n are child_idx[child_ptr[n]:child_ptr[n+1]]
    child_idx: IntArray  # [M-1]
    leaf_class: IntArray  # [M-N] class of leaf N+i
    projection_dim: IntArray  # [N] output size of the node's projection, NO_PROJECTION where it has none
    class_names: tuple[str, ...] | None = None  # [C] outside the identity
    node_names: tuple[str, ...] | None = None  # [N] of the internal nodes, outside the identity
    metadata: Mapping[str, Any] = field(default_factory=dict)  # JSON-able, outside the identity

    NO_PARENT: ClassVar[int] = -1
    NO_PROJECTION: ClassVar[int] = 0

    # -- construction ------------------------------------------------------------------------------------------------

    @classmethod
    def from_parents(
        cls,
        parent: ArrayLike,
        leaf_class: ArrayLike,
        *,
        projection_dim: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        node_names: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Tree:
        """Build a tree from parent links in any numbering that has the internal nodes before the leaves.

        Args:
            parent: int [M], the parent of each node, -1 at the root.
            leaf_class: int [M-N], the class at each of the last M-N nodes.
            projection_dim: int [N], 0 for no projection; None for none anywhere.
            class_names: C names.
            node_names: N names of the internal nodes, in the numbering of ``parent``.
            metadata: JSON-able provenance.

        Raises:
            TreeError: The arrays are not a valid tree, or names are not one each.
        """
        tree, new_id = cls.from_parents_with_ids(parent, leaf_class, projection_dim=projection_dim)
        if node_names is not None:
            _check_names("node_names", node_names, tree.num_internal, "internal node", "internal nodes")
            node_names = [node_names[given] for given in np.argsort(new_id[: tree.num_internal])]
        return tree.annotate(class_names=class_names, node_names=node_names, metadata=metadata)

    @classmethod
    def from_parents_with_ids(
        cls, parent: ArrayLike, leaf_class: ArrayLike, *, projection_dim: ArrayLike | None = None
    ) -> tuple[Tree, IntArray]:
        """Like `from_parents`, and also return the canonical id of each given node, int32 [M]."""
        parent_M = _int32("parent", parent)
        leaf_class_L = _int32("leaf_class", leaf_class)
        num_internal = parent_M.size - leaf_class_L.size
        projection_N = np.zeros(max(num_internal, 0), np.int32)
        if projection_dim is not None:
            projection_N = _int32("projection_dim", projection_dim)
        _check_arrays(parent_M, leaf_class_L, projection_N)

        root = int(np.flatnonzero(parent_M == cls.NO_PARENT)[0])
        given = np.arange(parent_M.size, dtype=np.int32)
        child_ptr, child_idx = tree_kernels.children_csr(parent_M, given, num_internal)
        order = tree_kernels.breadth_first(child_ptr, child_idx, root, parent_M.size)
        if order.size != parent_M.size:
            raise TreeError(
                f"every node must be reachable from the root, but only {order.size} of {parent_M.size} are;"
                " look for a cycle among the parent links"
            )
        smallest = tree_kernels.smallest_class(parent_M, leaf_class_L, order)
        by_smallest = tree_kernels.counting_argsort(smallest, leaf_class_L.size)
        child_ptr, child_idx = tree_kernels.children_csr(parent_M, by_smallest, num_internal)
        order = tree_kernels.breadth_first(child_ptr, child_idx, root, parent_M.size)
        order = np.concatenate([order[order < num_internal], order[order >= num_internal]])

        new_id = np.empty(parent_M.size, np.int32)
        new_id[order] = given
        new_parent = np.where(parent_M[order] >= 0, new_id[parent_M[order]], cls.NO_PARENT).astype(np.int32)
        new_class = leaf_class_L[order[num_internal:] - num_internal]
        # Renumbering by (internal, leaf) keeps the sibling order: list nodes by smallest class once more.
        child_ptr, child_idx = tree_kernels.children_csr(new_parent, new_id[by_smallest], num_internal)
        arrays = (new_parent, child_ptr, child_idx, new_class, projection_N[order[:num_internal]])
        return _restore(arrays, None, None, {}), new_id

    @classmethod
    def from_nested(
        cls, nested: Nested, *, class_names: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Tree:
        """Build a tree from nested lists of class ids, such as ``[[0, 1], [2, 3, 4]]``.

        Raises:
            TreeError: An entry is neither a class id nor a list, a list has fewer than two entries, or the ids are
                not exactly 0 .. C-1.
        """
        internal_parent: list[int] = []
        leaf_parent: list[int] = []
        leaf_class: list[int] = []
        stack: list[tuple[Any, int]] = [(nested, cls.NO_PARENT)]
        while stack:
            entry, above = stack.pop()
            if isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
                leaf_parent.append(above)
                leaf_class.append(int(entry))
            elif isinstance(entry, (list, tuple)):
                stack.extend((child, len(internal_parent)) for child in entry)
                internal_parent.append(above)
            else:
                raise TreeError(f"a nested tree holds class ids and lists only, but got {_one_line(entry)}")
        return cls.from_parents(internal_parent + leaf_parent, leaf_class, class_names=class_names, metadata=metadata)

    def annotate(
        self,
        *,
        class_names: Sequence[str] | None = None,
        node_names: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Tree:
        """The same tree with names and metadata; None keeps what it has.

        Args:
            class_names: C names.
            node_names: N names of the internal nodes, in canonical order.
            metadata: JSON-able.

        Raises:
            TreeError: Names are not one per class or internal node, or a name is not a string.
        """
        changes: dict[str, Any] = {}
        if class_names is not None:
            changes["class_names"] = _check_names("class_names", class_names, self.num_classes, "class", "classes")
        if node_names is not None:
            changes["node_names"] = _check_names(
                "node_names", node_names, self.num_internal, "internal node", "internal nodes"
            )
        if metadata is not None:
            changes["metadata"] = dict(metadata)
        return replace(self, **changes)

    def to_nested(self) -> Nested:
        """The tree as nested lists of class ids, children in canonical order."""
        built: list[Nested] = [[] for _ in range(self.num_internal)]
        built += [int(c) for c in self.leaf_class]
        for node in range(self.num_internal - 1, -1, -1):
            built[node] = [built[child] for child in self.children(node)]
        return built[0]

    def without_projections(self) -> Tree:
        """The same shape, names and metadata with no projection at any node."""
        bare = np.zeros_like(self.projection_dim)
        bare.flags.writeable = False
        return replace(self, projection_dim=bare)

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the tree; the suffix decides the format (``.json`` or ``.npz``). An existing file is replaced whole.

        Raises:
            TreeError: The suffix is neither.
            OSError: The file cannot be written.
        """
        from treesearch.tree_files import save_tree

        save_tree(self, Path(path))

    @staticmethod
    def load(path: str | Path, format: str | None = None) -> Tree:
        """Read a tree; every array is validated again.

        Args:
            path: A file that `save` wrote, or a file or folder of another format.
            format: A readable key of `treesearch.exchange.FORMATS`; None goes by the suffix, ``.json`` or ``.npz``.

        Raises:
            ConfigError: The format is unknown, or is written only.
            TreeError: The file is missing, truncated, of another format, or does not hold a valid tree.
        """
        if format is not None:
            from treesearch.exchange import import_tree

            return import_tree(path, format=format)
        from treesearch.tree_files import load_tree

        return load_tree(Path(path))

    # -- sizes ---------------------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.leaf_class.size)

    @property
    def num_internal(self) -> int:
        """N, the number of internal nodes."""
        return int(self.projection_dim.size)

    @property
    def num_nodes(self) -> int:
        """M, internal nodes and leaves."""
        return int(self.parent.size)

    def children(self, node: int) -> IntArray:
        """Children of internal node ``node`` in canonical order."""
        return self.child_idx[self.child_ptr[node] : self.child_ptr[node + 1]]

    @cached_property
    def arities(self) -> IntArray:
        """Number of children of each internal node, int32 [N]."""
        return np.diff(self.child_ptr).astype(np.int32)

    @cached_property
    def class_leaf(self) -> IntArray:
        """Node id of each class's leaf, int32 [C]."""
        class_leaf = np.empty(self.num_classes, np.int32)
        class_leaf[self.leaf_class] = np.arange(self.num_internal, self.num_nodes, dtype=np.int32)
        return class_leaf

    @cached_property
    def leaf_intervals(self) -> tuple[IntArray, IntArray]:
        """First place and number of the leaves below each node in the depth-first order of leaves, int32 [M] each."""
        first, count = tree_kernels.leaf_intervals(self.parent, self.child_ptr, self.child_idx)
        return first, count

    @cached_property
    def class_order(self) -> IntArray:
        """The class of each leaf in depth-first order, int32 [C]; `leaf_intervals` are places in it."""
        order = np.empty(self.num_classes, np.int32)
        order[self.leaf_intervals[0][self.num_internal :]] = self.leaf_class
        return order

    # -- depths and sums -----------------------------------------------------------------------------------------------

    @cached_property
    def node_depths(self) -> IntArray:
        """Edges from the root to each node, int32 [M]."""
        return tree_kernels.node_depths(self.parent, self.num_internal)

    @cached_property
    def depths(self) -> IntArray:
        """Edges from the root to each class, int32 [C]."""
        return self.node_depths[self.class_leaf]

    @property
    def max_depth(self) -> int:
        """Edges on the longest path."""
        return int(self.depths.max())

    def expected_depth(self, counts: ArrayLike) -> float:
        """Mean depth of a class drawn in proportion to ``counts`` [C].

        Raises:
            DataError: The counts do not fit the tree, are negative, not finite or all zero.
        """
        counts_C = check_counts(counts, self.num_classes)
        return float(counts_C @ self.depths / counts_C.sum())

    def node_mass(self, counts: ArrayLike) -> NDArray[np.float64]:
        """Sum of ``counts`` [C] below each node, float64 [M]."""
        counts_C = check_counts(counts, self.num_classes)
        leaf_mass = counts_C[self.leaf_class]
        own = np.concatenate([np.zeros(self.num_internal), leaf_mass])
        return np.concatenate([tree_kernels.subtree_sums(self.parent, own, self.num_internal), leaf_mass])

    def pass_shares(self, counts: ArrayLike) -> NDArray[np.float64]:
        """Share of examples, classes in proportion to ``counts`` [C], that pass each internal node, float64 [N].

        Raises:
            DataError: The counts do not fit the tree.
        """
        counts_C = check_counts(counts, self.num_classes)
        return self.node_mass(counts_C)[: self.num_internal] / counts_C.sum()

    def subtree_sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Sum of ``values`` [N] (one per internal node) over each internal node's subtree, float64 [N]."""
        values_N = self._check_values(values)
        own = np.concatenate([values_N, np.zeros(self.num_classes)])
        return tree_kernels.subtree_sums(self.parent, own, self.num_internal)

    def path_sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Sum of ``values`` [N] (one per internal node) over the path of each class, float64 [C]."""
        by_leaf = tree_kernels.path_sums(self.parent, self._check_values(values), self.num_internal)
        by_class = np.empty(self.num_classes)
        by_class[self.leaf_class] = by_leaf
        return by_class

    def _check_values(self, values: ArrayLike) -> NDArray[np.float64]:
        values_N = np.asarray(values, np.float64)
        if values_N.shape != (self.num_internal,):
            raise DataError(f"values must be one per internal node, but got {values_N.size} for {self.num_internal}")
        return values_N

    # -- identity ------------------------------------------------------------------------------------------------------

    @cached_property
    def hash(self) -> str:
        """Content hash (BLAKE2b, 32 hex digits) of the canonical form and the projections, not of names or metadata."""
        digest = blake2b(b"treesearch.tree/1", digest_size=16)
        for array in (self.parent, self.leaf_class, self.projection_dim):
            digest.update(array.size.to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(array, "<i4").data)
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes travel the arrays alone; they come back read-only, whatever the transport made of them.
        arrays = (self.parent, self.child_ptr, self.child_idx, self.leaf_class, self.projection_dim)
        return _restore, (arrays, self.class_names, self.node_names, dict(self.metadata))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"Tree(num_classes={self.num_classes}, num_internal={self.num_internal}, hash={self.hash[:12]!r})"


def _restore(
    arrays: tuple[IntArray, ...],
    class_names: tuple[str, ...] | None,
    node_names: tuple[str, ...] | None,
    metadata: Mapping[str, Any],
) -> Tree:
    """A tree from arrays that are known to be canonical; makes them read-only."""
    for array in arrays:
        array.flags.writeable = False
    parent, child_ptr, child_idx, leaf_class, projection_dim = arrays
    return Tree(parent, child_ptr, child_idx, leaf_class, projection_dim, class_names, node_names, metadata)


def check_counts(counts: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Class counts as float64 [C].

    Raises:
        DataError: Not one-dimensional, wrong length, not numeric, negative, not finite or all zero.
    """
    try:
        counts_C = np.asarray(counts, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"counts must be numbers, one per class, but got {_one_line(counts)}") from None
    if counts_C.ndim != 1 or counts_C.size == 0:
        raise DataError(f"counts must be a non-empty vector, one number per class, but got shape {counts_C.shape}")
    if num_classes is not None and counts_C.size != num_classes:
        raise DataError(f"counts must have one number per class, but got {counts_C.size} for {num_classes} classes")
    bad = np.flatnonzero(~np.isfinite(counts_C) | (counts_C < 0))
    if bad.size:
        raise DataError(
            f"counts must be finite and >= 0, but class {bad[0]} has {counts_C[bad[0]]}; correct or smooth it"
        )
    if not counts_C.sum() > 0:
        raise DataError("at least one count must be > 0, but all are 0; pass training counts or ones")
    return counts_C


def check_pairs(first: ArrayLike, second: ArrayLike, num: int, noun: str) -> tuple[IntArray, IntArray]:
    """Two lists of the same length of ids in [0, num), int32 [P] each.

    Raises:
        DataError: They are not.
    """
    pair = [np.atleast_1d(np.asarray(ids)) for ids in (first, second)]
    if any(ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu") for ids in pair) or pair[0].size != pair[1].size:
        raise DataError(
            f"pairs of {noun} must be two flat lists of integers of the same length, but got shapes {pair[0].shape} and"
            f" {pair[1].shape}"
        )
    for ids in pair:
        if ids.size and (ids.min() < 0 or ids.max() >= num):
            raise DataError(f"{noun} must lie in [0, {num}), but range from {ids.min()} to {ids.max()}")
    return pair[0].astype(np.int32), pair[1].astype(np.int32)


def _check_names(what: str, names: Sequence[str], num: int, owner: str, owners: str) -> tuple[str, ...]:
    given = tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in given):
        raise TreeError(f"{what} must be strings, one per {owner}, but got {_one_line(names)}")
    if len(given) != num:
        raise TreeError(f"one name per {owner} must be given, but got {len(given)} names for {num} {owners}")
    return given


def _one_line(value: object) -> str:
    return " ".join(repr(value).split())[:80]


def _int32(name: str, values: ArrayLike) -> IntArray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise TreeError(f"{name} must be a flat array of integers") from None
    if array.size == 0:
        return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TreeError(f"{name} must be a flat array of integers, but got {array.dtype} of shape {array.shape}")
    if array.min() < np.iinfo(np.int32).min or array.max() > np.iinfo(np.int32).max:
        raise TreeError(f"{name} must fit 32 bits, but ranges from {array.min()} to {array.max()}")
    return np.array(array, np.int32)


def _check_arrays(parent: IntArray, leaf_class: IntArray, projection_dim: IntArray) -> None:
    num_internal = parent.size - leaf_class.size
    if leaf_class.size == 0 or num_internal < 0:
        raise TreeError(
            f"a tree needs at least one leaf and at most as many leaves as nodes,"
            f" but got {leaf_class.size} leaves among {parent.size} nodes"
        )
    if projection_dim.size != num_internal:
        raise TreeError(
            f"projection_dim must have one entry per internal node, but got {projection_dim.size} for {num_internal}"
        )
    if projection_dim.size and projection_dim.min() < 0:
        raise TreeError(f"projection_dim must be >= 0 (0: none), but got {projection_dim.min()}")
    roots = np.flatnonzero(parent == Tree.NO_PARENT)
    if roots.size != 1:
        raise TreeError(f"exactly one node must have parent {Tree.NO_PARENT} (the root), but {roots.size} have")
    if parent.min() < Tree.NO_PARENT or parent.max() >= num_internal:
        raise TreeError(
            f"parents must be internal nodes in [0, {num_internal}), but range from {parent.min()} to {parent.max()}"
        )
    if leaf_class.min() < 0 or leaf_class.max() >= leaf_class.size:
        raise TreeError(
            f"class ids must be 0 .. {leaf_class.size - 1} (one per leaf),"
            f" but range from {leaf_class.min()} to {leaf_class.max()}"
        )
    seen = np.bincount(leaf_class, minlength=leaf_class.size)
    if seen.max() > 1:
        raise TreeError(f"every class must sit at exactly one leaf, but class {seen.argmax()} sits at {seen.max()}")
    arity = np.bincount(parent[parent >= 0], minlength=num_internal)
    if num_internal and arity.min() < 2:
        raise TreeError(
            f"every internal node must have >= 2 children, but node {arity.argmin()} has {arity.min()};"
            " collapse single-child chains first"
        )
