"""Ways to damage a JSON value in one place, as an editor or a cut-off copy does."""

import json
from collections.abc import Iterator
from typing import Any

DELETED = object()
# In the place of whatever stands there.
DAMAGES = (DELETED, None, "text", "", [], [1, "x"], {}, {"x": [None]}, True, -1, 10**400, float("nan"), float("inf"))

Place = tuple[str | int, ...]


def places(value: Any, *, here: Place = ()) -> Iterator[Place]:
    """Every place below the top; of a list its first and its last entry stand for all."""
    if isinstance(value, dict):
        below: Any = value
    else:
        below = sorted({0, len(value) - 1}) if isinstance(value, list) and value else ()
    for key in below:
        yield (*here, key)
        yield from places(value[key], here=(*here, key))


def damaged(value: Any, place: Place, damage: Any) -> Any:
    """A copy with this damage in this place."""
    whole = json.loads(json.dumps(value))
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    if damage is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = damage
    return whole
