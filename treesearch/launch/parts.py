"""The parts of a run, each made from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs import ConstructionTask
from treesearch.builders import build_tree, builder_label, split_builder
from treesearch.builders.categories import check_categories
from treesearch.config import TAXONOMY, Config, FeaturesConfig, InteractionsConfig, LabelsConfig, with_settings
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.data import (
    Dataset,
    load_documents,
    load_features,
    load_interactions,
    load_labelled_features,
    load_python_stdlib,
    load_text,
)
from treesearch.errors import ConfigError
from treesearch.evaluation.calibration import calibrate
from treesearch.evaluation.directions import TrainedDirections
from treesearch.evaluation.encoders import check_encoder
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.preparation import Preparation, prepare
from treesearch.launch.categories import CATEGORIES, named_categories, resolve_categories, token_stream
from treesearch.launch.proposer import make_proposer
from treesearch.launch.taxonomy import named_taxonomy, run_taxonomy
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import BUILDER
from treesearch.search.executors import Executor, LocalExecutor, WorkerFactory
from treesearch.search.frozen_rung import Candidate
from treesearch.search.ledger import Ledger
from treesearch.search.worker import EvaluationWorker, WorkerSettings, worker_arrays
from treesearch.tree import Tree

SIMILARITY = "similarity"  # option of these builders: which class vectors of the data they group by
BY_SIMILARITY = ("clustered", "interpolated", "similar-huffman", "two-level")


@dataclass(frozen=True)
class RunParts:
    """What all stages of a run share."""

    config: Config
    dataset: Dataset
    cost_model: CostModel
    executor: Executor
    ledger: Ledger
    progress: ProgressReporter

    @property
    def counts(self) -> NDArray[np.float64]:
        """[C] training counts."""
        return self.dataset.counts.astype(np.float64)


def load_data(config: Config) -> tuple[Config, Dataset]:
    """What the configuration names, and the configuration with the size of the features where there is no encoder.

    Raises:
        DataError: The data cannot be used.
    """
    dataset = _load(config)
    if config.encoder.kind == "identity" and "features" not in config.encoder.model_fields_set:
        config = with_settings(config, {"encoder.features": dataset.spec.size})
    return config, dataset


def _load(config: Config) -> Dataset:
    data, context = config.data, config.encoder.context
    if isinstance(data, FeaturesConfig):
        return load_features(
            data.train, data.valid, data.test, num_classes=data.num_classes, class_names=data.class_names
        )
    if isinstance(data, InteractionsConfig):
        return load_interactions(
            data.path,
            context=context,
            min_user_count=data.min_user_count,
            min_item_count=data.min_item_count,
            min_rating=data.min_rating,
        )
    if isinstance(data, LabelsConfig) and data.of_documents:
        return load_documents(
            data.train,
            data.valid,
            data.test,
            context=context,
            max_words=data.max_words,
            min_word_count=data.min_word_count or 1,
        )
    if isinstance(data, LabelsConfig):
        return load_labelled_features(
            data.train, data.valid, data.test, num_classes=data.num_classes, class_names=data.class_names
        )
    if data.source is None:
        return load_text(*data.files(), max_classes=data.max_classes).dataset(context)
    assert data.max_classes is not None
    return load_python_stdlib(max_classes=data.max_classes, max_train_tokens=data.max_train_tokens).dataset(context)


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


def prepare_run(
    config: Config, dataset: Dataset, progress: ProgressReporter, *, tree: Tree | None = None
) -> Preparation:
    """Train the encoder and cache features; on ``tree``, where there is one, beside the configured trees."""
    return prepare(
        dataset,
        config.encoder,
        seed=config.seed,
        device=config.joint.device,
        holdout=config.frozen.holdout,
        max_tokens=config.frozen.max_tokens,
        tree=tree,
        on_step=progress.update,
    )


def make_directions(config: Config, dataset: Dataset, preparation: Preparation) -> TrainedDirections:
    """What trains single nodes on the cached features."""
    return TrainedDirections(
        preparation.train,
        dataset.counts.astype(np.float64),
        learning_rate=config.frozen.learning_rate,
    )


def make_task(config: Config, dataset: Dataset, preparation: Preparation) -> ConstructionTask:
    """What trees are built for.

    Raises:
        ConfigError: The categories are unknown, or the data have no class names.
        DataError: The file of categories cannot be used, or class names do not fit their rule or the taxonomy.
        TreeError: The taxonomy cannot be used.
    """
    return ConstructionTask(
        dataset.counts.astype(np.float64),
        preparation.vectors,
        config.encoder.features,
        config.cost.weight,
        config.seed,
        categories=_categories(config, dataset),
        directions=make_directions(config, dataset, preparation),
        taxonomy=run_taxonomy(config, dataset.class_names),
        refine=config.environment.refine,
    )


def _categories(config: Config, dataset: Dataset) -> NDArray[np.int64] | None:
    wanted = config.environment.categories
    if wanted is None:
        return None
    stream = token_stream(config, dataset)
    return resolve_categories(wanted, dataset.class_names, where="environment.categories", stream=stream)


V = TypeVar("V")


def named_vectors(
    name: str, options: Mapping[str, Any], own: V, dataset: Dataset
) -> tuple[V | NDArray[np.float32], dict[str, Any]]:
    """Of a builder that groups by similarity: the class vectors that its option ``similarity`` names, and the rest.

    Args:
        name: Of the builder.
        options: Of the builder.
        own: What it takes without that option.
        dataset: Whose vectors can be named.

    Raises:
        ConfigError: The data have no vectors of that name.
    """
    rest = dict(options)
    groups_by = rest.get("within") if name == CATEGORIES else name
    if groups_by not in BY_SIMILARITY or SIMILARITY not in rest:
        return own, rest
    wanted = rest.pop(SIMILARITY)
    if name == "two-level" and rest.get("by") != "similarity":
        raise ConfigError(f"{SIMILARITY} of builder 'two-level' applies to by: similarity, but got {rest.get('by')!r}")
    if not isinstance(wanted, str) or wanted not in dataset.vectors:
        raise ConfigError(
            f"{SIMILARITY} of builder {name!r} must be one of {sorted(dataset.vectors)} for these data, but got"
            f" {wanted!r}; leave it out to take the encoder's"
        )
    return dataset.vectors[wanted](), rest


def make_executor(
    config: Config, dataset: Dataset, preparation: Preparation, make_worker: WorkerFactory = EvaluationWorker
) -> Executor:
    """Workers that hold the data and the features; ``make_worker`` builds each where it is to run.

    Raises:
        ExecutionError: The cluster cannot be reached or is too small.
    """
    arrays = worker_arrays(dataset, preparation)
    settings = WorkerSettings(config.encoder, config.frozen, config.joint, dataset.spec, dataset.classify)
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


def check_choices(config: Config, dataset: Dataset, *, policy: Path | None = None) -> None:
    """Refuse before training what would be refused after it.

    Unknown encoders, devices, agents, settings, actions, builders, options; cost tables, categories and policies that
    cannot be used.

    Args:
        config: What to do.
        dataset: On what.
        policy: What the agent's policy is to start from.

    Raises:
        ConfigError: One of them is unknown or out of range, the encoder does not read such data, or the cost table is
            of another layer.
        DataError: ``cost.table`` is no cost table, the file of categories cannot be used, or a class is not in the
            taxonomy.
        TreeError: A taxonomy cannot be used.
        RunError: The policy cannot be read, or is for other actions.
    """
    features, counts = config.encoder.features, dataset.counts.astype(np.float64)
    check_encoder(config.encoder, dataset.spec)
    resolve_device(config.joint.device)
    resolve_device(config.frozen.device)
    if config.cost.table is not None:
        measured_cost_model(config, counts, CostTable.load(config.cost.table))
    placeholder = np.zeros((counts.size, features), np.float32)
    categories = _categories(config, dataset)
    stream, taxonomy = token_stream(config, dataset), run_taxonomy(config, dataset.class_names)
    task = ConstructionTask(
        counts,
        placeholder,
        features,
        config.cost.weight,
        config.seed,
        categories=categories,
        directions=_no_directions,
        taxonomy=taxonomy,
        refine=config.environment.refine,
    )
    make_proposer(config, task, policy).agent.start(config.cost.weight)
    few = np.sort(counts)[::-1][:64]
    for entries, directions in ((config.search.builders, _no_directions), (config.encoder.trees, None)):
        for name, options in map(split_builder, entries):
            vectors, groups, own_taxonomy = placeholder, None, None
            if entries is config.search.builders:
                vectors, options = named_vectors(name, options, placeholder, dataset)
                groups, options = named_categories(name, options, dataset.class_names, stream)
                if groups is not None:  # the few classes below might be all of one
                    check_categories(groups, counts.size)
                    groups = np.arange(few.size) % 2
                own_taxonomy, options = named_taxonomy(name, options, dataset.class_names, own=taxonomy)
            elif name in (CATEGORIES, TAXONOMY):
                raise ConfigError(f"encoder.trees cannot hold builder {name!r}; search.builders can")
            if "cutoffs" in options:  # those are meant for the whole vocabulary
                continue
            own_counts = few if own_taxonomy is None else counts
            try:
                build_tree(
                    name,
                    counts=own_counts,
                    vectors=vectors[: few.size],
                    seed=config.seed,
                    directions=directions,
                    categories=groups,
                    taxonomy=own_taxonomy,
                    **options,
                )
            except ConfigError as error:
                where = "search.builders" if entries is config.search.builders else "encoder.trees"
                raise ConfigError(f"{where}: {builder_label(name, options)}: {error}") from None


def _no_directions(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Nodes that have learned nothing."""
    return np.zeros((sum(part.size for part in parts), len(parts)))


def builder_candidates(config: Config, dataset: Dataset, task: ConstructionTask) -> list[Candidate]:
    """The trees of the configured builders, in their order.

    Raises:
        ConfigError: A builder asks for class vectors that the data do not have, or for unknown categories.
        DataError: A file of categories cannot be used, or a class is not in a taxonomy.
        TreeError: A taxonomy cannot be used.
    """
    candidates = []
    stream = token_stream(config, dataset)
    for name, options in map(split_builder, config.search.builders):
        vectors, own = named_vectors(name, options, task.vectors, dataset)
        categories, own = named_categories(name, own, dataset.class_names, stream)
        taxonomy, own = named_taxonomy(name, own, dataset.class_names, own=task.taxonomy)
        tree = build_tree(
            name,
            counts=task.counts,
            vectors=vectors,
            seed=config.seed,
            directions=task.directions,
            categories=categories,
            taxonomy=taxonomy,
            **own,
        )
        candidates.append(Candidate(tree, BUILDER, builder_label(name, options)))
    return candidates
