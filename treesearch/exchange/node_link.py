"""Node-link JSON, the form in which `networkx` keeps graphs: a list of nodes with attributes, a list of edges.

It has the keys of ``networkx.node_link_data`` (networkx 3): ``nodes`` with ``id``, and ``edges`` with ``source`` and
``target``; before networkx 3.6 the default name of the edges was ``links``, which is read too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.exchange.files import write_text
from treesearch.tree import Tree
from treesearch.tree_files import json_object

EDGES, OLD_EDGES = "edges", "links"


class NodeLinks(NamedTuple):
    """A directed graph in which every node has at most one parent; M' nodes in the order of the file."""

    ids: list[Hashable]  # [M']
    attributes: list[Mapping[str, Any]]  # [M']
    parent: NDArray[np.int64]  # [M'] index of the parent, -1 where there is none
    leaves: NDArray[np.int64]  # [C] indices of the nodes without children


def links_of(nodes: Iterable[tuple[Any, Mapping[str, Any]]], edges: Iterable[tuple[Any, Any]]) -> NodeLinks:
    """Bring ids and edges into parent links.

    Raises:
        TreeError: Two nodes have one id, an edge names an unknown node, or a node has several parents.
    """
    ids: list[Hashable] = []
    attributes: list[Mapping[str, Any]] = []
    for node, given in nodes:
        ids.append(node)
        attributes.append(given)
    index: dict[Hashable, int] = {node: position for position, node in enumerate(ids)}
    if len(index) != len(ids):
        raise TreeError(f"every node must have an id of its own, but {len(ids)} nodes have {len(index)} ids")
    parent = [Tree.NO_PARENT] * len(ids)
    for source, target in edges:
        above, below = index.get(source), index.get(target)
        if above is None or below is None:
            raise TreeError(f"an edge must join two nodes, but {source!r:.60} -> {target!r:.60} names one that is none")
        if parent[below] != Tree.NO_PARENT:
            raise TreeError(f"a node must have one parent, but {target!r:.60} has several")
        parent[below] = above
    parent_M = np.array(parent, np.int64)
    childless = np.bincount(parent_M[parent_M >= 0], minlength=parent_M.size) == 0
    return NodeLinks(ids, attributes, parent_M, np.flatnonzero(childless))


def write_node_link(
    path: Path, nodes: Iterable[str], tree: Tree, ids: Sequence[str], *, edge_keys: Sequence[str]
) -> None:
    """Write the JSON of a tree.

    Args:
        path: The file.
        nodes: [M] the JSON object of each node.
        tree: Gives the edges.
        ids: [M] the id of each node as JSON.
        edge_keys: Under which keys the edges are listed.
    """
    ends = zip(tree.parent[tree.child_idx].tolist(), tree.child_idx.tolist(), strict=True)
    edges = ", ".join([f'{{"source": {ids[above]}, "target": {ids[node]}}}' for above, node in ends])
    lists = [f'"{key}": [{edges}]' for key in edge_keys]
    head = '{"directed": true, "multigraph": false, "graph": {}'
    write_text(path, (head, ', "nodes": [', ", ".join(nodes), "], ", ", ".join(lists), "}\n"))


def read_node_link(path: Path) -> NodeLinks:
    """The graph in a file; call it inside `treesearch.tree_files.reading`.

    Raises:
        TreeError: The JSON is of another shape, or the graph is not as `links_of` wants it.
    """
    data = json_object(path)
    if data.get("directed") is not True or data.get("multigraph", False) is not False:
        raise TreeError('the graph must be directed and no multigraph ("directed": true, "multigraph": false)')
    nodes = _records(data, "nodes", ("id",))
    key = EDGES if EDGES in data else OLD_EDGES
    edges = _records(data, key, ("source", "target"))
    return links_of(((node["id"], node) for node in nodes), ((edge["source"], edge["target"]) for edge in edges))


def shared_attribute(leaves: Sequence[Mapping[str, Any]], key: str, kind: type) -> list[Any] | None:
    """The attribute of every leaf, None where no leaf has it.

    Raises:
        TreeError: Some have it and some do not, or one is not of that type.
    """
    if not any(key in leaf for leaf in leaves):
        return None
    values = [leaf.get(key) for leaf in leaves]
    if not all(type(value) is kind for value in values):  # not isinstance: a bool is no class id
        raise TreeError(f"the attribute {key!r} must be of type {kind.__name__} at every leaf, or absent from all")
    return values


def _records(data: Mapping[str, Any], key: str, ends: tuple[str, ...]) -> list[dict[str, Any]]:
    records = data.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise TreeError(f"{key!r} must be a list of objects")
    for end in ends:
        # By type, not isinstance: a bool would be taken for the node 0 or 1.
        if not all(type(record.get(end)) in (str, int) for record in records):
            raise TreeError(f"every entry of {key!r} must have {end!r}, a string or an integer")
    return records
