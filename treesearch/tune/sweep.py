"""Sweeps: Ray Tune over whole searches, each in a run folder of its own that can be resumed like any other."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich import box
from rich.table import Table

from treesearch.config import (
    Config,
    Positive,
    Section,
    dump_config,
    make_config,
    read_settings,
    validate,
    with_settings,
)
from treesearch.errors import ConfigError, RunError, did_you_mean
from treesearch.launch import check_choices, load_data, pick_from_front, resume_search, run_search
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import FROZEN, JOINT
from treesearch.search.executors import describe
from treesearch.search.locks import claimed
from treesearch.search.ray_executor import connect_ray
from treesearch.search.run_folder import RunFolder

SWEEP = "sweep"  # section of the config, and the name of the experiment
# What searches have in common, or their rewards would not be comparable; and what is of the sweep, not of a search.
COMMON = ("data", "cost.kind", "cost.weight", "cost.phase", "cost.table", "confirm.seeds", "search.executor", "ray")
COMMON_ON_FROZEN = ("seed", "encoder", "frozen", "search.refresh_every")  # where only the frozen rung tells them apart
FREE = ("wandb", "tensorboard", "ray")  # sections that may change when a sweep goes on
RANGES = {"uniform": float, "loguniform": float, "randint": int}  # kinds of domains, and of their two bounds
LISTS = ("grid", "choice")


class SweepConfig(Section):
    """Which settings differ between searches, and how many searches there are."""

    # By setting: {grid: [...]} all, {choice: [...]} one at random, or {uniform | loguniform | randint: [low, high]}.
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    num_samples: Positive = 1  # draws; with grids, of each of their points
    max_concurrent: Positive | None = None  # searches at a time; null: as many as there are CPUs


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, SweepConfig]:
    """A config with a section ``sweep``.

    Raises:
        ConfigError: As `treesearch.config.load_config`, or the sweep is none.
    """
    raw = read_settings(path, overrides)
    if SWEEP not in raw:
        raise ConfigError(
            f"{path} needs a section sweep with a space, such as {{search.agent: {{grid: [hybrid, evolution]}}}}"
        )
    settings = raw.pop(SWEEP)
    if not isinstance(settings, dict):
        raise ConfigError(f"sweep must be a mapping, but got {settings!r:.80}")
    config, sweep = make_config(raw), validate(SweepConfig, settings, f"{SWEEP}.")
    _check(config, sweep)
    return config, sweep


def run_sweep(config: Config, sweep: SweepConfig, folder: Path, progress: ProgressReporter) -> list[dict[str, Any]]:
    """Run all searches of a sweep; what the folder holds of it is not run again, and searches that were stopped go on.

    Every search runs in one process with one worker (``search.executor: local``).

    Args:
        config: What the searches have in common.
        sweep: What differs.
        folder: Gets ``config.yaml`` (what must stay), ``runs/TRIAL`` for each search, Tune's own files, and the rows in
            ``sweep.json``.
        progress: Who is told.

    Returns:
        One row per search, best first: its settings, ``frozen_reward`` and ``joint_reward`` (of its best tree on
        validation data, at ``cost.weight``), that tree's name, cost and NLL, and the error of one that failed.

    Raises:
        TreeSearchError: The corpus or a setting cannot be used, or the folder holds another sweep.
    """
    folder = folder.resolve()
    config, dataset = load_data(config)
    for one in _listed_configs(config, sweep):
        check_choices(one, dataset)
    with claimed(folder, _identity(config, sweep), SWEEP, empty=True):
        return _run_searches(config, sweep, folder, progress)


def _run_searches(config: Config, sweep: SweepConfig, folder: Path, progress: ProgressReporter) -> list[dict[str, Any]]:
    """What `run_sweep` gives, in a folder that is this process' own."""
    # Its own handler would wait for the searches; they can be resumed.
    os.environ |= {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the rows
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in the config are relative to here
    }
    ray, owns_ray = connect_ray(config.ray.address, num_cpus=os.cpu_count() or 1)
    try:
        with redirect_stdout(io.StringIO()):  # for data alone
            results = _tuner(config, sweep, folder, progress).fit()
        rows = [_row(sweep, result) for result in results]
        rows.sort(key=lambda row: (-_score(config, row), row["search"]))
        (folder / "sweep.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ray.exceptions.RayError, ray.tune.error.TuneError) as error:
        raise RunError(f"the sweep in {folder} stopped: {describe(error)}; mend that and run the same again") from None
    finally:
        if owns_ray:
            ray.shutdown()
    if len(rows) < _num_searches(sweep):
        raise RunError(f"{folder} holds {len(rows)} of {_num_searches(sweep)} searches; choose another --out")
    return rows


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    settings = list(rows[0]["settings"]) if rows else []
    short = [key.rpartition(".")[2] for key in settings]
    for heading in ("search", *(short if len(set(short)) == len(short) else settings)):
        table.add_column(heading, overflow="fold")
    for heading in ("frozen reward", "joint reward", "valid NLL", "cost"):
        table.add_column(heading, justify="right")
    table.add_column("best tree", overflow="fold")
    for row in rows:
        figures = [_number(row[key]) for key in ("frozen_reward", "joint_reward", "valid_nll", "cost")]
        chosen = [_setting(value) for value in row["settings"].values()]
        table.add_row(row["search"], *chosen, *figures, row["error"] or row["best"])
    return table


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _tuner(config: Config, sweep: SweepConfig, folder: Path, progress: ProgressReporter) -> Any:
    """A new experiment, or the one that the folder holds."""
    from ray import tune

    trainable = tune.with_resources(
        tune.with_parameters(search_trial, base=config.model_dump(mode="json"), folder=str(folder)),
        {"cpu": 1, "gpu": config.ray.gpus_per_worker},
    )
    experiment = folder / SWEEP
    space = {key: _domain(domain) for key, domain in sweep.space.items()}
    if any(experiment.glob("experiment_state-*.json")):
        progress.say(f"going on with the sweep in {folder}")
        return tune.Tuner.restore(
            str(experiment), trainable, resume_errored=True, resume_unfinished=True, param_space=space
        )
    shutil.rmtree(experiment, ignore_errors=True)  # of one that was stopped before it began
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=tune.search.BasicVariantGenerator(random_state=config.seed),
            num_samples=sweep.num_samples,
            max_concurrent_trials=sweep.max_concurrent,
        ),
        run_config=tune.RunConfig(
            name=SWEEP, storage_path=str(folder), verbose=0, callbacks=[_teller(_num_searches(sweep))]
        ),
    )


