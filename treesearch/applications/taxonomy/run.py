"""`treesearch apply taxonomy`: five classifiers on documents whose labels have a taxonomy, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from treesearch.applications.taxonomy.classifiers import CLASSIFIERS, FLAT, ObjectiveSettings
from treesearch.applications.taxonomy.training import TrainingSettings, result_row, train_at_best_rate
from treesearch.data import Dataset, SmoothedClassWarning, load_documents
from treesearch.errors import ConfigError, did_you_mean
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.taxonomy import Taxonomy, load_taxonomy

MAX_WORDS = 128  # of a document that count
MEASURES = ("accuracy", "rare_accuracy", "severity", "nll", "violations", "seconds")

Row = dict[str, Any]


def load_task(
    train: Path, valid: Path, test: Path, taxonomy: Path, *, parents: str = "error"
) -> tuple[Dataset, Taxonomy]:
    """Documents with labels, and the taxonomy over these labels.

    Classes are the labels of all three files; a label at an inner node is a class of its own there. Labels without a
    training document are classes too: nothing says what they look like, and they count as rare.

    Args:
        train: Documents to learn from.
        valid: Documents that choose settings.
        test: Documents of the table.
        taxonomy: As in `load_taxonomy`.
        parents: As there; ``error`` for any file, other rules where it is of links.

    Raises:
        DataError: Documents cannot be used, or a label is not in the taxonomy.
        TreeError: The file holds no taxonomy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothedClassWarning)  # no count is used that a class does not have
        dataset = load_documents(train, valid, test, context=MAX_WORDS, unseen_labels=True)
    assert dataset.class_names is not None
    return dataset, load_taxonomy(taxonomy, classes=dataset.class_names, parents=parents)


def compare_classifiers(
    dataset: Dataset,
    taxonomy: Taxonomy,
    *,
    num_seeds: int = 1,
    names: Sequence[str] = tuple(CLASSIFIERS),
    settings: TrainingSettings | None = None,
    objective: ObjectiveSettings | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Row]:
    """Train every classifier with every seed, each at the learning rate that is best for it on the validation split.

    The rate is chosen with the first seed and kept for the others.

    Args:
        dataset: Of `load_task`.
        taxonomy: Over its classes.
        num_seeds: Trainings of each, at least 1.
        names: Keys of `CLASSIFIERS`.
        settings: Of the training, the same for all.
        objective: Of the losses.
        on_step: Told (classifier, passes done, passes in all).

    Returns:
        One row for each classifier: ``name`` and, as means over seeds on the test split, ``accuracy``,
        ``accuracy_by_level`` (from the level below the root on), ``rare_accuracy`` (classes of at most five training
        documents; None without any), ``severity`` (mean height of the lowest common ancestor, of mistakes),
        ``nll`` (nats), ``violations`` (share of the documents) and ``seconds`` (of one training); then
        ``intervals`` (95 %, by measure), ``against_flat`` (differences paired by seed) and ``runs``, the rows of the
        seeds.

    Raises:
        ConfigError: An unknown classifier, or no seed.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds must be >= 1, but got {num_seeds}")
    for name in names:
        if name not in CLASSIFIERS:
            raise ConfigError(f"unknown classifier {name!r}{did_you_mean(name, CLASSIFIERS)}")
    settings, objective = settings or TrainingSettings(), objective or ObjectiveSettings()
    for name in names:  # what cannot be made is refused before the first is trained
        CLASSIFIERS[name](settings.features, taxonomy, objective)
    train_counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    num_rates = len(settings.learning_rates)
    total, done = len(names) * (num_rates + num_seeds - 1) * settings.epochs, 0
    runs_of: dict[str, list[Row]] = {}
    for name in names:

        def one_more(name: str = name) -> None:
            nonlocal done
            done += 1
            on_step(name, done, total)

        runs: list[Row] = []
        chosen = settings.learning_rates[0]
        for seed in range(num_seeds):
            best, chosen = train_at_best_rate(
                partial(CLASSIFIERS[name], settings.features, taxonomy, objective),
                dataset,
                settings=settings,
                rates=settings.learning_rates if seed == 0 else (chosen,),
                seed=seed,
                on_epoch=one_more,
            )
            runs.append(result_row(best, dataset, taxonomy, train_counts) | {"seed": seed, "learning_rate": chosen})
        runs_of[name] = runs
    return summary_rows(runs_of)


def summary_rows(runs_of: Mapping[str, Sequence[Row]]) -> list[Row]:
    """One row for each classifier from the rows of its seeds; see `compare_classifiers`."""
    rows = []
    for name, runs in runs_of.items():
        row = _summary(name, runs)
        if FLAT in runs_of and len(runs) > 1:
            row["against_flat"] = {
                measure: paired_difference(_values(runs, measure), _values(runs_of[FLAT], measure)).as_dict()
                for measure in MEASURES
                if row[measure] is not None and None not in _values(runs_of[FLAT], measure)
            }
        rows.append(row | {"runs": list(runs)})
    return rows


def _values(runs: Sequence[Mapping[str, Any]], measure: str) -> list[float]:
    return [run[measure] for run in runs]


def _summary(name: str, runs: Sequence[Row]) -> Row:
    row: Row = {"name": name}
    intervals = {}
    for measure in MEASURES:
        values = _values(runs, measure)
        if None in values:
            row[measure] = None
            continue
        interval = t_interval(values)
        row[measure] = interval.mean
        intervals[measure] = interval.as_dict()
    by_level = list(zip(*(run["accuracy_by_level"] for run in runs), strict=True))
    row["accuracy_by_level"] = [None if None in level else float(np.mean(level)) for level in by_level]
    row["intervals"] = intervals
    order = ("name", "accuracy", "accuracy_by_level", *MEASURES[1:], "intervals")
    return {key: row[key] for key in order}


def taxonomy_table(rows: Sequence[Row]) -> Table:
    """The rows for people, 100 columns at most."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Test split, means over seeds", title_justify="left")
    table.add_column("classifier")
    for heading in ("accuracy", "by level", "rare", "severity", "NLL", "violated", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        levels = [value for value in row["accuracy_by_level"] if value is not None]
        shown = levels if len(levels) <= 4 else [*levels[:2], *levels[-2:]]
        table.add_row(
            row["name"],
            _number(row["accuracy"]),
            " ".join(map(_number, shown)),
            _number(row["rare_accuracy"]),
            _number(row["severity"]),
            _number(row["nll"]),
            "0" if row["violations"] == 0 else f"{row['violations']:.3f}",
            f"{row['seconds']:.1f}",
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def taxonomy_notes(rows: Sequence[Row]) -> list[str]:
    """What the table says about rare classes, in words: each classifier against the flat one."""
    notes = []
    for row in rows:
        difference = row.get("against_flat", {}).get("rare_accuracy")
        if row["name"] == FLAT or difference is None:
            continue
        low, high = difference["low"], difference["high"]
        verdict = "above" if low > 0 else "below" if high < 0 else "not significantly different from"
        notes.append(
            f"{row['name']}: rare accuracy {verdict} flat, {difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    return notes
