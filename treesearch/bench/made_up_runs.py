"""Finished searches of any size whose scores are made up, written through the real ledger: what reports are timed with.

Shapes: **C** classes, **D** dimensions of class vectors.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.actions import DEFAULT_ACTIONS
from treesearch import Tree, build_tree
from treesearch.config import Config, make_config
from treesearch.cost import CostModel
from treesearch.evaluation.timing import StepTime
from treesearch.launch.eras import KEPT_VECTORS
from treesearch.launch.results import summarise
from treesearch.search.confirm import Confirmed, Finalist
from treesearch.search.evaluation_row import CACHED, FAILED, FROZEN, JOINT, OK, STOPPED, EvaluationRow
from treesearch.search.ledger import Ledger, Position
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN, Promoted
from treesearch.search.run_folder import RunFolder

ENCODER, BUILDER = "0123456789abcdef", "builder"
SECONDS = 1.5  # between two evaluations
JOINT_RATES = (0.002, 0.004, 0.008)  # the one between is the best
SMALL_WIDTH = 8  # of class vectors, where their number is not the point


def large(folder: Path, num_evaluations: int = 10_000, num_classes: int = 30_000, seed: int = 0) -> RunFolder:
    """A finished search of many evaluations over many classes; a few trees stand for all of its own.

    Args:
        folder: New or empty.
        num_evaluations: Of the frozen rung.
        num_classes: C.
        seed: Of everything in it.
    """
    names = [f"w{c:05}" for c in range(num_classes)]
    width = make_config({}).encoder.features
    made = Vocabulary(names, seed=seed, arities=(2, 4, 16), num_found=12, width=width)
    return searched_run(folder, made, num_evaluations=num_evaluations, batch_size=50)


class Vocabulary:
    """A vocabulary with class vectors, the builders' trees, and trees that a search might have found."""

    def __init__(
        self, names: Sequence[str], *, seed: int, arities: Sequence[int], num_found: int, width: int = SMALL_WIDTH
    ) -> None:
        self.names, self.seed = list(names), seed
        self.rng = np.random.default_rng(seed)
        self.counts = sorted_zipf_counts(len(names))
        self.vectors = self.rng.standard_normal((len(names), width)).astype(np.float32)  # [C, D]
        self.builders: dict[str, Tree] = {HUFFMAN: huffman_tree(self.counts)}
        for arity in arities[1:]:
            self.builders[f"balanced(arity={arity})"] = build_tree("balanced", counts=self.counts, arity=arity)
            clustered = build_tree("clustered", counts=self.counts, vectors=self.vectors, arity=arity, seed=seed)
            self.builders[f"clustered(arity={arity})"] = clustered
        self.found = [
            build_tree("random", counts=self.counts, arity=arities[n % len(arities)], seed=seed + n)
            for n in range(num_found)
        ]


@dataclass(frozen=True)
class _Scored:
    """A row with a score, and its tree."""

    row: EvaluationRow
    tree: Tree


