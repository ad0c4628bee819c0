"""Codes of word2vec: for each class the branches on its path and the nodes at which they are taken.

Shapes: **C** classes, **N** internal nodes, **P** path entries of all classes together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.exchange.binarize import binarized_by
from treesearch.paths import class_paths
from treesearch.tree import Tree
from treesearch.tree_files import check_unpacked_size, reading, write_atomically

FORMAT = "treesearch.codes"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Codes:
    """Paths of a binary tree, root first: class c owns entries ``ptr[c] .. ptr[c+1]`` (Mikolov et al. 2013)."""

    ptr: NDArray[np.int64]  # [C+1]
    code: NDArray[np.uint8]  # [P] branch taken, 0 or 1
    point: NDArray[np.uint32]  # [P] number of the node, below C - 1

    @property
    def num_classes(self) -> int:
        """C."""
        return self.ptr.size - 1


@dataclass(frozen=True, eq=False)
class Decoded:
    """The tree of some codes, and how its canonical form relates to them."""

    tree: Tree
    point: NDArray[np.uint32]  # [N] what codes call each internal node
    flipped: NDArray[np.bool_]  # [N] whether code 0 is the second child of the canonical form, not the first


def codes_of(tree: Tree) -> Codes:
    """The codes of a binary tree: code 0 is a node's first child, and the number of a node its canonical id.

    In a hierarchical softmax of this tree P(code = 0) is then the sigmoid of the node's logit, as in word2vec.

    Raises:
        TreeError: A node has more than two children, or a projection.
    """
    check_binary(tree)
    paths = class_paths(tree)
    return Codes(paths.ptr, paths.branch.astype(np.uint8), paths.node.astype(np.uint32))


def check_binary(tree: Tree) -> None:
    """Refuse a tree that is no binary one without projections.

    Raises:
        TreeError: It is.
    """
    if tree.num_internal and int(tree.arities.max()) > 2:
        raise TreeError(
            f"codes are of binary trees, but a node has {int(tree.arities.max())} children; make it binary with"
            " --binarize (treesearch.exchange.binarize.binarize)"
        )
    if tree.projection_dim.any():
        raise TreeError("codes have no place for projections, but the tree has some; leave them out (drop_projections)")


def decode(codes: Codes) -> Decoded:
    """The tree whose classes have these codes, nodes numbered in any way.

    Raises:
        TreeError: They are not the paths of one binary tree with a class at every leaf.
    """
    ptr, code, point = _checked(codes)
    num = ptr.size - 1
    if num == 1:
        if code.size:
            raise TreeError(f"a single class must have an empty code, but has one of {code.size} entries")
        return Decoded(Tree.from_nested(0), np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    length = np.diff(ptr)
    if length.min() == 0:
        raise TreeError(f"every class must have a code, but class {length.argmin()} has none")
    starts, ends = ptr[:-1], ptr[1:] - 1
    roots = np.unique(point[starts])
    if roots.size > 1:
        raise TreeError(f"all paths must start at one node, but some start at {roots[0]} and some at {roots[1]}")
    # Where each entry leads: the next entry's node, or, from the last one, the class. Classes are numbered from num on.
    target = np.empty(point.size, np.int64)
    target[:-1] = point[1:]
    target[ends] = num + np.arange(num)
    edge, first, inverse = np.unique(point.astype(np.int64) * 2 + code, return_index=True, return_inverse=True)
    leads_to = target[first]
    other = np.flatnonzero(target != leads_to[inverse])
    if other.size:
        at = other[0]
        raise TreeError(
            f"a branch must lead to one place, but branch {code[at]} of node {point[at]} leads to"
            f" {_place(target[at], num)} and to {_place(leads_to[inverse[at]], num)}; no code may begin with another"
        )
    nodes = np.unique(edge // 2)
    alone = np.flatnonzero(np.bincount(np.searchsorted(nodes, edge // 2)) < 2)
    if alone.size:
        raise TreeError(f"every node must have two branches, but node {nodes[alone[0]]} has one; collapse it")
    new_id = np.full(2 * num, -1, np.int64)  # of each place: internal nodes first, then leaves in the order of classes
    new_id[nodes] = np.arange(nodes.size)
    new_id[num:] = nodes.size + np.arange(num)
    parent = np.full(nodes.size + num, Tree.NO_PARENT, np.int64)
    reached, times = np.unique(leads_to, return_counts=True)
    if times.max() > 1:
        raise TreeError(
            f"every place must be reached by one branch, but {_place(reached[times.argmax()], num)} is by two"
        )
    if roots[0] in reached:
        raise TreeError(f"no branch may lead to the root, but one leads to node {roots[0]}")
    parent[new_id[leads_to]] = new_id[edge // 2]
    tree, canonical = Tree.from_parents_with_ids(parent, np.arange(num))
    point_N = np.empty(nodes.size, np.uint32)
    point_N[canonical[: nodes.size]] = nodes
    zero_N = np.empty(nodes.size, np.int64)  # canonical id of the child that code 0 leads to
    zero = edge % 2 == 0
    zero_N[canonical[new_id[edge[zero] // 2]]] = canonical[new_id[leads_to[zero]]]
    return Decoded(tree, point_N, zero_N != tree.child_idx[tree.child_ptr[:-1]])


def _checked(codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
    ptr, code, point = codes.ptr, codes.code, codes.point
    for name, array in (("ptr", ptr), ("code", code), ("point", point)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TreeError(f"{name} must be a flat array of integers, but is {array.dtype} of shape {array.shape}")
    if ptr.size < 2 or ptr[0] != 0 or (np.diff(ptr.astype(np.int64)) < 0).any() or ptr[-1] != code.size:
        raise TreeError(f"ptr must rise from 0 to the number of entries ({code.size}), a class or more")
    if point.size != code.size:
        raise TreeError(f"code and point must be of one length, but have {code.size} and {point.size} entries")
    if code.size and (code.min() < 0 or code.max() > 1):
        raise TreeError(f"codes must be 0 or 1, but range from {code.min()} to {code.max()}")
    if point.size and (point.min() < 0 or point.max() >= ptr.size - 2):
        raise TreeError(
            f"nodes must be in [0, {ptr.size - 2}), one fewer than classes, but range from {point.min()} to"
            f" {point.max()}"
        )
    return ptr.astype(np.int64), code.astype(np.uint8), point.astype(np.uint32)


def _place(target: int, num_classes: int) -> str:
    return f"node {target}" if target < num_classes else f"class {target - num_classes}"


# -- files -------------------------------------------------------------------------------------------------------------


def write_codes(tree: Tree, path: Path) -> None:
    """Write ``.npz`` with ``ptr``, ``code``, ``point`` (see `Codes`) and ``header`` (JSON: names, metadata, hash).

    Raises:
        TreeError: The tree is not binary, or has projections.
        OSError: It cannot be written.
    """
    codes = codes_of(tree)
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "hash": tree.hash,
        "class_names": None if tree.class_names is None else list(tree.class_names),
        "metadata": dict(tree.metadata),
    }
    header = np.frombuffer(json.dumps(fields, sort_keys=True).encode(), np.uint8)
    arrays: dict[str, Any] = {"header": header, "ptr": codes.ptr, "code": codes.code, "point": codes.point}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_codes(path: Path) -> Tree:
    """Read what `write_codes` wrote; ``header`` may be missing: arrays of another program.

    Raises:
        TreeError: The file is missing or damaged, or its codes are not of a tree.
    """
    with reading(path, "file of codes"):
        check_unpacked_size(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if missing := {"ptr", "code", "point"} - set(arrays.files):
                raise TreeError(f"the arrays ptr, code and point must be there, but {sorted(missing)[0]} is not")
            decoded = decode(Codes(*(np.asarray(arrays[name]) for name in ("ptr", "code", "point"))))
            header = np.asarray(arrays["header"]).tobytes() if "header" in arrays.files else b"{}"
        fields = json.loads(header)
        if not isinstance(fields, dict):
            raise TreeError("the header must be an object")
        return _annotated(decoded.tree, fields)


def _annotated(tree: Tree, fields: Mapping[str, Any]) -> Tree:
    if fields.get("hash") not in (None, tree.hash):
        raise TreeError(f"the content hash must be {fields['hash']!r:.50}, but the codes give {tree.hash!r}")
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise TreeError("metadata must be an object")
    names = fields.get("class_names")
    if names is not None and not isinstance(names, list):
        raise TreeError("class_names must be null or a list of strings")
    tree = tree.annotate(class_names=names, metadata=metadata)
    binarized_by(tree)
    return tree
