"""Models of openings side by side: how often they are right, and how often for an expert's reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

from treesearch.applications.chess.openings import Openings, Positions, Split
from treesearch.applications.chess.reasons import Reasons, eco_rules, reasons_of
from treesearch.applications.chess.records import position_record
from treesearch.applications.chess.training import (
    Trained,
    TrainingSettings,
    best_of_grid,
    flat_tree,
    tensors_of,
    train_layer,
)
from treesearch.decisions.alignment import MEASURES, align
from treesearch.decisions.expert import RuleBook
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.tree import Tree

ECO, SEARCHED, FLAT = "hs, ECO tree", "hs, searched", "flat"  # the last two are read on the ECO tree
RATES = tuple((measure, per) for measure in MEASURES for per in ("decision", "path"))
SUMMARISED = ("family_accuracy", "volume_accuracy", "nll", *(f"{measure}_{per}" for measure, per in RATES))
NUM_PERMUTATIONS = 20
NUM_EXAMPLES = 6  # right for the wrong reason

Row = dict[str, Any]


def compare_models(
    openings: Openings,
    *,
    num_seeds: int = 1,
    trees: Sequence[Tree] = (),
    settings: TrainingSettings | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Row]:
    """Train a hierarchical softmax on the ECO tree, one on a searched tree and a flat one, and audit them alike.

    Each seed has a split of its own. Learning rate and weight decay are chosen for each model on the validation split
    of the first seed. All reasons are those of decisions on the ECO tree, see `reasons_of`, against the starting
    position; beside it, ``average_baseline`` has the alignment rates against the average position of the training
    split, where what is *not* on the board counts as well.

    Args:
        openings: Lines and classes.
        num_seeds: Splits and trainings, at least 1.
        trees: Searched trees over the classes, one for each seed's split; empty leaves that model out.
        settings: Of the training, the same for all.
        on_step: Told (model, passes done, passes in all).

    Returns:
        One row for each model: ``name``; as means over seeds on the test split ``family_accuracy``,
        ``volume_accuracy`` (of the class predicted), ``nll`` in nats and ``driver_decision``, ``driver_path``,
        ``direction_decision``, ``direction_path``, the alignment rates; ``chance`` of these, by kind; ``intervals``
        (95 %, Student over seeds); ``against_flat`` (differences paired by seed); ``runs``, a row for each seed with
        bootstrap intervals over examples; ``examples`` of the first seed that are right for the wrong reason.

    Raises:
        ConfigError: No seed, or trees that are not one for each.
        DataError: A searched tree is over other classes, or no decision has a rule.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds must be >= 1, but got {num_seeds}")
    if trees and len(trees) != num_seeds:
        raise ConfigError(f"there must be one searched tree for each of {num_seeds} seeds, but got {len(trees)}")
    settings = settings or TrainingSettings()
    book = eco_rules(openings.taxonomy)
    trees_of: dict[str, Sequence[Tree]] = {ECO: [book.tree] * num_seeds}
    if trees:
        trees_of[SEARCHED] = [check_classes(tree, openings) for tree in trees]
    trees_of[FLAT] = [flat_tree(openings.taxonomy.num_classes)] * num_seeds
    num_trainings = len(settings.learning_rates) * len(settings.weight_decays) + num_seeds - 1
    total, done = len(trees_of) * num_trainings * settings.epochs, 0
    runs_of: dict[str, list[Row]] = {name: [] for name in trees_of}
    examples_of: dict[str, list[Row]] = {}
    chosen: dict[str, Trained] = {}
    for seed in range(num_seeds):
        split = openings.split(seed)
        for name, own in trees_of.items():

            def one_more(name: str = name) -> None:
                nonlocal done
                done += 1
                on_step(name, done, total)

            if seed == 0:
                trained = best_of_grid(own[0], split, settings=settings, seed=0, on_epoch=one_more)
                chosen[name] = trained
            else:
                trained = train_layer(
                    own[seed],
                    split,
                    settings=settings,
                    learning_rate=chosen[name].learning_rate,
                    weight_decay=chosen[name].weight_decay,
                    seed=seed,
                    on_epoch=one_more,
                )
            reasons = reasons_of(trained.layer, split.test.x, book)
            runs_of[name].append({"seed": seed} | result_row(trained, reasons, split, openings, book))
            if seed == 0:
                examples_of[name] = wrong_reasons(reasons, split.test, book)
    return [_summary(name, runs, runs_of[FLAT]) | {"examples": examples_of[name]} for name, runs in runs_of.items()]


