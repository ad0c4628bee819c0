"""The screen: the first half by frozen reward, the second by what is left once luck is taken off."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.nested import random_nested
from treesearch import Tree, build_tree
from treesearch.config import MAX_SEED, Config
from treesearch.cost import CostModel, tree_cost
from treesearch.data import Dataset
from treesearch.launch.confirmation import CONFIRM_SEEDS, confirm_search
from treesearch.launch.parts import RunParts
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import CONFIRM, FROZEN, JOINT, OK, WARM, EvaluationRow
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.frozen_rung import BUILDER
from treesearch.search.ledger import Ledger
from treesearch.search.promotion import BASELINE, FOUND, diverse
from treesearch.search.worker import JointScores

NUM_CLASSES, FEATURES, PLAIN, CHOSEN = 12, 4, 12, 12
COUNTS = np.arange(NUM_CLASSES, 0.0, -1)
COST = CostModel(FEATURES, 1e-9)
DATA = cast(Dataset, SimpleNamespace(counts=COUNTS))  # all that this needs of one


class Trainer(Executor):
    """Joint training that knows what every tree is worth."""

    num_workers = 1
    num_busy = 0

    def __init__(self, true_nll: dict[str, float]) -> None:
        super().__init__()
        self.true_nll = true_nll

    def _outcomes(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in tasks:
            test = np.zeros(3, np.float32) if task.payload.use_test else None
            nll = self.true_nll[task.payload.tree.hash]
            yield Outcome(task, JointScores(nll, None if test is None else nll, 1, test), None, 1, 0.1, "fake")

    def _replace(self, arrays: Any) -> None:
        raise AssertionError

    def _release(self) -> None:
        pass


def trees(num: int) -> list[Tree]:
    rng, known = np.random.default_rng(0), dict[str, Tree]()
    while len(known) < num:
        tree = Tree.from_nested(random_nested(rng, NUM_CLASSES))
        known[tree.hash] = tree
    return list(known.values())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[RunParts, list[Tree], list[Tree]]]:
    """Frozen rung: trees of many decisions look better than those of two by 0.5, and are worse by 0.5."""
    made = trees(PLAIN + CHOSEN)
    plain, chosen = made[:PLAIN], made[PLAIN:]
    huffman = build_tree("huffman", counts=COUNTS)
    frozen = {huffman.hash: 9.0}
    frozen |= {tree.hash: 3.0 + 0.01 * i for i, tree in enumerate(plain)}
    frozen |= {tree.hash: 2.5 + 0.01 * i for i, tree in enumerate(chosen)}
    true = {tree.hash: frozen[tree.hash] for tree in (huffman, *plain)}
    true |= {tree.hash: frozen[tree.hash] + 1.0 for tree in chosen}
    with Ledger(tmp_path / "search.db", create=True) as ledger, ProgressReporter(quiet=True) as progress:
        for number, tree in enumerate((huffman, *plain, *chosen), start=1):
            cost = tree_cost(tree, COUNTS, in_features=FEATURES)
            actions = ["kway-2", "close-flat"] if tree in plain else [f"kway-{k}" for k in range(2, 12)]
            row = EvaluationRow(
                id=number,
                rung=FROZEN,
                batch=0,
                agent=BUILDER if tree is huffman else "agent",
                label="huffman" if tree is huffman else None,
                tree_hash=tree.hash,
                status=OK,
                cost_weight=0.0,
                valid_nll=frozen[tree.hash],
                cost=cost.cost,
                expected_depth=cost.expected_depth,
                actions=None if tree is huffman else json.dumps(actions),
                encoder="e",
            )
            ledger.record(row, tree)
        config = Config.model_validate(
            {
                "cost": {"weight": 1e-9},
                "joint": {"learning_rates": [0.01]},
                "confirm": {"promote": 2, "screen": 12, "seeds": 2},
            }
        )
        parts = RunParts(config, DATA, COST, Trainer(true), ledger, progress)
        yield parts, plain, chosen


def with_confirm(parts: RunParts, **changes: object) -> RunParts:
    confirm = parts.config.confirm.model_copy(update=changes)
    return replace(parts, config=parts.config.model_copy(update={"confirm": confirm}))


def test_luck_is_learned_from_the_first_half_and_taken_off_for_the_other(
    run: tuple[RunParts, list[Tree], list[Tree]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treesearch.launch.confirmation.MAX_SHARED", 1.0)  # small trees share much
    monkeypatch.setattr("treesearch.search.correction.FEWEST_TREES", 5)
    parts, plain, chosen = run
    parts = with_confirm(parts, rank_trees=14)  # some of either, or there is nothing to learn from
    _, trained, confirmed = confirm_search(parts, encoder="e")
    learned = parts.ledger.meta("correction")
    assert learned["slope"] == pytest.approx(1 / np.log(5))  # a gap of 1 from two actions to ten
    warm = Counter(row.tree_hash for row in parts.ledger.rows(WARM))
    assert {tree.hash for tree in chosen[:6]} <= set(warm)  # what looked best
    assert {tree.hash for tree in plain[:6]} <= set(warm)  # and what was better
    assert set(warm.values()) == {1}
    others = [tree for tree in diverse(parts.ledger, counts=COUNTS, cost_model=COST, num_trees=14, encoder="e")]
    assert len(warm) <= 1 + 12 + 12 + len({one.tree.hash for one in others})  # of any cost and of Huffman's at most
    best = min(trained.values(), key=lambda one: one.valid_nll)
    assert (best.promoted.tree, best.promoted.kind) == (plain[0], FOUND)
    assert plain[0] in [entry.finalist.promoted.tree for entry in confirmed]
    assert {row.rung for row in parts.ledger.rows()} == {FROZEN, WARM, JOINT, CONFIRM}


def test_a_promoted_tree_goes_on_though_it_is_also_one_to_compare_rungs(
    run: tuple[RunParts, list[Tree], list[Tree]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treesearch.launch.confirmation.MAX_SHARED", 1.0)
    monkeypatch.setattr("treesearch.search.correction.FEWEST_TREES", 5)
    parts, plain, _ = run
    promoted, _, confirmed = confirm_search(with_confirm(parts, rank_trees=99), encoder="e")  # all of them
    assert plain[0] in [one.tree for one in promoted]
    assert {one.kind for one in promoted} == {BASELINE, FOUND}
    assert plain[0] in [entry.finalist.promoted.tree for entry in confirmed]


def test_the_only_tree_of_a_family_is_trained_once_and_confirmed(run: tuple[RunParts, list[Tree], list[Tree]]) -> None:
    parts, _, _ = run
    alone, trainer = build_tree("random", counts=COUNTS), cast(Trainer, parts.executor)
    better = {f"balanced(arity={k})": build_tree("balanced", counts=COUNTS, arity=k) for k in (3, 4, 6)}
    for number, (label, tree) in enumerate([*better.items(), ("random", alone)]):
        trainer.true_nll[tree.hash] = 8.0 + number / 10
        row = parts.ledger.rows(FROZEN)[0]  # Huffman's
        row = replace(row, id=parts.ledger.next_id(), label=label, tree_hash=tree.hash, valid_nll=8.0 + number / 10)
        parts.ledger.record(row, tree)
    parts = with_confirm(parts, screen=None, rounds=3, families=("random",))
    _, _, confirmed = confirm_search(parts, encoder="e")
    assert alone in [entry.finalist.promoted.tree for entry in confirmed]
    trainings = Counter(row.tree_hash for row in parts.ledger.rows(JOINT))
    assert trainings[alone.hash] == 1
    assert trainings[better["balanced(arity=3)"].hash] == 4
    assert len([row for row in parts.ledger.rows(CONFIRM) if row.tree_hash == alone.hash]) == 2


def test_without_a_screen_frozen_rewards_decide(run: tuple[RunParts, list[Tree], list[Tree]]) -> None:
    parts, plain, chosen = run
    parts = with_confirm(parts, screen=None)
    promoted, _, _ = confirm_search(parts, encoder="e")
    assert {one.tree for one in promoted} >= set(chosen[:2])
    assert not {one.tree for one in promoted} & set(plain[2:])
    assert parts.ledger.meta("correction") is None


def test_seeds_of_the_largest_seed_are_whole_numbers_of_a_ledger() -> None:
    assert CONFIRM_SEEDS * (MAX_SEED + 1) < 2**63 - 10**9
