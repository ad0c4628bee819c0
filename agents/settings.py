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
    """Refuse values out of range, what is no number, and what is no integer in a field that is annotated as one.

    Args:
        settings: A dataclass; its fields without a bound are not looked at.
        at_least: Fields and their smallest value.
        above: Fields and what they must exceed.
        at_most: Fields and their largest value.

    Raises:
        ConfigError: Rule and value.
    """
    types = {field.name: field.type for field in fields(settings)}
    for bounds, sign, holds in ((at_least, ">=", operator.ge), (above, ">", operator.gt), (at_most, "<=", operator.le)):
        for name, bound in (bounds or {}).items():
            value = getattr(settings, name)
            kind, noun = (int, "an integer") if types[name] in ("int", int) else ((int, float), "a number")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{name} must be {noun}, but got {value!r}")
            if not (holds(value, bound) and value < np.inf):
                raise ConfigError(f"{name} must be finite and {sign} {bound:g}, but got {value!r}")
            if not isinstance(value, kind):
                raise ConfigError(f"{name} must be {noun}, but got {value!r}")
