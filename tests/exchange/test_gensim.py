"""gensim on our trees: it trains on what is installed, we read what it built, and probabilities agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treesearch import Tree, build_tree
from treesearch.errors import DataError, TreeError
from treesearch.exchange.binarize import binarize

gensim_models = pytest.importorskip("gensim.models")
from treesearch.exchange.gensim import (  # noqa: E402 - needs gensim
    TreeGuard,
    extract,
    install,
    layer_of,
    mean_nll,
    pairs,
    verify,
)

RNG = np.random.default_rng(0)
NUM_WORDS = 40
SENTENCES = []
for _ in range(300):
    topic = int(RNG.integers(4))
    SENTENCES.append([f"w{topic * 10 + min(int(RNG.geometric(0.25)) - 1, 9)}" for _ in range(int(RNG.integers(2, 14)))])
HELD_OUT = SENTENCES[:60]


def make(*, sg: int = 1, train: bool = False, tree: Tree | None = None, **options: Any) -> Any:
    settings = {"vector_size": 12, "window": 3, "min_count": 1, "hs": 1, "negative": 0, "workers": 1, "seed": 1}
    model = gensim_models.Word2Vec(**settings, sg=sg, **options)
    model.build_vocab(SENTENCES)
    if tree is not None:
        install(model, tree)
    if train:
        model.train(SENTENCES, total_examples=model.corpus_count, epochs=5)
    return model


def by_name(model: Any, name: str = "balanced") -> Tree:
    """A tree over the model's words that is not its own."""
    words = sorted(model.wv.index_to_key)
    return build_tree(name, counts=np.ones(len(words))).annotate(class_names=words)


@pytest.mark.parametrize("sg", [0, 1])
def test_a_tree_taken_out_and_put_back_changes_no_bit(sg: int) -> None:
    first = make(sg=sg, train=True, tree=by_name(make()))
    again = make(sg=sg, train=True, tree=extract(first))
    np.testing.assert_array_equal(first.wv.vectors, again.wv.vectors)
    np.testing.assert_array_equal(first.syn1, again.syn1)


@pytest.mark.parametrize("sg", [0, 1])
def test_its_own_tree_put_back_learns_the_same(sg: int) -> None:
    """But for which child of a node has code 0, and its sigmoid table is not quite symmetric."""
    plain = make(sg=sg, train=True)
    again = make(sg=sg, train=True, tree=extract(make(sg=sg)))
    other = make(sg=sg, train=True, tree=by_name(plain))
    vectors = [model.wv.vectors.ravel() for model in (plain, again, other)]
    assert np.corrcoef(vectors)[0, 1] > 0.99 > 0.95 > np.corrcoef(vectors)[0, 2]


def test_its_huffman_tree_is_as_short_as_ours() -> None:
    model = make()
    counts = np.array([model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key], float)
    tree = extract(model)
    assert tree.class_names == tuple(model.wv.index_to_key)
    assert tree.expected_depth(counts) == pytest.approx(build_tree("huffman", counts=counts).expected_depth(counts))


def test_what_is_installed_has_the_types_that_it_reads() -> None:
    model = make()
    tree = by_name(model)
    install(model, tree)
    for name, kind in (("code", np.uint8), ("point", np.uint32)):
        values = model.wv.expandos[name]
        assert values.dtype == object
        for part in values:
            assert part.dtype == kind
            assert part.flags.c_contiguous
            assert part.base is None
    assert model.syn1.shape == (NUM_WORDS, 12)
    assert not model.syn1.any()
    found = extract(model)
    depth = dict(zip(found.class_names or (), found.depths.tolist(), strict=True))
    assert [depth[word] for word in tree.class_names or ()] == tree.depths.tolist()
    verify(model, tree)


