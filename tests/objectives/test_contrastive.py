"""InfoNCE against loops over pairs, and pairs against what they were made from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from treesearch.errors import DataError
from treesearch.objectives import leaf_pairs
from treesearch.objectives.contrastive import info_nce
from treesearch.objectives.leaf_pairs import LeafPairs, PositivePairs, SiblingPairs

C, D = 9, 4


def some_vectors(seed: int = 0) -> Tensor:
    return torch.randn(C, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(
    vectors: Tensor, pairs: list[tuple[int, int]], temperature: float, candidates: set[int], known: set[tuple[int, int]]
) -> float:
    def score(a: int, b: int) -> float:
        return math.exp(float(torch.cosine_similarity(vectors[a], vectors[b], dim=0)) / temperature)

    losses = []
    for anchor, positive in pairs:
        negatives = [c for c in candidates if c != anchor and (anchor, c) not in known | set(pairs)]
        own = score(anchor, positive)
        losses.append(-math.log(own / (own + sum(score(anchor, c) for c in negatives))))
    return sum(losses) / len(losses)


a_pair = st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(a_pair, min_size=1, max_size=12),
    st.lists(st.integers(0, C - 1), max_size=6) | st.none(),
    st.lists(a_pair, max_size=6),
)
def test_info_nce_against_loops(
    pairs: list[tuple[int, int]], candidates: list[int] | None, known: list[tuple[int, int]]
) -> None:
    anchors, positives = torch.tensor(pairs).T.contiguous()
    similarity = sparse.csr_array(([1.0] * len(known), np.array(known).T), shape=(C, C)) if known else None
    found = info_nce(
        some_vectors(),
        anchors,
        positives,
        temperature=0.7,
        negatives=None if candidates is None else torch.tensor(candidates, dtype=torch.int64),
        pairs=None if similarity is None else LeafPairs.from_similarity(similarity),
    )
    names = set(candidates) if candidates is not None else {positive for _, positive in pairs}
    assert float(found) == pytest.approx(by_loops(some_vectors(), pairs, 0.7, names, set(known)), abs=1e-12)


def test_gradients_of_info_nce() -> None:
    anchors, positives = torch.tensor([0, 1, 1, 5]), torch.tensor([2, 3, 4, 0])
    vectors = some_vectors().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: info_nce(v, anchors, positives, temperature=0.5), vectors)
    info_nce(vectors, anchors, positives).backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum(1).bool().tolist() == [True] * 6 + [False] * 3


def test_an_orthogonal_frame_gives_the_closed_form() -> None:
    """Positives at cosine 1, n negatives at cosine 0: log(1 + n e^(-1 / t))."""
    vectors = torch.cat([torch.eye(4), 3 * torch.eye(4)]).double()
    anchors = torch.arange(4)
    found = info_nce(vectors, anchors, anchors + 4, temperature=0.5)
    assert float(found) == pytest.approx(math.log(1 + 3 * math.exp(-2)))


def test_pairs_without_negatives_and_zero_vectors_are_finite() -> None:
    vectors = torch.zeros(3, 2, requires_grad=True)
    loss = info_nce(vectors, torch.tensor([0]), torch.tensor([1]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


# -- pairs -------------------------------------------------------------------------------------------------------------


def as_set(pairs: PositivePairs) -> set[tuple[int, int]]:
    every = torch.arange(pairs.num_classes)
    return set(map(tuple, pairs.contains(every, every).nonzero().tolist()))


def check_shares(pairs: PositivePairs, expected: dict[tuple[int, int], float]) -> None:
    """Drawn pairs are those that are known, as often as expected (within 5 standard deviations)."""
    num_drawn = 20_000
    drawn = torch.stack(pairs.sample(num_drawn, np.random.default_rng(0))).T.tolist()
    assert set(map(tuple, drawn)) <= as_set(pairs) == set(expected)
    for pair, share in expected.items():
        assert abs(drawn.count(list(pair)) / num_drawn - share) < 5 * math.sqrt(share * (1 - share) / num_drawn)


def test_pairs_of_a_sparse_similarity() -> None:
    rows, cols, weights = [0, 0, 3, 3, 2, 1, 3], [1, 3, 0, 0, 2, 0, 1], [1e20, 3e20, 1.0, 1.0, 5.0, 0.0, 2.0]
    pairs = LeafPairs.from_similarity(sparse.coo_matrix((weights, (rows, cols)), shape=(5, 5)))
    check_shares(pairs, {(0, 1): 1 / 8, (0, 3): 3 / 8, (3, 0): 1 / 4, (3, 1): 1 / 4})


def test_pairs_of_siblings() -> None:
    #        6           classes 0 .. 4 are nodes 1, 2, 3, 4, 5
    parent = [-1, 0, 0, 0, 7, 7, 0, 6]
    pairs = SiblingPairs.from_parents(parent, [1, 2, 3, 4, 5])
    trio = [(a, b) for a in range(3) for b in range(3) if a != b]
    check_shares(pairs, {pair: 1 / 10 for pair in trio} | {(3, 4): 1 / 5, (4, 3): 1 / 5})
    assert as_set(SiblingPairs.from_groups([7, -1, -1, 7, 9])) == {(0, 3), (3, 0)}


def test_neighbours_in_blocks_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf_pairs, "BLOCK_NUMBERS", 3 * 23)
    vectors = np.random.default_rng(0).normal(size=(23, 5))
    vectors[4] = 0
    pairs = LeafPairs.from_vectors(vectors, num_neighbours=3)
    norm = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ vectors.T / np.outer(norm, norm).clip(1e-30)
    np.fill_diagonal(cosine, -1)
    expected = {(a, int(b)) for a in range(23) for b in np.argsort(-cosine[a])[:3] if cosine[a, b] > 1e-9}
    assert as_set(pairs) == expected
    anchors = np.repeat(np.arange(23), np.diff(pairs.ptr))
    np.testing.assert_allclose(pairs.weight, cosine[anchors, pairs.positive], rtol=1e-5)


ONES = torch.ones(C, D)
IDS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((ONES[0], IDS, IDS), {}, "floating"),
        ((ONES, IDS, IDS), {}, "itself"),
        ((ONES, IDS, IDS[:1]), {}, "2 anchors and 1"),
        ((ONES, IDS[:0], IDS[:0]), {}, "one at least"),
        ((ONES, IDS, IDS.int()), {}, "int64"),
        ((ONES, IDS, IDS + C), {}, r"lie in \[0, 9\)"),
        ((ONES, IDS, IDS + 1), {"temperature": 0.0}, "temperature"),
        ((ONES, IDS, IDS + 1), {"negatives": -IDS}, "negatives"),
        ((ONES, IDS, IDS + 1), {"pairs": SiblingPairs.from_groups([0, 0])}, "are of 2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Tensor, ...], options: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        info_nce(*arguments, **options)  # type: ignore[arg-type]


def test_pairs_that_are_none_are_refused() -> None:
    for similarity, words in (
        (np.ones((2, 2)), "sparse matrix"),
        (sparse.csr_array((2, 3)), "sparse matrix"),
        (sparse.csr_array([[0.0, -1.0], [0.0, 0.0]]), ">= 0"),
        (sparse.csr_array([[0.0, np.nan], [0.0, 0.0]]), "finite"),
        (sparse.csr_array(np.eye(2)), "none of 2"),
    ):
        with pytest.raises(DataError, match=words):
            LeafPairs.from_similarity(similarity)
    for vectors, number, words in (
        ([[1.0], [-1.0]], 1, "none of 2"),
        ([[1.0], [1.0]], 2, "C - 1"),
        ([1.0], 1, "finite"),
    ):
        with pytest.raises(DataError, match=words):
            LeafPairs.from_vectors(vectors, num_neighbours=number)
    with pytest.raises(DataError, match="all 3 are alone"):
        SiblingPairs.from_groups([0, 1, -1])
    with pytest.raises(DataError, match="whole numbers"):
        SiblingPairs.from_groups([0.5, 1])
    with pytest.raises(DataError, match="nodes of classes"):
        SiblingPairs.from_parents([-1, 0, 0], [1, 3])
