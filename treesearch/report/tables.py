"""The comparison with Huffman as rows and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from treesearch.cost import CostModel
from treesearch.evaluation.comparison import bootstrap_interval, paired_difference, t_interval
from treesearch.evaluation.metric_names import HIT_RATE, NDCG
from treesearch.report.cells import change_against_huffman, gain_cell, mean_cell, number
from treesearch.report.gains import gain_note, gain_over_builders
from treesearch.search.promotion import FOUND, HUFFMAN
from treesearch.visible import visible

Column = tuple[str, Callable[[dict[str, Any]], str]]  # heading, and what stands below it

if TYPE_CHECKING:  # they import torch, for which who only reads results need not wait
    from treesearch.evaluation.timing import StepTime
    from treesearch.search.confirm import Confirmed

CANDIDATE = "candidate"
SHORT = {HIT_RATE: "HR@10", NDCG: "NDCG@10"}  # headings
WIDTH = 100  # columns that tables fit
MIN_NAME = 12  # columns of the names of trees
DISPENSABLE = ("max", "valid NLL", "depth", "head µs", "µs", "test NLL", "step µs")  # in this order, where it is narrow
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


def comparison_table(rows: Sequence[dict[str, Any]], *, width: int = WIDTH) -> Table:
    """The rows for people, in at most ``width`` columns: names are folded; numbers never, some are left out instead.

    Times take the place of depths; then what is `DISPENSABLE` goes, until the rest fits. Rows have it all.
    """
    columns = _columns(rows)
    cells = [[cell(row) for row in rows] for _, cell in columns]
    widths = [max(map(len, (heading, *texts))) for (heading, _), texts in zip(columns, cells, strict=True)]
    shown = list(range(len(columns)))

    def room() -> int:  # columns that are left for names
        return width - 2 - sum(widths[index] + 2 for index in shown)

    for heading in DISPENSABLE:
        if room() < MIN_NAME:
            shown = [index for index in shown if columns[index][0] != heading]
    names = [visible(row["name"]) for row in rows]
    longest = max(map(cell_len, names), default=0)
    table = Table(
        title="Test split, trained jointly",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("tree", overflow="fold", width=max(MIN_NAME, min(longest, room())))
    for index in shown:
        table.add_column(columns[index][0], justify="right", no_wrap=True)
    for number_of_row, row in enumerate(rows):
        style = "bold" if row["kind"] == FOUND else ""
        table.add_row(Text(names[number_of_row], style=style), *(cells[index][number_of_row] for index in shown))
    return table


def _columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Headings, and what stands below them."""

    def column(heading: str, key: str, digits: int) -> Column:
        return heading, lambda row: number(row.get(key), digits)

    timed = any(row.get("step_us") is not None for row in rows)
    measured = any(row.get("cost_measured_us") is not None for row in rows)
    columns: list[Column] = [
        column("perplexity", "perplexity", 1),
        ("vs Huffman [95 %]", lambda row: str(gain_cell(change_against_huffman(row), 1, unit=" %"))),
        ("test NLL", lambda row: mean_cell(row["test_nll"], 3).mean),
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
    return mean_cell((row.get("metrics") or {}).get(name), 3).mean
