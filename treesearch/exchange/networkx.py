"""Trees as `networkx.DiGraph`, edges from parent to child, and as its node-link JSON.

Attributes of a leaf: ``class`` (int) and, where the tree has names, ``name``; of an internal node: ``projection_dim``,
where it has a projection.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.labels import ids_of_labels
from treesearch.exchange.node_link import EDGES, NodeLinks, links_of, read_node_link, shared_attribute, write_node_link
from treesearch.tree import Tree
from treesearch.tree_files import reading
from treesearch.tree_links import tree_from_links

if TYPE_CHECKING:
    import networkx


def write_networkx(tree: Tree, path: Path) -> None:
    """Write node-link JSON, as ``networkx.node_link_data(to_networkx(tree), edges="edges")`` has it.

    Raises:
        OSError: The file cannot be written.
    """
    nodes = [
        f'{{"projection_dim": {dim}, "id": {node}}}' if dim else f'{{"id": {node}}}'
        for node, dim in enumerate(tree.projection_dim.tolist())
    ]
    names = None if tree.class_names is None else list(map(json.dumps, tree.class_names))
    nodes += [
        f'{{"class": {cls}, "id": {leaf}}}'
        if names is None
        else f'{{"class": {cls}, "name": {names[cls]}, "id": {leaf}}}'
        for leaf, cls in enumerate(tree.leaf_class.tolist(), start=tree.num_internal)
    ]
    write_node_link(path, nodes, tree, list(map(str, range(tree.num_nodes))), edge_keys=(EDGES,))


def read_networkx(path: Path) -> Tree:
    """Read node-link JSON of any directed tree; see `from_networkx`.

    Raises:
        TreeError: The JSON is of another shape, or the graph is no tree over classes.
    """
    with reading(path, "node-link file"):
        return _tree(read_node_link(path))


def to_networkx(tree: Tree) -> networkx.DiGraph[int]:
    """The tree as a graph over its node numbers 0 .. M-1; for a million classes it takes some 1 GB.

    Raises:
        MissingExtraError: networkx is not installed.
    """
    graph = _networkx().DiGraph()
    dims, names = tree.projection_dim.tolist(), tree.class_names
    graph.add_nodes_from((node, {"projection_dim": dim} if dim else {}) for node, dim in enumerate(dims))
    graph.add_nodes_from(
        (leaf, {"class": cls} if names is None else {"class": cls, "name": names[cls]})
        for leaf, cls in enumerate(tree.leaf_class.tolist(), start=tree.num_internal)
    )
    graph.add_edges_from(zip(tree.parent[tree.child_idx].tolist(), tree.child_idx.tolist(), strict=True))
    return graph


def from_networkx(graph: networkx.DiGraph[Any]) -> Tree:
    """The tree of a graph whose edges run from parent to child, whatever its node ids.

    The class of a leaf is its attribute ``class``. Where no leaf has one, a leaf is known by its ``name``, and where
    none has that, by ``str`` of its id; such labels are class ids where they are exactly 0 .. C-1, and names in the
    order of the graph where they are not. Nodes with a single child are collapsed.

    Raises:
        MissingExtraError: networkx is not installed.
        TreeError: It is no directed graph, or no tree, or its attributes are not as above.
    """
    nx = _networkx()
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise TreeError(f"a networkx.DiGraph must be given, but got {type(graph).__name__}")
    return _tree(links_of(graph.nodes(data=True), graph.edges()))


def _tree(links: NodeLinks) -> Tree:
    leaves = [links.attributes[leaf] for leaf in links.leaves.tolist()]
    classes, given_names = shared_attribute(leaves, "class", int), shared_attribute(leaves, "name", str)
    ids: ArrayLike
    if classes is None:
        labels = [str(links.ids[leaf]) for leaf in links.leaves.tolist()] if given_names is None else given_names
        ids, names = ids_of_labels(labels)
    else:
        ids, names = classes, None
        if given_names is not None:
            names = tuple(name for _, name in sorted(zip(classes, given_names, strict=True)))
    projections = [attributes.get("projection_dim", 0) for attributes in links.attributes]
    if not all(type(dim) is int and 0 <= dim <= np.iinfo(np.int32).max for dim in projections):
        raise TreeError("the attribute 'projection_dim' must be an integer >= 0")
    if any(projections[leaf] for leaf in links.leaves.tolist()):
        raise TreeError("the attribute 'projection_dim' must be at internal nodes alone, but a leaf has it")
    return tree_from_links(links.parent, links.leaves, ids, projection_dim=projections, class_names=names)


def _networkx() -> Any:
    try:
        import networkx
    except ImportError:
        raise MissingExtraError("networkx", "interop") from None
    return networkx
