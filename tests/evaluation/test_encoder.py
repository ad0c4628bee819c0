"""The encoder against NumPy, and class vectors against a loop."""

import numpy as np
import pytest
import torch

from treesearch.errors import ConfigError
from treesearch.evaluation import encoder as module
from treesearch.evaluation.encoder import Encoder, encode, make_encoder


def make(seed: int = 0) -> Encoder:
    encoder = make_encoder("feedforward", 20, context=3, embedding=4, features=5)
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    return encoder


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
    encoder = make_encoder("feedforward", 2000, context=5, embedding=64, features=128)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
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


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match=r"one of \['feedforward'\], but got 'transformer'"):
        make_encoder("transformer", 20, context=3, embedding=4, features=5)
