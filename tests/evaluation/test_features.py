"""Features on disk read as features in memory: the same blocks, the same bits."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.evaluation.oracle import class_vectors as random_vectors
from treesearch import Tree, build_tree
from treesearch.evaluation import features as module
from treesearch.evaluation.class_vectors import class_vectors
from treesearch.evaluation.directions import TrainedDirections
from treesearch.evaluation.features import CHUNK, Features
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.frozen_torch import evaluate_forest

NUM_CLASSES, SIZE, NUM = 30, 6, 3 * CHUNK + 100
RNG = np.random.default_rng(0)
Y = RNG.integers(NUM_CLASSES, size=NUM).astype(np.int32)
X = (RNG.standard_normal((NUM_CLASSES, SIZE))[Y] + RNG.standard_normal((NUM, SIZE))).astype(np.float16)
COUNTS = np.bincount(Y, minlength=NUM_CLASSES).astype(np.float64)
RANGES = np.array([[3, 50], [50, 60], [4000, 9000], [NUM - 2, NUM]])
Place = Callable[..., Features]


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Features in a file, in blocks of one chunk."""
    monkeypatch.setattr(module, "BLOCK_BYTES", CHUNK * 4 * SIZE)

    def place(rows: NDArray[np.int64] | None = None, kind: type = np.float16, order: str = "C") -> Features:
        np.save(tmp_path / "x.npy", np.asarray(X, kind, order=order))  # type: ignore[call-overload]
        return Features(np.load(tmp_path / "x.npy", mmap_mode="r"), Y, rows)

    return place


def in_memory(rows: NDArray[np.int64] | None = None) -> Features:
    chosen = np.arange(NUM) if rows is None else np.concatenate([np.arange(*pair) for pair in rows.tolist()])
    return Features(X[chosen].astype(np.float32), Y[chosen])


def read(features: Features) -> tuple[NDArray[np.float32], NDArray[np.int32], list[int]]:
    blocks = [(x.copy(), y.copy()) for x, y in features.blocks()]
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks]), [len(y) for _, y in blocks]


@pytest.mark.parametrize("rows", [None, RANGES])
@pytest.mark.parametrize(
    ("kind", "order"), [(np.float16, "C"), (np.float32, "C"), (np.float32, "F"), (np.float64, "C")]
)
def test_blocks(on_disk: Place, rows: NDArray[np.int64] | None, kind: type, order: str) -> None:
    features, expected = on_disk(rows, kind, order), in_memory(rows)
    assert (len(features), features.num_features, features.mapped) == (len(expected), SIZE, True)
    x, y, sizes = read(features)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, expected.x)
    np.testing.assert_array_equal(y, expected.y)
    np.testing.assert_array_equal(features.labels, expected.y)
    as_it_is = rows is None and kind == np.float32 and order == "C"
    assert all(size % CHUNK == 0 for size in sizes[:-1])
    assert max(sizes) == (NUM if as_it_is else CHUNK)
    for block, _ in features.blocks():
        assert block.flags.c_contiguous
        assert not block.flags.writeable


@pytest.mark.parametrize("rows", [None, RANGES, RANGES[:0]])
@pytest.mark.parametrize("number", [0, 1, 47, 48, 57, 58, 5000, 10**6, None])
def test_the_first(on_disk: Place, rows: NDArray[np.int64] | None, number: int | None) -> None:
    expected = in_memory(rows if rows is None or len(rows) else np.array([[0, 0]])).y[:number]
    first = on_disk(rows).first(number)
    assert len(first) == len(expected)
    np.testing.assert_array_equal(first.labels, expected)
    np.testing.assert_array_equal(read(first)[1], expected)


def test_in_memory_and_hash(on_disk: Place) -> None:
    features, expected = on_disk(RANGES), in_memory(RANGES)
    held = features.in_memory()
    assert not held.mapped
    np.testing.assert_array_equal(held.x, expected.x)
    assert expected.in_memory() is expected
    first, second = blake2b(), blake2b()
    features.update(first)
    expected.update(second)
    assert first.digest() == second.digest()


@pytest.mark.parametrize("rows", [None, RANGES])
@pytest.mark.parametrize("name", ["huffman", "flat", "adaptive"])
def test_nodes_learn_the_same_to_the_bit(on_disk: Place, rows: NDArray[np.int64] | None, name: str) -> None:
    options = {"cutoffs": [5, 12], "div_value": 2.0, "in_features": SIZE} if name == "adaptive" else {}
    tree: Tree = build_tree(name, counts=COUNTS, **options)
    vectors = random_vectors(NUM_CLASSES, SIZE)
    own, other = (
        evaluate_frozen(tree, train=features, valid=features.first(3000), counts=COUNTS, vectors=vectors, epochs=2)
        for features in (on_disk(rows), in_memory(rows))
    )
    np.testing.assert_array_equal(own.nll, other.nll)
    np.testing.assert_array_equal(own.tokens, other.tokens)
    assert own.num_tokens == other.num_tokens


def test_class_vectors_and_directions_are_the_same(on_disk: Place) -> None:
    own, other = on_disk(RANGES), in_memory(RANGES)
    np.testing.assert_allclose(class_vectors(own, NUM_CLASSES), class_vectors(other, NUM_CLASSES), rtol=1e-5)
    parts = [np.arange(10), np.arange(10, 20)]
    directions = [TrainedDirections(one, COUNTS, learning_rate=0.1, max_tokens=2000)(parts) for one in (own, other)]
    np.testing.assert_allclose(*directions, rtol=1e-5)


def test_the_torch_kernel_reads_them_too(on_disk: Place) -> None:
    tree = build_tree("flat", counts=COUNTS)
    own, other = (
        evaluate_forest([tree], train=one, valid=one.first(500), counts=COUNTS, device="cpu")[0]
        for one in (on_disk(RANGES), in_memory(RANGES))
    )
    np.testing.assert_array_equal(own.nll, other.nll)
