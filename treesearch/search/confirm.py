"""Confirmation: promoted trees are trained jointly, and the best of them again, up to the test split.

Promoted trees, builders' and found ones alike, are trained with every learning rate of one grid. Validation data
chooses each tree's rate, and which trees are trained with more seeds and, in the end, reported. Those are trained again
with fresh seeds; only these runs read the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.errors import ExecutionError
from treesearch.search.evaluation_row import CONFIRM, JOINT
from treesearch.search.joint_rung import JointRung
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN, Promoted, family
from treesearch.search.rivals import best_of_at_most


@dataclass(frozen=True)
class Finalist:
    """A promoted tree with its best learning rate."""

    promoted: Promoted
    learning_rate: float
    valid_nll: float  # mean over the runs at this rate, one of which chose it, nats per token
    num_seeds: int = 1  # runs

    def units(self, cost_model: CostModel) -> float:
        """What the reward charges."""
        return cost_model.charged(self.promoted.cost.cost, self.promoted.cost.measured_us)

    def validation_reward(self, cost_model: CostModel, weight: float | None = None) -> float:
        """Joint reward on validation data, nats, under this λ or the model's."""
        return -self.valid_nll - (cost_model.weight if weight is None else weight) * self.units(cost_model)


@dataclass(frozen=True)
class Confirmed:
    """A finalist with its results on fresh seeds, in the same order for all."""

    finalist: Finalist
    valid_nll: list[float]  # one per seed, nats per token
    test_nll: list[float]  # one per seed, nats per token
    token_nll: NDArray[np.float64] | None = None  # [T] of each token of the test split, mean over the seeds
    metrics: Mapping[str, list[float]] = field(default_factory=dict)  # of the test split by name, one per seed

    def units(self, cost_model: CostModel) -> float:
        """What the reward charges."""
        return self.finalist.units(cost_model)

    def validation_reward(self, cost_model: CostModel, weight: float | None = None) -> float:
        """Mean joint reward on validation data over the fresh seeds, nats, under this λ or the model's.

        Which tree is reported goes by it.
        """
        fresh = replace(self.finalist, valid_nll=float(np.mean(self.valid_nll)))
        return fresh.validation_reward(cost_model, weight)


@dataclass(frozen=True)
class Places:
    """How many trees of each group go on."""

    own: int  # of either kind (builder or found) and cost (any, or Huffman's at most) under the λ that the run reports
    further: int  # of either kind under each further λ
    family: int  # of each family of builders


def at_best_rate(
    trees: Sequence[Promoted], rung: JointRung, *, learning_rates: Sequence[float], seed: int, name: str = JOINT
) -> dict[str, Finalist]:
    """Train every tree with every rate; each with its best one by validation, by tree hash.

    Trees that diverge at every rate are left out, the ledger says why.

    Args:
        trees: To train.
        rung: Where.
        learning_rates: The grid.
        seed: Of all trainings.
        name: The rung's in the ledger, ``joint`` or ``warm``.
    """
    jobs = [(tree, rate, seed) for tree in trees for rate in learning_rates]
    best: dict[str, Finalist] = {}
    for (tree, rate, _), row in zip(jobs, rung.train(name, jobs), strict=True):
        known = best.get(tree.tree.hash)
        if row.valid_nll is not None and (known is None or row.valid_nll < known.valid_nll):
            best[tree.tree.hash] = Finalist(tree, rate, row.valid_nll)
    return best


def with_more_seeds(finalists: Sequence[Finalist], rung: JointRung, *, seeds: Sequence[int]) -> dict[str, Finalist]:
    """Train every tree again with these seeds, each at its rate; its NLL becomes the mean over all of its runs.

    A tree that diverges with one of them is left out, the ledger says why.

    Returns:
        The others by tree hash.
    """
    jobs = [(finalist.promoted, finalist.learning_rate, seed) for finalist in finalists for seed in seeds]
    rows = rung.train(JOINT, jobs)
    better_known = {}
    for index, finalist in enumerate(finalists):
        own = rows[index * len(seeds) : (index + 1) * len(seeds)]
        new = [row.valid_nll for row in own if row.valid_nll is not None]
        if len(new) < len(seeds):
            continue
        num_seeds = finalist.num_seeds + len(new)
        mean = (finalist.num_seeds * finalist.valid_nll + sum(new)) / num_seeds
        better_known[finalist.promoted.tree.hash] = replace(finalist, valid_nll=mean, num_seeds=num_seeds)
    return better_known