def check_classes(tree: Tree, openings: Openings) -> Tree:
    """A tree whose classes are those of the openings.

    Raises:
        DataError: It is over others.
    """
    names = openings.taxonomy.class_names
    if tree.num_classes != len(names) or tree.class_names not in (None, names):
        raise DataError(
            f"a searched tree must be over the {len(names)} classes of these openings, but is over"
            f" {tree.num_classes}{'' if tree.num_classes != len(names) else ' others'}; search on what --export writes"
        )
    return tree


def result_row(trained: Trained, reasons: Reasons, split: Split, openings: Openings, book: RuleBook) -> Row:
    """What a model does on the test split; see `compare_models`."""
    x_BF, y_B = tensors_of(split.test)
    with torch.no_grad():
        nll = float(trained.layer.nll(x_BF, y_B))
    volume_C = openings.volume_of_class
    correct_B = reasons.audit.classes == split.test.y
    found = reasons.alignment
    rates = {f"{measure}_{per}": found.rate(measure, per=per) for measure, per in RATES}  # type: ignore[arg-type]
    if not all(rate.num for rate in rates.values()):
        raise DataError(
            "some decision of the test split must have an expert's rule that is in play, but none has; give lines of"
            " the openings that the rules are about, such as the Sicilian or the French"
        )
    average = reasons_of(trained.layer, split.test.x, book, baseline=split.train.x.mean(0)).alignment
    return {
        "learning_rate": trained.learning_rate,
        "weight_decay": trained.weight_decay,
        "epoch": trained.epoch,
        "valid_nll": trained.valid_nll,
        "num_test": len(split.test),
        "family_accuracy": float(correct_B.mean()),
        "volume_accuracy": float((volume_C[reasons.audit.classes] == volume_C[split.test.y]).mean()),
        "nll": nll,
        **{key: rate.value for key, rate in rates.items()},
        "rates": {key: rate.as_dict() for key, rate in rates.items()},
        "by_level": {
            measure: [found.at_level(level).rate(measure).as_dict() for level in range(found.branch.shape[1])]
            for measure in MEASURES
        },
        "permuted_features": _permuted(reasons, split.test, book),
        "average_baseline": {
            f"{measure}_{per}": average.rate(measure, per=per, num_samples=1).as_dict()  # type: ignore[arg-type]
            for measure, per in RATES
        },
        "wrong_reason": float(found.wrong_reason(correct_B)[correct_B].mean()) if correct_B.any() else None,
    }


