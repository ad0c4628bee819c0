"""`treesearch apply coding`: train with some seeds, and what confidence is worth on held-out terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from treesearch.applications.coding.coder import Coder
from treesearch.applications.coding.narrowing import level_name
from treesearch.applications.coding.scores import held_out_scores
from treesearch.applications.coding.task import CodingTask, coding_task
from treesearch.applications.coding.training import Head, TrainedCoder, coding_settings, train_coder
from treesearch.applications.coding.wordings import Wording
from treesearch.errors import ConfigError
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.taxonomy import Taxonomy

MOST_FLAT = 5000  # codes up to which a flat softmax is trained beside
SCALARS = ("code_accuracy", "nll", "seconds")
OF_LEVEL = ("accuracy", "confidence", "calibration_error")
OF_SAFE = ("answered", "accuracy", "level", "code")

Row = dict[str, Any]


def train_and_score(
    taxonomy: Taxonomy,
    wordings: Sequence[Wording],
    *,
    num_seeds: int = 1,
    heads: Sequence[Head] = ("hs",),
    epochs: int | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[list[Row], Coder]:
    """Train each head with every seed, which draws the split too, and score it on the test split.

    Args:
        taxonomy: Of the codes.
        wordings: Texts of its nodes.
        num_seeds: At least 1.
        heads: ``hs`` is among them.
        epochs: None goes by the number of texts.
        on_step: Told (head, passes done, passes in all).

    Returns:
        A row for each head, and the coder of the first seed. A row is ``head``, ``num_codes`` and, as means over
        seeds, ``levels`` and ``safe`` as in `held_out_scores`, ``code_accuracy``, ``nll`` and ``seconds``; then
        ``intervals`` of these (95 %), ``against_flat`` (differences paired by seed, of two seeds or more) and ``runs``,
        the scores of the seeds.

    Raises:
        ConfigError: No seed, or ``hs`` is not among the heads.
        DataError: As `coding_task`.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds must be >= 1, but got {num_seeds}")
    if "hs" not in heads:
        raise ConfigError(f"heads must hold 'hs', but are {list(heads)!r}")
    runs_of: dict[Head, list[Row]] = {head: [] for head in heads}
    coder: Coder | None = None
    done = 0
    for seed in range(num_seeds):
        task = coding_task(taxonomy, wordings, seed=seed)
        settings = coding_settings(task, epochs=epochs)
        for head in heads:

            def one_more(head: Head = head, total: int = num_seeds * len(heads) * settings.epochs) -> None:
                nonlocal done
                done += 1
                on_step(head, done, total)

            found = train_coder(task, seed=seed, head=head, settings=settings, on_epoch=one_more)
            if head == "hs" and coder is None:
                coder = Coder.of(task, found)
            runs_of[head].append({"seed": seed} | scored(found, task))
    assert coder is not None
    return summary_rows(runs_of, taxonomy), coder


def scored(found: TrainedCoder, task: CodingTask) -> Row:
    """The scores of one training, with its temperatures and seconds."""
    own = {"temperatures": found.temperatures, "seconds": found.trained.seconds}
    return own | held_out_scores(found.trained.model, task)


def summary_rows(runs_of: Mapping[Head, Sequence[Row]], taxonomy: Taxonomy) -> list[Row]:
    """One row for each head from the scores of its seeds; see `train_and_score`."""
    return [_summary(head, runs, runs_of.get("flat"), taxonomy) for head, runs in runs_of.items()]


def _summary(head: Head, runs: Sequence[Row], flat: Sequence[Row] | None, taxonomy: Taxonomy) -> Row:
    paired = flat is not None and head != "flat" and len(runs) > 1
    flat_values = dict(_values(flat)) if flat is not None and paired else {}
    means: Row = {}
    intervals, against = {}, {}
    for key, values in _values(runs):
        if None in values:
            means[key] = None
            continue
        interval = t_interval(values)
        means[key], intervals[key] = interval.mean, interval.as_dict()
        if None not in flat_values.get(key, [None]):
            against[key] = paired_difference(values, flat_values[key]).as_dict()
    first = runs[0]
    row: Row = {"head": head, "num_codes": taxonomy.num_classes, "seeds": len(runs)}
    row["levels"] = [
        {"level": one["level"], "kind": level_name(one["level"])}
        | {name: means[f"level {one['level']} {name}"] for name in ("num", *OF_LEVEL)}
        for one in first["levels"]
        if f"level {one['level']} num" in means  # not all seeds may have a term so deep
    ]
    row["safe"] = [
        {"threshold": one["threshold"]} | {name: means[f"safe {one['threshold']} {name}"] for name in OF_SAFE}
        for one in first["safe"]
    ]
    row |= {name: means[name] for name in SCALARS} | {"intervals": intervals}
    return row | ({"against_flat": against} if against else {}) | {"runs": list(runs)}


def _values(runs: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    """Each measure by a name of its own, with the values of the seeds; levels that not all seeds have are left out."""
    for name in SCALARS:
        yield name, [run[name] for run in runs]
    for place in range(min(len(run["levels"]) for run in runs)):
        for name in ("num", *OF_LEVEL):
            yield f"level {place + 1} {name}", [run["levels"][place][name] for run in runs]
    for place, one in enumerate(runs[0]["safe"]):
        for name in OF_SAFE:
            yield f"safe {one['threshold']} {name}", [run["safe"][place][name] for run in runs]


def levels_table(rows: Sequence[Row]) -> Table:
    """Accuracy, confidence and calibration error, a line for each head and level."""
    table = _table("Held-out terms by level, means over seeds")
    for heading in ("head", "level", "terms", "accuracy", "mean confidence", "calibration error"):
        table.add_column(heading, justify="left" if heading in ("head", "level") else "right", no_wrap=True)
    for row in rows:
        for level in row["levels"]:
            cells = [_cell(row, f"level {level['level']} {name}", level[name]) for name in OF_LEVEL]
            table.add_row(row["head"], level["kind"], f"{level['num']:.0f}", *cells)
        table.add_row(row["head"], "the code itself", "", _cell(row, "code_accuracy", row["code_accuracy"]), "", "")
    return table


def safe_table(rows: Sequence[Row]) -> Table:
    """Where the deepest safe node is, a line for each head and threshold."""
    table = _table("Answered with the deepest safe node")
    for heading in ("head", "threshold", "answered", "accuracy of these", "mean level", "answered with a code"):
        table.add_column(heading, justify="left" if heading == "head" else "right", no_wrap=True)
    for row in rows:
        for one in row["safe"]:
            cells = [_cell(row, f"safe {one['threshold']} {name}", one[name]) for name in OF_SAFE]
            table.add_row(row["head"], f"{one['threshold']:g}", *cells)
    return table


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")


def _cell(row: Row, name: str, value: float | None) -> str:
    """A mean, with half the width of its interval where there is one."""
    if value is None:
        return "-"
    interval = row["intervals"][name]
    half = (interval["high"] - interval["low"]) / 2
    return f"{value:.3f}" if interval["n"] < 2 else f"{value:.3f} ±{half:.3f}".replace("±0.", "±.")
