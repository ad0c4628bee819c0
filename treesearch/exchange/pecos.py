"""Cluster chains of PECOS (Yu et al. 2022): a folder with one sparse matrix per level of the tree.

``C{i}.npz`` is a SciPy matrix in CSC form, float32, of shape (nodes at level i+1, nodes at level i), with a one where
the row's parent is the column; level 0 is the root, the rows of the last matrix are the labels in the order of their
ids. ``config.json`` says how many matrices there are. All labels lie on the last level, so a shallow one stands below
a chain of nodes with a single child.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.exchange.files import write_folder
from treesearch.tree import Tree
from treesearch.tree_files import check_unpacked_size, json_object, reading
from treesearch.tree_links import tree_from_links

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

MAX_ENTRIES = 1 << 25  # of all matrices together, 0.4 GB


def write_pecos(tree: Tree, path: Path) -> None:
    """Write a cluster chain into a new or empty folder. Class names have no place in it.

    Raises:
        TreeError: The chain would have more than `MAX_ENTRIES` entries, as for a deep tree over many classes.
        ConfigError: There is something at ``path``.
        OSError: The folder cannot be written.
    """
    from scipy.sparse import save_npz

    def write(folder: Path) -> None:
        length = 0
        for matrix in cluster_chain(tree):
            save_npz(folder / f"C{length}.npz", matrix, compressed=False)
            length += 1
        (folder / "config.json").write_text(json.dumps({"len": length}), encoding="utf-8")

    _check_entries(tree)
    write_folder(path, write)


def cluster_chain(tree: Tree) -> Iterator[csc_matrix]:
    """The matrices from the root on; ``pecos.utils.cluster_util.ClusterChain(list(cluster_chain(tree)))`` takes them.

    Raises:
        TreeError: The chain would have more than `MAX_ENTRIES` entries.
    """
    from scipy.sparse import csc_matrix

    _check_entries(tree)
    depths = tree.node_depths
    above = np.zeros(1, np.int64)  # the nodes at a level, in the order of its columns
    column_of = np.zeros(tree.num_nodes, np.int64)
    last = max(int(depths.max()), 1)  # a single class is the label of one cluster
    # Nodes by depth, so that a level costs its own size and not that of the tree.
    by_depth = np.argsort(depths, kind="stable")
    starts = np.searchsorted(depths[by_depth], np.arange(last + 2))
    for level in range(1, last + 1):
        column_of[above] = np.arange(above.size)
        fresh = by_depth[starts[level] : starts[level + 1]]
        padded = above[above >= tree.num_internal]
        rows = np.concatenate([fresh, padded])
        parents = np.concatenate([tree.parent[fresh], padded])
        if level == last:
            order = np.argsort(tree.leaf_class[rows - tree.num_internal])
            rows, parents = rows[order], parents[order]
        columns = column_of[parents]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=above.size))]).astype(np.int32)
        indices = np.argsort(columns, kind="stable").astype(np.int32)
        yield csc_matrix((np.ones(rows.size, np.float32), indices, indptr), shape=(rows.size, above.size))
        above = rows


def read_pecos(path: Path) -> Tree:
    """Read a cluster chain; clusters with a single child are collapsed, classes have the ids of the labels.

    Raises:
        TreeError: The folder is incomplete, the matrices do not fit each other, the first has several columns (roots),
            or a label or cluster has no parent or several, or no children.
    """
    with reading(path, "PECOS cluster chain", folder=True):
        length = json_object(path / "config.json").get("len")
        if type(length) is not int or length < 1:
            raise TreeError(f"'len' in config.json must be an integer >= 1, but got {length!r:.40}")
        parents = [np.array([Tree.NO_PARENT], np.int64)]
        first, width = 0, 1  # of the nodes at the level above
        for level in range(length):
            columns = _columns(path / f"C{level}.npz", width)
            parents.append(first + columns)
            first, width = first + width, columns.size
        return tree_from_links(np.concatenate(parents), first + np.arange(width), np.arange(width))


def _check_entries(tree: Tree) -> None:
    # Every node but the root has an entry on its own level, a leaf on each below as well.
    entries = tree.num_nodes - 1 + int((tree.max_depth - tree.depths).sum(dtype=np.int64))
    if entries > MAX_ENTRIES:
        raise TreeError(
            f"a PECOS chain repeats every class on all levels below it, {entries} entries for this tree, but must have"
            f" at most {MAX_ENTRIES}; take a flatter tree"
        )


def _columns(path: Path, width: int) -> NDArray[np.int64]:
    """The column of each row's one entry, int64 [rows], in a matrix of ``width`` columns."""
    from scipy.sparse import load_npz

    if not path.is_file():
        raise TreeError(f"the chain must have {path.name}, but there is no such file")
    check_unpacked_size(path)
    matrix: Any = load_npz(path)
    if matrix.format not in ("csc", "csr"):
        raise TreeError(f"{path.name} must be a matrix in CSC form, but got {matrix.format}")
    rows, columns = matrix.shape
    if columns != width:
        raise TreeError(f"{path.name} must have {width} columns, one for each node above, but has {columns}")
    if matrix.nnz != rows:
        raise TreeError(f"{path.name} must have one entry a row, but has {matrix.nnz} in {rows} rows")
    matrix.check_format(full_check=True)  # indices are not to be trusted before they are used
    entries = matrix.tocoo()
    column_of_row = np.full(rows, -1, np.int64)
    column_of_row[entries.row] = entries.col
    if rows and column_of_row.min() < 0:
        raise TreeError(f"{path.name} must have one entry a row, but row {int(column_of_row.argmin())} has none")
    return column_of_row
