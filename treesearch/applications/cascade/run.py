"""`treesearch apply cascade`: what it costs to answer, to answer with less, or to flag, policy by policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rich import box
from rich.table import Table

from treesearch.applications.cascade.comparison import BEST, Predictions, Row
from treesearch.applications.cascade.policies import THRESHOLD
from treesearch.applications.cascade.task import CascadeTask
from treesearch.applications.taxonomy.classifiers import CLASSIFIERS, FLAT, ObjectiveSettings
from treesearch.applications.taxonomy.training import TrainingSettings, class_log_prob, train_at_best_rate
from treesearch.errors import ConfigError

MODELS = (FLAT, "hs", "hs + multi-level")


def train_models(
    task: CascadeTask,
    *,
    num_seeds: int = 1,
    names: Sequence[str] = MODELS,
    settings: TrainingSettings | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Predictions]]:
    """Train classifiers and ask them for the documents of the validation and test split.

    The learning rate is chosen on the validation split with the first seed and kept for the others.

    Args:
        task: Of `load_cascade_task`.
        num_seeds: Trainings of each, at least 1.
        names: Keys of `treesearch.applications.taxonomy.CLASSIFIERS`.
        settings: Of the training, the same for all.
        on_step: Told (classifier, passes done, passes in all).

    Returns:
        Predictions of each seed, by classifier.

    Raises:
        ConfigError: No seed.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds must be >= 1, but got {num_seeds}")
    settings = settings or TrainingSettings()
    total, done = len(names) * (len(settings.learning_rates) + num_seeds - 1) * settings.epochs, 0
    rates: dict[str, float] = {}
    predictions = []
    for seed in range(num_seeds):
        of_seed = {}
        for name in names:

            def one_more(name: str = name) -> None:
                nonlocal done
                done += 1
                on_step(name, done, total)

            trained, rates[name] = train_at_best_rate(
                partial(CLASSIFIERS[name], settings.features, task.trained_taxonomy, ObjectiveSettings()),
                task.dataset,
                settings=settings,
                rates=(rates[name],) if name in rates else settings.learning_rates,
                seed=seed,
                on_epoch=one_more,
            )
            of_seed[name] = Predictions(*(class_log_prob(trained.model, split) for split in (task.valid, task.test)))
        predictions.append(of_seed)
    return predictions


def parse_ratios(text: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        ConfigError: They are not.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"ratios must be numbers between commas, but got {text!r:.60}; give '0.33,1,3,10,30'"
        ) from None


def task_notes(task: CascadeTask) -> list[str]:
    """What is trained, and what is said of documents out of scope."""
    dataset, taxonomy = task.dataset, task.taxonomy
    notes = [
        f"{dataset.num_classes} classes in {taxonomy.num_levels} levels, {len(dataset.train)} documents to learn from"
    ]
    if task.out_of_scope is None:
        return notes
    name = taxonomy.class_names[task.out_of_scope]
    shares = [f"{int((split.labels == task.out_of_scope).sum())} of {len(split)}" for split in (task.valid, task.test)]
    notes.append(f"out of scope ({name}): {shares[0]} documents in the validation split, {shares[1]} in the test split")
    if not task.is_trained:
        notes.append(f"no training document is {name!r}: it is no class of the classifiers, which know nothing of it")
    if not (task.valid.labels == task.out_of_scope).any():
        notes.append(f"no validation document is {name!r}: no threshold and no policy is chosen with regard to it")
    return notes


def cascade_table(rows: Sequence[Row]) -> Table:
    """The costs for people, 100 columns at most; a star where a policy is better than flat's single threshold."""
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title="Cost per document by c_fp / c_fn, test split, means over seeds; *: below flat + threshold, 95 %",
        title_justify="left",
    )
    table.add_column("classifier")
    table.add_column("policy")
    for ratio in ratios:
        table.add_column(f"{ratio:g}", justify="right", no_wrap=True)
    cells: dict[tuple[str, str], dict[float, str]] = {}
    for row in rows:
        against = row["against_flat"]
        is_better = against is not None and against["n"] > 1 and against["high"] < 0
        text = f"{row['cost']:.3f}{'*' if is_better else ' '}"
        cells.setdefault((row["model"], row["policy"]), {})[row["ratio"]] = text
    for (model, policy), cell_of in cells.items():
        table.add_row(model, policy, *(cell_of.get(ratio, "-") for ratio in ratios))
    return table


def cascade_notes(rows: Sequence[Row]) -> list[str]:
    """What the rival and the best policy of the tree models do, at each ratio."""
    notes = []
    for row in rows:
        if (row["model"], row["policy"]) != (FLAT, THRESHOLD) and row["policy"] != BEST:
            continue
        accuracy = "" if row["accuracy"] is None else f", {row['accuracy']:.3f} of the answers right"
        notes.append(
            f"ratio {row['ratio']:g}, {row['model']}, {row['policy']}: {row['answered_class']:.1%} answered by a class,"
            f" {row['answered_inner']:.1%} by an inner node, {row['flagged']:.1%} flagged{accuracy}"
        )
    return notes
