"""The node memo: keys by content, the table, and trees whose known nodes are not trained again, to the bit."""

from typing import Any

import numpy as np
import pytest

from tests import nested as naive
from tests.evaluation.oracle import class_sets, class_vectors, planted
from tests.softmax.oracle import TREES, projected
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.memo import NodeMemo, memo_keys
from treesearch.paths import block_roots


def content(tree: Tree) -> list[object]:
    """What each node's result may depend on, spelled out: its partition, or its whole block and its place in it."""
    sets = class_sets(tree)

    def structure(node: int) -> object:
        if node >= tree.num_internal:
            return int(tree.leaf_class[node - tree.num_internal])
        return int(tree.projection_dim[node]), frozenset(structure(int(child)) for child in tree.children(node))

    def members(node: int) -> frozenset[int]:
        if node >= tree.num_internal:
            return frozenset({int(tree.leaf_class[node - tree.num_internal])})
        return sets[node]

    roots = block_roots(tree)
    return [
        frozenset(members(int(child)) for child in tree.children(node))
        if roots[node] < 0
        else (structure(int(roots[node])), structure(node))
        for node in range(tree.num_internal)
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("projections", [False, True])
def test_keys_agree_where_content_agrees(seed: int, projections: bool) -> None:
    rng = np.random.default_rng(seed)
    keys: dict[object, set[bytes]] = {}
    for _ in range(60):
        nested = naive.canonical(naive.random_nested(rng, 6))
        entries = [entry for _, entry, _ in naive.walk(nested) if isinstance(entry, list)]
        dims = [int(rng.integers(1, 3)) if projections and rng.random() < 0.3 else 0 for _ in entries]
        tree = projected(nested, dims)
        for what, key in zip(content(tree), memo_keys(tree), strict=True):
            keys.setdefault(what, set()).add(key.tobytes())
    assert all(len(found) == 1 for found in keys.values())
    assert len({next(iter(found)) for found in keys.values()}) == len(keys)
    assert len(keys) > 50


def test_keys_of_a_large_tree_differ() -> None:
    keys = memo_keys(build_tree("huffman", counts=np.arange(1, 50_001)))
    assert len(np.unique(keys, axis=0)) == len(keys)
    assert not (keys == 0).any()


def test_table_against_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    pool = rng.integers(1, 2**63, (3000, 2)).astype(np.uint64)
    pool[:50, 0] = pool[0, 0]  # many at one place
    memo, expected = NodeMemo(), dict[bytes, float]()
    for _ in range(40):
        keys, values = pool[rng.integers(0, len(pool), 200)], rng.normal(size=200)
        values[rng.random(200) < 0.1] = np.nan
        memo.store(keys, values)
        for key, value in zip(keys, values, strict=True):
            if np.isfinite(value):
                expected.setdefault(key.tobytes(), value)
        assert len(memo) == len(expected)
    found = memo.look_up(pool)
    assert [expected.get(key.tobytes(), np.nan) for key in pool] == pytest.approx(found.tolist(), nan_ok=True, abs=0)


def test_a_full_memo_forgets() -> None:
    memo = NodeMemo(max_entries=10)
    first, second = np.arange(1, 17, dtype=np.uint64).reshape(8, 2), np.arange(101, 117, dtype=np.uint64).reshape(8, 2)
    memo.store(first, np.ones(8))
    memo.store(second, np.ones(8))
    assert len(memo) == 8
    assert np.isnan(memo.look_up(first)).all()
    assert (memo.look_up(second) == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_to_train_gives_the_bits_of_a_fresh_evaluation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    train, valid, counts = planted(5, 5000, seed=seed)
    data: dict[str, Any] = {"train": train, "valid": valid, "counts": counts, "vectors": class_vectors(5, 6)}
    memo, num_known = NodeMemo(), 0
    for _ in range(40):
        shape = Tree.from_nested(naive.random_nested(rng, 5))
        dims = rng.integers(1, 3, shape.num_internal) * (rng.random(shape.num_internal) < 0.15)
        tree = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=dims)
        keys = memo_keys(tree)
        known = memo.look_up(keys)
        wanted = np.isnan(known)
        num_known += int((~wanted).sum())
        new = evaluate_frozen(tree, **data, wanted=wanted)
        assert (np.isnan(new.nll) == ~wanted).all()
        memo.store(keys, new.nll)
        fresh = evaluate_frozen(tree, **data)
        assert np.where(wanted, new.nll, known).tolist() == fresh.nll.tolist()
        assert new.tokens.tolist() == fresh.tokens.tolist()
    assert num_known > 10


def test_wanted_must_fit() -> None:
    train, valid, counts = planted(6, 50)
    tree = Tree.from_nested([[0, 1, 2], [3, [4, 5]]])
    with pytest.raises(DataError, match=r"wanted must be bool, one per internal node, but got bool of shape \(2,\)"):
        evaluate_frozen(tree, train=train, valid=valid, counts=counts, wanted=np.ones(2, np.bool_))
    block = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=[0, 0, 2, 0])
    with pytest.raises(DataError, match="want all of them or none"):
        evaluate_frozen(block, train=train, valid=valid, counts=counts, wanted=np.array([True, True, True, False]))


def test_nothing_wanted_trains_nothing() -> None:
    tree = TREES["huffman"]
    train, valid, counts = planted(tree.num_classes, 50)
    scores = evaluate_frozen(
        tree, train=train, valid=valid, counts=counts, wanted=np.zeros(tree.num_internal, np.bool_)
    )
    assert np.isnan(scores.nll).all()
