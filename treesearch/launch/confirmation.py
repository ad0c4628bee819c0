"""The way up from the frozen rung: which trees are trained jointly, chosen, confirmed with fresh seeds and timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from treesearch.config import Config
from treesearch.data import Dataset
from treesearch.evaluation.timing import StepTime, time_trees
from treesearch.launch.parts import RunParts
from treesearch.launch.proposer import listed_weights
from treesearch.progress import ProgressReporter
from treesearch.search.confirm import (
    Confirmed,
    Finalist,
    Places,
    at_best_rate,
    choose_finalists,
    confirm,
    with_more_seeds,
)
from treesearch.search.correction import CORRECTION, Correction
from treesearch.search.evaluation_row import CONFIRM, FROZEN, JOINT, WARM, EvaluationRow
from treesearch.search.joint_rung import JointRung
from treesearch.search.promotion import BASELINE, Promoted, diverse, family, promote

MAX_SHARED = 0.5  # of the decisions of a tree that is screened: about all below the root, or the root and little else
CONFIRM_SEEDS = 1000  # seeds of the reported runs: CONFIRM_SEEDS * (seed + 1) + i, apart from all others


def confirm_search(parts: RunParts, *, encoder: str) -> tuple[list[Promoted], dict[str, Finalist], list[Confirmed]]:
    """Warm and joint training, choice, fresh seeds; only the promotion where ``confirm.seeds`` is 0.

    Returns:
        The promoted trees, those that were trained jointly by tree hash, and the confirmed ones.
    """
    rungs = _UpperRungs(parts, encoder)
    settings = parts.config.confirm
    if settings.seeds == 0:
        return rungs.promote(settings.promote), {}, []
    others = diverse(
        parts.ledger,
        counts=parts.counts,
        cost_model=parts.cost_model,
        num_trees=settings.rank_trees,
        encoder=encoder,
    )
    promoted = rungs.promote(settings.promote) if settings.screen is None else rungs.screen(settings.screen, others)
    trained, finalists = rungs.race(_united(promoted, others))
    return promoted, trained, rungs.confirm(finalists)


class _UpperRungs:
    """The way up from the frozen rung, and the rungs above; the user is told of every training."""

    def __init__(self, parts: RunParts, encoder: str) -> None:
        self._parts, self._config, self._encoder = parts, parts.config, encoder
        self._done: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._rung = JointRung(
            parts.executor,
            parts.ledger,
            cost_model=parts.cost_model,
            on_row=self._tell,
            time_limit=parts.config.joint.time_limit,
        )

    def promote(
        self, num_trees: int, *, max_shared: float = 1.0, correction: Correction | None = None
    ) -> list[Promoted]:
        """The best trees of the frozen rung, so many of each group."""
        return promote(
            self._parts.ledger,
            counts=self._parts.counts,
            cost_model=self._parts.cost_model,
            num_trees=num_trees,
            encoder=self._encoder,
            cost_weights=listed_weights(self._config),
            families=self._config.confirm.families,
            max_shared=max_shared,
            correction=correction,
        )

    def screen(self, num_trees: int, others: Sequence[Promoted]) -> list[Promoted]:
        """Train trees for an epoch from the search's encoder; the promoted trees that go on.

        From the first half of each group, by frozen reward, and the other trees it is learned what frozen scores owe to
        choosing; the second half is the best by what is left.
        """
        tried = _united(self.promote(math.ceil(num_trees / 2), max_shared=MAX_SHARED), others)
        warm = self._warm(tried)
        frozen = {
            row.tree_hash: row
            for row in reversed(self._parts.ledger.rows(FROZEN))
            if row.encoder == self._encoder and row.valid_nll is not None
        }
        correction = Correction.learn(frozen, {tree_hash: one.valid_nll for tree_hash, one in warm.items()})
        self._parts.ledger.set_meta(CORRECTION, asdict(correction))
        promoted = self.promote(num_trees, max_shared=MAX_SHARED, correction=correction)
        known = {tree.tree.hash for tree in tried}
        warm |= self._warm([tree for tree in promoted if tree.tree.hash not in known])
        own = {
            tree.tree.hash: replace(warm[tree.tree.hash], promoted=tree)  # not as one of the others
            for tree in promoted
            if tree.tree.hash in warm
        }
        chosen = self._choose(own, self._places(0), self._config.confirm.families)
        return [finalist.promoted for finalist in chosen]

    def _warm(self, contenders: Sequence[Promoted]) -> dict[str, Finalist]:
        self._expected[WARM] += len(contenders)
        rates = [self._config.encoder.learning_rate]
        return at_best_rate(contenders, self._rung, learning_rates=rates, seed=self._config.seed, name=WARM)

    def race(self, contenders: Sequence[Promoted]) -> tuple[dict[str, Finalist], list[Finalist]]:
        """Joint training in rounds: the better half of each is trained again with as many new seeds as it has had.

        That is sequential halving (Karnin et al. 2013) in every group of which the best trees are wanted. The only tree
        of a family has nothing to win there: unless it is among the best anyway, it waits for the confirmation.

        Returns:
            All by tree hash, and the finalists.
        """
        rates, first = self._config.joint.learning_rates, self._config.seed
        self._expected[JOINT] += len(contenders) * len(rates)
        left = trained = at_best_rate(contenders, self._rung, learning_rates=rates, seed=first)
        families = self._config.confirm.families
        sizes = Counter(family(one.promoted.name) for one in trained.values() if one.promoted.kind == BASELINE)
        contested = [name for name in families if sizes[name] > 1]
        diverged: set[str] = set()  # in a round after the first
        for number in range(1, self._config.confirm.rounds):
            better = self._choose(left, self._places(number), contested)
            seeds = range(first + 2 ** (number - 1), first + 2**number)
            self._expected[JOINT] += len(better) * len(seeds)
            left = with_more_seeds(better, self._rung, seeds=seeds)
            trained = trained | left
            diverged |= {one.promoted.tree.hash for one in better} - left.keys()
        finalists = self._choose(left, Places(own=self._config.confirm.finalists, further=1, family=1), contested)
        known = diverged | {one.promoted.tree.hash for one in finalists}
        waiting = [
            one
            for tree_hash, one in trained.items()
            if tree_hash not in known and one.promoted.kind == BASELINE and family(one.promoted.name) in families
            if sizes[family(one.promoted.name)] == 1
        ]
        return trained, [*finalists, *waiting]

    def confirm(self, finalists: Sequence[Finalist]) -> list[Confirmed]:
        """Train the finalists with fresh seeds."""
        first = CONFIRM_SEEDS * (self._config.seed + 1)
        seeds = range(first, first + self._config.confirm.seeds)
        self._expected[CONFIRM] += len(finalists) * len(seeds)
        return confirm(finalists, self._rung, seeds=seeds)

    def _places(self, number: int) -> Places:
        """In a round of the race, 0 for the first."""
        settings = self._config.confirm
        num = math.ceil(settings.promote / 2**number)
        return Places(own=max(num, settings.finalists), further=num, family=math.ceil(num / 2))

    def _choose(self, trained: Mapping[str, Finalist], places: Places, families: Sequence[str]) -> list[Finalist]:
        return choose_finalists(
            trained,
            cost_model=self._parts.cost_model,
            places=places,
            cost_weights=listed_weights(self._config),
            families=families,
        )

    def _tell(self, row: EvaluationRow) -> None:
        self._done[row.rung] += 1
        done, expected = self._done[row.rung], self._expected[row.rung]
        self._parts.progress.update(row.rung, done, expected, f"{row.label}: {row.status}")


def _united(trees: Sequence[Promoted], others: Sequence[Promoted]) -> list[Promoted]:
    """Both, every tree once."""
    known = {tree.tree.hash for tree in trees}
    return [*trees, *(tree for tree in others if tree.tree.hash not in known)]


def time_confirmed(
    config: Config, dataset: Dataset, confirmed: Sequence[Confirmed], progress: ProgressReporter
) -> Mapping[str, StepTime]:
    """Step times of the confirmed trees by tree hash, measured side by side in this process."""
    if not (config.confirm.timing and confirmed):
        return {}
    trees = [entry.finalist.promoted.tree for entry in confirmed]
    times = time_trees(
        trees,
        dataset.train,
        encoder=config.encoder,
        spec=dataset.spec,
        batch_size=config.joint.batch_size,
        device=config.joint.device,
        rounds=config.confirm.timing_rounds,
        on_round=lambda done, total: progress.update("timing", done, total, "training steps of the confirmed trees"),
    )
    return {tree.hash: time for tree, time in zip(trees, times, strict=True)}
