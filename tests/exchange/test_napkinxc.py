"""napkinXC trains on our trees, and we read its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy import sparse

from tests.nested import nested_trees
from treesearch import Tree, build_tree
from treesearch.errors import TreeError
from treesearch.exchange.napkinxc import from_structure, read_napkinxc, tree_structure, write_napkinxc

RNG = np.random.default_rng(0)
C, D, N = 12, 20, 400
Y = np.concatenate([np.arange(C), RNG.integers(C, size=N - C)])
X = sparse.csr_matrix((RNG.random((N, D)) < 0.2) * 1.0 + np.eye(D)[Y])
TREES = {
    "binary": build_tree("huffman", counts=np.arange(1, C + 1)),
    "wide": build_tree("huffman", counts=np.arange(1, C + 1), arity=5),
    "flat": build_tree("flat", counts=np.ones(C)),
}


@given(nested_trees())
def test_structure_there_and_back(nested: Any) -> None:
    tree = Tree.from_nested(nested)
    structure = tree_structure(tree)
    assert from_structure(structure) == tree
    assert from_structure(structure[::-1]) == tree


@pytest.mark.parametrize("model", ["HSM", "PLT"])
@pytest.mark.parametrize("name", TREES)
def test_its_models_train_on_a_tree_and_keep_it(tmp_path: Path, model: str, name: str) -> None:
    models = pytest.importorskip("napkinxc.models")
    tree = TREES[name]
    made = getattr(models, model)(str(tmp_path / "model"), seed=0)
    made.set_tree_structure(tree_structure(tree))
    made.fit(X, Y.tolist() if model == "HSM" else [[y] for y in Y.tolist()])
    assert read_napkinxc(tmp_path / "model" / "tree.txt") == tree
    assert from_structure(made.get_tree_structure()) == tree
    write_napkinxc(tree, tmp_path / "ours.txt")
    theirs = [line.split() for line in (tmp_path / "model" / "tree.txt").read_text().splitlines()]
    assert [line.split() for line in (tmp_path / "ours.txt").read_text().splitlines()] == theirs
    ranked = made.predict_proba(X[:50], top_k=C)
    assert all(sorted(label for label, _ in row) == list(range(C)) for row in ranked)
    if model == "HSM":
        np.testing.assert_allclose([sum(p for _, p in row) for row in ranked], 1, atol=2e-3)
    first = np.array([max(row, key=lambda pair: pair[1])[0] for row in ranked])
    assert (first == Y[:50]).mean() > 0.6  # one in twelve by chance


@pytest.mark.parametrize("kind", ["huffman", "hierarchicalKmeans", "completeKaryInOrder"])
def test_its_own_trees_are_read(tmp_path: Path, kind: str) -> None:
    models = pytest.importorskip("napkinxc.models")
    made = models.HSM(str(tmp_path / "model"), tree_type=kind, arity=2, max_leaves=2, seed=0)
    made.fit(X, Y.tolist())
    tree = read_napkinxc(tmp_path / "model" / "tree.txt")
    assert tree.num_classes == C
    assert from_structure(made.get_tree_structure()) == tree
    if kind == "huffman":
        counts = np.bincount(Y)
        best = build_tree("huffman", counts=counts).expected_depth(counts)
        assert tree.expected_depth(counts) == pytest.approx(best)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 must have 2 integers, but is ''"),
        ("2 3\n-1 0 \n0 1 0\n", "promises 2 labels and 3 nodes"),
        ("2 3\n-1 0 \n0 1 0\n0 2 0\n", "class 0"),
        ("2 3\n-1 0 \n0 1 0\n0 x 1\n", "line 4 must have 2 or 3 integers"),
        ("2 3\n-1 0 \n0 1 0\n0 1 1\n", "nodes must be numbered 0 to 2, each once"),
        ("2 3\n-1 0 \n0 1 0\n7 2 1\n", "parents must be nodes, 0 to 2, but one is 7"),
        ("2 3\n0 0 \n0 1 0\n0 2 1\n", "exactly one node must have no parent"),
        ("2 4\n-1 0 \n0 1 0\n3 2 1\n2 3 \n", "usable napkinXC tree"),
        ("2 3\n-1 0 \n0 1 0\n0 2 99999999999999999999\n", "three integers"),
    ],
)
def test_files_that_are_of_no_tree(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "tree.txt").write_text(text)
    with pytest.raises(TreeError) as caught:
        read_napkinxc(tmp_path / "tree.txt")
    assert says in str(caught.value)
    assert str(tmp_path / "tree.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_no_tree() -> None:
    with pytest.raises(TreeError, match="there is none"):
        from_structure([])
    with pytest.raises(TreeError, match="three integers"):
        from_structure([(1, 2)])  # type: ignore[list-item]


def test_hsm_takes_the_softmax_where_plt_takes_sigmoids(tmp_path: Path) -> None:
    """On a flat tree both train the same classifiers; at the root stands a constant, sigmoid(10)."""
    models = pytest.importorskip("napkinxc.models")
    exact = {"liblinear_eps": 1e-6, "liblinear_max_iter": 1000, "weights_threshold": 0.0}
    rows = {}
    for name in ("HSM", "PLT"):
        made = getattr(models, name)(str(tmp_path / name), seed=0, **exact)
        made.set_tree_structure(tree_structure(TREES["flat"]))
        made.fit(X, Y.tolist() if name == "HSM" else [[y] for y in Y.tolist()])
        rows[name] = np.array([[p for _, p in sorted(row)] for row in made.predict_proba(X[:40], top_k=C)])
    root = 1 / (1 + np.exp(-10))
    odds = rows["PLT"] / (root - rows["PLT"])
    np.testing.assert_allclose(rows["HSM"], root * odds / odds.sum(axis=1, keepdims=True), atol=1e-4)
