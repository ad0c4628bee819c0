"""`build_tree`: the one entry to all builders, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.builders.balanced import balanced, flat, random
from treesearch.builders.categories import Categories, grouped
from treesearch.builders.clustering import clustered, interpolated
from treesearch.builders.frequency import adaptive, two_level
from treesearch.builders.huffman import huffman
from treesearch.builders.reassignment import NodeDirections, reassigned
from treesearch.builders.similar_huffman import similar_huffman
from treesearch.builders.taxonomic import taxonomic, taxonomy_source
from treesearch.errors import ConfigError, DataError, did_you_mean
from treesearch.tree import Tree, check_counts

Builder = Callable[..., Tree]

BUILDERS: dict[str, Builder] = {
    "flat": flat,
    "random": random,
    "balanced": balanced,
    "huffman": huffman,
    "similar-huffman": similar_huffman,
    "clustered": clustered,
    "interpolated": interpolated,
    "two-level": two_level,
    "adaptive": adaptive,
    "reassigned": reassigned,
    "categories": grouped,
    "taxonomy": taxonomic,
}
_PARAMETERS = {name: tuple(inspect.signature(builder).parameters) for name, builder in BUILDERS.items()}
_STANDARD_INPUTS = ("counts", "vectors", "seed", "directions", "categories", "taxonomy")


def build_tree(
    name: str,
    *,
    counts: ArrayLike,
    vectors: ArrayLike | None = None,
    seed: int = 0,
    directions: NodeDirections | None = None,
    categories: Categories | None = None,
    taxonomy: Any = None,
    **options: Any,
) -> Tree:
    """Build a tree with a named builder.

    Args:
        name: A key of `BUILDERS`.
        counts: [C] class counts, finite, >= 0, not all zero.
        vectors: [C, D] class vectors, finite; needed by builders that group by similarity.
        seed: Decides every random choice of the builder.
        directions: Trains the softmax of a node; needed by builders that go by what nodes have learned.
        categories: [C] or [C, L], the category of each class, integers or labels; needed by the builder of that name.
        taxonomy: Of the same classes, see `taxonomic`; needed by the builder of that name.
        **options: Options of the builder; see its docstring.

    Returns:
        The tree; its metadata records builder, options and seed, and of a taxonomy its path or the tree's hash.

    Raises:
        ConfigError: Unknown builder or option, or a value that the builder refuses.
        DataError: Counts, vectors, categories or taxonomy cannot be used.
        TreeError: The taxonomy cannot be read or is none.
    """
    builder = BUILDERS.get(name)
    if builder is None:
        raise ConfigError(f"unknown builder {name!r}{did_you_mean(name, BUILDERS)}")
    accepted = _PARAMETERS[name]
    allowed = [option for option in accepted if option not in _STANDARD_INPUTS]
    for option in options:
        if option not in allowed:
            raise ConfigError(f"builder {name!r} has no option {option!r}{did_you_mean(option, allowed)}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed must be an integer >= 0, but got {seed!r}")
    counts_C = check_counts(counts)
    inputs: dict[str, Any] = {"counts": counts_C}
    if "vectors" in accepted:
        inputs["vectors"] = None if vectors is None else check_vectors(vectors, counts_C.size)
    if "seed" in accepted:
        inputs["seed"] = seed
    if "directions" in accepted:
        inputs["directions"] = directions
    if "categories" in accepted:
        inputs["categories"] = categories
    if "taxonomy" in accepted:
        inputs["taxonomy"] = taxonomy
    tree = builder(**inputs, **options)
    plain = {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value for key, value in options.items()
    }
    if "taxonomy" in accepted:
        plain["taxonomy"] = taxonomy_source(taxonomy, tree)
    return tree.annotate(metadata={**tree.metadata, "builder": name, "options": plain, "seed": int(seed)})


def builder_label(name: str, options: Mapping[str, Any]) -> str:
    """A short unique name for a builder with options, such as ``clustered(arity=16)``; no options, no brackets."""
    if not options:
        return name
    return f"{name}({', '.join(f'{key}={value}' for key, value in sorted(options.items()))})"


def split_builder(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A builder's name and its options, from an entry such as ``{name: clustered, arity: 16}``.

    Raises:
        ConfigError: An option is one that builders are given by their caller.
    """
    options = dict(entry)
    name = str(options.pop("name"))
    for key in options:
        if given_by_caller(name, key):
            raise ConfigError(f"builder {name!r} takes {key} from the run; leave {key}: {options[key]!r:.60} out")
    return name, options


def given_by_caller(name: str, key: str) -> bool:
    """Whether an option is none of the builder's own: `build_tree` takes it. Two builders name what they take by it."""
    return key in _STANDARD_INPUTS and key != name


def check_vectors(vectors: ArrayLike, num_classes: int) -> NDArray[np.float32]:
    """Class vectors as contiguous float32 [C, D].

    Raises:
        DataError: Wrong shape, not numeric or not finite.
    """
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
            vectors_CD = np.ascontiguousarray(vectors, np.float32)
    except (TypeError, ValueError):
        raise DataError("vectors must be a matrix of numbers, one row per class") from None
    if vectors_CD.ndim != 2 or vectors_CD.shape[0] != num_classes or vectors_CD.shape[1] == 0:
        raise DataError(f"vectors must have shape ({num_classes}, D >= 1), but got {vectors_CD.shape}")
    finite = np.isfinite(vectors_CD).all(axis=1)
    if not finite.all():
        raise DataError(f"vectors must be finite, but the row of class {finite.argmin()} holds NaN or infinity")
    return vectors_CD
