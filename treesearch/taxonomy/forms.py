"""Taxonomies from lists of paths, nested dicts and lists, and graphs of `networkx`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from treesearch.errors import MissingExtraError, TreeError
from treesearch.taxonomy.links import Parents, class_list, taxonomy_from_links
from treesearch.taxonomy.taxonomy import ROOT, Taxonomy

if TYPE_CHECKING:
    import networkx


def taxonomy_from_paths(
    paths: Iterable[str], *, classes: Sequence[str] | None = None, separator: str = "/"
) -> Taxonomy:
    """A taxonomy from paths such as ``animal/dog/poodle``; each path is a class, in their order.

    Nodes are known by their whole path. The name of a node is the last part of it, or the whole where another node
    has the same last part. A path that others go on from is a class at an inner node.

    Args:
        paths: Each once.
        classes: Names (or whole paths) of the classes instead of all paths.
        separator: Between the parts.

    Raises:
        TreeError: A path is no string, stands twice, or has an empty part; or the separator is empty.
        DataError: As in `taxonomy_from_edges`.
    """
    check_separator(separator)
    if isinstance(paths, str):
        raise TreeError(f"paths must be a list, but got the string {paths!r:.60}; give [{paths!r:.60}]")
    given = []
    for whole_path in paths:
        if not isinstance(whole_path, str):
            raise TreeError(f"paths must be strings, but got {whole_path!r:.60}; join its parts with {separator!r:.20}")
        given.append(tuple(part.strip() for part in whole_path.split(separator)))
    number_of: dict[tuple[str, ...], int] = {(): 0}
    child_E, parent_E = [], []
    for path in given:
        if not all(path):
            raise TreeError(f"a path must have no empty part, but got {separator.join(path)!r:.60}")
        for length in range(1, len(path) + 1):
            if path[:length] not in number_of:
                number_of[path[:length]] = len(number_of)
                child_E.append(number_of[path[:length]])
                parent_E.append(number_of[path[: length - 1]])
    class_node = np.array([number_of[path] for path in given], np.int64)
    if np.unique(class_node).size != class_node.size:
        twice = Counter(given).most_common(1)[0][0]
        raise TreeError(f"every path must stand once, but {separator.join(twice)!r:.60} stands twice; leave one out")
    last = Counter(path[-1] for path in number_of if path)
    whole = [separator.join(path) for path in number_of]
    names = [ROOT] + [
        path[-1] if last[path[-1]] == 1 else name for path, name in list(zip(number_of, whole, strict=True))[1:]
    ]
    wanted: Any = class_node
    if classes is not None:
        name_of = dict(zip(whole, names, strict=True))
        wanted = class_list(classes)
        if isinstance(wanted, list):
            wanted = [name_of.get(name, name) for name in wanted]
    return taxonomy_from_links(names, np.array(child_E, np.int32), np.array(parent_E, np.int32), classes=wanted)


def taxonomy_from_nested(nested: Any, *, classes: Sequence[str] | None = None) -> Taxonomy:
    """A taxonomy from nested dicts and lists, as JSON has them.

    ``{"animal": {"dog": ["poodle", "beagle"], "cat": {}}}``: keys are nodes, what they hold is below them; a string,
    ``{}``, ``[]`` or ``None`` has nothing below it. Or objects with ``name`` and ``children``:
    ``{"name": "dog", "children": [{"name": "poodle"}]}``. Other keys of such an object are ignored; without
    ``children`` it is one if it holds strings, numbers and ``None`` alone. White space around names is dropped.

    Args:
        nested: The whole; keys at the top are level 1, but an object with ``name`` is the root itself.
        classes: As in `taxonomy_from_edges`.

    Raises:
        TreeError: Another shape, or a name that stands twice.
        DataError: As in `taxonomy_from_edges`.
    """
    names, child_E, parent_E = [ROOT], [], []
    top = nested
    if _is_object(nested):
        names, top = [_name(nested["name"])], nested.get("children") or []
    stack: list[tuple[int, Any]] = [(0, top)]
    while stack:
        above, content = stack.pop()
        below: list[tuple[Any, Any]] = []
        if _is_object(content):
            below = [(content["name"], content.get("children"))]
        elif isinstance(content, Mapping):
            below = list(content.items())
        elif isinstance(content, list | tuple):
            for entry in content:
                if _is_object(entry):
                    below.append((entry["name"], entry.get("children")))
                elif isinstance(entry, Mapping):
                    below.extend(entry.items())
                else:
                    below.append((entry, None))
        elif content is not None:
            below = [(content, None)]
        first = len(names)
        for name, _ in below:
            child_E.append(len(names))
            parent_E.append(above)
            names.append(_name(name))
        stack.extend((first + place, inside) for place, (_, inside) in reversed(list(enumerate(below))))
    return taxonomy_from_links(names, np.array(child_E, np.int32), np.array(parent_E, np.int32), classes=classes)


def taxonomy_from_networkx(
    graph: networkx.DiGraph[Any], *, classes: Sequence[str] | None = None, parents: Parents = "first"
) -> Taxonomy:
    """A taxonomy from a directed acyclic graph whose edges run from parent to child; nodes are named by ``str``.

    A single node without parents is the root; several stand below the root ``ROOT``.

    Args:
        graph: Names must differ.
        classes: As in `taxonomy_from_edges`.
        parents: As there. ``first`` goes by the order in which the edges were added.

    Raises:
        MissingExtraError: networkx is not installed.
        TreeError: It is no directed graph, or has a cycle, no node, or a node of several parents under
            ``parents="error"``.
        DataError: As in `taxonomy_from_edges`.
    """
    try:
        import networkx
    except ImportError:
        raise MissingExtraError("networkx", "interop") from None
    if not isinstance(graph, networkx.DiGraph) or graph.is_multigraph():
        raise TreeError(f"a networkx.DiGraph must be given, but got {type(graph).__name__}")
    if not networkx.is_directed_acyclic_graph(graph):
        cycle = " -> ".join(f"{above!r:.40}" for above, _ in networkx.find_cycle(graph)[:5])
        raise TreeError(f"a taxonomy must have no cycle, but {cycle} leads back; remove one of these edges")
    nodes = list(graph.nodes)
    roots = [node for node in nodes if graph.in_degree(node) == 0]
    if len(roots) == 1:
        nodes.remove(roots[0])
        names, number_of = [str(roots[0])], {roots[0]: 0}
    else:
        names, number_of = [ROOT], {}
    number_of |= {node: number for number, node in enumerate(nodes, start=1)}
    names += [str(node) for node in nodes]
    child_E = [number_of[root] for root in roots] if len(roots) > 1 else []
    parent_E = [0] * len(child_E)
    for node in nodes:
        for above in graph.predecessors(node):
            child_E.append(number_of[node])
            parent_E.append(number_of[above])
    return taxonomy_from_links(
        names, np.array(child_E, np.int32), np.array(parent_E, np.int32), classes=classes, parents=parents
    )


def _is_object(content: Any) -> bool:
    """Whether a mapping is one node: a string ``name`` with ``children``, or with plain values alone."""
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        return False
    return "children" in content or all(value is None or isinstance(value, str | Number) for value in content.values())


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise TreeError(f"names of a nested taxonomy must be strings, not empty, but got {name!r:.60}")
    return name.strip()


def accepted(options: Mapping[str, Any], source: str, *names: str) -> dict[str, Any]:
    """The options, of which the source takes ``names``; ``parents="error"`` is what all others do anyway."""
    accepted = {name: options[name] for name in options if name in names}
    for name, value in options.items():
        if name not in names and not (name == "parents" and isinstance(value, str) and value == "error"):
            takes = f"the option {', '.join(names)} alone" if names else "no options"
            shown = " ".join(repr(value).split())
            raise TreeError(f"{source} takes {takes}, but got {name}={shown:.40}; leave it out")
    return accepted


def check_separator(separator: Any) -> None:
    """Refuse what cannot separate the parts of a path.

    Raises:
        TreeError: It is no string, or empty.
    """
    if not isinstance(separator, str) or not separator:
        raise TreeError(f"the separator of paths must be a string, not empty, but got {separator!r:.40}; give '/'")
