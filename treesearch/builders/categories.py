"""Trees in which every category of classes is one subtree: Huffman over the categories, and any tree within each.

Shapes: **C** classes, **L** levels of categories, coarse to fine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.builders.assembly import TreeAssembly
from treesearch.builders.balanced import balanced, check_arity, flat
from treesearch.builders.clustering import clustered, interpolated
from treesearch.builders.huffman import huffman
from treesearch.builders.similar_huffman import similar_huffman
from treesearch.errors import ConfigError, DataError
from treesearch.tree import Tree

Categories = ArrayLike | Sequence[str]

WITHIN: dict[str, Callable[..., Tree]] = {
    "huffman": huffman,
    "similar-huffman": similar_huffman,
    "clustered": clustered,
    "interpolated": interpolated,
    "balanced": balanced,
    "flat": flat,
}
TOP = ("huffman", "flat")
_PARAMETERS = {name: frozenset(inspect.signature(builder).parameters) for name, builder in WITHIN.items()}


def grouped(
    *,
    counts: NDArray[np.float64],
    vectors: NDArray[np.float32] | None = None,
    seed: int = 0,
    categories: Categories | None = None,
    within: str = "huffman",
    top: str = "huffman",
    arity: int = 2,
) -> Tree:
    """Decide the category first, then the class in it; with several levels, from the coarsest to the finest.

    With ``top`` and ``within`` both ``huffman`` it is the tree of least expected depth among those in which every
    category is one subtree: the expected depth is the sum of that over the categories and that within each, and each
    part is least by itself (Huffman 1952).

    Args:
        counts: [C] class counts.
        vectors: [C, D] class vectors, where ``within`` goes by similarity.
        seed: Of the builder within categories.
        categories: Integers or labels, [C], or [C, L] with the coarsest level first; of a finer level, those of
            different coarser categories are never one. Two at least.
        within: Builder of the tree over the classes of each finest category, a key of `WITHIN`.
        top: ``huffman`` (decisions among categories by their mass) or ``flat`` (one decision among all of them).
        arity: Children per node, of ``top="huffman"`` and of ``within``; of a binary ``within`` it must be 2.

    A category that holds one class, or one finer category, takes no decision. The tree depends on the grouping alone,
    not on what categories are called: ties go to the category with the smaller class id. O(C log C) for each level, and
    what ``within`` takes.

    Raises:
        DataError: The categories are missing, do not fit the classes or are all one, or vectors are needed and missing.
        ConfigError: Unknown ``within`` or ``top``, or an arity that does not apply.
    """
    check_arity(arity)
    if top not in TOP:
        raise ConfigError(f"top must be 'huffman' or 'flat', but got {top!r:.40}")
    build_within = _within(within, arity, seed)
    if arity != 2 and "arity" not in _PARAMETERS[within] and (within != "flat" or top == "flat"):
        raise ConfigError(
            f"arity must be 2 with top: {top}, within: {within}, which has none, but got {arity}; leave it out"
        )
    if categories is None:
        raise DataError("builder 'categories' needs the category of each class, but got none; pass categories")
    category_CL = check_categories(categories, counts.size)
    assembly = TreeAssembly()
    stack = [(Tree.NO_PARENT, np.arange(counts.size), 0)]
    while stack:
        parent, classes, level = stack.pop()
        if classes.size == 1:
            assembly.add_leaves(parent, classes)
            continue
        if level == category_CL.shape[1]:
            subtree = build_within(counts[classes], None if vectors is None else vectors[classes])
            assembly.graft(parent, subtree, classes)
            continue
        parts = sorted(parts_by_number(classes, category_CL[classes, level]), key=lambda part: int(part[0]))
        mass = np.array([counts[part].sum() for part in parts])
        over = flat(counts=mass) if top == "flat" else huffman(counts=mass, arity=arity)
        below = assembly.graft_top(parent, over).tolist()
        stack.extend((node, part, level + 1) for node, part in zip(below, parts, strict=True))
    return assembly.finish()[0]


def check_categories(categories: Categories, num_classes: int) -> NDArray[np.int64]:
    """Categories as int64 [C, L], each level numbered from 0.

    Args:
        categories: As for `grouped`.
        num_classes: C.

    Raises:
        DataError: Not one category a class and level, neither integers nor labels, a class has none (a negative
            number, None or an empty label), or there is one category in all where there are several classes.
    """
    shape: tuple[int, ...] = ()
    try:
        given = np.asarray(categories)
        shape = given.shape
    except ValueError:
        given = np.zeros(0)
    if len(shape) not in (1, 2) or shape[0] != num_classes or 0 in shape:
        raise DataError(
            f"categories must be one per class ({num_classes}), or one per class and level, but got shape {shape}"
        )
    rows = given.reshape(num_classes, -1)
    if rows.dtype.kind in "iu":
        missing = (rows < 0).any(axis=1)
    else:
        rows = np.array(categories, object).reshape(num_classes, -1)  # numpy would make labels of numbers among them
        missing = np.array([any(label is None or label == "" for label in row) for row in rows])
        wrong = next((label for label in rows[~missing].flat if not isinstance(label, str)), None)
        if wrong is not None:
            raise DataError(f"categories must be integers or labels (strings), but got {wrong!r:.40}")
    if missing.any():
        raise DataError(
            f"every class must have a category, but class {missing.argmax()} has none; make one for such classes"
        )
    levels = (rows.astype(str) if rows.dtype == object else rows).T
    numbers = [np.unique(level, return_inverse=True)[1] for level in levels]
    category_CL = np.stack(numbers, axis=1).astype(np.int64)
    if num_classes > 1 and not category_CL.any():
        raise DataError(
            f"there must be two categories at least, but all {num_classes} classes are of {rows[0, 0]!s:.40};"
            " use the builder of `within` itself"
        )
    return category_CL


def _within(name: str, arity: int, seed: int) -> Callable[[NDArray[np.float64], NDArray[np.float32] | None], Tree]:
    if not isinstance(name, str) or name not in WITHIN:
        raise ConfigError(f"within must be one of {', '.join(WITHIN)}, but got {name!r:.40}")
    accepted = _PARAMETERS[name]
    own: dict[str, Any] = {key: value for key, value in {"arity": arity, "seed": seed}.items() if key in accepted}

    def build(counts: NDArray[np.float64], vectors: NDArray[np.float32] | None) -> Tree:
        return WITHIN[name](counts=counts, **own, **({"vectors": vectors} if "vectors" in accepted else {}))

    return build


def parts_by_number(classes: NDArray[np.int64], number: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """``classes`` (rising) parted by a number for each, by rising number; each part of rising ids."""
    order = np.argsort(number, kind="stable")
    return np.split(classes[order], np.flatnonzero(np.diff(number[order])) + 1)
