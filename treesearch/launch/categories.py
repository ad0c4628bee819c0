"""Categories of classes by name: a rule that is built in, or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.config import Config
from treesearch.data import Dataset
from treesearch.data.categories import load_categories, number_categories
from treesearch.data.morphology import morphology_categories, stream_positions
from treesearch.data.syntax import syntax_categories
from treesearch.errors import ConfigError, did_you_mean

CATEGORIES = "categories"  # the builder, and its option that names what its groups are
TokenStream = NDArray[np.integer] | None  # [T], the training text as class ids, where classes are words of a text


def _by_morphology(class_names: Sequence[str], stream: TokenStream) -> Sequence[str]:
    statistics = None if stream is None else stream_positions(class_names, stream)
    return morphology_categories(class_names, statistics)


RULES: dict[str, Callable[[Sequence[str], TokenStream], Sequence[str]]] = {
    "syntax": lambda class_names, _: syntax_categories(class_names),
    "morphology": _by_morphology,
}


def token_stream(config: Config, dataset: Dataset) -> TokenStream:
    """The training text as class ids; None where the data are no text."""
    return dataset.train.labels if config.data.kind == "text" else None


def resolve_categories(
    wanted: object, class_names: Sequence[str] | None, *, where: str, stream: TokenStream = None
) -> NDArray[np.int64]:
    """The category of each class, int64 [C].

    Args:
        wanted: ``syntax`` (`treesearch.data.syntax`), ``morphology`` (`treesearch.data.morphology`, from the training
            text where there is one, else from the markers of units alone) or a file of lines ``class name TAB
            category``; of a file with such a name, give the folder too.
        class_names: C names; None where the data have none.
        where: What error messages call the setting.
        stream: The training text.

    Raises:
        ConfigError: ``wanted`` is none of these, or there are no names.
        DataError: The file cannot be used, or the names follow no convention of subword units.
    """
    if not isinstance(wanted, str | Path):
        raise ConfigError(f"{where} must be {', '.join(RULES)} or the path of a file, but got {wanted!r:.60}")
    if class_names is None:
        raise ConfigError(f"{where} are by class name, but the data have none; set data.class_names")
    rule = RULES.get(str(wanted))
    if rule is not None:
        return number_categories(rule(class_names, stream))
    path = Path(wanted)
    if path.name == str(wanted) and not path.suffix and not path.exists():
        raise ConfigError(
            f"{where} must be the name of a rule or of a file that exists, but got {str(wanted)!r:.60}"
            f"{did_you_mean(str(wanted), RULES)}"
        )
    return load_categories(path, class_names)


def named_categories(
    name: str, options: Mapping[str, Any], class_names: Sequence[str] | None, stream: TokenStream
) -> tuple[NDArray[np.int64] | None, dict[str, Any]]:
    """Of the builder ``categories``: the categories that its option of that name tells, and the rest; else None.

    Args:
        name: Of the builder.
        options: Of the builder.
        class_names: As for `resolve_categories`.
        stream: As for `resolve_categories`.

    Raises:
        ConfigError: The option is missing, or as in `resolve_categories`.
        DataError: As in `resolve_categories`.
    """
    rest = dict(options)
    if name != CATEGORIES:
        return None, rest
    where = f"{CATEGORIES} of builder {name!r}"
    if CATEGORIES not in rest:
        raise ConfigError(f"{where} must be given: {', '.join(RULES)}, or a file of lines 'class name TAB category'")
    return resolve_categories(rest.pop(CATEGORIES), class_names, where=where, stream=stream), rest
