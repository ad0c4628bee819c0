"""Composition root: from a configuration to a finished run.

With `treesearch.cli` the only importer of envs and agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents import Agent, Evaluated, Proposal, make_agent, pack_state, unpack_state
from envs import DEFAULT_ACTIONS, ConstructionTask, Evaluation
from treesearch.builders import build_tree, builder_label
from treesearch.config import Config
from treesearch.cost import CostModel
from treesearch.cost_table import CostTable
from treesearch.data import Corpus, load_python_stdlib, load_text
from treesearch.errors import ConfigError
from treesearch.evaluation.calibration import calibrate
from treesearch.evaluation.comparison import rank_correlation
from treesearch.evaluation.encoder import make_encoder
from treesearch.evaluation.joint import resolve_device
from treesearch.evaluation.preparation import Preparation, prepare
from treesearch.evaluation.scores import TreeScore
from treesearch.progress import ProgressReporter
from treesearch.report.tables import comparison_rows
from treesearch.search.confirm import Confirmed, JointRung, Promoted, choose_finalists, confirm, promote
from treesearch.search.executors import Executor, LocalExecutor
from treesearch.search.ledger import CONFIRM, FROZEN, JOINT, EvaluationRow, Ledger
from treesearch.search.loop import BUILDER, Candidate, FrozenRung, Objective, search
from treesearch.search.monitor import SearchMonitor
from treesearch.search.run_folder import RunFolder, next_free_folder
from treesearch.search.trackers import make_tracker
from treesearch.search.worker import EvaluationWorker, WorkerSettings
from treesearch.tree import Tree

CONFIRM_SEEDS = 1000  # seeds of the reported runs: CONFIRM_SEEDS * (seed + 1) + i, apart from all others


def run_search(config: Config, folder: RunFolder, progress: ProgressReporter) -> dict[str, Any]:
    """Run a whole search: prepare, search, confirm, export.

    Args:
        config: What to do.
        folder: Where; must be new or empty.
        progress: Who is told.

    Returns:
        The content of ``comparison.json``.

    Raises:
        TreeSearchError: Input, configuration or folder cannot be used, or evaluations kept failing.
    """
    folder.check_free()
    corpus = load_corpus(config)
    counts = corpus.counts.astype(np.float64)
    check_choices(config, counts)
    with folder.create(config) as ledger, make_tracker(config, folder.path) as tracker:
        progress.say(f"{corpus.num_classes} classes, {len(corpus.train)} training tokens; results go to {folder.path}")
        preparation = prepare_run(config, corpus, progress)
        ledger.set_meta("encoder", preparation.hash)
        ledger.set_meta("counts", corpus.counts.tolist())
        ledger.set_meta("corpus", corpus.source | {"hash": corpus.hash})
        cost_model = make_cost_model(config, counts, progress)
        if cost_model.table is not None:
            folder.write_cost_table(cost_model.table)
        task = ConstructionTask(counts, preparation.vectors, config.encoder.features, config.cost.weight, config.seed)
        with make_executor(config, corpus, preparation) as executor:
            objective = Objective(counts, cost_model, preparation.hash)
            monitor = SearchMonitor(config.search.evaluations, progress, tracker.log)
            rung = FrozenRung(executor, ledger, objective, monitor)
            search(
                rung,
                make_proposer(config, task),
                builder_candidates(config, counts, preparation.vectors),
                ledger,
                evaluations=config.search.evaluations,
                batch_size=config.search.batch_size,
            )
            promoted = promote(ledger, counts=counts, cost_model=cost_model, num_trees=config.confirm.promote)
            confirmed = confirm_promoted(config, promoted, cost_model, executor, ledger, progress)
        comparison = summarise(config, ledger, confirmed, cost_model)
        best = best_tree(promoted, confirmed, cost_model)
        folder.write_results(export_best(best, corpus), comparison)
        tracker.finish(comparison, folder.best_tree_file)
    return comparison


# -- parts -------------------------------------------------------------------------------------------------------------


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
        return _measured_cost_model(config, counts, CostTable.load(config.cost.table))
    progress.say("measuring what nodes cost on this machine")
    device = resolve_device(config.joint.device)
    table = calibrate(config.encoder.features, batch_size=config.joint.batch_size, device=device)
    return _measured_cost_model(config, counts, table)


def _measured_cost_model(config: Config, counts: NDArray[np.float64], table: CostTable) -> CostModel:
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
    return CostModel(features, settings.weight * huffman.expected_depth(counts) / unit, table, settings.phase)


def prepare_run(config: Config, corpus: Corpus, progress: ProgressReporter) -> Preparation:
    """Train the encoder and cache features."""
    return prepare(
        corpus,
        config.encoder,
        seed=config.seed,
        device=config.joint.device,
        max_tokens=config.frozen.max_tokens,
        on_step=progress.update,
    )


def make_executor(config: Config, corpus: Corpus, preparation: Preparation) -> Executor:
    """Workers that hold the corpus and the features.

    Raises:
        ExecutionError: The cluster cannot be reached or is too small.
    """
    arrays: dict[str, NDArray[Any]] = {
        "train": corpus.train,
        "valid": corpus.valid,
        "test": corpus.test,
        "counts": corpus.counts.astype(np.float64),
        "train_features": preparation.train_features,
        "valid_features": preparation.valid_features,
    }
    settings = WorkerSettings(config.encoder, config.frozen, config.joint, corpus.eos, config.seed)
    if config.search.executor == "local":
        return LocalExecutor(EvaluationWorker, arrays=arrays, settings=settings)
    from treesearch.search.ray_executor import RayExecutor

    return RayExecutor(
        EvaluationWorker,
        arrays=arrays,
        settings=settings,
        num_workers=config.ray.num_workers,
        cpus_per_worker=config.ray.cpus_per_worker,
        gpus_per_worker=config.ray.gpus_per_worker,
        address=config.ray.address,
    )


def check_choices(config: Config, counts: NDArray[np.float64]) -> None:
    """Refuse unknown encoders, devices, agents, settings, actions, builders, options and cost tables before training.

    Raises:
        ConfigError: One of them is unknown or out of range, or the cost table is of another layer.
        DataError: ``cost.table`` is no cost table.
    """
    features = config.encoder.features
    make_encoder(config.encoder.kind, 1, context=1, embedding=1, features=1)
    resolve_device(config.joint.device)
    if config.cost.table is not None:
        _measured_cost_model(config, counts, CostTable.load(config.cost.table))
    placeholder = np.zeros((counts.size, features), np.float32)
    make_proposer(config, ConstructionTask(counts, placeholder, features, config.cost.weight, config.seed))
    few = np.sort(counts)[::-1][:64]
    for name, options in map(split_builder, config.search.builders):
        if "cutoffs" not in options:  # those are meant for the whole vocabulary
            build_tree(name, counts=few, vectors=placeholder[: few.size], seed=config.seed, **options)


def builder_candidates(config: Config, counts: NDArray[np.float64], vectors: NDArray[np.float32]) -> list[Candidate]:
    """The trees of the configured builders, in their order."""
    candidates = []
    for name, options in map(split_builder, config.search.builders):
        tree = build_tree(name, counts=counts, vectors=vectors, seed=config.seed, **options)
        candidates.append(Candidate(tree, BUILDER, builder_label(name, options)))
    return candidates


def split_builder(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A builder's name and its options."""
    options = dict(entry)
    name = str(options.pop("name"))
    for key in ("counts", "vectors", "seed"):
        if key in options:
            raise ConfigError(f"builder {name!r} takes {key} from the run; leave {key}: {options[key]!r:.60} out")
    return name, options


