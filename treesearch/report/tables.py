"""The comparison with Huffman as rows and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from treesearch.cost import CostModel
from treesearch.evaluation.comparison import bootstrap_interval, paired_difference, t_interval
from treesearch.evaluation.predictions import HIT_RATE, NDCG
from treesearch.evaluation.timing import StepTime
from treesearch.report.gains import gain_note, gain_over_builders
from treesearch.search.confirm import Confirmed
from treesearch.search.promotion import FOUND, HUFFMAN

CANDIDATE = "candidate"
SHORT = {HIT_RATE: "HR@10", NDCG: "NDCG@10"}  # headings
TOKEN_BLOCK = 100  # tokens of the test text that a bootstrap draws together


def comparison_rows(
    confirmed: Sequence[Confirmed],
    *,
    cost_model: CostModel,
    cost_weights: Sequence[float] = (),
    times: Mapping[str, StepTime] | None = None,
) -> list[dict[str, Any]]:
    """One JSON-able row per confirmed tree, Huffman first.

    ``test_nll`` and ``valid_nll`` are of joint training, nats per token; ``test_nll`` has Student's 95 % interval over
    seeds. ``difference`` is the test NLL minus Huffman's, paired by seed; ``perplexity_change`` is the same as a
    fraction of Huffman's perplexity. ``reward`` is on the test split. ``best_builder`` names the builder of at most the
    row's cost with the best mean validation reward, and ``reward_gain`` is the reward less that builder's, paired by
    seed. ``difference_over_tokens`` is the difference to Huffman, mean over seeds, with a bootstrap interval over
    blocks of the test text: how far it holds for other text. ``metrics`` are of predictions on the test split, with
    intervals over seeds: ``accuracy`` for labels and features, ``hit_rate@10`` and ``ndcg@10`` for interactions. Costs
    are averages over the training counts; times are microseconds per example.

    Of the found trees those with the best mean validation reward, of any cost and of at most Huffman's, and under each
    further λ, are ``found``; the others were confirmed to guard against a lucky choice and are ``candidate``.

    Args:
        confirmed: Trees with their results on fresh seeds.
        cost_model: What compute takes from the reward, at the λ that the run reports.
        cost_weights: Further λs.
        times: Step times by tree hash, where they were measured.
    """
    huffman = next((c for c in confirmed if c.finalist.promoted.name == HUFFMAN), None)
    reported = _reported(confirmed, huffman, cost_model, cost_weights)
    rows = []
    for entry in confirmed:
        promoted, test = entry.finalist.promoted, t_interval(entry.test_nll)
        row: dict[str, Any] = {
            "name": promoted.name,
            "kind": promoted.kind if promoted.kind != FOUND or promoted.name in reported else CANDIDATE,
            "test_nll": test.as_dict(),
            "valid_nll": sum(entry.valid_nll) / len(entry.valid_nll),
            "cost": promoted.cost.cost,
            "cost_measured_us": promoted.cost.measured_us,
            "expected_depth": promoted.cost.expected_depth,
            "dot_products": promoted.cost.dot_products,
            "max_depth": promoted.cost.max_depth,
            "perplexity": math.exp(test.mean),
            "frozen_nll": promoted.row.valid_nll,
            "frozen_reward": promoted.frozen_reward(cost_model),
            "learning_rate": entry.finalist.learning_rate,
            "tree": promoted.tree.hash,
            "metrics": {name: t_interval(values).as_dict() for name, values in entry.metrics.items()},
            "reward": -test.mean - cost_model.loss(promoted.cost),
        }
        if times and promoted.tree.hash in times:
            row |= asdict(times[promoted.tree.hash])
        row |= gain_over_builders(entry, confirmed, cost_model)
        if huffman is not None:
            difference = paired_difference(entry.test_nll, huffman.test_nll)
            row["difference"] = difference.as_dict()
            row["perplexity_change"] = {
                key: math.expm1(value) for key, value in difference.as_dict().items() if key != "n"
            }
            if entry.token_nll is not None and huffman.token_nll is not None:
                over_tokens = (entry.token_nll - huffman.token_nll).astype(np.float32)
                interval = bootstrap_interval(over_tokens, np.random.default_rng(0), block=TOKEN_BLOCK)
                row["difference_over_tokens"] = interval.as_dict()
        rows.append(row)
    return rows


def _reported(
    confirmed: Sequence[Confirmed], huffman: Confirmed | None, cost_model: CostModel, cost_weights: Sequence[float]
) -> set[str]:
    found = [entry for entry in confirmed if entry.finalist.promoted.kind == FOUND]
    limit = -math.inf if huffman is None else huffman.finalist.units(cost_model)
    cheap = [entry for entry in found if cost_model.no_dearer(entry.finalist.units(cost_model), limit)]
    further = [(found, replace(cost_model, weight=weight)) for weight in cost_weights]
    groups = [(group, model) for group, model in [(found, cost_model), (cheap, cost_model), *further] if group]
    best = [max(group, key=lambda entry: entry.validation_reward(model)) for group, model in groups]
    return {entry.finalist.promoted.name for entry in best}


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people; fits 100 columns, so that times take the place of depths."""
    table = Table(
        title="Test split, trained jointly",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("tree", overflow="fold", min_width=12)
    for heading, _ in (columns := _columns(rows)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row["kind"] == FOUND else ""
        table.add_row(Text(row["name"], style=style), *(cell(row) for _, cell in columns))
    return table


Column = tuple[str, Callable[[dict[str, Any]], str]]


def _columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Headings, and what stands below them."""

    def column(heading: str, key: str, digits: int) -> Column:
        return heading, lambda row: number(row.get(key), digits)

    timed = any(row.get("step_us") is not None for row in rows)
    measured = any(row.get("cost_measured_us") is not None for row in rows)
    columns: list[Column] = [
        column("perplexity", "perplexity", 1),
        ("vs Huffman [95 %]", _change),
        ("test NLL", lambda row: number((row["test_nll"] or {}).get("mean"), 3)),
    ]
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics") or ()))
    columns += [(SHORT.get(name, name), partial(_metric, name)) for name in metrics]
    if not (timed and (measured or metrics)):
        columns.append(column("valid NLL", "valid_nll", 3))
    columns.append(column("cost", "cost", 2))
    if not timed:
        columns += [column("depth", "expected_depth", 2), column("max", "max_depth", 0)]
    if measured:
        columns.append(column("µs", "cost_measured_us", 2))
    if timed:
        columns += [column("head µs", "head_us", 2), column("step µs", "step_us", 2)]
    return columns


def comparison_notes(rows: Sequence[dict[str, Any]], gains: Sequence[dict[str, Any]] = ()) -> list[str]:
    """One line for each found tree: whether its reward is above that of the best builder of at most its cost.

    Args:
        rows: Of `comparison_rows`.
        gains: Of `gains_by_weight`, where the run has several λs: they say it for each.
    """
    return [gain_note(row) for row in gains or (row for row in rows if row["kind"] == FOUND)]


def _metric(name: str, row: dict[str, Any]) -> str:
    return number(((row.get("metrics") or {}).get(name) or {}).get("mean"), 3)


def _change(row: dict[str, Any]) -> str:
    change = row.get("perplexity_change")
    if change is None or row["name"] == HUFFMAN:
        return "-"
    low, high = 100 * change["low"], 100 * change["high"]
    interval = "" if row["test_nll"]["n"] < 2 else f" [{low:+.1f}, {high:+.1f}]"
    return f"{100 * change['mean']:+.1f} %{interval}"


def number(value: float | None, digits: int) -> str:
    """A cell of a table; "-" where there is no value."""
    return "-" if value is None else f"{value:.{digits}f}"
