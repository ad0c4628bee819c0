"""The parts of a run, each made from the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs import ConstructionTask
from treesearch.builders import build_tree, builder_label, split_builder
from treesearch.config import Config
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.data import Corpus, load_python_stdlib, load_text
from treesearch.data.categories import load_categories
from treesearch.errors import ConfigError
from treesearch.evaluation.calibration import calibrate
from treesearch.evaluation.directions import TrainedDirections
from treesearch.evaluation.encoder import make_encoder
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.preparation import Preparation, prepare
from treesearch.launch.proposer import make_proposer
from treesearch.progress import ProgressReporter
from treesearch.search.executors import Arrays, Executor, LocalExecutor, WorkerFactory
from treesearch.search.frozen_rung import BUILDER, Candidate
from treesearch.search.ledger import Ledger
from treesearch.search.worker import ENCODER_PREFIX, EvaluationWorker, WorkerSettings
from treesearch.tree import Tree


@dataclass(frozen=True)
class RunParts:
    """What all stages of a run share."""

    config: Config
    corpus: Corpus
    cost_model: CostModel
    executor: Executor
    ledger: Ledger
    progress: ProgressReporter

    @property
    def counts(self) -> NDArray[np.float64]:
        """[C] training counts."""
        return self.corpus.counts.astype(np.float64)


def load_corpus(config: Config) -> Corpus:
    """The text that the configuration names.

    Raises:
        DataError: It cannot be used.
    """
    data = config.data
    if data.source is None:
        return load_text(*data.files(), max_classes=data.max_classes)
    assert data.max_classes is not None
    return load_python_stdlib(max_classes=data.max_classes, max_train_tokens=data.max_train_tokens)


def make_cost_model(config: Config, counts: NDArray[np.float64], progress: ProgressReporter) -> CostModel:
    """What compute takes from the reward: the analytic cost, or times measured now or read from a file.

    Raises:
        DataError: The file holds no cost table.
        ConfigError: It is of another layer size or batch size than this run's, or Huffman's tree takes no time in it.
    """
    if config.cost.kind == "analytic":
        return CostModel(config.encoder.features, config.cost.weight)
    if config.cost.table is not None:
        return measured_cost_model(config, counts, CostTable.load(config.cost.table))
    progress.say("measuring what nodes cost on this machine")
    device = resolve_device(config.joint.device)
    table = calibrate(config.encoder.features, batch_size=config.joint.batch_size, device=device)
    return measured_cost_model(config, counts, table)


def measured_cost_model(config: Config, counts: NDArray[np.float64], table: CostTable) -> CostModel:
    """The times of a table, in units of which Huffman's tree has as many as decisions.

    Raises:
        ConfigError: As in `make_cost_model`.
    """
    features, batch_size, settings = config.encoder.features, config.joint.batch_size, config.cost
    if (table.in_features, table.batch_size) != (features, batch_size):
        raise ConfigError(
            f"cost.table must be of {features} features and batches of {batch_size}, but {str(settings.table)!r} is"
            f" of {table.in_features} and {table.batch_size}; leave it out to measure now"
        )
    huffman = build_tree("huffman", counts=counts)
    unit = float(CostModel(features, 1.0, table, settings.phase).node_losses(huffman, counts).sum())
    if not unit > 0:
        raise ConfigError(
            f"cost.table must give the Huffman tree a time > 0, but gives {unit}; leave it out to measure now"
        )
    return CostModel(features, settings.weight, table, settings.phase, unit / huffman.expected_depth(counts))


def prepare_run(config: Config, corpus: Corpus, progress: ProgressReporter, *, tree: Tree | None = None) -> Preparation:
    """Train the encoder and cache features; on ``tree``, where there is one, beside the configured trees."""
    return prepare(
        corpus,
        config.encoder,
        seed=config.seed,
        device=config.joint.device,
        holdout=config.frozen.holdout,
        max_tokens=config.frozen.max_tokens,
        tree=tree,
        on_step=progress.update,
    )


def worker_arrays(corpus: Corpus, preparation: Preparation) -> Arrays:
    """The data that workers share."""
    return {
        "train": corpus.train,
        "valid": corpus.valid,
        "test": corpus.test,
        "counts": corpus.counts.astype(np.float64),
        "vectors": preparation.vectors,
        "train_features": preparation.train.x,
        "train_labels": preparation.train.y,
        "valid_features": preparation.valid.x,
        "valid_labels": preparation.valid.y,
        **{f"{ENCODER_PREFIX}{name}": value for name, value in preparation.encoder.items()},
    }


def make_directions(config: Config, corpus: Corpus, preparation: Preparation) -> TrainedDirections:
    """What trains single nodes on the cached features."""
    return TrainedDirections(
        preparation.train,
        corpus.counts.astype(np.float64),
        learning_rate=config.frozen.learning_rate,
    )


def make_task(config: Config, corpus: Corpus, preparation: Preparation) -> ConstructionTask:
    """What trees are built for.

    Raises:
        DataError: The file of categories cannot be used.
    """
    return ConstructionTask(
        corpus.counts.astype(np.float64),
        preparation.vectors,
        config.encoder.features,
        config.cost.weight,
        config.seed,
        categories=_categories(config, corpus.class_names),
        directions=make_directions(config, corpus, preparation),
    )


def _categories(config: Config, class_names: Sequence[str] | None) -> NDArray[np.int64] | None:
    path = config.environment.categories
    return None if path is None or class_names is None else load_categories(path, class_names)


def make_executor(
    config: Config, corpus: Corpus, preparation: Preparation, make_worker: WorkerFactory = EvaluationWorker
) -> Executor:
    """Workers that hold the corpus and the features; ``make_worker`` builds each where it is to run.

    Raises:
        ExecutionError: The cluster cannot be reached or is too small.
    """
    arrays = worker_arrays(corpus, preparation)
    settings = WorkerSettings(config.encoder, config.frozen, config.joint, corpus.eos)
    if config.search.executor == "local":
        return LocalExecutor(make_worker, arrays=arrays, settings=settings)
    from treesearch.search.ray_executor import RayExecutor

    return RayExecutor(
        make_worker,
        arrays=arrays,
        settings=settings,
        num_workers=None if config.ray.num_workers == "auto" else config.ray.num_workers,
        max_in_flight=config.ray.max_in_flight,
        cpus_per_worker=config.ray.cpus_per_worker,
        gpus_per_worker=config.ray.gpus_per_worker,
        address=config.ray.address,
        max_attempts=config.ray.max_attempts,
    )


def check_choices(
    config: Config, counts: NDArray[np.float64], *, class_names: Sequence[str] | None = None, policy: Path | None = None
) -> None:
    """Refuse before training what would be refused after it.

    Unknown encoders, devices, agents, settings, actions, builders, options; cost tables, categories and policies that
    cannot be used.

    Args:
        config: What to do.
        counts: [C] training counts.
        class_names: C names; None leaves the file of categories unread.
        policy: What the agent's policy is to start from.

    Raises:
        ConfigError: One of them is unknown or out of range, or the cost table is of another layer.
        DataError: ``cost.table`` is no cost table, or the file of categories cannot be used.
        RunError: The policy cannot be read, or is for other actions.
    """
    features = config.encoder.features
    make_encoder(config.encoder.kind, 1, context=1, embedding=1, features=1)
    resolve_device(config.joint.device)
    resolve_device(config.frozen.device)
    if config.cost.table is not None:
        measured_cost_model(config, counts, CostTable.load(config.cost.table))
    placeholder = np.zeros((counts.size, features), np.float32)
    categories = _categories(config, class_names)
    task = ConstructionTask(
        counts,
        placeholder,
        features,
        config.cost.weight,
        config.seed,
        categories=categories,
        directions=_no_directions,
    )
    make_proposer(config, task, policy)
    few = np.sort(counts)[::-1][:64]
    for entries, directions in ((config.search.builders, _no_directions), (config.encoder.trees, None)):
        for name, options in map(split_builder, entries):
            if "cutoffs" not in options:  # those are meant for the whole vocabulary
                build_tree(
                    name,
                    counts=few,
                    vectors=placeholder[: few.size],
                    seed=config.seed,
                    directions=directions,
                    **options,
                )


def _no_directions(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Nodes that have learned nothing."""
    return np.zeros((sum(part.size for part in parts), len(parts)))


def builder_candidates(config: Config, task: ConstructionTask) -> list[Candidate]:
    """The trees of the configured builders, in their order."""
    candidates = []
    for name, options in map(split_builder, config.search.builders):
        tree = build_tree(
            name,
            counts=task.counts,
            vectors=task.vectors,
            seed=config.seed,
            directions=task.directions,
            **options,
        )
        candidates.append(Candidate(tree, BUILDER, builder_label(name, options)))
    return candidates