def searched_run(
    folder: Path,
    made: Vocabulary,
    *,
    num_evaluations: int,
    batch_size: int,
    label: str = "balanced(arity=4)",
    reason: str = "ExecutionError: the worker was lost",
) -> RunFolder:
    """A finished run; ``label`` is of its second builder, ``reason`` of its failures.

    Every proposal counts as a tree of its own, but the ledger holds only those of ``made``: the others are never read.
    """
    config = make_config({"search": {"evaluations": num_evaluations, "batch_size": batch_size}, "seed": made.seed})
    run, rng, began = RunFolder(folder), made.rng, time.time() - SECONDS * num_evaluations
    model = CostModel(config.encoder.features, config.cost.weight)
    costs = {tree.hash: model.tree_cost(tree, made.counts) for tree in (*made.builders.values(), *made.found)}
    entropy = float(-(made.counts / made.counts.sum()) @ np.log(made.counts / made.counts.sum()))
    scored: list[_Scored] = []
    with begun_run(run, config, made.names, made.counts, began=began) as ledger:
        if len(made.names) <= KEPT_VECTORS:
            ledger.store_class_vectors(ENCODER, made.vectors)
        for number in range(1, num_evaluations + 1):
            batch = max(0, number - len(made.builders) - 1) // batch_size + (number > len(made.builders))
            at = began + SECONDS * number
            if number <= len(made.builders):
                name, tree = list(made.builders.items())[number - 1]
                nll, factor = 0.9 * entropy - 0.02 * number, 1.0
                proposal: dict[str, Any] = {"label": label if number == 2 else name}
            else:
                # Later trees are better: they come when scores are.
                tree = made.found[int(rng.integers(1 + len(made.found) * number // (num_evaluations + 1)))]
                learned = 1 - np.exp(-3 * number / num_evaluations)
                nll = entropy * (0.9 - 0.06 * learned) + abs(rng.normal(0, 0.15)) * (1.2 - learned)
                factor, proposal = float(rng.lognormal(0, 0.3)), _proposal(rng, learned)
            status = str(rng.choice([OK, CACHED, STOPPED, FAILED], p=[0.93, 0.04, 0.02, 0.01]))
            status = OK if "label" in proposal else FAILED if number == len(made.builders) + 2 else status
            row = evaluation_row(number, tree, batch=batch, at=at, cost=costs[tree.hash].cost * factor, **proposal)
            row = _judged(row, status, float(nll), reason)
            if row.label is None:
                again = status == CACHED and scored[-1].row.label is None
                row = replace(row, tree_hash=scored[-1].row.tree_hash if again else f"{number:032x}")
            ledger.record(row, tree)
            if row.valid_nll is not None:
                scored.append(_Scored(row, tree))
            if batch and ((number - len(made.builders)) % batch_size == 0 or number == num_evaluations):
                position = Position(batch, ENCODER, number, len(made.builders), number - len(made.builders))
                ledger.finish_batch(position, b"", _update(rng, number / num_evaluations))
        comparison, best = _confirmed(run, ledger, config, scored, model, made)
    with closing(sqlite3.connect(run.ledger_file)) as db, db:  # batches end when their last evaluation does
        db.execute(
            "UPDATE batches SET finished_at ="
            " (SELECT MAX(finished_at) FROM evaluations WHERE evaluations.batch = batches.batch)"
        )
    run.write_results(best.annotate(class_names=made.names, metadata={"found_by": "made up"}), comparison)
    return run


def _confirmed(
    run: RunFolder, ledger: Ledger, config: Config, scored: Sequence[_Scored], model: CostModel, made: Vocabulary
) -> tuple[dict[str, Any], Tree]:
    """What a run says at its end, of the builders and the three best found trees, and the best tree."""
    own = [one for one in scored if one.row.label is not None]
    hashes = {one.tree.hash for one in own}
    best: dict[str, _Scored] = {}
    for one in sorted(scored, key=lambda one: -one.row.validation_reward(model)):
        if one.tree.hash not in hashes and len(best) < 3:
            best.setdefault(one.tree.hash, one)
    with closing(sqlite3.connect(run.ledger_file)) as db, db:  # these are looked at
        hashes_of_rows = [(one.tree.hash, one.row.tree_hash) for one in best.values()]
        db.executemany("UPDATE evaluations SET tree_hash = ? WHERE tree_hash = ?", hashes_of_rows)
    confirmed = []
    for one in (*own, *best.values()):
        kind, name = (BASELINE, str(one.row.label)) if one.row.label else (FOUND, f"{FOUND} #{one.row.id}")
        promoted = Promoted(name, kind, one.row, one.tree, model.tree_cost(one.tree, made.counts))
        nll = float(one.row.valid_nll or 0.0) + made.rng.normal(0, 0.01, 3)
        finalist = Finalist(promoted, JOINT_RATES[1], float(nll.mean()))
        for rate in JOINT_RATES:
            worse = 0.02 * abs(np.log(rate / JOINT_RATES[1]))
            joint: dict[str, Any] = {"id": ledger.next_id(), "rung": JOINT, "batch": 0, "seed": 0}
            joint |= {"learning_rate": rate, "epochs": 3, "valid_nll": float(nll[0] + worse), "seconds": 9.0}
            ledger.record(replace(one.row, tree_hash=one.tree.hash, status=OK, reason=None, **joint), one.tree)
        confirmed.append(Confirmed(finalist, nll.tolist(), (nll + 0.05).tolist()))
    trained = {entry.finalist.promoted.tree.hash: entry.finalist for entry in confirmed}
    times = {tree_hash: StepTime(8.0 + n, 0.5, 20.0 + n, 1.0) for n, tree_hash in enumerate(trained)}
    comparison = summarise(
        config, ledger, trained=trained, confirmed=confirmed, times=times, cost_model=model, encoder=ENCODER
    )
    return comparison, max(confirmed, key=lambda entry: entry.validation_reward(model)).finalist.promoted.tree


def _proposal(rng: np.random.Generator, learned: float) -> dict[str, Any]:
    """Actions and where they decided, of a policy that comes to prefer the last ones of the list."""
    num = int(rng.integers(1, 12))
    place = np.arange(len(DEFAULT_ACTIONS)) / len(DEFAULT_ACTIONS)
    p = np.exp(4 * learned * place)
    actions = [DEFAULT_ACTIONS[a] for a in rng.choice(len(DEFAULT_ACTIONS), num, p=p / p.sum())]
    depths = [0, *np.sort(rng.integers(1, 8, num - 1)).tolist()]
    decisions = [[depth, round(float(0.45**depth), 6)] for depth in depths]
    return {"actions": json.dumps(actions), "decisions": json.dumps(decisions)}


def _update(rng: np.random.Generator, progress: float) -> dict[str, float]:
    """What a policy gradient says of an update."""
    noise = rng.normal(0, 0.02, 7)
    values = (2.4 - 1.8 * progress, -0.02, 0.4 - 0.2 * progress, 0.02, 0.12, progress - 0.2, 1.5 - progress)
    names = ("entropy", "policy_loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance", "replay_loss")
    return {name: float(value + add) for name, value, add in zip(names, values, noise, strict=True)}


def _judged(row: EvaluationRow, status: str, nll: float, reason: str) -> EvaluationRow:
    changes: dict[str, Any] = {"status": status, "reason": None}
    if status in (OK, CACHED):
        changes |= {"valid_nll": nll, "reward": -nll - (row.cost_weight or 0.0) * (row.cost or 0.0)}
    elif status == STOPPED:
        changes |= {"reason": "not worth finishing", "subset_nll": nll + 0.5}
    else:
        changes["reason"] = reason
    return replace(row, **changes)


def evaluation_row(
    number: int,
    tree: Tree,
    *,
    batch: int = 0,
    at: float | None = None,
    cost: float = 9.0,
    label: str | None = None,
    reason: str | None = None,
    **proposal: Any,
) -> EvaluationRow:
    """An evaluation that has failed for this reason."""
    return EvaluationRow(
        id=number,
        rung=FROZEN,
        batch=batch,
        agent=BUILDER if label is not None else "hybrid",
        label=label,
        tree_hash=tree.hash,
        status=FAILED,
        reason=reason,
        cost_weight=0.005,
        cost=cost,
        expected_depth=cost,
        dot_products=cost * 1.2,
        max_depth=tree.max_depth,
        num_nodes=tree.num_internal,
        nodes_trained=tree.num_internal,
        staleness=0 if label is None else None,
        encoder=ENCODER,
        seconds=1.0 + (number % 7) / 10,
        worker=f"local-{number % 2}",
        finished_at=at,
        **proposal,
    )


@contextmanager
def begun_run(
    run: RunFolder, config: Config, names: Sequence[str], counts: NDArray[np.float64], *, began: float | None = None
) -> Iterator[Ledger]:
    """The ledger of a search that has loaded its data and trained its encoder."""
    with run.create(config) as ledger:
        ledger.set_meta("counts", counts.astype(int).tolist())
        ledger.set_meta("corpus", {"kind": "text", "hash": "made up"})
        ledger.set_meta("class_names", list(names))
        ledger.set_meta("policy", None)
        ledger.set_meta("sessions", [time.time() if began is None else began])
        ledger.set_meta("encoder", ENCODER)
        yield ledger


def huffman_tree(counts: NDArray[np.float64]) -> Tree:
    """The binary Huffman tree of these counts [C]."""
    return build_tree("huffman", counts=counts, arity=2)


def sorted_zipf_counts(num_classes: int) -> NDArray[np.float64]:
    """Counts [C]."""
    return np.ceil(1e6 / np.arange(1, num_classes + 1))
