"""From named links between children and parents to a checked `Taxonomy`.

Shapes: **T'** nodes as they were given, **T** nodes of the taxonomy, **C** classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from treesearch import tree_kernels
from treesearch.errors import DataError, TreeError, did_you_mean
from treesearch.taxonomy.taxonomy import ROOT, Taxonomy

Entry = TypeVar("Entry", str, int)
Parents = Literal["error", "first", "shallowest", "deepest"]
SHOWN = 5  # nodes of a cycle in a message
CONTROL = re.compile(r"[\t\r\n]")


def taxonomy_from_edges(
    edges: Iterable[tuple[str, str]], *, classes: Sequence[str] | None = None, parents: Parents = "error"
) -> Taxonomy:
    """A taxonomy from pairs (child, parent), in any order; the parent ``ROOT`` is the root and has none itself.

    Args:
        edges: Names. A parent that is no child anywhere, and not ``ROOT``, is an error.
        classes: Names of C different nodes, inner ones included: class i is ``classes[i]``. Nodes without a class at or
            below them are left out. None: all nodes without children, in the order in which they appear.
        parents: What to do with a node of several different parents. ``error``: refuse it; ``first``: keep the first
            that is given; ``shallowest`` or ``deepest``: the one with the shortest or longest way to the root, the
            first of equals.

    Raises:
        TreeError: A cycle, a node with several parents, a parent that is nowhere, no node at all, or a name that is
            empty or has white space at an end.
        DataError: A class is not in the taxonomy, or stands twice.
    """
    links = list(edges)
    check_names(name for link in links for name in link)
    names = list(dict.fromkeys(child for child, _ in links))
    node_of = {name: node for node, name in enumerate(names, start=1)}
    if ROOT in node_of:
        raise TreeError(f"{ROOT!r} is the root and has no parent; rename the node, or leave its line out")
    node_of[ROOT] = 0
    child_E = np.array([node_of[child] for child, _ in links], np.int32)
    parent_E = np.array([node_of.get(parent, -1) for _, parent in links], np.int32)
    if (parent_E < 0).any():
        child, parent = links[int(np.flatnonzero(parent_E < 0)[0])]
        if parent.upper() == ROOT:
            raise TreeError(
                f"the root must be written {ROOT!r}, but the parent of {child!r:.60} is {parent!r}; rename it"
            )
        raise TreeError(
            f"every parent must have one itself, or be {ROOT!r}, but {parent!r:.60}, the parent of {child!r:.60}, has"
            f" none; add a line {parent!r:.60} TAB {ROOT!r}"
        )
    return taxonomy_from_links([ROOT, *names], child_E, parent_E, classes=classes, parents=parents)


def taxonomy_from_links(
    names: Sequence[str],
    child_E: NDArray[np.int32],
    parent_E: NDArray[np.int32],
    *,
    classes: Sequence[str] | NDArray[Any] | None = None,
    parents: Parents = "error",
) -> Taxonomy:
    """A taxonomy from links between numbered nodes, of which node 0 is the root; see `taxonomy_from_edges`.

    Args:
        names: [T'] a name for each node, without white space at its ends; those that are kept must differ.
        child_E: int32, the child of each link.
        parent_E: int32, its parent.
        classes: As in `taxonomy_from_edges`, or numbers of nodes.
        parents: As in `taxonomy_from_edges`.

    Raises:
        TreeError: As there.
        DataError: As there.
    """
    if parents not in get_args(Parents):
        raise TreeError(f"parents must be one of {', '.join(map(repr, get_args(Parents)))}, but got {parents!r:.40}")
    if not child_E.size:
        raise TreeError("a taxonomy must have at least one node below the root, but it has none")
    check_names(names)
    child_E, parent_E = _once(child_E, parent_E, len(names))
    parent_T = _one_parent(names, child_E, parent_E, parents)
    given_T = np.arange(len(names), dtype=np.int32)
    child_ptr, child_idx = tree_kernels.children_csr(parent_T, given_T, len(names))
    order = tree_kernels.breadth_first(child_ptr, child_idx, 0, len(names))
    if order.size != len(names):
        reached = np.zeros(len(names), np.bool_)
        reached[order] = True
        raise TreeError(_cycle_message(names, parent_T, int(np.flatnonzero(~reached)[0])))
    if classes is None:
        class_node = np.flatnonzero(np.diff(child_ptr) == 0)
    else:
        class_node = _class_nodes(names, class_list(classes))
    kept = np.zeros(len(names), np.int64)
    kept[class_node] = 1
    kept[0] = 1
    for node in order[::-1].tolist():
        if kept[node] and parent_T[node] >= 0:
            kept[parent_T[node]] = 1
    order = order[kept[order] > 0]
    new_id = np.full(len(names) + 1, Taxonomy.NO_NODE, np.int32)  # the last entry is the parent of the root
    new_id[order] = np.arange(order.size)
    kept_names = tuple(names[node] for node in order.tolist())
    twice = _first_repeated(kept_names)
    if twice is not None:
        raise TreeError(f"every node must have a name of its own, but {twice!r:.60} stands twice; rename one")
    return Taxonomy(new_id[parent_T[order]], kept_names, new_id[class_node])


def check_names(names: Iterable[object]) -> None:
    """Raise a `TreeError` if a name is no string, is empty, or begins or ends with white space."""
    for name in names:
        if not isinstance(name, str) or not name or name != name.strip() or CONTROL.search(name):
            raise TreeError(
                "names must be strings without tabs or line ends, not empty and without white space at their ends, but"
                f" got {name!r:.60}; rename it"
            )


def class_list(classes: Sequence[str] | NDArray[Any]) -> list[str] | NDArray[np.int64]:
    """Classes as a list of names; an array of integers, numbers of nodes, is kept.

    Raises:
        DataError: They are neither.
    """
    if isinstance(classes, np.ndarray) and classes.dtype.kind in "iu" and classes.ndim == 1:
        return classes.astype(np.int64)
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise DataError(f"classes must be a list of names, but got {classes!r:.60}; give [{classes!r:.60}]")
    listed = classes.tolist() if isinstance(classes, np.ndarray) else list(classes)
    wrong = [entry for entry in listed if not isinstance(entry, str)] if isinstance(listed, list) else [listed]
    if wrong:
        raise DataError(f"classes must be a list of names, but it has {wrong[0]!r:.60}; give names of nodes")
    return listed


def _once(
    child_E: NDArray[np.int32], parent_E: NDArray[np.int32], num_nodes: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The links without those that were given before."""
    first_E = np.unique(child_E.astype(np.int64) * num_nodes + parent_E, return_index=True)[1]
    first_E.sort()
    return child_E[first_E], parent_E[first_E]


def _one_parent(
    names: Sequence[str], child_E: NDArray[np.int32], parent_E: NDArray[np.int32], parents: Parents
) -> NDArray[np.int32]:
    """The parent of each node that the rule keeps, int32 [T'], -1 at the root."""
    parent_T = np.full(len(names), Taxonomy.NO_NODE, np.int32)
    first_E = np.unique(child_E, return_index=True)[1]
    parent_T[child_E[first_E]] = parent_E[first_E]
    if first_E.size == child_E.size or parents == "first":
        return parent_T
    if parents == "error":
        repeated = np.setdiff1d(np.arange(child_E.size), first_E)
        node = int(child_E[repeated[0]])
        above = [names[parent] for parent in parent_E[child_E == node].tolist()]
        raise TreeError(
            f"every node must stand under one parent, but {names[node]!r:.60} is given {len(above)} times, under"
            f" {', '.join(f'{name!r:.40}' for name in above[:SHOWN])}; give it one, or a rule: parents='first',"
            " 'shallowest' or 'deepest' (treesearch apply taxonomy: --parents first)"
        )
    depth_T = _depths(names, child_E, parent_E, longest=parents == "deepest")
    sign = -1 if parents == "deepest" else 1
    # A stable sort by child, then by the depth of the parent, keeps the first of equals.
    order_E = np.lexsort((sign * depth_T[parent_E], child_E))
    best_E = order_E[np.unique(child_E[order_E], return_index=True)[1]]
    parent_T[child_E[best_E]] = parent_E[best_E]
    return parent_T


def _depths(
    names: Sequence[str], child_E: NDArray[np.int32], parent_E: NDArray[np.int32], *, longest: bool
) -> NDArray[np.int64]:
    """Edges on the shortest or longest way from the root to each node, in topological order (Kahn 1962)."""
    num = len(names)
    order_E = np.argsort(parent_E, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(parent_E, minlength=num))]).tolist()
    below = child_E[order_E].tolist()
    waiting = np.bincount(child_E, minlength=num).tolist()
    depth = [0] * num if longest else [num] * num
    depth[0] = 0
    ready, done = [node for node in range(num) if not waiting[node]], 0
    choose = max if longest else min
    while ready:
        node = ready.pop()
        done += 1
        for edge in range(ptr[node], ptr[node + 1]):
            child = below[edge]
            depth[child] = choose(depth[child], depth[node] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    if done != num:
        first = np.full(num, Taxonomy.NO_NODE, np.int32)
        stuck = [node for node in range(num) if waiting[node]]
        inside = set(stuck)
        for child, parent in zip(child_E.tolist(), parent_E.tolist(), strict=True):
            if parent in inside:
                first[child] = parent
        raise TreeError(_cycle_message(names, first, stuck[0]))
    return np.array(depth, np.int64)


def _cycle_message(names: Sequence[str], parent_T: NDArray[np.int32], node: int) -> str:
    """A message that names the cycle that is reached upwards from ``node``."""
    seen: dict[int, int] = {}
    while node not in seen:
        seen[node] = len(seen)
        node = int(parent_T[node])
    cycle = [f"{names[one]!r:.40}" for one, place in seen.items() if place >= seen[node]]
    shown = " -> ".join([*cycle[:SHOWN], *([".."] if len(cycle) > SHOWN else [])])
    return f"a taxonomy must have no cycle, but {shown} leads back to {cycle[0]}; remove one of these links"


def _class_nodes(names: Sequence[str], classes: list[str] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The node of each class, int64 [C]."""
    if not len(classes):
        raise DataError("a taxonomy needs at least one class, but classes is empty")
    if isinstance(classes, np.ndarray):
        outside = classes[(classes < 0) | (classes >= len(names))]
        if outside.size:
            raise DataError(
                f"numbers of nodes must lie in 0 .. {len(names) - 1}, but classes has {outside[0]}; give names"
            )
        class_node = classes
    else:
        node_of = {name: node for node, name in enumerate(names)}
        missing = [name for name in dict.fromkeys(classes) if name not in node_of]
        if missing:
            shown = ", ".join(f"{name!r:.40}" for name in missing[:3]) + (", .." if len(missing) > 3 else "")
            raise DataError(
                f"every class must be in the taxonomy, but {len(missing)} of {len(classes)} are not ({shown})"
                f"{did_you_mean(missing[0], names[1:])}; add what is missing"
            )
        wanted = set(classes)
        twice_named = _first_repeated([name for name in names if name in wanted])
        if twice_named is not None:  # which of the nodes would be the class?
            raise TreeError(f"every node must have a name of its own, but {twice_named!r:.60} stands twice; rename one")
        class_node = np.array([node_of[name] for name in classes], np.int64)
    twice = _first_repeated(class_node.tolist())
    if twice is not None:
        raise DataError(f"every class must stand once, but {names[twice]!r:.60} stands twice; leave one out")
    return class_node


def _first_repeated(entries: Sequence[Entry]) -> Entry | None:
    """The first entry that stands a second time; None where there is none."""
    seen: set[Entry] = set()
    for entry in entries:
        if entry in seen:
            return entry
        seen.add(entry)
    return None
