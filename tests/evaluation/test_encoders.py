"""Encoders against NumPy, and what all of them keep to."""

from typing import Any

import numpy as np
import pytest
import torch

from treesearch.config import EncoderConfig
from treesearch.data import InputSpec
from treesearch.errors import ConfigError
from treesearch.evaluation import encoders as module
from treesearch.evaluation.encoders import Encoder, check_encoder, encode, untrained_encoder

SPECS = {
    "feedforward": InputSpec(3, 20),
    "gru": InputSpec(3, 20, padding=19),
    "bag": InputSpec(3, 20, padding=19),
    "mlp": InputSpec(3),
    "identity": InputSpec(5),
}


def make(kind: str = "feedforward", seed: int = 0) -> Encoder:
    settings = EncoderConfig(kind=kind, embedding=4, features=5)
    return untrained_encoder(settings, SPECS[kind], torch.Generator().manual_seed(seed))


WINDOWS = np.random.default_rng(0).integers(20, size=(50, 3)).astype(np.int32)


def test_features_against_numpy() -> None:
    encoder = make()
    table, weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in encoder.parameters())
    side_by_side = np.concatenate([table[WINDOWS[:, i]] for i in range(3)], axis=1)
    features = encode(encoder, WINDOWS)
    np.testing.assert_allclose(features, np.tanh(side_by_side @ weight.T + bias), rtol=1e-5, atol=1e-6)
    assert features.dtype == np.float32
    assert features.shape == (50, encoder.out_features)


@pytest.mark.parametrize("batch", [1, 7, 25, 50, 51])
def test_encoding_in_batches(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = encode(make(), WINDOWS)
    monkeypatch.setattr(module, "ENCODE_BATCH", batch)
    np.testing.assert_allclose(encode(make(), WINDOWS), at_once, rtol=1e-5, atol=1e-7)


def test_nothing_to_encode() -> None:
    assert encode(make(), WINDOWS[:0]).shape == (0, 5)


def test_parameters_come_from_the_generator() -> None:
    torch.manual_seed(1)
    first = make()
    torch.manual_seed(2)
    second, other = make(), make(seed=1)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_scale_of_the_parameters() -> None:
    encoder = untrained_encoder(EncoderConfig(), InputSpec(5, 2000), torch.Generator().manual_seed(0))
    table, weight, bias = encoder.parameters()
    assert table.std().item() == pytest.approx(0.1, rel=0.02)
    assert weight.std().item() == pytest.approx(320**-0.5, rel=0.02)
    assert not bias.any()


def test_the_table_has_row_sparse_gradients_and_is_named() -> None:
    encoder = make()
    encoder(torch.from_numpy(WINDOWS[:2]).long()).sum().backward()
    sparse = [p for p in encoder.parameters() if p.grad is not None and p.grad.is_sparse]
    assert list(map(id, encoder.row_sparse_parameters())) == list(map(id, sparse))
    assert [p.shape for p in sparse] == [(20, 4)]


@pytest.mark.parametrize("kind", SPECS)
def test_what_all_encoders_keep_to(kind: str) -> None:
    spec = SPECS[kind]
    rng = np.random.default_rng(0)
    inputs = (
        rng.integers(spec.num_ids, size=(9, spec.size)).astype(np.int32)
        if spec.are_ids
        else rng.standard_normal((9, spec.size)).astype(np.float16)
    )
    features = encode(make(kind), inputs)
    assert features.dtype == np.float32
    assert features.shape == (9, 5)
    assert features.flags.c_contiguous
    np.testing.assert_allclose(features[2:4], encode(make(kind), inputs[2:4]), rtol=1e-5, atol=1e-6)
    first, second, other = (encode(make(kind, seed), inputs) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.array_equal(first, other) == (not make(kind).learns)


@pytest.mark.parametrize("kind", ["gru", "bag"])
def test_padding_has_no_embedding_and_gets_none(kind: str) -> None:
    encoder = make(kind)
    table = encoder.row_sparse_parameters()[0]
    assert not table[19].any()
    torch.optim.SparseAdam([table], lr=0.1).zero_grad()
    encoder(torch.tensor([[19, 19, 3], [19, 4, 5]])).sum().backward()
    assert table.grad is not None
    assert not table.grad.to_dense()[19].any()


def test_a_bag_against_numpy() -> None:
    encoder = make("bag")
    table, weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in encoder.parameters())
    bags = np.array([[19, 19, 19], [19, 2, 7], [7, 2, 2]], np.int32)
    means = np.stack([np.zeros(4), table[[2, 7]].mean(0), table[[7, 2, 2]].mean(0)])
    np.testing.assert_allclose(encode(encoder, bags), np.tanh(means @ weight.T + bias), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encode(encoder, bags[:, ::-1].copy()), encode(encoder, bags), atol=1e-6)


def test_a_gru_reads_in_order() -> None:
    windows = np.array([[1, 2, 3], [3, 2, 1]], np.int32)
    forward, backward = encode(make("gru"), windows)
    assert not np.allclose(forward, backward, atol=1e-3)


def test_identity_leaves_the_inputs() -> None:
    inputs = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    np.testing.assert_array_equal(encode(make("identity"), inputs), inputs)
    assert not make("identity").learns


@pytest.mark.parametrize(
    ("settings", "spec", "says"),
    [
        ({"kind": "feedfoward"}, InputSpec(3, 20), "unknown encoder.kind 'feedfoward'; did you mean 'feedforward'?"),
        ({"kind": "mlp"}, InputSpec(3, 20), "'mlp' reads numbers, but the data are ids; choose one of ['bag', "),
        ({"kind": "gru"}, InputSpec(3), "'gru' reads ids, but the data are numbers; choose one of ['identity', 'mlp']"),
        ({"kind": "identity", "features": 7}, InputSpec(3), "encoder.features must be 3, the size of the features"),
    ],
)
def test_encoders_that_do_not_fit(settings: dict[str, Any], spec: InputSpec, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_encoder(EncoderConfig(**settings), spec)
    assert says in str(caught.value)
