"""`treesearch apply taxonomy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treesearch.applications.commands.options import AsRows, Epochs, Parents, Seeds, TaxonomyFile, TestFile, TrainFile
from treesearch.console import print_rows, tell


def taxonomy(
    train: TrainFile,
    valid: Annotated[Path, typer.Option(help="Documents that choose learning rate and epoch.")],
    test: TestFile,
    taxonomy: TaxonomyFile,
    parents: Parents = "error",
    seeds: Seeds = 1,
    as_json: AsRows = False,
    epochs: Epochs = 40,
    smoothing: Annotated[float, typer.Option(help="Share of a target's mass that goes to other classes.")] = 0.1,
    beta: Annotated[float, typer.Option(help="How fast it falls, per edge between the classes.")] = 1.0,
    level_weight: Annotated[float, typer.Option(help="Of the loss of each level above the classes.")] = 1.0,
    penalty: Annotated[float, typer.Option(help="Of separate heads that disagree.")] = 1.0,
    models: Annotated[list[str] | None, typer.Option(help="Train these classifiers alone. Repeatable.")] = None,
) -> None:
    """Classify documents whose labels have a taxonomy: a flat softmax, hierarchical ones, a head for each level."""
    from treesearch.applications.taxonomy import (
        CLASSIFIERS,
        ObjectiveSettings,
        TrainingSettings,
        compare_classifiers,
        load_task,
        taxonomy_notes,
        taxonomy_table,
    )
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter

    dataset, labels = load_task(train, valid, test, taxonomy, parents=parents)
    tell(f"{labels.num_classes} classes in {labels.num_levels} levels, {len(dataset.train)} documents to learn from")
    with one_thread(), ProgressReporter() as progress:  # small products: more threads wait for each other
        rows = compare_classifiers(
            dataset,
            labels,
            num_seeds=seeds,
            names=tuple(models or CLASSIFIERS),
            settings=TrainingSettings(epochs=epochs),
            objective=ObjectiveSettings(smoothing, beta, level_weight, penalty),
            on_step=lambda name, done, total: progress.update("training", done, total, name),
        )
    print_rows(rows, taxonomy_table, as_json=as_json)
    for note in taxonomy_notes(rows):
        tell(note)
