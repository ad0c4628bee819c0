"""A whole run: prepare, search, confirm, export; and the same again from where it stopped."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.config import Config, with_overrides
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.data import Dataset
from treesearch.errors import RunError
from treesearch.evaluation.preparation import Preparation, restore
from treesearch.interrupts import plain_interrupts
from treesearch.launch.confirmation import confirm_search, time_confirmed
from treesearch.launch.eras import Eras
from treesearch.launch.interrupts import finish_what_is_under_way
from treesearch.launch.parts import (
    RunParts,
    check_choices,
    load_data,
    make_cost_model,
    make_executor,
    measured_cost_model,
    prepare_run,
)
from treesearch.launch.records import record_data, record_policy, record_session
from treesearch.launch.results import best_tree, export_best, summarise, tables
from treesearch.launch.taxonomy import run_taxonomy
from treesearch.progress import ProgressReporter
from treesearch.search.durable import DurableExecutor
from treesearch.search.executors import WorkerFactory
from treesearch.search.ledger import Checkpoint, Ledger
from treesearch.search.ledger_entries import COMPLETE, POLICY
from treesearch.search.run_folder import RunFolder
from treesearch.search.worker import EvaluationWorker
from treesearch.state import unpack_state
from treesearch.trackers import make_tracker

# What a resumed run may change, by section or setting; anything else would make its evaluations incomparable.
CHANGEABLE = (
    "search.evaluations",
    "search.executor",
    "search.max_consecutive_failures",
    "frozen.time_limit",
    "joint.time_limit",
    "ray",
    "confirm",
    "wandb",
    "tensorboard",
)
RUN_ID = "run_id"


def run_search(
    config: Config,
    folder: RunFolder,
    progress: ProgressReporter,
    *,
    policy: Path | None = None,
    make_worker: WorkerFactory = EvaluationWorker,
) -> dict[str, Any]:
    """Run a whole search: prepare, search, confirm, export.

    Args:
        config: What to do.
        folder: Where; must be new or empty.
        progress: Who is told.
        policy: A run folder, or a packed agent's state, whose policy the agent starts from.
        make_worker: Builds what evaluates, where it is to run.

    Returns:
        The content of ``comparison.json``.

    Raises:
        TreeSearchError: Input, configuration or folder cannot be used, or evaluations kept failing.
    """
    folder.check_free()
    config, dataset = load_data(config)
    check_choices(config, dataset, policy=policy)
    with folder.create(config) as ledger, folder.lock(), _told_how_to_go_on(folder, progress):
        record_data(ledger, dataset)
        record_policy(ledger, policy)
        return _search_and_confirm(config, dataset, folder, ledger, progress, make_worker)


def resume_search(
    folder: RunFolder,
    progress: ProgressReporter,
    *,
    overrides: Sequence[str] = (),
    make_worker: WorkerFactory = EvaluationWorker,
) -> dict[str, Any]:
    """Go on with a search that was stopped, or with a larger budget; what is finished is not done again.

    The rows of the ledger are those of a search that was never stopped, where neither the budget nor the confirmation
    is changed.

    Args:
        folder: Of the search.
        progress: Who is told.
        overrides: ``a.b=c`` for settings of the kinds in `CHANGEABLE`.
        make_worker: That of the search.

    Returns:
        The content of ``comparison.json``.

    Raises:
        TreeSearchError: There is no search, another process works on it, a setting or the data make what it holds
            incomparable, or as in `run_search`.
    """
    with folder.open() as ledger, folder.lock(), _told_how_to_go_on(folder, progress):
        before = folder.config()
        config = with_overrides(before, overrides)
        _check_changes(before, config)
        if ledger.meta("corpus") is None:
            raise RunError(f"{folder.path} holds no data yet: the search was stopped too soon; start it anew")
        config, dataset = load_data(config)
        if dataset.hash != ledger.meta("corpus")["hash"]:
            raise RunError(
                "data must be those of the search, but the files, or what the settings make of them, have changed"
                " since; bring them back, or start a new search"
            )
        checkpoint = ledger.last_batch()
        if checkpoint is not None and config.search.evaluations < checkpoint.position.spent:
            raise RunError(
                f"search.evaluations must be at least what is spent ({checkpoint.position.spent}),"
                f" but got {config.search.evaluations}"
            )
        check_choices(config, dataset)
        ledger.rows()  # what is damaged is told before anything is changed
        ledger.set_meta(COMPLETE, False)
        ledger.rewind(keep=checkpoint.position.encoder if config.search.asynchronous and checkpoint else None)
        folder.write_config(config)
        return _search_and_confirm(config, dataset, folder, ledger, progress, make_worker)


@contextmanager
def _told_how_to_go_on(folder: RunFolder, progress: ProgressReporter) -> Iterator[None]:
    """A user who interrupts is told so."""
    try:
        with plain_interrupts():
            yield
    except KeyboardInterrupt:
        progress.say(f"go on with: treesearch resume {folder.path}")
        raise


def _search_and_confirm(
    config: Config,
    dataset: Dataset,
    folder: RunFolder,
    ledger: Ledger,
    progress: ProgressReporter,
    make_worker: WorkerFactory,
) -> dict[str, Any]:
    """From the ledger's last batch, or from the start, to the end."""
    checkpoint = ledger.last_batch()
    counts = dataset.counts.astype(float)
    record_session(ledger)
    spent = 0 if checkpoint is None else checkpoint.position.spent
    kept = ledger.next_id() - 1  # rows, all of the frozen rung
    with make_tracker(config, folder.path, run_id=_run_id(ledger), step=kept) as tracker:
        size = f"{dataset.num_classes} classes, {len(dataset.train)} training {dataset.noun}"
        progress.say(f"{size}; results go to {folder.path}")
        if checkpoint is None:
            preparation = prepare_run(config, dataset, progress)
        else:
            progress.say(f"{spent} evaluations are done")
            preparation = _restored(config, dataset, ledger, checkpoint)
        cost_model = _cost_model(config, counts, folder, progress)
        workers = make_executor(config, dataset, preparation, make_worker)
        with (
            DurableExecutor(workers, ledger) as executor,
            progress.watching(executor),
            finish_what_is_under_way(executor, progress.say),
        ):
            parts = RunParts(config, dataset, cost_model, executor, ledger, progress)
            eras = Eras(parts, log=tracker.log)
            if checkpoint is None:
                policy = ledger.meta(POLICY)
                eras.search(eras.first(preparation, None if policy is None else Path(policy)))
            else:
                eras.search(eras.resume(preparation, checkpoint), checkpoint.position)
            promoted, trained, confirmed = confirm_search(parts, encoder=eras.encoder)
        times = time_confirmed(config, dataset, confirmed, progress)
        comparison = summarise(
            config,
            ledger,
            trained=trained,
            confirmed=confirmed,
            times=times,
            cost_model=cost_model,
            encoder=eras.encoder,
        )
        best = best_tree(promoted, confirmed, cost_model)
        taxonomy = run_taxonomy(config, dataset.class_names)
        folder.write_results(export_best(best, dataset, cost_model, taxonomy), comparison)
        ledger.set_meta(COMPLETE, True)
        tracker.finish(tables(comparison), folder.best_tree_file)
    return comparison