class AgentProposer:
    """An agent as the search loop sees it: a `treesearch.search.loop.Proposer`.

    Args:
        agent: Asked and told.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._asked: list[Proposal] = []

    def ask(self, num: int) -> list[Candidate]:
        """Propose ``num`` trees."""
        self._asked = self.agent.ask(num)
        names = [action.name for action in self.agent.actions]
        return [
            Candidate(p.tree, self.agent.name, actions=tuple(names[action] for action in p.actions))
            for p in self._asked
        ]

    def tell(self, scores: Sequence[TreeScore | None]) -> dict[str, float]:
        """Pass the scores on."""
        evaluated = [
            Evaluated(p, None if s is None else Evaluation(s.reward, s.node_loss, s.node_mass))
            for p, s in zip(self._asked, scores, strict=True)
        ]
        return self.agent.tell(evaluated)

    def pack(self) -> bytes:
        """The agent's state."""
        return pack_state(self.agent.state_dict())

    def unpack(self, state: bytes) -> None:
        """Go back to a state."""
        self.agent.load_state_dict(unpack_state(state))


def make_proposer(config: Config, task: ConstructionTask) -> AgentProposer:
    """The configured agent.

    Raises:
        ConfigError: Unknown agent, setting or action.
    """
    environment, settings = config.environment, config.search.settings
    try:
        agent = make_agent(
            config.search.agent,
            task=task,
            actions=DEFAULT_ACTIONS if environment.actions is None else environment.actions,
            max_decisions=environment.max_decisions,
            closer=environment.closer,
            seed=config.seed,
            **settings,
        )
    except TypeError as error:  # a value of the wrong type, or a key that is an argument above
        raise ConfigError(f"search.settings {settings} do not fit agent {config.search.agent!r}: {error}") from None
    return AgentProposer(agent)