def _num_searches(sweep: SweepConfig) -> int:
    return sweep.num_samples * math.prod(len(domain["grid"]) for domain in sweep.space.values() if "grid" in domain)


def _teller(total: int) -> Any:
    """Says on stderr which searches are done. Tune pickles it, so that it holds little."""
    from ray.tune import Callback

    class Teller(Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
            done = sum(one is trial or one.is_finished() for one in trials)
            said = "failed" if trial.status == "ERROR" else f"best tree {(trial.last_result or {}).get('best')}"
            ProgressReporter().say(f"sweep: {done}/{total} searches, {trial.trial_id}: {said}")

        on_trial_error = on_trial_complete

    return Teller()


def search_trial(assignments: Mapping[str, Any], *, base: Mapping[str, Any], folder: str) -> None:
    """One search, begun or gone on with, in a process of Tune's."""
    from ray import tune

    config = _assigned(make_config(base), assignments)
    run = RunFolder(Path(folder) / "runs" / str(tune.get_context().get_trial_id()))
    begin = time.monotonic()
    with ProgressReporter(quiet=True) as progress:
        if _has_begun(run):
            free = {section: getattr(config, section) for section in FREE if section != "ray"}
            overrides = [f"{name}={one.model_dump_json()}" for name, one in free.items()]
            comparison = resume_search(run, progress, overrides=overrides)
        else:
            shutil.rmtree(run.path, ignore_errors=True)
            comparison = run_search(config, run, progress)
    tune.report({**_figures(comparison), "seconds": time.monotonic() - begin})


def _has_begun(run: RunFolder) -> bool:
    """Whether there is anything to go on with."""
    if not run.ledger_file.exists():
        return False
    with suppress(RunError), run.read() as ledger:
        return ledger.meta("corpus") is not None
    return False


def _figures(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Best rewards on validation data, and the tree of the highest rung's."""
    weight = comparison["cost_weight"]
    found: dict[str, Any] = {}
    for rung in (FROZEN, JOINT):
        best = pick_from_front(comparison, cost_weight=weight, rung=rung)
        found[f"{rung}_reward"] = None if best is None else -best["valid_nll"] - weight * best["cost"]
        if best is not None:
            found |= {"best": best["name"], "cost": best["cost"], "valid_nll": best["valid_nll"]}
    return found


def _row(sweep: SweepConfig, result: Any) -> dict[str, Any]:
    metrics = result.metrics or {}
    keys = ("frozen_reward", "joint_reward", "best", "cost", "valid_nll", "seconds")
    return {
        "search": metrics.get("trial_id") or Path(result.path).name,
        "settings": {key: result.config[key] for key in sweep.space},
        **{key: metrics.get(key) for key in keys},
        "error": None if result.error is None else str(result.error).strip().rpartition("\n")[2],
    }


def _score(config: Config, row: Mapping[str, Any]) -> float:
    value = row["joint_reward" if config.confirm.seeds else "frozen_reward"]
    return float("-inf") if value is None else float(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


# -- the space ---------------------------------------------------------------------------------------------------------


def _check(config: Config, sweep: SweepConfig) -> None:
    """Refuse what Tune would only fail at in every trial, and what would make rewards incomparable."""
    common = COMMON if config.confirm.seeds else (*COMMON, *COMMON_ON_FROZEN)
    for key, domain in sweep.space.items():
        if any(key == fixed or key.startswith(f"{fixed}.") or fixed.startswith(f"{key}.") for fixed in common):
            raise ConfigError(f"searches of a sweep must have {key} in common, or their rewards cannot be compared")
        if len(domain) != 1:
            raise ConfigError(f"sweep.space.{key} must have one kind, {_kinds()}, but got {sorted(domain)}")
        ((kind, values),) = domain.items()
        if kind not in (*LISTS, *RANGES):
            raise ConfigError(f"sweep.space.{key}: unknown kind {kind!r}{did_you_mean(kind, (*LISTS, *RANGES))}")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"sweep.space.{key}.{kind} must be a list, but got {values!r:.80}")
        if kind in RANGES:
            _check_range(f"sweep.space.{key}.{kind}", kind, values)
    for section in ("frozen", "joint"):
        if getattr(config, section).time_limit is not None:
            raise ConfigError(f"{section}.time_limit cannot be kept: a search of a sweep is one process; drop it")
    if config.cost.kind == "measured" and config.cost.table is None:
        raise ConfigError("a sweep with cost.kind: measured needs cost.table, since every search would measure its own")
    _listed_configs(config, sweep)


def _check_range(where: str, kind: str, values: Sequence[Any]) -> None:
    numbers = len(values) == 2 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    if not numbers or not values[0] < values[1] or (kind == "loguniform" and values[0] <= 0):
        positive = ", both > 0," if kind == "loguniform" else ""
        raise ConfigError(f"{where} must be [low, high]{positive} with low < high, but got {values}")
    if RANGES[kind] is int and not all(isinstance(one, int) for one in values):
        raise ConfigError(f"{where} must have whole numbers, but got {values}")


def _kinds() -> str:
    return " or ".join((*LISTS, *RANGES))


def _listed_configs(config: Config, sweep: SweepConfig) -> list[Config]:
    """The config with every value of the lists and every bound of the ranges, beside the first ones of the others."""
    values: dict[str, list[Any]] = {}
    for key, domain in sweep.space.items():
        ((kind, listed),) = domain.items()
        values[key] = [listed[0], listed[1] - 1] if kind == "randint" else listed
    first = {key: listed[0] for key, listed in values.items()}
    return [_assigned(config, {**first, key: value}) for key, listed in values.items() for value in listed]


def _assigned(config: Config, assignments: Mapping[str, Any]) -> Config:
    return with_settings(config, {**assignments, "search.executor": "local"})


def _domain(domain: Mapping[str, Any]) -> Any:
    from ray import tune

    ((kind, values),) = domain.items()
    if kind in RANGES:
        return getattr(tune, kind)(*values)
    return tune.grid_search(values) if kind == "grid" else tune.choice(values)


def _identity(config: Config, sweep: SweepConfig) -> str:
    """The text of ``config.yaml``: what must stay where a sweep goes on."""
    common = config.model_copy(update={section: getattr(Config(), section) for section in FREE})
    space = sweep.model_dump(mode="json", exclude={"max_concurrent"})
    return f"{dump_config(common)}# sweep: {json.dumps(space, sort_keys=True)}\n"
