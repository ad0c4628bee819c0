"""What ``comparison.json`` holds, and the check that it does: what has passed can be shown without a second look.

Keys that are not listed are allowed. What is not required was added by a later version, or does not apply to every run.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic brings it, and takes no other before Python 3.12

from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN

Whole = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Nats = Annotated[float, Field(ge=0, lt=709)]  # its perplexity is a number


class Bounds(TypedDict):
    """A mean with its 95 % interval."""

    mean: Number
    low: Number
    high: Number


class Interval(Bounds):
    """The same over so many seeds."""

    n: Annotated[Whole, Field(ge=1)]


class Loss(Interval):
    """The same of a loss."""

    mean: Nats


class Gain(TypedDict):
    """What `treesearch.report.gains.gain_over_builders` gives."""

    best_builder: NotRequired[Name]
    reward_gain: NotRequired[Interval]


class WeightedGain(Gain):
    """The best found tree under one λ."""

    name: Name
    cost_weight: Number


class Row(Gain):
    """One confirmed tree."""

    name: Name
    kind: str
    tree: str
    test_nll: Loss
    valid_nll: Nats
    perplexity: Number
    cost: Number
    expected_depth: Number
    dot_products: Number
    max_depth: Whole
    reward: NotRequired[Number]  # not before 2026-11-24, when rewards charged the analytic cost alone
    cost_measured_us: NotRequired[Number | None]
    frozen_nll: NotRequired[float | None]
    frozen_reward: NotRequired[float | None]  # minus infinity without a score
    learning_rate: NotRequired[Number | None]
    head_us: NotRequired[Number | None]
    head_spread_us: NotRequired[Number | None]
    step_us: NotRequired[Number | None]
    step_spread_us: NotRequired[Number | None]
    metrics: NotRequired[dict[str, Interval] | None]
    difference: NotRequired[Interval]
    perplexity_change: NotRequired[Bounds]
    difference_over_tokens: NotRequired[Interval]


class Point(TypedDict):
    """One tree of a front."""

    tree: str
    name: Name
    kind: str
    valid_nll: Number
    cost: Number


class Hypervolume(TypedDict):
    """What is dominated; empty where there is no tree."""

    found: NotRequired[Number]
    baseline: NotRequired[Number]
    reference_cost: NotRequired[Number]
    reference_nll: NotRequired[Number]


class Front(TypedDict):
    """The trees of a rung that no other one beats in both NLL and cost."""

    points: list[Point]
    hypervolume: Hypervolume
    cost_kind: str


class Agreement(TypedDict):
    """How far two rungs agree."""

    kendall_tau: float | None


def _told_as_a_whole(gain: Any) -> Any:
    if ("best_builder" in gain) != ("reward_gain" in gain):
        raise ValueError("best_builder and reward_gain must be given together")
    return gain


def _with_hypervolume(front: Any) -> Any:
    if front["points"] and (missing := sorted(Hypervolume.__annotations__.keys() - front["hypervolume"].keys())):
        raise ValueError(f"hypervolume of a front with points must have {', '.join(missing)}")
    return front


def _comparable(rows: Any) -> Any:
    huffman = next((row for row in rows if row["name"] == HUFFMAN), None)
    for key in ("cost_measured_us", "head_us", "step_us"):
        known = [row.get(key) is not None for row in rows]
        if any(known) and not all(known):
            raise ValueError(f"{key} must be a number in all rows or in none")
    if huffman is not None and not all("perplexity_change" in row for row in rows):
        raise ValueError(f"perplexity_change must be in all rows beside one of {HUFFMAN}")
    return rows


_Told = AfterValidator(_told_as_a_whole)
_Front = Annotated[Front, AfterValidator(_with_hypervolume)]


class Fronts(TypedDict):
    """By rung."""

    frozen: NotRequired[_Front | None]
    joint: NotRequired[_Front | None]


class Comparison(TypedDict):
    """The whole file."""

    rows: Annotated[list[Annotated[Row, _Told]], AfterValidator(_comparable)]
    gains: NotRequired[list[Annotated[WeightedGain, _Told]] | None]
    agent: str
    evaluations: Whole
    failures: Whole
    stopped: NotRequired[Whole | None]
    seeds: Whole
    cost_weight: Number
    cost_kind: NotRequired[str]
    fronts: NotRequired[Fronts | None]
    rank_correlation: NotRequired[Agreement | None]
    screen_correlation: NotRequired[Agreement | None]


assert Hypervolume.__annotations__.keys() >= {FOUND, BASELINE}


@cache
def _adapter() -> TypeAdapter[Comparison]:
    return TypeAdapter(Comparison)


def checked(content: Any) -> dict[str, Any]:
    """The content of a comparison; rows of the first versions get the ``reward`` that they lack.

    Args:
        content: What the JSON file holds.

    Raises:
        ValueError: It is no comparison: where, what must be there, and what is.
    """
    try:
        _adapter().validate_python(content, strict=True)
    except ValidationError as error:
        raise ValueError(_first_of(error)) from None
    for row in content["rows"]:
        row.setdefault("reward", -row["test_nll"]["mean"] - content["cost_weight"] * row["cost"])
    whole: dict[str, Any] = content
    return whole


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] in ("missing", "value_error") else f", but got {first['input']!r:.60}"
    return f"{where or 'the whole'}: {message[:1].lower()}{message[1:]}{shown}"
