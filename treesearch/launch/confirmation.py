"""The way up from the frozen rung: which trees are trained jointly, chosen, confirmed with fresh seeds and timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from treesearch.config import Config
from treesearch.data import Corpus
from treesearch.data.contexts import context_windows
from treesearch.evaluation.examples import TextSplit
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
from treesearch.search.joint_rung import JointRung
from treesearch.search.ledger import CONFIRM, JOINT, WARM, EvaluationRow
from treesearch.search.promotion import Promoted, diverse, promote

MAX_SHARED = 0.5  # of the decisions of a tree that is screened: about all below the root, or the root and little else
CONFIRM_SEEDS = 1000  # seeds of the reported runs: CONFIRM_SEEDS * (seed + 1) + i, apart from all others


def confirm_search(parts: RunParts, *, encoder: str) -> tuple[list[Promoted], dict[str, Finalist], list[Confirmed]]:
    """Warm and joint training, choice, fresh seeds; only the promotion where ``confirm.seeds`` is 0.

    Returns:
        The promoted trees, those that were trained jointly by tree hash, and the confirmed ones.
    """
    settings, ledger, cost_model, counts = parts.config.confirm, parts.ledger, parts.cost_model, parts.counts
    screen = settings.screen if settings.seeds else None
    promoted = promote(
        ledger,
        counts=counts,
        cost_model=cost_model,
        num_trees=screen or settings.promote,
        encoder=encoder,
        cost_weights=listed_weights(parts.config),
        families=settings.families,
        max_shared=1.0 if screen is None else MAX_SHARED,
    )
    if settings.seeds == 0:
        return promoted, {}, []
    others = diverse(ledger, counts=counts, cost_model=cost_model, num_trees=settings.rank_trees, encoder=encoder)
    rungs = _UpperRungs(parts)
    if screen is not None:
        promoted = rungs.screen(promoted, others)
    trained, finalists = rungs.race(_united(promoted, others))
    return promoted, trained, rungs.confirm(finalists)


class _UpperRungs:
    """The rungs above the frozen one; the user is told of every training."""

    def __init__(self, parts: RunParts) -> None:
        self._parts, self._config = parts, parts.config
        self._done: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._rung = JointRung(parts.executor, parts.ledger, cost_model=parts.cost_model, on_row=self._tell)

    def screen(self, promoted: Sequence[Promoted], others: Sequence[Promoted]) -> list[Promoted]:
        """Train all for an epoch from the search's encoder; the promoted trees that go on."""
        contenders = _united(promoted, others)
        self._expected[WARM] += len(contenders)
        rates = [self._config.encoder.learning_rate]
        warm = at_best_rate(contenders, self._rung, learning_rates=rates, seed=self._config.seed, name=WARM)
        own = {tree.tree.hash: warm[tree.tree.hash] for tree in promoted if tree.tree.hash in warm}
        return [finalist.promoted for finalist in self._choose(own, self._places(0))]

    def race(self, contenders: Sequence[Promoted]) -> tuple[dict[str, Finalist], list[Finalist]]:
        """Joint training in rounds: the better half of each is trained again with as many new seeds as it has had.

        That is sequential halving (Karnin et al. 2013) in every group of which the best trees are wanted.

        Returns:
            All by tree hash, and the finalists.
        """
        rates, first = self._config.joint.learning_rates, self._config.seed
        self._expected[JOINT] += len(contenders) * len(rates)
        left = trained = at_best_rate(contenders, self._rung, learning_rates=rates, seed=first)
        for number in range(1, self._config.confirm.rounds):
            better = self._choose(left, self._places(number))
            seeds = range(first + 2 ** (number - 1), first + 2**number)
            self._expected[JOINT] += len(better) * len(seeds)
            left = with_more_seeds(better, self._rung, seeds=seeds)
            trained = trained | left
        return trained, self._choose(left, Places(own=self._config.confirm.finalists, further=1, family=1))

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

    def _choose(self, trained: Mapping[str, Finalist], places: Places) -> list[Finalist]:
        return choose_finalists(
            trained,
            cost_model=self._parts.cost_model,
            places=places,
            cost_weights=listed_weights(self._config),
            families=self._config.confirm.families,
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
    config: Config, corpus: Corpus, confirmed: Sequence[Confirmed], progress: ProgressReporter
) -> Mapping[str, StepTime]:
    """Step times of the confirmed trees by tree hash, measured side by side in this process."""
    if not (config.confirm.timing and confirmed):
        return {}
    progress.say("timing training steps of the confirmed trees")
    windows = context_windows(corpus.train, size=config.encoder.context, pad=corpus.eos)
    trees = [entry.finalist.promoted.tree for entry in confirmed]
    times = time_trees(
        trees,
        TextSplit(windows, corpus.train),
        encoder=config.encoder,
        batch_size=config.joint.batch_size,
        device=config.joint.device,
    )
    return {tree.hash: time for tree, time in zip(trees, times, strict=True)}
