"""`treesearch apply cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from treesearch.applications.commands.options import AsRows, Epochs, Parents, Seeds, TaxonomyFile, TestFile, TrainFile
from treesearch.console import print_rows, tell


def cascade(
    train: TrainFile,
    valid: Annotated[Path, typer.Option(help="Documents that choose learning rates, thresholds and policies.")],
    test: TestFile,
    taxonomy: TaxonomyFile,
    out_of_scope: Annotated[
        str | None,
        typer.Option(help="The label of documents of no class; it need not be in the taxonomy, nor in --train."),
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Costs of a node wrongly entered; a node missed costs 1. Between commas.")
    ] = "0.33,1,3,10,30",
    charge: Annotated[str, typer.Option(help="A wrong turn is paid 'once', or 'every' node below it.")] = "once",
    seeds: Seeds = 1,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Add a policy whose answers have this accuracy, guaranteed.")
    ] = None,
    delta: Annotated[float, typer.Option(help="The guarantee may fail with this probability.")] = 0.05,
    out_of_scope_share: Annotated[
        float | None,
        typer.Option(help="Share of documents out of scope that is to be expected; without: that of --valid."),
    ] = None,
    parents: Parents = "error",
    epochs: Epochs = 40,
    as_json: AsRows = False,
) -> None:
    """Answer with a class, with an inner node, or flag: what policies cost on a flat and on tree classifiers."""
    from treesearch.applications.cascade import (
        PolicySettings,
        cascade_notes,
        cascade_table,
        compare_policies,
        load_cascade_task,
        parse_ratios,
        task_notes,
        train_models,
    )
    from treesearch.applications.taxonomy import TrainingSettings
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter

    settings = PolicySettings(
        ratios=parse_ratios(ratios),
        charge=cast(Any, charge),  # checked there
        target_accuracy=target_accuracy,
        delta=delta,
        out_of_scope_share=out_of_scope_share,
    )
    task = load_cascade_task(train, valid, test, taxonomy, out_of_scope=out_of_scope, parents=parents)
    for note in task_notes(task):
        tell(note)
    with one_thread(), ProgressReporter() as progress:  # small products: more threads wait for each other
        predictions = train_models(
            task,
            num_seeds=seeds,
            settings=TrainingSettings(epochs=epochs),
            on_step=lambda name, done, total: progress.update("training", done, total, name),
        )
        rows = compare_policies(
            task,
            predictions,
            settings=settings,
            on_step=lambda done, total: progress.update("policies", done, total),
        )
    print_rows(rows, cascade_table, as_json=as_json)
    for note in cascade_notes(rows):
        tell(note)
