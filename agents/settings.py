"""Checks of agents' settings."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from treesearch.errors import ConfigError


def check_settings(
    settings: Any,
    *,
    at_least: Mapping[str, float] | None = None,
    above: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
) -> None:
    """Refuse values out of range, and what is no integer in a field that is annotated as one.

    Args:
        settings: A dataclass.
        at_least: Fields and their smallest value.
        above: Fields and what they must exceed.
        at_most: Fields and their largest value.

    Raises:
        ConfigError: Rule and value.
    """
    for bounds, sign, holds in ((at_least, ">=", operator.ge), (above, ">", operator.gt), (at_most, "<=", operator.le)):
        for name, bound in (bounds or {}).items():
            value = getattr(settings, name)
            if not (holds(value, bound) and value < np.inf):
                raise ConfigError(f"{name} must be finite and {sign} {bound:g}, but got {value!r}")
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.type in ("int", int) and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{field.name} must be an integer, but got {value!r}")
