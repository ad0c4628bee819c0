"""Searches side by side: the same task, builders and budget, other agents, settings and seeds; frozen rung alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from rich import box
from rich.table import Table

from treesearch.config import Config, dump_config, make_config, with_overrides
from treesearch.data import Dataset
from treesearch.errors import ConfigError, RunError
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.evaluation.features import Features
from treesearch.evaluation.preparation import Preparation
from treesearch.launch.eras import Eras
from treesearch.launch.parts import RunParts, check_choices, load_data, make_cost_model, make_executor, prepare_run
from treesearch.launch.records import policy_text, record_config, record_data, record_policy, record_session
from treesearch.progress import ProgressReporter
from treesearch.report.cells import gain_cell
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import CONFIG, POLICY
from treesearch.search.locks import claimed
from treesearch.search.study_ledgers import ledger_file, recorded, remove_unfinished

FINISHED = "finished"  # meta entry of a search that has spent its budget: its seconds
PREPARATION = "preparation.json"  # written last: what is shared is whole
REWARDS = "rewards"  # another: of each evaluation under the common λ, minus infinity where it has no score
FIRST_SEED = 1  # of the agents; the task keeps the config's


@dataclass(frozen=True)
class Variant:
    """A configuration under a name."""

    POLICY: ClassVar[str] = "policy"

    name: str
    assignments: tuple[str, ...]  # "search.agent=evolution", ...
    policy: Path | None = None  # where its agent starts

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From ``NAME`` (an agent), or ``NAME:key=value;key=value`` with settings, and ``policy=PATH`` for a start.

        Raises:
            ConfigError: An assignment without ``=``, or a name that cannot be a folder's.
        """
        name, colon, rest = text.partition(":")
        if not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(f"a variant's name must be letters, digits, '_', '-' or '.', but got {name!r:.80}")
        assignments = [part.strip() for part in rest.split(";") if part.strip()] if colon else [f"search.agent={name}"]
        for assignment in assignments:
            if "=" not in assignment:
                raise ConfigError(f"a variant must be NAME or NAME:key=value;..., but got {text!r:.80}")
        policies = [entry.partition("=")[2] for entry in assignments if entry.startswith(f"{cls.POLICY}=")]
        settings = tuple(entry for entry in assignments if not entry.startswith(f"{cls.POLICY}="))
        return cls(name, settings, Path(policies[-1]) if policies else None)

    def apply(self, config: Config) -> Config:
        """The configuration with the settings."""
        return with_overrides(config, self.assignments)


def run_study(
    config: Config,
    variants: Sequence[Variant],
    *,
    num_seeds: int,
    folder: Path,
    num_processes: int,
    progress: ProgressReporter,
) -> list[dict[str, Any]]:
    """Run every variant with every seed; searches that the folder holds already are not run again.

    The encoder, its features, the class vectors and the builders are the same for all; a seed is the agent's.

    Args:
        config: What all have in common.
        variants: Different names; the first is what the others are compared with.
        num_seeds: Searches of each.
        folder: One ledger for each search goes there.
        num_processes: Searches at a time.
        progress: Who is told.

    Returns:
        Rows of `study_rows`.

    Raises:
        TreeSearchError: Input or configuration cannot be used, or the folder holds another study.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigError(f"variants must have different names, but got {names}")
    config, dataset = load_data(config)
    configs = {variant.name: variant.apply(config) for variant in variants}
    policies = {variant.name: variant.policy for variant in variants}
    for variant in variants:
        check_choices(
            configs[variant.name],
            dataset,
            policy=variant.policy,
        )
        _check_common(config, configs[variant.name], variant.name)
    jobs = [(name, seed) for seed in range(FIRST_SEED, FIRST_SEED + num_seeds) for name in names]
    with claimed(folder, dump_config(config), "study", empty=False):
        remove_unfinished(folder)
        _check_settings(folder, configs, policies, jobs)
        open_jobs = [job for job in jobs if not ledger_file(folder, *job).is_file()]
        if open_jobs:
            _prepare(config, dataset, folder, progress)
            _run_all(
                [(configs[name], folder, name, seed, policies[name]) for name, seed in open_jobs],
                num_processes,
                progress,
            )
            remove_unfinished(folder)
        found = curves(folder, names, num_seeds)
    return study_rows(found, names[0])


def _run_all(searches: Sequence[tuple[Any, ...]], num_processes: int, progress: ProgressReporter) -> None:
    """Arguments of `_search`, in processes of their own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_begin_process) as pool:
        futures = [pool.submit(_search, *search) for search in searches]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress.update("study", done, len(searches), "searches")