def _run_id(ledger: Ledger) -> str:
    """The run's name with trackers, the same whenever it is resumed."""
    if ledger.meta(RUN_ID) is None:
        ledger.set_meta(RUN_ID, secrets.token_hex(4))
    return str(ledger.meta(RUN_ID))


def _restored(config: Config, dataset: Dataset, ledger: Ledger, checkpoint: Checkpoint) -> Preparation:
    """The features of a checkpoint, encoded again."""
    encoder = checkpoint.position.encoder
    packed = ledger.encoder(encoder)
    if packed is None:
        raise RunError(f"the ledger holds no encoder {encoder}, under which the last batch was evaluated")
    parameters: Mapping[str, NDArray[np.float32]] = unpack_state(packed)
    preparation = restore(
        dataset,
        config.encoder,
        parameters,
        device=config.joint.device,
        holdout=config.frozen.holdout,
        max_tokens=config.frozen.max_tokens,
    )
    if preparation.hash != encoder:
        raise RunError(
            f"the encoder's features must be those of the search ({encoder}), but here it gives others"
            f" ({preparation.hash}); resume on the kind of machine, and with the package versions, of environment.json"
        )
    return preparation


def _cost_model(
    config: Config, counts: NDArray[np.float64], folder: RunFolder, progress: ProgressReporter
) -> CostModel:
    """What compute takes from the reward; a table that the folder holds is not measured again."""
    if config.cost.kind == "measured" and folder.cost_table_file.is_file():
        return measured_cost_model(config, counts, CostTable.load(folder.cost_table_file))
    cost_model = make_cost_model(config, counts, progress)
    if cost_model.table is not None:
        folder.write_cost_table(cost_model.table)
    return cost_model


def _check_changes(before: Config, after: Config) -> None:
    """Refuse by name what would make evaluations incomparable."""
    old, new = (dict(_settings(config.model_dump(mode="json"))) for config in (before, after))
    for key, value in new.items():
        if value != old[key] and not any(key == free or key.startswith(f"{free}.") for free in CHANGEABLE):
            raise RunError(
                f"{key} must stay {old[key]!r}, which all evaluations of a run share, but got {value!r};"
                " start a new search"
            )


def _settings(raw: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every ``section.setting`` with its value; a setting of the top level stands alone."""
    flat: list[tuple[str, Any]] = []
    for name, value in raw.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{key}", setting) for key, setting in value.items()]
        else:
            flat.append((name, value))
    return flat
