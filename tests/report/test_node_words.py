"""The classes that name a node, against a score computed node by node."""

import numpy as np
import pytest

from tests import nested as naive
from treesearch import Tree, build_tree
from treesearch.errors import DataError
from treesearch.report import node_words
from treesearch.report.node_words import NO_CLASS, representative_classes


def classes_below(tree: Tree, node: int) -> list[int]:
    if node >= tree.num_internal:
        return [int(tree.leaf_class[node - tree.num_internal])]
    return [cls for child in tree.children(node) for cls in classes_below(tree, int(child))]


def slow_words(tree: Tree, mass: np.ndarray, vectors: np.ndarray | None, num: int, limit: int) -> list[list[int]]:
    """As the docstring says, in loops."""

    def mean(node: int) -> np.ndarray:
        below = classes_below(tree, node)
        return np.average(vectors[below], axis=0, weights=mass[below])

    found = []
    for node in range(tree.num_internal):
        below = sorted(classes_below(tree, node), key=lambda c: (-mass[c], c))
        scores = dict.fromkeys(below, 0.0)
        if vectors is not None:
            below = below[:limit]
            above = mean(tree.parent[node]) if node else np.zeros(vectors.shape[1])
            apart = mean(node) - above
            total = mass[classes_below(tree, node)].sum()
            for c in below:
                own = vectors[c] - above
                size = np.linalg.norm(own) * np.linalg.norm(apart)
                scores[c] = np.sqrt(mass[c] / total) * max(own @ apart / size if size > 0 else 0.0, 0.0)
        ranked = sorted(below, key=lambda c: (-round(scores[c], 9), -mass[c], c))[:num]
        found.append(ranked + [NO_CLASS] * (num - len(ranked)))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_words_against_a_slow_score(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_words, "NUM_CANDIDATES", 8)
    monkeypatch.setattr(node_words, "BLOCK", 7)
    rng = np.random.default_rng(seed)
    tree = Tree.from_nested(naive.random_nested(rng, 70, max_arity=int(rng.integers(2, 12))))
    mass, vectors = rng.integers(1, 40, 70).astype(float), rng.normal(size=(70, 5))
    for given in (vectors, None):
        words = representative_classes(tree, mass=mass, vectors=given, num=3)
        assert words.dtype == np.int32
        assert words.tolist() == slow_words(tree, mass, given, num=3, limit=8)


def test_a_word_is_what_sets_a_node_apart() -> None:
    """Class 0 is everywhere in the middle; 2 and 5 lie where their nodes do."""
    tree = Tree.from_nested([[0, 1, 2], [3, 4, 5]])
    vectors = np.array([[0, 1], [1, 1], [2, 1], [0, 1], [-1, 1], [-2, 1]], float)
    mass = np.array([10, 5, 5, 10, 5, 5], float)
    assert representative_classes(tree, mass=mass, vectors=vectors, num=1)[1:].tolist() == [[1], [4]]
    assert representative_classes(tree, mass=mass, num=1)[1:].tolist() == [[0], [3]]


def test_classes_without_mass_or_vectors() -> None:
    tree = Tree.from_nested([[0, 1], [2, 3], [4, 5]])
    vectors = np.array([[1, 0], [np.nan, 0], [0, 1], [np.inf, 1], [0, 0], [0, 0]])
    words = representative_classes(tree, mass=[2, 9, 0, 0, 1, 2], vectors=vectors, num=3)
    assert words.tolist() == [[0, 1, 5], [1, 0, -1], [2, 3, -1], [5, 4, -1]]


def test_one_class_and_a_deep_chain() -> None:
    assert representative_classes(Tree.from_nested(0), mass=[1.0], num=3).shape == (0, 3)
    nested: naive.Naive = 0
    for cls in range(1, 3000):
        nested = [nested, cls]
    chain = Tree.from_nested(nested)
    words = representative_classes(chain, mass=np.arange(1, 3001), vectors=np.ones((3000, 2)), num=2)
    assert words[0].tolist() == [2999, 2998]
    assert sorted(words[-1].tolist()) == [0, 1]


def test_what_does_not_fit() -> None:
    tree = build_tree("huffman", counts=[3, 2, 1])
    with pytest.raises(DataError, match=r"mass must be 3 finite numbers >= 0, but got shape \(2,\)"):
        representative_classes(tree, mass=[1, 2])
    with pytest.raises(DataError, match="mass must be 3 finite numbers"):
        representative_classes(tree, mass=[1, np.nan, 2])
    with pytest.raises(DataError, match=r"vectors must be one row for each of 3 classes, but got shape \(2, 4\)"):
        representative_classes(tree, mass=[1, 1, 1], vectors=np.ones((2, 4)))
