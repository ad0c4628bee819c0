"""The search loop: ask, evaluate, record, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from treesearch.evaluation.scores import TreeScore
from treesearch.search.frozen_rung import Candidate, FrozenRung
from treesearch.search.ledger import Ledger, Position


class Proposer(Protocol):
    """An agent as the loop sees it; `treesearch.launch` makes one from an agent."""

    def demonstrate(self) -> Sequence[Candidate]:
        """The builders' trees that it can build itself, and the best it has built, to start from."""

    def warm_start(self, scores: Sequence[TreeScore | None]) -> None:
        """Learn from the scores of the last `demonstrate`, in its order."""

    def ask(self, num: int) -> Sequence[Candidate]:
        """Propose ``num`` trees."""

    def tell(self, scores: Sequence[TreeScore | None]) -> dict[str, float]:
        """Learn from the scores of the last `ask`, in its order; None where the evaluation failed."""

    def pack(self) -> bytes:
        """The whole state."""

    def unpack(self, state: bytes) -> None:
        """Go back to a packed state."""


@dataclass
class Era:
    """A stretch of the search under one encoder."""

    rung: FrozenRung
    builders: Sequence[Candidate]
    proposer: Proposer


def search(
    era: Era,
    ledger: Ledger,
    *,
    evaluations: int,
    batch_size: int,
    refresh_every: int | None = None,
    next_era: Callable[[], Era] | None = None,
    position: Position | None = None,
) -> None:
    """Spend a budget of evaluations: the builders first, then synchronous batches of proposals.

    Args:
        era: Encoder, builders and agent to start with.
        ledger: Gets all that is needed to go on, after every batch.
        evaluations: The budget, builders and demonstrations included.
        batch_size: Proposals between two updates of the agent; does not depend on the number of workers.
        refresh_every: Proposals, in whole batches, after which the encoder is refreshed; None: it stays. It also stays
            where the rest of the budget would not reach for a batch beyond what the last start took.
        next_era: Retrains the encoder on the best tree so far.
        position: Where to go on; the era is as it was there. None: from the start.
    """
    if position is None:
        position = start(era, ledger, Position(0, era.rung.encoder, spent=0, began=0, proposed=0), evaluations)
    while position.spent < evaluations:
        left, batch = evaluations - position.spent, position.batch + 1
        due = refresh_every is not None and position.proposed >= refresh_every
        if due and next_era is not None and left >= position.began + batch_size:
            era = next_era()
            before = Position(batch, era.rung.encoder, spent=position.spent, began=0, proposed=0)
            position = start(era, ledger, before, left)
            continue
        candidates = era.proposer.ask(min(batch_size, left))
        assert candidates, "a proposer proposes what it is asked for"  # or the budget would never be spent
        scores = era.rung.evaluate(candidates, batch)
        metrics = era.proposer.tell(scores)
        num = len(candidates)
        position = replace(position, batch=batch, spent=position.spent + num, proposed=position.proposed + num)
        ledger.finish_batch(position, era.proposer.pack(), metrics, era.rung.new_nodes())


def start(era: Era, ledger: Ledger, position: Position, evaluations: int) -> Position:
    """Evaluate the builders and what the agent demonstrates, with so many evaluations at most; the position after it.

    Demonstrations that are builders' trees take nothing, nor does one that differs from another in its λ alone. None
    is stopped early.
    """
    batch, builders = position.batch, era.builders[:evaluations]
    scores = dict(zip((one.tree.hash for one in builders), era.rung.evaluate(builders, batch), strict=True))
    demonstrations = era.proposer.demonstrate()
    distinct = {one.tree.hash: one for one in reversed(demonstrations) if scores.get(one.tree.hash) is None}
    new = list(reversed(distinct.values()))[: evaluations - len(builders)]
    scores |= zip((one.tree.hash for one in new), era.rung.evaluate(new, batch, finish=True), strict=True)
    era.proposer.warm_start([scores.get(one.tree.hash) for one in demonstrations])
    began = len(builders) + len(new)
    position = replace(position, spent=position.spent + began, began=began)
    ledger.finish_batch(position, era.proposer.pack(), {}, era.rung.new_nodes())
    return position
