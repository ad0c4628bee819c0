"""The search loop: ask, evaluate, record, tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from treesearch.evaluation.scores import TreeScore
from treesearch.search.frozen_rung import Candidate, FrozenRung
from treesearch.search.ledger import Ledger, Position

Told = Sequence[tuple[Candidate, TreeScore | None]]  # proposals and their scores, None where the evaluation failed


class Proposer(Protocol):
    """An agent as the loop sees it; `treesearch.launch` makes one from an agent."""

    def demonstrate(self) -> Sequence[Candidate]:
        """The builders' trees that it can build itself, and the best it has built, to start from."""

    def warm_start(self, scores: Sequence[TreeScore | None]) -> None:
        """Learn from the scores of the last `demonstrate`, in its order."""

    def ask(self, num: int, batch: int) -> Sequence[Candidate]:
        """Propose ``num`` trees for the batch of this number."""

    def tell(self, told: Told) -> dict[str, float]:
        """Learn from the scores of some of what was asked for."""

    def under_way(self) -> Sequence[Candidate]:
        """What was asked for and not told of yet, in the order of asking."""

    def pack(self) -> bytes:
        """The whole state, with what is under way."""

    def unpack(self, state: bytes) -> None:
        """Go back to a packed state."""


@dataclass
class Era:
    """A stretch of the search under one encoder."""

    rung: FrozenRung
    builders: Sequence[Candidate]
    proposer: Proposer
    on_batch: Callable[[dict[str, float]], None] = field(default=lambda metrics: None)  # told the agent's metrics


def search(
    era: Era,
    ledger: Ledger,
    *,
    evaluations: int,
    batch_size: int,
    asynchronous: bool = False,
    refresh_every: int | None = None,
    next_era: Callable[[], Era] | None = None,
    position: Position | None = None,
) -> None:
    """Spend a budget of evaluations: the builders first, then proposals.

    Args:
        era: Encoder, builders and agent to start with.
        ledger: Gets all that is needed to go on, after every batch.
        evaluations: The budget, builders and demonstrations included.
        batch_size: Proposals between two updates of the agent; does not depend on the number of workers.
        asynchronous: A batch is the next so many proposals that finish; else what was asked for together.
        refresh_every: Proposals, in whole batches, after which the encoder is refreshed; None: it stays. It also stays
            where the rest of the budget would not reach for a batch beyond what the last start took.
        next_era: Retrains the encoder on the best tree so far.
        position: Where to go on; the era is as it was there. None: from the start.
    """
    if position is None:
        position = start(era, ledger, Position(0, era.rung.encoder, spent=0, began=0, proposed=0), evaluations)
    while position.spent < evaluations:
        left = evaluations - position.spent
        before_refresh = math.inf if refresh_every is None else refresh_every - position.proposed
        if next_era is not None and before_refresh <= 0 and left >= position.began + batch_size:
            era = next_era()
            before = Position(position.batch + 1, era.rung.encoder, spent=position.spent, began=0, proposed=0)
            position = start(era, ledger, before, left)
        elif asynchronous:
            until = math.ceil(before_refresh / batch_size) * batch_size if 0 < before_refresh < math.inf else left
            position = stretch(era, ledger, position, min(left, until), batch_size)
        else:
            position = one_batch(era, ledger, position, min(batch_size, left))


def one_batch(era: Era, ledger: Ledger, position: Position, num: int) -> Position:
    """Ask for so many proposals, evaluate all and tell all; the position after it."""
    candidates = era.proposer.ask(num, position.batch + 1)
    assert candidates, "a proposer proposes what it is asked for"  # or the budget would never be spent
    scores = era.rung.evaluate(candidates, position.batch + 1)
    return _tell(era, ledger, position, list(zip(candidates, scores, strict=True)))


def stretch(era: Era, ledger: Ledger, position: Position, num: int, batch_size: int) -> Position:
    """Evaluate so many proposals, with no worker waiting for another; the position after it.

    What is under way counts among them. A proposal is asked for when a worker is free, and every ``batch_size`` that
    have finished are told. Between two updates the agent's proposals do not depend on when they are asked for: a
    resumed search asks for the same ones.
    """
    told: list[tuple[Candidate, TreeScore | None]] = []

    def candidates() -> Iterator[Candidate]:
        again = era.proposer.under_way()[:num]
        yield from again
        for _ in range(num - len(again)):
            yield from era.proposer.ask(1, position.batch + 1)

    def take(candidate: Candidate, score: TreeScore | None) -> None:
        nonlocal position
        told.append((candidate, score))
        if len(told) == batch_size:
            position = _tell(era, ledger, position, told)
            told.clear()

    era.rung.stream(candidates(), take, lambda: position.batch + 1)
    return _tell(era, ledger, position, told) if told else position


def _tell(era: Era, ledger: Ledger, position: Position, told: Told) -> Position:
    """End a batch: the agent learns from it, and from here the search could go on."""
    judged = [(one, era.rung.penalty(one) if score is None else score) for one, score in told]
    metrics = era.proposer.tell(judged)
    num = len(told)
    position = replace(position, batch=position.batch + 1, spent=position.spent + num, proposed=position.proposed + num)
    ledger.finish_batch(position, era.proposer.pack(), metrics, era.rung.new_nodes())
    era.on_batch(metrics)
    return position


def start(era: Era, ledger: Ledger, position: Position, evaluations: int) -> Position:
    """Evaluate the builders and what the agent demonstrates, with so many evaluations at most; the position after it.

    Demonstrations that are builders' trees take nothing, nor does one that differs from another in its λ alone. None
    is stopped early.
    """
    builders = era.builders[:evaluations]
    verdicts = era.rung.evaluate(builders, position.batch)
    scores = dict(zip((one.tree.hash for one in builders), verdicts, strict=True))
    demonstrations = era.proposer.demonstrate()
    distinct = {one.tree.hash: one for one in reversed(demonstrations) if scores.get(one.tree.hash) is None}
    new = list(reversed(distinct.values()))[: evaluations - len(builders)]
    scores |= zip((one.tree.hash for one in new), era.rung.evaluate(new, position.batch, finish=True), strict=True)
    era.proposer.warm_start([scores.get(one.tree.hash) for one in demonstrations])
    began = len(builders) + len(new)
    position = replace(position, spent=position.spent + began, began=began)
    ledger.finish_batch(position, era.proposer.pack(), {}, era.rung.new_nodes())
    era.on_batch({})
    return position
