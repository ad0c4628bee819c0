"""Cluster chains, against PECOS."""

import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from tests.exchange.samples import chain
from tests.nested import nested_trees, random_nested
from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.exchange.pecos import cluster_chain, read_pecos, write_pecos


def written(tree, folder):
    write_pecos(tree, folder / "chain")
    return folder / "chain"


def ancestors_by_chain(matrices):
    """For each label the sets of labels under its clusters from the root on, by products of the matrices."""
    below = np.eye(matrices[-1].shape[0])
    levels = []
    for matrix in reversed(matrices):
        below = below @ matrix.toarray()
        levels.append(below > 0)
    return [{frozenset(np.flatnonzero(level[:, c]).tolist()) for c in range(level.shape[1])} for level in levels]


def clusters(nested):
    """The set of labels below every internal node of nested lists, by recursion."""
    if not isinstance(nested, list):
        return {frozenset([nested])}, frozenset([nested])
    found, all_below = set(), frozenset()
    for child in nested:
        sets, below = clusters(child)
        found |= sets
        all_below |= below
    return found | {all_below}, all_below


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_the_clusters_are_the_subtrees(nested):
    tree = Tree.from_nested(nested)
    matrices = list(cluster_chain(tree))
    assert len(matrices) == max(tree.max_depth, 1)
    assert matrices[0].shape[1] == 1
    for upper, lower in pairwise(matrices):
        assert upper.shape[0] == lower.shape[1]
    for matrix in matrices:
        assert (matrix.format, matrix.dtype) == ("csc", np.float32)
        assert matrix.has_sorted_indices
        matrix.check_format(full_check=True)
        assert np.array_equal(matrix.sum(axis=1), np.ones((matrix.shape[0], 1)))
    levels = ancestors_by_chain(matrices)
    assert set().union(*levels) | {frozenset([c]) for c in range(tree.num_classes)} == clusters(nested)[0]


@pytest.fixture
def pecos(monkeypatch):
    """The classes of PECOS that read clusters and train on them."""
    pytest.importorskip("pecos")
    from pecos.utils import smat_util
    from pecos.utils.cluster_util import ClusterChain
    from pecos.xmc.xlinear.model import XLinearModel

    # PECOS 1.2.8 makes matrices with a function that SciPy has lost, and with np.array(copy=False) of NumPy 1.
    def matrix_of(arrays, kind, shape=None, dtype=None, copy=False, check_contents=False):
        return kind(arrays, shape=shape, dtype=dtype)

    monkeypatch.setattr(smat_util, "cs_matrix", matrix_of)
    return ClusterChain, XLinearModel


@pytest.mark.parametrize("num_classes", [1, 2, 50])
def test_pecos_loads_what_we_write_and_we_read_what_it_saves(tmp_path, pecos, num_classes):
    cluster_chain_type, _ = pecos
    tree = Tree.from_nested(random_nested(np.random.default_rng(0), num_classes))
    loaded = cluster_chain_type.load(str(written(tree, tmp_path)))
    assert loaded == cluster_chain_type(list(cluster_chain(tree)))
    loaded.save(str(tmp_path / "again"))
    assert read_pecos(tmp_path / "again") == tree


def test_a_chain_of_pecos(tmp_path, pecos):
    """One that PECOS completed itself: 64 labels in 16 clusters, in fours up to the root."""
    cluster_chain_type, _ = pecos
    labels = np.arange(64)
    bottom = sparse.csc_matrix((np.ones(64, np.float32), (labels, labels % 16)), shape=(64, 16))
    cluster_chain_type.from_partial_chain(bottom, min_codes=4, nr_splits=4).save(str(tmp_path / "chain"))
    tree = read_pecos(tmp_path / "chain")
    assert tree.arities.tolist() == [4] * 21
    assert {frozenset(range(c, 64, 16)) for c in range(16)} <= clusters(tree.to_nested())[0]


@pytest.mark.parametrize("nested", [[[0, 3], [1, [2, 4]]], [4, [3, [2, [1, 0]]]], [0, 1, 2, 3, 4]])
def test_pecos_trains_on_it(tmp_path, pecos, nested):
    """Labels that are told apart by one feature each come back, so their order is right."""
    cluster_chain_type, model_type = pecos
    chain_of_pecos = cluster_chain_type.load(str(written(Tree.from_nested(nested), tmp_path)))
    y = np.repeat(np.arange(5), 20)
    x = sparse.csr_matrix(np.eye(5, dtype=np.float32)[y])
    targets = sparse.csr_matrix((np.ones(100, np.float32), (np.arange(100), y)), shape=(100, 5))
    model = model_type.train(x, targets, C=chain_of_pecos, threads=1)
    predicted = model.predict(sparse.csr_matrix(np.eye(5, dtype=np.float32)), only_topk=1, threads=1)
    assert predicted.toarray().argmax(axis=1).tolist() == list(range(5))