def curves(folder: Path, names: Sequence[str], num_seeds: int) -> dict[str, list[list[float]]]:
    """Best reward so far after each evaluation, by variant, by seed."""
    found: dict[str, list[list[float]]] = {}
    for name in names:
        for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
            with Ledger(ledger_file(folder, name, seed), read_only=True) as ledger:
                rewards = ledger.meta(REWARDS)
            if not rewards:
                raise RunError(
                    f"{ledger_file(folder, name, seed)} holds no {REWARDS}: delete it and run the same again"
                )
            found.setdefault(name, []).append(np.maximum.accumulate(rewards).tolist())
    return found


def study_rows(best: Mapping[str, Sequence[Sequence[float]]], reference: str) -> list[dict[str, Any]]:
    """One row per variant: best reward at the full budget and over the whole curve, and the gain over the reference.

    Args:
        best: Best reward so far after each evaluation, by variant and seed.
        reference: The variant that gains are taken from, paired by seed.
    """
    rows = []
    for name, runs in best.items():
        final = [run[-1] for run in runs]
        mean = [float(np.mean(run)) for run in runs]
        row: dict[str, Any] = {
            "variant": name,
            "seeds": len(runs),
            "evaluations": len(runs[0]),
            "best_reward": t_interval(final).as_dict(),
            "mean_best_so_far": t_interval(mean).as_dict(),
            "by_seed": final,
        }
        others = best[reference]
        goal = [run[-1] for run in others]
        row["to_reach_reference"] = [_first_at_least(run, value) for run, value in zip(runs, goal, strict=True)]
        if name != reference:
            row["gain"] = paired_difference(final, [run[-1] for run in others]).as_dict()
            row["gain_curve"] = paired_difference(mean, [float(np.mean(run)) for run in others]).as_dict()
        rows.append(row)
    return rows


def _first_at_least(run: Sequence[float], goal: float) -> int | None:
    """After how many evaluations the best reward reaches ``goal``; None where it never does."""
    return next((number for number, value in enumerate(run, start=1) if value >= goal), None)


def study_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    headings = ["best reward", f"gain over {rows[0]['variant']} [95 %]", "mean of the curve, gain [95 %]", "reaches it"]
    table.add_column("variant", overflow="fold", min_width=12)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        reached = [number for number in row["to_reach_reference"] if number is not None]
        table.add_row(
            row["variant"],
            f"{row['best_reward']['mean']:.4f}",
            str(gain_cell(row.get("gain"), 4)),
            str(gain_cell(row.get("gain_curve"), 4)),
            f"{len(reached)}/{row['seeds']}" + (f", after {np.median(reached):.0f}" if reached else ""),
        )
    return table


# -- one search --------------------------------------------------------------------------------------------------------


def _search(config: Config, folder: Path, name: str, seed: int, policy: Path | None) -> None:
    """Run one search in this process."""
    (config, dataset), preparation = load_data(config), _load_preparation(folder)
    with ProgressReporter(quiet=True) as progress:
        cost_model = make_cost_model(config, dataset.counts.astype(float), progress)
        with (
            recorded(ledger_file(folder, name, seed)) as ledger,
            make_executor(_local(config), dataset, preparation) as executor,
        ):
            record_config(ledger, config)
            record_policy(ledger, policy)
            record_data(ledger, dataset)
            record_session(ledger)
            eras = Eras(RunParts(config, dataset, cost_model, executor, ledger, progress))
            begin = perf_counter()
            eras.search(eras.first(preparation, policy, seed=seed))
            ledger.set_meta(REWARDS, [row.validation_reward(cost_model) for row in ledger.rows(FROZEN)])
            ledger.set_meta(FINISHED, perf_counter() - begin)


