"""What names a class in a foreign file, and which class a label of such a file stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import TreeError
from treesearch.tree import Tree


def class_labels(tree: Tree) -> list[str]:
    """The label of each class, [C]: its name, or its id where the tree has no names.

    Raises:
        TreeError: Two classes have one name, which a format that knows classes by their labels cannot tell apart.
    """
    if tree.class_names is None:
        return list(map(str, range(tree.num_classes)))
    check_distinct(tree.class_names)
    return list(tree.class_names)


def check_distinct(labels: Sequence[str]) -> None:
    """Refuse a label that stands twice.

    Raises:
        TreeError: Names the first such label.
    """
    if len(set(labels)) == len(labels):
        return
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        if first.setdefault(label, index) != index:
            raise TreeError(f"every class must have a label of its own, but {_shown(label)} stands twice; rename one")


def ids_of_labels(labels: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """The class that each leaf's label stands for, in a file that says nothing else of it.

    Labels that are exactly the integers 0 .. C-1 are class ids; any others are names, and their classes are numbered
    as they appear.

    Args:
        labels: [C], of the leaves in the order of the file.

    Returns:
        Class ids, int64 [C], and the names by class, None where the labels are ids.

    Raises:
        TreeError: Two leaves have one label.
    """
    check_distinct(labels)
    if set(labels) == set(map(str, range(len(labels)))):
        return np.array(list(map(int, labels)), np.int64), None
    return np.arange(len(labels)), tuple(labels)


def relabel(tree: Tree, class_names: Sequence[str]) -> Tree:
    """The tree with its classes numbered by ``class_names``: the class of a name is its position there.

    A tree without names whose ids are not among ``class_names`` keeps its ids, and the names are put to them.

    Raises:
        TreeError: The tree has a label that is not among the names, or a name has no leaf, or two names are the same.
    """
    names = tuple(class_names)
    check_distinct(names)
    labels = class_labels(tree)
    position = {name: index for index, name in enumerate(names)}
    unknown = [label for label in labels if label not in position]
    if unknown and tree.class_names is None:
        return tree.annotate(class_names=names)
    if unknown:
        raise TreeError(
            f"every label must be one of the {len(names)} class names, but {len(unknown)} are not, such as"
            f" {_shown(unknown[0])}; correct the names"
        )
    if len(names) != len(labels):
        with_leaf = set(labels)
        missing = next(name for name in names if name not in with_leaf)
        raise TreeError(
            f"every class name must have a leaf, but {len(names) - len(labels)} have none, such as {_shown(missing)}"
        )
    class_of_label = np.array([position[label] for label in labels], np.int64)
    return Tree.from_parents(
        tree.parent,
        class_of_label[tree.leaf_class],
        projection_dim=tree.projection_dim,
        class_names=names,
        metadata=tree.metadata,
    )


def _shown(label: str) -> str:
    return f"{label!r:.60}"