def _permuted(reasons: Reasons, test: Positions, book: RuleBook) -> dict[str, float]:
    """Alignment rates, on average, where the features of the factors are drawn anew: agreement without meaning."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {f"{measure}_{per}": [] for measure, per in RATES}
    for _ in range(NUM_PERMUTATIONS):
        mixed = book.with_groups(book.groups.permuted(rng))
        alignment = align(mixed, branch=reasons.audit.taken, attribution=reasons.attribution, state=test.x)
        for measure, per in RATES:
            rate = alignment.rate(measure, per=per, num_samples=1)  # type: ignore[arg-type]
            found[f"{measure}_{per}"].append(rate.value if rate.num else 0.0)  # nothing in play: nothing agrees
    return {key: float(np.mean(values)) for key, values in found.items()}


def wrong_reasons(reasons: Reasons, test: Positions, book: RuleBook, *, num: int = NUM_EXAMPLES) -> list[Row]:
    """Positions that are right for the wrong reason: half of them driven against the expert's direction, if there are.

    Among them come first those of which the model is surest.
    """
    found = reasons.alignment
    correct_B = reasons.audit.classes == test.y
    wrong_B = found.wrong_reason(correct_B)
    against_B = wrong_B & (found.counts["direction"] & ~found.agrees["direction"]).any(1)
    order = np.argsort(-reasons.audit.class_log_prob, kind="stable")
    first = [int(row) for row in order if against_B[row]][: num // 2]
    rest = [int(row) for row in order if wrong_B[row] and not against_B[row]][: num - len(first)]
    return [
        {"name": test.lines[row].name} | position_record(reasons, row, book, moves=test.lines[row].moves)
        for row in (*first, *rest)
    ]


def _summary(name: str, runs: Sequence[Row], flat: Sequence[Row]) -> Row:
    def values(of: Sequence[Row], measure: str) -> list[float]:
        return [run[measure] for run in of]

    intervals = {measure: t_interval(values(runs, measure)) for measure in SUMMARISED}
    row: Row = {"name": name} | {measure: interval.mean for measure, interval in intervals.items()}
    row["chance"] = {key: _mean_chance(runs, key) for key in runs[0]["rates"]}
    row["intervals"] = {measure: interval.as_dict() for measure, interval in intervals.items()}
    if len(runs) > 1 and runs is not flat:
        row["against_flat"] = {
            measure: paired_difference(values(runs, measure), values(flat, measure)).as_dict() for measure in SUMMARISED
        }
    return row | {"runs": list(runs)}


def _mean_chance(runs: Sequence[Row], key: str) -> dict[str, float]:
    kinds = runs[0]["rates"][key]["chance"]
    means = {kind: float(np.mean([run["rates"][key]["chance"][kind] for run in runs])) for kind in kinds}
    return means | {"permuted features": float(np.mean([run["permuted_features"][key] for run in runs]))}


def study_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for people, 100 columns at most; chance is that of factors in play."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Test split, means over seeds", title_justify="left")
    table.add_column("model")
    for heading in ("family", "volume", "NLL", "driver", "(chance)", "path", "direction", "(chance)", "path"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["family_accuracy"], row["volume_accuracy"], row["nll"]]
        for measure in MEASURES:
            chance = row["chance"][f"{measure}_decision"]["in play"]
            cells += [row[f"{measure}_decision"], chance, row[f"{measure}_path"]]
        table.add_row(row["name"], *(f"{cell:.3f}" for cell in cells))
    return table


def explain_moves(
    openings: Openings,
    x: np.ndarray,
    *,
    moves: str,
    settings: TrainingSettings | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> Row:
    """The decisions of a hierarchical softmax on the ECO tree for a position; see `position_record`.

    Args:
        openings: The model is trained on their first split.
        x: [F], of the position.
        moves: That lead there.
        settings: Of the training.
        on_step: Told (model, passes done, passes in all).
    """
    settings = settings or TrainingSettings()
    book = eco_rules(openings.taxonomy)
    total, done = len(settings.learning_rates) * len(settings.weight_decays) * settings.epochs, 0

    def one_more() -> None:
        nonlocal done
        done += 1
        on_step(ECO, done, total)

    trained = best_of_grid(book.tree, openings.split(0), settings=settings, seed=0, on_epoch=one_more)
    return position_record(reasons_of(trained.layer, x[None], book), 0, book, moves=moves)


def export_splits(openings: Openings, folder: Path, *, num_seeds: int) -> None:
    """Write the split of each seed as feature files for a search: ``seed-0/train.npz``, ..., ``seed-0/names.txt``.

    Args:
        openings: Lines and classes.
        folder: Is made where it is missing.
        num_seeds: Splits.

    Raises:
        OSError: It cannot be written.
    """
    for seed in range(num_seeds):
        own = folder / f"seed-{seed}"
        own.mkdir(parents=True, exist_ok=True)
        split, rng = openings.split(seed), np.random.default_rng(seed)
        for name in ("train", "valid", "test"):
            positions: Positions = getattr(split, name)
            order = rng.permutation(len(positions))  # nodes of the frozen rung learn in the order of the file
            np.savez(own / f"{name}.npz", x=positions.x[order], y=positions.y[order])
        (own / "names.txt").write_text("".join(f"{name}\n" for name in openings.taxonomy.class_names), encoding="utf-8")