def confirm_promoted(
    config: Config,
    promoted: Sequence[Promoted],
    cost_model: CostModel,
    executor: Executor,
    ledger: Ledger,
    progress: ProgressReporter,
) -> list[Confirmed]:
    """Joint training, choice, fresh seeds; nothing where ``confirm.seeds`` is 0."""
    if config.confirm.seeds == 0:
        return []
    done = {JOINT: 0, CONFIRM: 0}
    total = {JOINT: len(promoted) * len(config.joint.learning_rates)}

    def on_row(row: EvaluationRow) -> None:
        done[row.rung] += 1
        progress.update(row.rung, done[row.rung], total[row.rung], f"{row.label}: {row.status}")

    rung = JointRung(executor, ledger, cost_model=cost_model, on_row=on_row)
    finalists = choose_finalists(
        promoted,
        rung,
        learning_rates=config.joint.learning_rates,
        seed=config.seed,
        cost_model=cost_model,
    )
    seeds = [CONFIRM_SEEDS * (config.seed + 1) + i for i in range(config.confirm.seeds)]
    total[CONFIRM] = len(finalists) * len(seeds)
    return confirm(finalists, rung, seeds=seeds)


def summarise(config: Config, ledger: Ledger, confirmed: Sequence[Confirmed], cost_model: CostModel) -> dict[str, Any]:
    """The content of ``comparison.json``."""
    frozen, joint = rung_values(ledger)
    rows = ledger.rows(FROZEN)
    return {
        "rows": comparison_rows(confirmed),
        "evaluations": len(rows),
        "failures": sum(row.reward is None for row in rows),
        "agent": config.search.agent,
        "seeds": config.confirm.seeds,
        "cost_kind": config.cost.kind,
        "cost_weight": cost_model.weight,
        "rank_correlation": {
            "rungs": [FROZEN, JOINT],
            "kendall_tau": rank_correlation(frozen, joint),
            "trees": len(joint),
        },
    }


def rung_values(ledger: Ledger) -> tuple[list[float], list[float]]:
    """Validation NLL of the trees that were on both rungs: frozen, and joint at the best rate."""
    frozen = {row.tree_hash: row.valid_nll for row in ledger.rows(FROZEN) if row.valid_nll is not None}
    joint: dict[str, float] = {}
    for row in ledger.rows(JOINT):
        if row.valid_nll is not None:
            joint[row.tree_hash] = min(row.valid_nll, joint.get(row.tree_hash, row.valid_nll))
    return [frozen[tree_hash] for tree_hash in joint], list(joint.values())


def best_tree(promoted: Sequence[Promoted], confirmed: Sequence[Confirmed], cost_model: CostModel) -> Promoted:
    """The tree to export: best joint reward on validation data, or best frozen reward where nothing was confirmed."""
    if not confirmed:
        return max(promoted, key=lambda p: p.row.reward or -np.inf)
    return max((c.finalist for c in confirmed), key=lambda f: f.reward(cost_model)).promoted


def export_best(best: Promoted, corpus: Corpus) -> Tree:
    """The best tree with names and provenance; no time and no path."""
    row = best.row
    provenance = {
        "found_by": row.agent,
        "label": row.label,
        "evaluation": row.id,
        "frozen_reward": row.reward,
        "frozen_valid_nll": row.valid_nll,
        "corpus": corpus.hash,
    }
    return best.tree.annotate(class_names=corpus.class_names, metadata=provenance)


def default_folder(config_path: Path) -> Path:
    """``runs/NAME-N`` beside the working directory, N the smallest free number."""
    return next_free_folder(Path("runs"), config_path.stem)
