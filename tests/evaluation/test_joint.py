"""Joint training: the same bits for the same seed, the same batches for every tree, and it learns."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from treesearch import Tree, build_tree
from treesearch.data import Split
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation import joint
from treesearch.evaluation.encoders import Encoder, FeedForwardEncoder
from treesearch.evaluation.examples import HeldExamples
from treesearch.evaluation.joint import JointFit, resolve_device, score, token_nll, train_joint
from treesearch.softmax import HierarchicalSoftmax

CLASSES, CONTEXT = 12, 2
HUFFMAN = build_tree("huffman", counts=np.arange(1, CLASSES + 1))
FLAT = build_tree("flat", counts=np.ones(CLASSES))


def planted(num_tokens: int = 600, seed: int = 0) -> Split:
    """The label follows from the last word of the context; the first says nothing."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(CLASSES, size=(num_tokens, CONTEXT)).astype(np.int32)
    return Split(windows, (windows[:, -1] * 5 + 3) % CLASSES)


def model(tree: Tree = HUFFMAN, seed: int = 0) -> tuple[Encoder, HierarchicalSoftmax]:
    encoder = FeedForwardEncoder(CLASSES, context=CONTEXT, embedding=8, features=16)
    generator = torch.Generator().manual_seed(seed)
    encoder.reset_parameters(generator)
    layer = HierarchicalSoftmax(16, tree, sparse=True)
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
        original = HeldExamples.batch

        def recorded(examples: HeldExamples, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(rows.numpy().copy())
            return original(examples, rows)

        monkeypatch.setattr(HeldExamples, "batch", recorded)
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

    table, *dense = twins[0].parameters()
    by_row = [table, *twins[1].parameters()]
    # A row-sparse layer without projections: one matrix and one vector with the same rows, which share their factors.
    counts = np.bincount(split.labels, minlength=layer.num_classes)
    factors = {id(parameter): twins[1].parameter_groups(counts)[0]["row_rates"] for parameter in twins[1].parameters()}
    assert min(map(torch.min, factors.values())) < 1
    adam = torch.optim.Adam(dense, lr=learning_rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(3)
    moments = {parameter: (torch.zeros_like(parameter), torch.zeros(len(parameter))) for parameter in by_row}
    step = 0
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(600, generator=generator), batch_size):
            rate = learning_rate * (1 - step / 20)
            step += 1
            for parameter in (*dense, *by_row):
                parameter.grad = None
            output = twins[1](
                twins[0](torch.from_numpy(split.inputs).long()[rows]), torch.from_numpy(split.labels).long()[rows]
            )
            torch.autograd.backward(output.loss)
            adam.param_groups[0]["lr"] = rate
            adam.step()
            with torch.no_grad():
                for parameter, (mean, square) in moments.items():
                    assert parameter.grad is not None
                    assert parameter.grad.is_sparse
                    gradient = parameter.grad.coalesce()
                    factor = factors.get(id(parameter), torch.ones(len(parameter)))
                    for row, own in zip(gradient.indices()[0], gradient.values(), strict=True):
                        mean[row] = 0.9 * mean[row] + 0.1 * own
                        square[row] = 0.99 * square[row] + 0.01 * own.square().mean()
                        root = (square[row] / (1 - 0.99**step)).sqrt() + 1e-8
                        parameter[row] -= factor[row] * rate / (1 - 0.9**step) * mean[row] / root
    for trained_parameter, other in zip(parameters((encoder, layer)), parameters(twins), strict=True):
        torch.testing.assert_close(trained_parameter, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{"kernel": "gpu"}, {"kernel": "reference"}, {"sparse": False}], ids=str)
def test_other_kernels_train_alike(options: dict[str, Any]) -> None:
    """On devices gradients hold rows twice; a layer with dense gradients moves rows that rest in the others."""
    encoder, layer = model()
    other = HierarchicalSoftmax(16, HUFFMAN, **{"sparse": True, **options})
    other.load_state_dict(layer.state_dict())
    twin = copy.deepcopy(encoder)
    settings = {"learning_rate": 0.02, "epochs": 2, "batch_size": 64, "seed": 0}
    train_joint(encoder, layer, planted(), **settings)
    train_joint(twin, other, planted(), **settings)
    for own, theirs in zip(parameters((encoder, layer)), parameters((twin, other)), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-2, atol=1e-2)


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