def test_a_large_tree_is_quick_and_a_deep_one_refused(tmp_path):
    tree = Tree.from_nested(random_nested(np.random.default_rng(0), 3000, max_arity=2))
    assert read_pecos(written(tree, tmp_path)) == tree
    with pytest.raises(TreeError, match=r"repeats every class .* at most 33554432; take a flatter tree"):
        next(iter(cluster_chain(chain(10_000))))


# -- damage


TREE = Tree.from_nested([[0, 1], [2, [3, 4]]])


def matrix(rows, columns, shape):
    return sparse.csc_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[]", "top level must be an object"),
        ("{}", "'len' in config.json must be an integer >= 1, but got None"),
        ('{"len": 0}', "but got 0"),
        ('{"len": true}', "but got True"),
        ('{"len": "3"}', "but got '3'"),
        ('{"len": 4}', "must have C3.npz, but there is no such file"),
        ('{"len": 1000000000000}', "must have C3.npz"),
        ('{"len": 3', "truncated"),
        (None, "config.json"),
    ],
)
def test_a_wrong_config(tmp_path, config, says):
    path = written(TREE, tmp_path)
    if config is None:
        (path / "config.json").unlink()
    else:
        (path / "config.json").write_text(config)
    with pytest.raises(TreeError, match=says) as caught:
        read_pecos(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("level", "replacement", "says"),
    [
        (0, matrix([0, 1], [0, 1], (2, 2)), "C0.npz must have 1 columns, one for each node above, but has 2"),
        (1, matrix([0, 1, 2], [0, 1, 2], (3, 3)), "C1.npz must have 2 columns"),
        (2, matrix([0, 1, 2], [0, 1, 2], (4, 4)), "one entry a row, but has 3 in 4 rows"),
        (2, matrix([0, 1, 2, 3], [0, 1, 2, 2], (4, 4)), "children or be a class, but 1 are neither"),
        (2, matrix([0, 1, 2, 3, 3], [0, 1, 2, 2, 3], (5, 4)), "row 4 has none"),
        (0, matrix([], [], (0, 1)), "C1.npz must have 0 columns"),
        (2, matrix([], [], (0, 4)), "children or be a class, but 4 are neither"),
        (0, matrix([0, 1], [0, 0], (2, 1)).tocoo(), "in CSC form, but got coo"),
        (0, matrix([0], [0], (10**9, 1)).tocsc(), "one entry a row, but has 1 in 1000000000 rows"),
    ],
)
def test_wrong_matrices(tmp_path, level, replacement, says):
    path = written(TREE, tmp_path)
    sparse.save_npz(path / f"C{level}.npz", replacement)
    with pytest.raises(TreeError, match=says):
        read_pecos(path)


@pytest.mark.parametrize("indices", [[0, 99], [0, -1], [0, 0]])
def test_indices_are_not_trusted(tmp_path, indices):
    path = written(TREE, tmp_path)
    fields = dict(np.load(path / "C0.npz"))
    np.savez(path / "C0.npz", **fields | {"indices": np.array(indices, np.int32)})
    with pytest.raises(TreeError, match="is not a usable PECOS cluster chain"):
        read_pecos(path)


def test_pointers_are_not_trusted(tmp_path):
    path = written(TREE, tmp_path)
    fields = dict(np.load(path / "C1.npz"))
    np.savez(path / "C1.npz", **fields | {"indptr": np.array([0, 100, 4], np.int32)})  # would write beyond the end
    with pytest.raises(TreeError, match="non-decreasing"):
        read_pecos(path)


def test_a_matrix_that_is_huge_or_pickled(tmp_path):
    path = written(TREE, tmp_path)
    np.savez(path / "C0.npz", format=np.array([{}], object))
    with pytest.raises(TreeError, match="is not a usable"):
        read_pecos(path)
    with zipfile.ZipFile(path / "C0.npz", "w") as archive:  # four terabytes declared, none given
        archive.writestr("data.npy", b"")
        archive.filelist[0].file_size = 1 << 42
    with pytest.raises(TreeError, match="must unpack to at most"):
        read_pecos(path)


def test_config_is_what_pecos_writes(tmp_path):
    assert json.loads((written(TREE, tmp_path) / "config.json").read_text()) == {"len": 3}