def choose_finalists(
    trained: Mapping[str, Finalist],
    *,
    cost_model: CostModel,
    places: Places = Places(own=1, further=1, family=1),
    cost_weights: Sequence[float] = (),
    families: Sequence[str] = (),
) -> list[Finalist]:
    """The trees that go on, by joint reward on validation data.

    Huffman; the best builders of any cost and of at most Huffman's; the same two of the found trees; and of either kind
    the best under each further λ. With each found tree the best builder of at most its cost, which it must beat. Costs
    are compared as in `promote`.

    Args:
        trained: Promoted trees at their best rates, of the same number of seeds each.
        cost_model: What compute takes from the reward, at the λ that the run reports.
        places: How many of each group.
        cost_weights: Further λs.
        families: Names of builders of each of which the trees with the lowest NLL go on too.

    Raises:
        ExecutionError: Huffman is not among them: it diverged.
    """
    huffman = next((finalist for finalist in trained.values() if finalist.promoted.name == HUFFMAN), None)
    if huffman is None:
        raise ExecutionError("the Huffman tree diverged at its rate of joint.learning_rates; add a smaller one")

    baselines = [finalist for finalist in trained.values() if finalist.promoted.kind == BASELINE]
    chosen = [huffman]
    for kind in (BASELINE, FOUND):
        pool = [f for f in trained.values() if f.promoted.kind == kind and f.promoted.name != HUFFMAN]
        cheap = [f for f in pool if cost_model.no_dearer(f.units(cost_model), huffman.units(cost_model))]
        own = cost_model.weight
        groups = [
            (pool, own, places.own),
            (cheap, own, places.own),
            *((pool, weight, places.further) for weight in cost_weights),
        ]
        if kind == BASELINE:
            groups += [([f for f in pool if family(f.promoted.name) == name], 0.0, places.family) for name in families]
        for group, weight, num in groups:
            for finalist in sorted(group, key=lambda f: -f.validation_reward(cost_model, weight))[:num]:
                rival = None
                if kind == FOUND:
                    rival = best_of_at_most(finalist.units(cost_model), baselines, cost_model, weight)
                for one in (finalist, rival):
                    if one is not None and one not in chosen:
                        chosen.append(one)
    return chosen


def confirm(finalists: Sequence[Finalist], rung: JointRung, *, seeds: Sequence[int]) -> list[Confirmed]:
    """Train every finalist with every seed and score the test split.

    Returns:
        The finalists that finished with every seed; the ledger says why others are missing.

    Raises:
        ExecutionError: Huffman is not among them, so that nothing can be compared.
    """
    jobs = [(finalist.promoted, finalist.learning_rate, seed) for finalist in finalists for seed in seeds]
    rows = rung.train(CONFIRM, jobs)
    confirmed = []
    for index, finalist in enumerate(finalists):
        own = rows[index * len(seeds) : (index + 1) * len(seeds)]
        valid = [row.valid_nll for row in own if row.valid_nll is not None]
        test = [row.test_nll for row in own if row.test_nll is not None]
        if len(test) == len(seeds):
            tree_hash = finalist.promoted.tree.hash
            confirmed.append(Confirmed(finalist, valid, test, rung.token_nll(tree_hash), rung.metrics(tree_hash)))
        elif finalist.promoted.name == HUFFMAN:
            raise ExecutionError(
                f"the Huffman tree must finish with all {len(seeds)} seeds, but did with {len(test)}"
                f" at learning rate {finalist.learning_rate}; add a smaller one to joint.learning_rates"
            )
    return confirmed
