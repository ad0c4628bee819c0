"""Nearest classes, against all cosines at once."""

import numpy as np
import pytest

from treesearch.errors import DataError
from treesearch.report.page import neighbours
from treesearch.report.page.neighbours import NO_NEIGHBOUR, nearest_neighbours


@pytest.mark.parametrize("seed", range(4))
def test_against_the_full_matrix(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 9)
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    among = rng.permutation(60)[:40]
    nearest, cosine = nearest_neighbours(vectors, among=among)
    for place, cls in enumerate(among):
        others = [other for other in among if other != cls]
        a, B = vectors[cls].astype(float), vectors[others].astype(float)
        cosines = B @ a / np.linalg.norm(B, axis=1) / np.linalg.norm(a)
        assert nearest[place] == others[int(cosines.argmax())]
        assert cosine[place] == pytest.approx(cosines.max())


def test_ties_go_to_the_smaller_id() -> None:
    """Many equal rows: products of the same numbers may differ in their last bits, by where they stand in a block."""
    row = np.random.default_rng(0).normal(size=33)
    nearest, cosine = nearest_neighbours(np.tile(row, (1100, 1)), among=np.arange(1100)[::-1])
    assert nearest.tolist() == [0] * 1099 + [1]
    assert cosine == pytest.approx(1.0)
    assert cosine.max() <= 1.0


def test_rows_that_are_nothing_have_no_neighbour() -> None:
    vectors = np.array([[1, 0], [0, 0], [np.nan, 1], [1, 1e-3], [np.inf, 0], [1e300, 1e300]])
    nearest, cosine = nearest_neighbours(vectors, among=[0, 1, 2, 3, 4, 5])
    assert nearest.tolist() == [3, NO_NEIGHBOUR, NO_NEIGHBOUR, 0, NO_NEIGHBOUR, 3]
    assert np.isfinite(cosine).all()
    assert cosine[[1, 2, 4]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("among", [[], [2], [1, 2]])
def test_fewer_than_two(among: list[int]) -> None:
    nearest, _ = nearest_neighbours(np.array([[1.0], [0.0], [2.0]]), among=np.array(among, int))
    assert nearest.tolist() == [NO_NEIGHBOUR] * len(among)


def test_what_does_not_fit() -> None:
    with pytest.raises(DataError, match=r"vectors must be one row per class, but have shape \(3,\)"):
        nearest_neighbours(np.ones(3), among=[0])
    with pytest.raises(DataError, match=r"among must list class ids in \[0, 3\)"):
        nearest_neighbours(np.ones((3, 2)), among=[0, 3])
    with pytest.raises(DataError, match="among must list each class once"):
        nearest_neighbours(np.ones((3, 2)), among=[0, 0])
