"""Preparation: deterministic, and its hash tells apart what must not be compared."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.config import EncoderConfig
from treesearch.data import Corpus
from treesearch.errors import ConfigError, DataError
from treesearch.evaluation.class_vectors import class_vectors
from treesearch.evaluation.preparation import Preparation, held_out_tokens, prepare
from treesearch.evaluation.softmax_mean import SoftmaxMean

SETTINGS = EncoderConfig(context=2, embedding=4, features=6, batch_size=64)


def corpus(seed: int = 0) -> Corpus:
    """Thirty words, each of which prefers one successor."""
    rng = np.random.default_rng(seed)
    stream = np.zeros(1500, np.int32)
    for t in range(1, stream.size):
        stream[t] = (stream[t - 1] * 7 + 1) % 30 if rng.random() < 0.7 else rng.integers(30)
    train, valid, test = np.split(stream, [1000, 1250])
    return Corpus(
        train=train,
        valid=valid,
        test=test,
        class_names=tuple(f"word{i}" for i in range(30)),
        counts=np.maximum(np.bincount(train, minlength=30), 1),
        eos=0,
        source={},
    )


CORPUS = corpus()
DATA = CORPUS.dataset(2)


@pytest.fixture(scope="module")
def prepared() -> Preparation:
    return prepare(DATA, SETTINGS, seed=0)


def test_sizes(prepared: Preparation) -> None:
    assert prepared.train.x.shape == (1000, 6)
    assert prepared.valid.x.shape == (250, 6)
    assert prepared.vectors.shape == (30, 6)
    assert {array.dtype.name for array in (prepared.train.x, prepared.valid.x, prepared.vectors)} == {"float32"}
    np.testing.assert_array_equal(prepared.train.y, CORPUS.train)
    np.testing.assert_array_equal(prepared.valid.y, CORPUS.valid)
    assert len(prepared.hash) == 16


def test_same_seed_same_features_and_hash(prepared: Preparation) -> None:
    again = prepare(DATA, SETTINGS, seed=0)
    assert again.hash == prepared.hash
    for own, other in ((again.train.x, prepared.train.x), (again.valid.x, prepared.valid.x)):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(again.vectors, prepared.vectors)


def test_everything_that_moves_the_features_moves_the_hash(prepared: Preparation) -> None:
    hashes = {
        prepared.hash,
        prepare(DATA, SETTINGS, seed=1).hash,
        prepare(corpus(seed=1).dataset(2), SETTINGS, seed=0).hash,
        prepare(DATA, SETTINGS.model_copy(update={"refine_epochs": 0}), seed=0).hash,
        prepare(DATA, SETTINGS.model_copy(update={"learning_rate": 0.005}), seed=0).hash,
        prepare(DATA, SETTINGS, seed=0, max_tokens=999).hash,
        prepare(DATA, SETTINGS, seed=0, holdout=0.1).hash,
    }
    assert len(hashes) == 7


def test_max_tokens_cuts_the_features_only(prepared: Preparation) -> None:
    cut = prepare(DATA, SETTINGS, seed=0, max_tokens=100)
    np.testing.assert_array_equal(cut.train.x, prepared.train.x[:100])
    np.testing.assert_array_equal(cut.train.y, prepared.train.y[:100])
    np.testing.assert_array_equal(cut.valid.x, prepared.valid.x)
    np.testing.assert_array_equal(cut.vectors, prepared.vectors)


def test_vectors_are_made_from_the_features(prepared: Preparation) -> None:
    np.testing.assert_array_equal(prepared.vectors, class_vectors(prepared.train, 30))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_held_out_tokens_are_that_share_in_blocks_over_the_whole_text(share: float) -> None:
    for num_tokens in (1000, 300_000):
        held_out = held_out_tokens(num_tokens, share)
        size = min(2048, num_tokens // 100)
        assert held_out.mean() == pytest.approx(share, abs=0.01)
        assert (np.diff(np.flatnonzero(np.diff(held_out))) % size == 0).all()  # whole blocks
        assert all(0 < part.mean() < 1 for part in np.array_split(held_out, 5))


def test_nothing_learns_from_held_out_tokens() -> None:
    held_out = held_out_tokens(len(CORPUS.train), 0.2)
    prepared = prepare(DATA, SETTINGS, seed=0, holdout=0.2)
    np.testing.assert_array_equal(prepared.train.y, CORPUS.train[~held_out])
    np.testing.assert_array_equal(prepared.valid.y, CORPUS.train[held_out])
    np.testing.assert_array_equal(prepared.vectors, class_vectors(prepared.train, 30))
    # Other words in the held-out blocks, but for the two that are the context of what follows: the same encoder.
    deep = held_out & np.roll(held_out, -1) & np.roll(held_out, -2)
    words = np.where(deep, (CORPUS.train + 1) % 30, CORPUS.train)
    changed = prepare(replace(CORPUS, train=words).dataset(2), SETTINGS, seed=0, holdout=0.2)
    np.testing.assert_array_equal(changed.train.x, prepared.train.x)
    assert not np.array_equal(changed.valid.x, prepared.valid.x)


def test_features_depend_on_the_past_alone(prepared: Preparation) -> None:
    # positions with the same two preceding words have the same features
    contexts = np.stack([CORPUS.train[:-2], CORPUS.train[1:-1]], 1)
    _, first, inverse = np.unique(contexts, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_allclose(prepared.train.x[2:], prepared.train.x[2:][first[inverse.ravel()]], rtol=1e-5, atol=1e-6)


def test_stages_are_reported() -> None:
    calls: list[tuple[str, int, int]] = []
    settings = SETTINGS.model_copy(update={"batch_size": 500, "epochs": 2})
    prepare(DATA, settings, seed=0, on_step=lambda *call: calls.append(call))
    assert calls == [("encoder", i, 4) for i in range(1, 5)] + [("encoder, refined", i, 2) for i in range(1, 3)]


def test_an_encoder_that_diverges() -> None:
    with pytest.raises(DataError, match=r"not finite; lower encoder\.learning_rate"):
        prepare(DATA, SETTINGS.model_copy(update={"learning_rate": 1e38}), seed=0)


def test_unknown_encoder_or_device() -> None:
    with pytest.raises(ConfigError, match=r"unknown encoder.kind 'oracle'"):
        prepare(DATA, SETTINGS.model_copy(update={"kind": "oracle"}), seed=0)
    with pytest.raises(ConfigError, match="device 'abacus'"):
        prepare(DATA, SETTINGS, seed=0, device="abacus")


# -- the trees of the second stage


def test_the_encoder_learns_from_all_trees_of_the_second_stage(prepared: Preparation) -> None:
    def features(**options: Any) -> NDArray[np.float32]:
        return prepare(DATA, SETTINGS.model_copy(update=options), seed=0).train.x

    clustered = {"name": "clustered"}
    one, both = features(trees=(clustered,)), features(trees=(clustered, {"name": "huffman"}))
    assert not np.array_equal(one, both)
    further = build_tree("huffman", counts=CORPUS.counts)
    for refine_epochs in (0, 1):  # a further tree is learned from in any case
        settings = SETTINGS.model_copy(update={"trees": (clustered,), "refine_epochs": refine_epochs})
        np.testing.assert_array_equal(prepare(DATA, settings, seed=0, tree=further).train.x, both)


def test_the_second_stage_can_be_left_out(prepared: Preparation) -> None:
    settings = SETTINGS.model_copy(update={"refine_epochs": 0, "trees": ({"name": "nobody"},)})
    with pytest.raises(ConfigError, match="unknown builder 'nobody'"):
        prepare(DATA, settings.model_copy(update={"refine_epochs": 1}), seed=0)
    assert prepare(DATA, settings.model_copy(update={"trees": SETTINGS.trees}), seed=0).hash != prepared.hash


# -- several trees as one layer


def test_the_mean_of_several_softmaxes_by_hand() -> None:
    layers = [HierarchicalSoftmax(6, Tree.from_nested(nested)) for nested in ([0, [1, 2]], [[0, 1], 2], [0, 1, 2])]
    mean = SoftmaxMean(layers)
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 1, 0])
    output, loss = mean(x, y)
    expected = torch.stack([layer.log_prob(x)[range(5), y] for layer in layers]).mean(0)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(loss, -expected.mean())
    groups = mean.parameter_groups([5, 3, 2])
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, mean.parameters()))
    assert mean.num_classes == 3


def test_layers_over_other_classes_have_no_mean() -> None:
    layers = [HierarchicalSoftmax(6, Tree.from_nested(nested)) for nested in ([0, 1], [0, 1, 2])]
    with pytest.raises(DataError, match=r"agree on \(classes, features\), but got \[\(2, 6\), \(3, 6\)\]"):
        SoftmaxMean(layers)
    with pytest.raises(DataError, match="give one at least"):
        SoftmaxMean([])
