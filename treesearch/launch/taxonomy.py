"""The taxonomy of a run's classes: what trees are searched from, and the builder of its own tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treesearch.config import TAXONOMY, Config
from treesearch.errors import ConfigError
from treesearch.taxonomy import Taxonomy, load_taxonomy


def run_taxonomy(config: Config, class_names: Sequence[str] | None) -> Taxonomy | None:
    """The taxonomy of ``environment.taxonomy`` over the classes; None where there is none.

    Raises:
        ConfigError: The data have no class names, or an action asks for a level that there is not.
        DataError: A class is not in it.
        TreeError: It cannot be read, or is no taxonomy.
    """
    path = config.environment.taxonomy
    if path is None:
        return None
    taxonomy = _by_names(path, class_names, where="environment.taxonomy")
    for name in config.environment.actions or ():
        level = name.removeprefix("taxonomy-").split("-")[0]
        if name.startswith("taxonomy-") and level.isdecimal() and int(level) > taxonomy.num_levels:
            raise ConfigError(
                f"action {name!r} must name a level of the taxonomy, 1 .. {taxonomy.num_levels}, but {str(path)!r} has"
                f" no level {level}"
            )
    return taxonomy


def named_taxonomy(
    name: str, options: Mapping[str, Any], class_names: Sequence[str] | None, *, own: Taxonomy | None
) -> tuple[Taxonomy | None, dict[str, Any]]:
    """Of the builder ``taxonomy``: the one that its option ``taxonomy`` names, or the run's, and the rest; else None.

    Args:
        name: Of the builder.
        options: Of the builder.
        class_names: Of the data.
        own: The run's.

    Raises:
        ConfigError: It names none and the run has none, or the data have no class names.
        DataError: A class is not in it.
        TreeError: It cannot be read, or is no taxonomy.
    """
    rest = dict(options)
    if name != TAXONOMY:
        return None, rest
    path = rest.pop(TAXONOMY, None)
    if path is not None:
        if not isinstance(path, str):
            raise ConfigError(f"{TAXONOMY} of builder {name!r} must be a file, but got {path!r:.60}")
        return _by_names(path, class_names, where=f"{TAXONOMY} of builder {name!r}"), rest
    if own is None:
        raise ConfigError(f"builder {name!r} needs environment.taxonomy, or {TAXONOMY}, a file of its own")
    return own, rest


def _by_names(path: str | Path, class_names: Sequence[str] | None, *, where: str) -> Taxonomy:
    if class_names is None:
        raise ConfigError(f"{where} is by class name, but the data have none; set data.class_names")
    return load_taxonomy(path, classes=class_names)
