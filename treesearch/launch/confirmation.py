"""The way up from the frozen rung: which trees are trained jointly, chosen, confirmed with fresh seeds and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treesearch.config import Config
from treesearch.cost import CostModel
from treesearch.data import Corpus
from treesearch.data.contexts import context_windows
from treesearch.evaluation.examples import TextSplit
from treesearch.evaluation.timing import StepTime, time_trees
from treesearch.launch.proposer import listed_weights
from treesearch.progress import ProgressReporter
from treesearch.search.confirm import Confirmed, Finalist, at_best_rate, choose_finalists, confirm
from treesearch.search.executors import Executor
from treesearch.search.joint_rung import JointRung
from treesearch.search.ledger import CONFIRM, JOINT, WARM, EvaluationRow, Ledger
from treesearch.search.promotion import Promoted, diverse, family, promote

MAX_SHARED = 0.5  # of the decisions of a tree that is screened: about all below the root, or the root and little else
CONFIRM_SEEDS = 1000  # seeds of the reported runs: CONFIRM_SEEDS * (seed + 1) + i, apart from all others


def confirm_search(
    config: Config,
    corpus: Corpus,
    cost_model: CostModel,
    executor: Executor,
    ledger: Ledger,
    progress: ProgressReporter,
    *,
    encoder: str,
) -> tuple[list[Promoted], dict[str, Finalist], list[Confirmed]]:
    """Warm and joint training, choice, fresh seeds; only the promotion where ``confirm.seeds`` is 0.

    Returns:
        The promoted trees, those that were trained jointly by tree hash, and the confirmed ones.
    """
    counts, settings = corpus.counts.astype(float), config.confirm
    weights = listed_weights(config)
    screen = settings.screen if settings.seeds else None
    promoted = promote(
        ledger,
        counts=counts,
        cost_model=cost_model,
        num_trees=screen or settings.promote,
        encoder=encoder,
        cost_weights=weights,
        families=settings.families,
        max_shared=1.0 if screen is None else MAX_SHARED,
    )
    if settings.seeds == 0:
        return promoted, {}, []
    others = diverse(ledger, counts=counts, cost_model=cost_model, num_trees=settings.rank_trees, encoder=encoder)
    done = {WARM: 0, JOINT: 0, CONFIRM: 0}
    total = {WARM: 0, JOINT: 0, CONFIRM: 0}

    def on_row(row: EvaluationRow) -> None:
        done[row.rung] += 1
        progress.update(row.rung, done[row.rung], total[row.rung], f"{row.label}: {row.status}")

    rung = JointRung(executor, ledger, cost_model=cost_model, on_row=on_row)
    contenders = _united(promoted, others)
    if screen is not None:
        total[WARM] = len(contenders)
        warm = at_best_rate(
            contenders, rung, learning_rates=[config.encoder.learning_rate], seed=config.seed, name=WARM
        )
        best = choose_finalists(
            {tree.tree.hash: warm[tree.tree.hash] for tree in promoted if tree.tree.hash in warm},
            cost_model=cost_model,
            num_finalists=settings.promote,
            num_further=settings.promote,
            cost_weights=weights,
        )
        of_families = [tree for tree in promoted if family(tree.name) in settings.families]
        promoted = _united([finalist.promoted for finalist in best], of_families)
        contenders = _united(promoted, others)
    total[JOINT] = len(contenders) * len(config.joint.learning_rates)
    trained = at_best_rate(contenders, rung, learning_rates=config.joint.learning_rates, seed=config.seed)
    finalists = choose_finalists(
        trained,
        cost_model=cost_model,
        num_finalists=settings.finalists,
        cost_weights=weights,
        families=settings.families,
    )
    seeds = [CONFIRM_SEEDS * (config.seed + 1) + i for i in range(settings.seeds)]
    total[CONFIRM] = len(finalists) * len(seeds)
    return promoted, trained, confirm(finalists, rung, seeds=seeds)


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
