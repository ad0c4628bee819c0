"""Times of steps: one for each tree, in order, of real steps; how long they are is not tested."""

from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
import torch

from treesearch import build_tree
from treesearch.config import EncoderConfig
from treesearch.data import InputSpec, Split
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation import timing
from treesearch.evaluation.timing import StepTime, time_trees
from treesearch.evaluation.trainer import JointTrainer

CLASSES = 12
ENCODER = EncoderConfig(context=2, embedding=4, features=8)
RNG = np.random.default_rng(0)
SPEC = InputSpec(2, CLASSES)
TRAIN = Split(RNG.integers(CLASSES, size=(100, 2)).astype(np.int32), RNG.integers(CLASSES, size=100))
TREES = [build_tree(name, counts=np.arange(1, CLASSES + 1)) for name in ("huffman", "flat", "balanced")]


def timed(trees: list[Any] = TREES, train: Split = TRAIN, **options: Any) -> list[StepTime]:
    return time_trees(trees, train, encoder=ENCODER, spec=SPEC, **{"batch_size": 16, "rounds": 3, **options})


def test_a_time_for_each_tree() -> None:
    times = timed()
    assert len(times) == len(TREES)
    for time in times:
        assert all(np.isfinite(astuple(time)))
        assert time.head_us > 0
        assert time.step_us > 0
        assert min(time.head_spread_us, time.step_spread_us) >= 0


def test_no_trees() -> None:
    assert timed([]) == []


@pytest.mark.parametrize("num_tokens", [1, 5, 16, 17])
def test_splits_of_hardly_a_batch(num_tokens: int) -> None:
    assert len(timed(TREES[:1], Split(TRAIN.inputs[:num_tokens], TRAIN.labels[:num_tokens]), rounds=1)) == 1


def test_medians_and_quartiles_per_example_in_the_order_of_the_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds made up: a block of steps on tree i takes 10 i + round, that of head steps half of it."""
    rounds = iter(range(5))

    def made_up(trainers: list[JointTrainer], batches: Any, device: torch.device) -> list[list[float]]:
        number = next(rounds)
        assert [trainer.layer.tree for trainer in trainers] == TREES
        return [[(10 * i + number) / 2, 10 * i + number] for i in range(len(trainers))]

    monkeypatch.setattr(timing, "_round", made_up)
    times = timed(rounds=5)
    unit = 1e6 / (timing.BLOCK * 16)
    for i, time in enumerate(times):
        middle = 10 * i + 2
        np.testing.assert_allclose(astuple(time), np.multiply([middle / 2, 1, middle, 2], unit))


def test_all_trees_train_on_the_same_batches_and_the_head_on_its_encoders_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, list[tuple[JointTrainer, bytes]]] = {"step": [], "head_step": []}
    for name, calls in seen.items():
        original = getattr(JointTrainer, name)

        def recorded(
            trainer: JointTrainer,
            given: torch.Tensor,
            target: torch.Tensor,
            calls: Any = calls,
            original: Any = original,
        ) -> None:
            calls.append((trainer, target.numpy().tobytes()))
            if given.is_floating_point():
                assert given.is_leaf
                assert given.shape == (16, 8)
            original(trainer, given, target)
            assert given.grad is not None or not given.is_floating_point()

        monkeypatch.setattr(JointTrainer, name, recorded)
    timed(rounds=2)
    for calls in seen.values():
        by_tree = [[batch for trainer, batch in calls if trainer.layer.tree == tree] for tree in TREES]
        assert by_tree[0] == by_tree[1] == by_tree[2]
    assert len(seen["head_step"]) == 2 * len(TREES) * (1 + timing.BLOCK)
    assert len(seen["step"]) == len(seen["head_step"]) + len(TREES) * timing.WARM_UP
    assert all(trainer.steps_done > timing.WARM_UP for trainer, _ in seen["step"])


def test_a_head_step_moves_the_layer_alone_and_as_a_whole_step_does() -> None:
    def trainer() -> JointTrainer:
        model = timing.make_model(TREES[0], ENCODER, SPEC, counts=np.ones(CLASSES), seed=0, device=torch.device("cpu"))
        return JointTrainer(*model, counts=np.ones(CLASSES), learning_rate=0.1)

    whole, head = trainer(), trainer()
    context, target = torch.from_numpy(TRAIN.inputs[:16]).long(), torch.from_numpy(TRAIN.labels[:16]).long()
    before = [parameter.detach().clone() for parameter in head.encoder.parameters()]
    for _ in range(3):
        hidden = whole.encoder(context).detach().requires_grad_()
        whole.step(context, target)
        head.head_step(hidden, target)
    for own, other in zip(head.layer.parameters(), whole.layer.parameters(), strict=True):
        assert torch.equal(own, other)
    assert all(map(torch.equal, head.encoder.parameters(), before))
    assert not any(map(torch.equal, whole.encoder.parameters(), before))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trees": [*TREES, build_tree("flat", counts=np.ones(5))]}, r"the same classes, but got \[5, 12\] of them"),
        ({"rounds": 0}, "rounds and examples must be >= 1, but got 0 and 100"),
        ({"train": Split(TRAIN.inputs[:0], TRAIN.labels[:0])}, "must be >= 1, but got 3 and 0"),
        ({"train": replace(TRAIN, labels=TRAIN.labels + 1)}, r"labels must be in \[0, 12\), but are 1 to 12"),
    ],
)
def test_what_cannot_be_timed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        timed(**options)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="device 'abacus'"):
        timed(device="abacus")
