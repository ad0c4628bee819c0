"""Joint training: the same bits for the same seed, the same batches for every tree, and it learns."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from treesearch import Tree, build_tree
from treesearch.errors import ConfigError
from treesearch.evaluation import joint
from treesearch.evaluation.encoder import Encoder, FeedForwardEncoder
from treesearch.evaluation.joint import TextSplit, one_thread, resolve_device, score, train_joint
from treesearch.softmax import HierarchicalSoftmax

CLASSES, CONTEXT = 12, 2
HUFFMAN = build_tree("huffman", counts=np.arange(1, CLASSES + 1))
FLAT = build_tree("flat", counts=np.ones(CLASSES))


def planted(num_tokens: int = 600, seed: int = 0) -> TextSplit:
    """The label follows from the last word of the context; the first says nothing."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(CLASSES, size=(num_tokens, CONTEXT)).astype(np.int32)
    return TextSplit(windows, (windows[:, -1] * 5 + 3) % CLASSES)


def model(tree: Tree = HUFFMAN, seed: int = 0) -> tuple[Encoder, HierarchicalSoftmax]:
    encoder = FeedForwardEncoder(CLASSES, context=CONTEXT, embedding=8, features=16)
    generator = torch.Generator().manual_seed(seed)
    encoder.reset_parameters(generator)
    layer = HierarchicalSoftmax(16, tree)
    layer.reset_parameters(generator=generator)
    return encoder, layer


def trained(tree: Tree = HUFFMAN, *, seed: int = 0, **settings: Any) -> tuple[Encoder, HierarchicalSoftmax]:
    encoder, layer = model(tree)
    defaults = {"learning_rate": 0.02, "epochs": 2, "batch_size": 64}
    train_joint(encoder, layer, planted(), seed=seed, **{**defaults, **settings})
    return encoder, layer


def parameters(parts: tuple[Encoder, HierarchicalSoftmax]) -> list[torch.Tensor]:
    return [parameter for part in parts for parameter in part.parameters()]


@pytest.mark.parametrize("tree", [HUFFMAN, FLAT], ids=["huffman", "flat"])
def test_same_seed_same_bits(tree: Tree) -> None:
    first, second, other = (parameters(trained(tree, seed=seed)) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


def test_global_generators_are_neither_read_nor_moved() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = parameters(trained())
    torch.manual_seed(6)
    assert all(map(torch.equal, first, parameters(trained())))
    encoder, layer = model()
    torch.random.set_rng_state(before)
    train_joint(encoder, layer, planted(), learning_rate=0.02, epochs=1, batch_size=64, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


class TestOrder:
    """Which examples each step sees."""

    @pytest.fixture
    def batches(self, monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.int64]]:
        seen: list[NDArray[np.int64]] = []
        original = joint._batch

        def recorded(split: TextSplit, rows: NDArray[np.int64], device: torch.device) -> Any:
            seen.append(rows.copy())
            return original(split, rows, device)

        monkeypatch.setattr(joint, "_batch", recorded)
        return seen

    def test_does_not_depend_on_the_tree(self, batches: list[NDArray[np.int64]]) -> None:
        for tree in (HUFFMAN, FLAT):
            trained(tree)
        half = len(batches) // 2
        assert all(map(np.array_equal, batches[:half], batches[half:]))

    def test_every_example_once_an_epoch(self, batches: list[NDArray[np.int64]]) -> None:
        trained(epochs=2, batch_size=64)
        assert [len(rows) for rows in batches] == ([64] * 9 + [24]) * 2
        first, second = np.concatenate(batches[:10]), np.concatenate(batches[10:])
        assert sorted(first) == sorted(second) == list(range(600))
        assert not np.array_equal(first, second)

    def test_depends_on_the_seed(self, batches: list[NDArray[np.int64]]) -> None:
        for seed in (0, 1):
            trained(epochs=1, seed=seed)
        assert not np.array_equal(np.concatenate(batches[:10]), np.concatenate(batches[10:]))


def test_against_a_loop_of_plain_torch() -> None:
    encoder, layer = model()
    split, epochs, batch_size, learning_rate = planted(), 2, 64, 0.02
    twins = copy.deepcopy(encoder), copy.deepcopy(layer)
    train_joint(encoder, layer, split, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, seed=3)

    optimizer = torch.optim.Adam(parameters(twins), lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20)
    generator = torch.Generator().manual_seed(3)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(600, generator=generator), batch_size):
            optimizer.zero_grad()
            scores = twins[1].log_prob(twins[0](torch.from_numpy(split.windows).long()[rows]))
            torch.nn.functional.nll_loss(scores, torch.from_numpy(split.labels).long()[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    for own, other in zip(parameters((encoder, layer)), parameters(twins), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tree", [HUFFMAN, FLAT], ids=["huffman", "flat"])
def test_a_planted_rule_is_learned(tree: Tree) -> None:
    unseen = planted(seed=1)
    before = score(*model(tree), unseen)
    after = score(*trained(tree, epochs=15), unseen)
    assert after < 0.1 < np.log(CLASSES) * 0.9 < before


def test_steps_are_reported() -> None:
    calls: list[tuple[int, int]] = []
    trained(epochs=2, batch_size=250, on_step=lambda step, num: calls.append((step, num)))
    assert calls == [(step, 6) for step in range(1, 7)]


def test_score_is_the_mean_nll(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, layer = trained()
    split = planted(101, seed=2)
    features = encoder(torch.from_numpy(split.windows).long())
    expected = -layer.double().log_prob(features.double()).detach().numpy()[np.arange(101), split.labels].mean()
    layer.float()
    assert score(encoder, layer, split) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(joint, "SCORE_BATCH", 10)
    assert score(encoder, layer, split) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tree", [HUFFMAN, FLAT], ids=["huffman", "flat"])
def test_divergence_shows_in_the_score(tree: Tree) -> None:
    assert np.isnan(score(*trained(tree, learning_rate=1e38), planted(20)))


# -- devices and threads -----------------------------------------------------------------------------------------------


def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "abacus", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used here .*; use 'auto' or 'cpu'") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_inside_and_as_before_outside(fails: bool) -> None:
    torch.set_num_threads(2)  # the fixture of this package restores it
    before = blas_threads()
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert set(blas_threads()) <= {1}
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert torch.get_num_threads() == 2
    assert blas_threads() == before
    torch.set_num_threads(1)