def _local(config: Config) -> Config:
    return config.model_copy(update={"search": config.search.model_copy(update={"executor": "local"})})


def _begin_process() -> None:
    """One thread for each process; it ends with the study's, or it would go on with what is queued for it."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "processes of a study are started by it"
    parent.join()
    os._exit(1)


def _check_common(config: Config, own: Config, name: str) -> None:
    """Variants share what makes rewards comparable."""
    for section in ("data", "encoder"):
        if getattr(config, section) != getattr(own, section):
            raise ConfigError(f"variants must have {section} in common, but {name!r} changes it; make another study")
    shared = ("max_tokens", "holdout")
    if (config.seed, config.cost) != (own.seed, own.cost) or any(
        getattr(config.frozen, key) != getattr(own.frozen, key) for key in shared
    ):
        keys = ", ".join(f"frozen.{key}" for key in shared)
        raise ConfigError(f"variants must have seed, cost, {keys} in common, but {name!r} changes them")


def _check_settings(
    folder: Path, configs: Mapping[str, Config], policies: Mapping[str, Path | None], jobs: Sequence[tuple[str, int]]
) -> None:
    """A variant that the folder holds is the one of the same name, where its ledgers tell."""
    for name, seed in jobs:
        file = ledger_file(folder, name, seed)
        if not file.is_file():
            continue
        with Ledger(file, read_only=True) as ledger:
            settings, policy = ledger.meta(CONFIG), ledger.meta(POLICY)
        same = settings is None or make_config(settings) == configs[name]
        if not same or (settings is not None and policy != policy_text(policies[name])):
            raise RunError(
                f"{folder} holds a variant {name!r} with other settings; give this one another name, or choose another"
                " --out"
            )


# -- the folder --------------------------------------------------------------------------------------------------------


def _prepare(config: Config, dataset: Dataset, folder: Path, progress: ProgressReporter) -> None:
    file = folder / PREPARATION
    if file.exists():
        if _prepared(file)["data"] != dataset.hash:
            raise RunError(f"{folder} holds a study of other data: the files have changed since; choose another --out")
        return
    preparation = prepare_run(config, dataset, progress)
    for name, split in (("train", preparation.train), ("valid", preparation.valid)):
        shape = len(split), split.num_features
        features = np.lib.format.open_memmap(folder / f"{name}_features.npy", "w+", np.float32, shape)
        begin = 0
        for x, _ in split.blocks():
            features[begin : begin + len(x)] = x
            begin += len(x)
        features.flush()
        np.save(folder / f"{name}_labels.npy", split.labels)
    np.save(folder / "vectors.npy", preparation.vectors)
    np.savez(folder / "encoder.npz", allow_pickle=False, **preparation.encoder)
    file.write_text(json.dumps({"hash": preparation.hash, "data": dataset.hash}))


def _prepared(file: Path) -> dict[str, str]:
    """The hashes of the features and of the data."""
    try:
        content: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(content[key], str) for key in ("hash", "data")):
            raise ValueError("hash and data must be texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is damaged ({type(error).__name__}: {error}); delete it and run the same again"
        ) from None
    return content


def _load_preparation(folder: Path) -> Preparation:
    train, valid = (
        Features(np.load(folder / f"{name}_features.npy", mmap_mode="r"), np.load(folder / f"{name}_labels.npy"))
        for name in ("train", "valid")
    )
    digest = _prepared(folder / PREPARATION)["hash"]
    with np.load(folder / "encoder.npz") as state:
        return Preparation(train, valid, np.load(folder / "vectors.npy"), dict(state), digest)
