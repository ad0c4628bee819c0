"""Modules for serving, in torch: scores and beams against the layer's own exact search."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.softmax import oracle
from tests.softmax.oracle import TREES, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.serving import beam_module, scoring_module
from treesearch.softmax import levels


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", TREES)
def test_scores_are_those_of_the_layer(name: str, bias: bool) -> None:
    layer = random_layer(TREES[name], bias=bias)
    inputs, _ = random_batch(layer, 7)
    torch.testing.assert_close(scoring_module(layer)(inputs), layer.log_prob(inputs), rtol=1e-10, atol=1e-12)


def assert_beam_is_that_of_the_layer(tree: Tree, k: int, beam: int, bias: bool = True) -> None:
    layer = random_layer(tree, bias=bias)
    inputs, _ = random_batch(layer, 9)
    log_prob, indices, exact = beam_module(layer, k, beam=beam)(inputs)
    expected = layer.topk(inputs, k, max_nodes=beam)
    torch.testing.assert_close(log_prob, expected.log_prob, rtol=1e-10, atol=1e-12)
    assert indices.tolist() == expected.indices.tolist()
    assert exact.tolist() == expected.exact.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "bias"),
    [(levels.ROWS_PER_FETCHED_ROW, True), (levels.ROWS_PER_FETCHED_ROW, False), (0, True), (10**9, True)],
    ids=["default", "no bias", "always fetched", "never fetched"],
)
@pytest.mark.parametrize("name", TREES)
def test_beams_are_those_of_the_search(name: str, ratio: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best-first search with as many nodes a level is another algorithm with the same result."""
    monkeypatch.setattr(levels, "ROWS_PER_FETCHED_ROW", ratio)
    num_classes = TREES[name].num_classes
    for k in {1, min(5, num_classes), num_classes}:
        for beam in (1, 2, 16, 1000):
            assert_beam_is_that_of_the_layer(TREES[name], k, beam, bias)


@pytest.mark.parametrize("beam", [1, 2, 3, 4])
def test_a_level_scored_whole_below_one_that_is_not(beam: int) -> None:
    """Most nodes of the beam end in leaves; those that do not must keep their places."""
    pairs = [[i, i + 1] for i in range(7, 83, 2)]
    tree = Tree.from_nested([[0, [1, 2]], [3, [4, 5, 6]], *pairs])
    tables = beam_module(random_layer(tree), 1, beam=beam)._tables
    assert [level.fetched is not None for level in tables.levels] == [False, True, False]
    for k in (1, 5):
        assert_beam_is_that_of_the_layer(tree, k, beam)


@settings(deadline=None, max_examples=100)
@given(oracle.projected_trees(), st.integers(1, 12), st.integers(1, 6), st.sampled_from([0, 1, 8]))
def test_beams_of_any_tree(tree: Tree, k: int, beam: int, ratio: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "ROWS_PER_FETCHED_ROW", ratio)
        assert_beam_is_that_of_the_layer(tree, min(k, tree.num_classes), beam)


@pytest.mark.parametrize("name", TREES)
def test_a_beam_that_holds_every_level_is_exact(name: str) -> None:
    layer = random_layer(TREES[name])
    inputs, _ = random_batch(layer, 7)
    k = min(6, layer.num_classes)
    log_prob, indices, exact = beam_module(layer, k)(inputs)
    best = layer.log_prob(inputs).topk(k)
    torch.testing.assert_close(log_prob, best.values, rtol=1e-10, atol=1e-12)
    assert indices.tolist() == best.indices.tolist()
    assert exact.all()


def test_greedy_by_hand() -> None:
    """Left with 0.6, then its best leaf with 0.5 of that; the best class, 0.4, is on the right."""
    layer = random_layer(Tree.from_nested([[0, 1], 2]), in_features=1, bias=True)
    with torch.no_grad():
        layer.weights[0].zero_()
        layer.biases[0].copy_(torch.tensor([0.6 / 0.4, 1.0]).log())
    log_prob, indices, exact = beam_module(layer, 1, beam=1)(torch.zeros(2, 1, dtype=torch.float64))
    assert (indices.tolist(), exact.tolist()) == ([[2], [2]], [True, True])
    assert log_prob[0].item() == pytest.approx(torch.tensor(0.4).log().item(), rel=1e-6)
    deeper = random_layer(Tree.from_nested([[0, 1], [2, [3, 4]]]), in_features=1)
    with torch.no_grad():
        deeper.weights[0].zero_()
        deeper.biases[0].copy_(torch.tensor([0.6 / 0.4, 1.0, 9.0, 1.0]).log())
    log_prob, indices, exact = beam_module(deeper, 3, beam=1)(torch.zeros(1, 1, dtype=torch.float64))
    assert log_prob[0].exp().tolist() == pytest.approx([0.3, 0.3, 0.0])
    assert sorted(indices[0].tolist()) == [-1, 0, 1]
    assert exact.tolist() == [False]
    assert beam_module(deeper, 1, beam=2)(torch.zeros(1, 1, dtype=torch.float64))[1].tolist() == [[2]]


def test_what_is_not_a_number_is_not_exact() -> None:
    layer = random_layer(TREES["random"])
    inputs, _ = random_batch(layer, 3)
    inputs[1, 0] = torch.nan
    assert beam_module(layer, 3, beam=1000)(inputs)[2].tolist() == [True, False, True]


def test_huge_logits() -> None:
    """Probabilities of 1 and of exp(-1000): neither infinite nor lost."""
    layer = random_layer(TREES["huffman"], dtype=torch.float32)
    inputs = random_batch(layer, 3, dtype=torch.float32)[0] * 1000
    expected = random_layer(TREES["huffman"]).log_prob(inputs.double()).float()
    assert expected.min() < -1000
    torch.testing.assert_close(scoring_module(layer)(inputs), expected, rtol=1e-4, atol=1e-4)
    log_prob, _, exact = beam_module(layer, 40)(inputs)
    torch.testing.assert_close(log_prob, expected.sort(descending=True).values, rtol=1e-4, atol=1e-4)
    assert exact.all()


def test_empty_batch() -> None:
    layer = random_layer(TREES["adaptive"])
    inputs = random_batch(layer, 0)[0]
    assert scoring_module(layer)(inputs).shape == (0, 40)
    assert [part.shape[0] for part in beam_module(layer, 3, beam=2)(inputs)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("k", "beam", "message"),
    [(0, 1, r"k must lie in \[1, 40\]"), (41, 1, "but got 41"), (1, 0, "beam must be"), (1, 1.5, "beam must be")],
)
def test_refusals(k: int, beam: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        beam_module(random_layer(TREES["huffman"]), k, beam=beam)


def test_inputs_that_do_not_fit() -> None:
    module = scoring_module(random_layer(TREES["huffman"]))
    for bad in (torch.zeros(2, 5).double(), torch.zeros(6).double(), torch.zeros(2, 6)):
        with pytest.raises(DataError, match="float64 of shape"):
            module(bad)
    with pytest.raises(DataError, match="must be a HierarchicalSoftmax, but got Linear"):
        scoring_module(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
