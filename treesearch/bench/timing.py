"""Times of contenders that take turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

TURN_SECONDS = 0.02  # of calls, one after the other: as in a loop, the first with cold caches not counted


def median_seconds(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of a call of each contender.

    Args:
        contenders: By name.
        repeats: Turns. A turn is one call that is not measured, and calls until `TURN_SECONDS` have passed, one at
            least; where one call takes longer than that, the first is measured too, but for the first turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    long: set[str] = set()
    for _ in range(repeats):
        for name, call in contenders.items():
            if name not in long and call_seconds(call) > TURN_SECONDS:
                long.add(name)
            until = perf_counter() + TURN_SECONDS
            while True:
                seconds[name].append(call_seconds(call))
                if perf_counter() >= until:
                    break
    return {name: median(values) for name, values in seconds.items()}


def call_seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    begin = perf_counter()
    call()
    return perf_counter() - begin
