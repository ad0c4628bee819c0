"""Hierarchies of Neural-Backed Decision Trees (Wan et al. 2021), the node-link JSON of the package ``nbdt``.

There a node's id is a WordNet id, such as ``n02084071``, or that of no synset: ``f`` and eight digits. A class is known
by the id of its leaf; its number is the line of that id in the text file (``path_wnids``) that comes with a hierarchy.
The ``label`` of a node is for people.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from treesearch.errors import TreeError
from treesearch.exchange.labels import check_distinct
from treesearch.exchange.node_link import EDGES, OLD_EDGES, read_node_link, shared_attribute, write_node_link
from treesearch.tree import Tree
from treesearch.tree_files import reading
from treesearch.tree_links import tree_from_links

MAX_NODES = 10**8  # eight digits
_WNID = re.compile(r"[nvars]\d{8}")


def wnids(tree: Tree) -> list[str]:
    """The id of each class in the hierarchy, [C]: the lines of the file that NBDT wants beside it.

    A tree whose names are all WordNet ids has these; another one has ``f00000000``, ``f00000001``, ... by class.

    Raises:
        TreeError: Two classes have one WordNet id.
    """
    names = tree.class_names
    if names is not None and all(map(_WNID.fullmatch, names)):
        check_distinct(names)
        return list(names)
    return _made_up(0, tree.num_classes)


def write_nbdt(tree: Tree, path: Path) -> None:
    """Write a hierarchy; put `wnids` into a text file, one a line, for NBDT's ``path_wnids``.

    The edges are listed twice, as ``links`` and as ``edges``: which of them NBDT reads is up to its networkx, before
    or from 3.6 on.

    Raises:
        TreeError: Two classes have one WordNet id, or there are more nodes than ids.
        OSError: The file cannot be written.
    """
    if tree.num_nodes > MAX_NODES:
        raise TreeError(f"an NBDT hierarchy must have at most {MAX_NODES} nodes, but the tree has {tree.num_nodes}")
    class_ids = list(map(json.dumps, wnids(tree)))
    inner_ids = [f'"{one}"' for one in _made_up(tree.num_classes, tree.num_nodes)]
    classes = tree.leaf_class.tolist()
    # Classes come first and in order, as in NBDT's own files.
    if tree.class_names is None:
        nodes = [f'{{"id": {one}}}' for one in class_ids]
    else:
        labels = map(json.dumps, tree.class_names)
        nodes = [f'{{"label": {label}, "id": {one}}}' for label, one in zip(labels, class_ids, strict=True)]
    nodes += [f'{{"label": "", "id": {one}}}' for one in inner_ids]
    ids = inner_ids + [class_ids[cls] for cls in classes]
    write_node_link(path, nodes, tree, ids, edge_keys=(OLD_EDGES, EDGES))


def read_nbdt(path: Path) -> Tree:
    """Read a hierarchy in which every node has one parent; nodes with a single child are collapsed.

    Leaves with the ids ``f00000000`` ... by class, as `write_nbdt` makes them up, are these classes, and their labels
    are the names. Otherwise classes are numbered as they appear and named by their ids; the lines of NBDT's text file
    as ``class_names`` of `treesearch.exchange.import_tree` number them as NBDT does.

    Raises:
        TreeError: The JSON is of another shape, or the graph is no tree.
    """
    with reading(path, "NBDT hierarchy"):
        links = read_node_link(path)
        leaves = links.leaves.tolist()
        by_id = {str(links.ids[leaf]): leaf for leaf in leaves}
        check_distinct([str(links.ids[leaf]) for leaf in leaves])
        made_up = _made_up(0, len(leaves))
        if by_id.keys() != set(made_up):
            return tree_from_links(links.parent, leaves, range(len(leaves)), class_names=tuple(by_id))
        in_order = [by_id[one] for one in made_up]
        labels = shared_attribute([links.attributes[leaf] for leaf in in_order], "label", str)
        return tree_from_links(links.parent, in_order, range(len(leaves)), class_names=labels)


def _made_up(start: int, stop: int) -> list[str]:
    return [f"f{number:08d}" for number in range(start, stop)]