# -- early stopping ----------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up_scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[torch.Tensor]]]:
    """Replaces validation by given NLLs; gives the list to which every score appends the parameters that it saw."""

    def replace(*nlls: float) -> list[list[torch.Tensor]]:
        rest, seen = iter(nlls), []

        def scored(encoder: Encoder, layer: HierarchicalSoftmax, split: Split) -> float:
            seen.append([parameter.detach().clone() for parameter in parameters((encoder, layer))])
            return next(rest)

        monkeypatch.setattr(joint, "score", scored)
        return seen

    return replace


@pytest.mark.parametrize(
    ("nlls", "epochs", "best"),
    [
        ((3.0, 2.0, 1.0, 0.5), 4, 4),  # the cap
        ((3.0, 2.0, 2.5), 3, 2),
        ((3.0, 3.5), 2, 1),
        ((3.0, 3.0, 2.0, 2.0), 4, 4),  # equal is not worse
        ((3.0, 2.0, 1.0, 1.5), 4, 3),
        ((3.0,), 1, 1),
    ],
    ids=str,
)
def test_training_stops_at_the_first_worse_epoch_and_keeps_the_best(
    nlls: tuple[float, ...], epochs: int, best: int, made_up_scores: Callable[..., list[list[torch.Tensor]]]
) -> None:
    seen = made_up_scores(*nlls)
    encoder, layer = model()
    cap = 1 if len(nlls) == 1 else 4
    settings = {"learning_rate": 0.02, "epochs": cap, "batch_size": 64, "seed": 0}
    fit = train_joint(encoder, layer, planted(), valid=planted(50), **settings)
    assert fit == JointFit(nlls[best - 1], epochs, best)
    assert len(seen) == epochs
    assert all(map(torch.equal, parameters((encoder, layer)), seen[best - 1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_epoch_that_diverges_ends_training(
    bad: float, made_up_scores: Callable[..., list[list[torch.Tensor]]]
) -> None:
    made_up_scores(3.0, bad)
    settings = {"learning_rate": 0.02, "epochs": 4, "batch_size": 64, "seed": 0}
    fit = train_joint(*model(), planted(), valid=planted(50), **settings)
    assert np.isnan(fit.valid_nll)
    assert (fit.epochs, fit.best_epoch) == (2, 2)


def test_validation_does_not_move_training() -> None:
    """The same steps with and without; the NLL is that of the parameters which are kept."""
    settings = {"learning_rate": 0.02, "epochs": 2, "batch_size": 64, "seed": 0}
    with_valid, without = model(), model()
    fit = train_joint(*with_valid, planted(), valid=planted(50, seed=1), **settings)
    assert train_joint(*without, planted(), **settings) == JointFit(None, 2, 2)
    assert (fit.epochs, fit.best_epoch) == (2, 2)
    assert fit.valid_nll == score(*with_valid, planted(50, seed=1))
    assert all(map(torch.equal, parameters(with_valid), parameters(without)))


def test_noise_is_not_learned_by_heart() -> None:
    """Labels without a rule: more passes make validation worse, and training notices."""
    rng = np.random.default_rng(0)
    train, valid = (Split(planted(300, seed).inputs, rng.integers(CLASSES, size=300)) for seed in (0, 1))
    encoder, layer = model()
    fit = train_joint(encoder, layer, train, valid=valid, learning_rate=0.05, epochs=50, batch_size=32, seed=0)
    assert fit.best_epoch == fit.epochs - 1 < 20
    assert fit.valid_nll == score(encoder, layer, valid)


def test_no_epoch_is_no_training() -> None:
    with pytest.raises(DataError, match="epochs must be >= 1, but got 0"):
        trained(epochs=0)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_score_is_the_mean_nll(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, layer = trained()
    split = planted(101, seed=2)
    features = encoder(torch.from_numpy(split.inputs).long())
    expected = -layer.double().log_prob(features.double()).detach().numpy()[np.arange(101), split.labels]
    layer.float()
    for batch in (joint.SCORE_BATCH, 10):
        monkeypatch.setattr(joint, "SCORE_BATCH", batch)
        assert score(encoder, layer, split) == pytest.approx(expected.mean(), rel=1e-5)
        nll = token_nll(encoder, layer, split)
        assert nll.dtype == np.float32
        np.testing.assert_allclose(nll, expected, rtol=1e-4, atol=1e-5)


def test_a_split_without_tokens() -> None:
    assert token_nll(*trained(), planted(0)).shape == (0,)


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