@pytest.mark.parametrize("sg", [0, 1])
@pytest.mark.parametrize("own", [True, False])
def test_probabilities_against_products_of_sigmoids(sg: int, own: bool) -> None:
    model = make(sg=sg, train=True, tree=None if own else by_name(make()))
    hidden = RNG.standard_normal((5, 12)).astype(np.float32)
    log_prob = layer_of(model).log_prob(torch.from_numpy(hidden)).detach().numpy()
    np.testing.assert_allclose(np.exp(log_prob.astype(np.float64)).sum(1), 1, rtol=1e-5)
    for word in range(NUM_WORDS):
        code, point = (model.wv.expandos[name][word] for name in ("code", "point"))
        logit = hidden.astype(np.float64) @ model.syn1[point].T.astype(np.float64)
        expected = -np.log1p(np.exp(-logit * (1 - 2.0 * code))).sum(1)
        np.testing.assert_allclose(log_prob[:, word], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sg", [0, 1])
@pytest.mark.parametrize("cbow_mean", [0, 1])
def test_pairs_against_a_loop(sg: int, cbow_mean: int) -> None:
    model = make(sg=sg, train=True, cbow_mean=cbow_mean)
    sentences = [*HELD_OUT[:9], ["w1", "unheard", "w2"], ["w3"], []]
    expected = []
    for sentence in sentences:
        ids = [model.wv.key_to_index[word] for word in sentence if word in model.wv.key_to_index]
        for i, word in enumerate(ids):
            around = [ids[j] for j in range(max(0, i - 3), min(len(ids), i + 4)) if j != i]
            vectors = model.wv.vectors[around]
            if sg:
                expected += [(word, vector) for vector in vectors]
            elif around:
                expected.append((word, vectors.mean(0) if cbow_mean else vectors.sum(0)))
    hidden, words = map(np.concatenate, zip(*pairs(model, sentences), strict=True))
    assert sorted(words.tolist()) == sorted(word for word, _ in expected)

    def rows(pairs_: Any) -> Any:
        return np.array(sorted([float(word), *np.round(vector, 4).tolist()] for word, vector in pairs_))

    np.testing.assert_allclose(rows(zip(words, hidden, strict=True)), rows(expected), atol=2e-4)


@pytest.mark.parametrize("sg", [0, 1])
@pytest.mark.parametrize("own", [True, False])
def test_mean_nll_against_gensims_own_score(sg: int, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(sg=sg, train=True, tree=None if own else by_name(make()))
    num_pairs = sum(len(words) for _, words in pairs(model, HELD_OUT))
    score = model.score(HELD_OUT, total_sentences=len(HELD_OUT))[: len(HELD_OUT)].astype(np.float64).sum()
    nll = mean_nll(model, HELD_OUT)
    # It looks logarithms up in a table, 83 entries from those of 83.3 that it means: -0.024 instead of 0.
    assert nll < -score / num_pairs < 1.03 * nll
    monkeypatch.setattr("treesearch.exchange.gensim.SCORED_PAIRS", 50)
    assert mean_nll(model, HELD_OUT) == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("sg", [0, 1])
def test_training_learns_on_the_tree(sg: int) -> None:
    tree = by_name(make())
    before, after = (mean_nll(make(sg=sg, train=train, tree=tree), HELD_OUT) for train in (False, True))
    assert before == pytest.approx(np.log(NUM_WORDS), rel=0.1)  # all decisions are even
    assert after < before - 0.1


def test_an_updated_vocabulary_is_not_trained_on() -> None:
    model = make()
    tree = by_name(model)
    install(model, tree)
    guard = TreeGuard(tree)
    model.train(SENTENCES, total_examples=model.corpus_count, epochs=1, callbacks=[guard])
    model.build_vocab(SENTENCES, update=True)  # no new word, but its own tree again
    with pytest.raises(TreeError, match="build_vocab builds gensim's Huffman tree again"):
        model.train(SENTENCES, total_examples=model.corpus_count, epochs=1, callbacks=[guard])
    model.build_vocab([["new", "words"] * 3], update=True)
    with pytest.raises(TreeError, match=r"class|words"):
        model.train(SENTENCES, total_examples=model.corpus_count, epochs=1, callbacks=[guard])


def test_its_own_tree_again_is_another_once_weights_have_been_learned() -> None:
    """The same tree with nodes numbered in another way: rows of trained weights would belong to other nodes."""
    model = make()
    tree = extract(model)
    install(model, tree)
    verify(model, tree)
    model.build_vocab(SENTENCES, update=True)
    assert extract(model) == tree
    with pytest.raises(TreeError, match="has other codes"):
        verify(model, tree)


def test_a_saved_model_keeps_the_tree(tmp_path: Path) -> None:
    tree = by_name(make())
    model = make(train=True, tree=tree)
    model.save(str(tmp_path / "model"))
    again = gensim_models.Word2Vec.load(str(tmp_path / "model"))
    verify(again, tree)
    assert mean_nll(again, HELD_OUT) == mean_nll(model, HELD_OUT)


def test_classes_without_names_are_positions() -> None:
    model = make()
    tree = build_tree("huffman", counts=np.arange(1, NUM_WORDS + 1))
    install(model, tree)
    assert extract(model) == tree
    assert extract(model).class_names == tuple(model.wv.index_to_key)


def test_what_cannot_be_installed() -> None:
    model = make()
    with pytest.raises(TreeError, match=f"over the model's {NUM_WORDS} words, but is over 3 classes"):
        install(model, Tree.from_nested([[0, 1], 2]))
    wide = by_name(model, "flat")
    with pytest.raises(TreeError, match="make it binary"):
        install(model, wide)
    install(model, binarize(wide))
    words = [*model.wv.index_to_key[:-1], "stranger"]
    with pytest.raises(TreeError, match="class name"):
        install(model, build_tree("huffman", counts=np.ones(NUM_WORDS)).annotate(class_names=words))
    with pytest.raises(DataError, match="make it with hs=1"):
        install(gensim_models.Word2Vec(min_count=1), wide)
    with pytest.raises(DataError, match="call build_vocab first"):
        extract(gensim_models.Word2Vec(hs=1))
    for other in (gensim_models.FastText(hs=1), gensim_models.Doc2Vec(hs=1), None):
        with pytest.raises(DataError, match=r"must be a gensim\.models\.Word2Vec, but is "):
            install(other, tree=wide)
    with pytest.raises(DataError, match="no word of the sentences"):
        mean_nll(model, [["w1"], ["unheard", "of"]])


def test_codes_that_are_no_tree_are_refused() -> None:
    model = make()
    model.wv.expandos["code"][3] = model.wv.expandos["code"][4].copy()
    model.wv.expandos["point"][3] = model.wv.expandos["point"][4].copy()
    with pytest.raises(TreeError):
        extract(model)
