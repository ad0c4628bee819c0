"""The facts that the tree viewer shows, against walks along single paths."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nested as naive
from tests.report.page.hostile import HOSTILE
from treesearch import Tree, build_tree
from treesearch.cost import node_costs
from treesearch.errors import DataError
from treesearch.report.page import tree_data
from treesearch.report.page.class_labels import class_labels
from treesearch.report.page.packing import pack, unpack
from treesearch.report.page.scripts import VIEWER_MODULES
from treesearch.report.page.tree_data import ViewedTree, viewer_data

ROOT = Path(__file__).parents[3]
C, D = 60, 6


def random_tree(rng: np.random.Generator, num_classes: int = C) -> Tree:
    plain = Tree.from_nested(naive.random_nested(rng, num_classes))
    projection = rng.integers(0, 2, plain.num_internal) * rng.integers(1, D, plain.num_internal)
    return Tree.from_parents(plain.parent, plain.leaf_class, projection_dim=projection)


def viewed(rng: np.random.Generator, counts: np.ndarray) -> list[ViewedTree]:
    return [
        ViewedTree("best", random_tree(rng, counts.size)),
        ViewedTree("huffman", build_tree("huffman", counts=counts)),
    ]


def line(tree: Tree, cls: int) -> list[int]:
    """Nodes from the leaf of a class up to the root."""
    nodes = [int(tree.class_leaf[cls])]
    while nodes[-1]:
        nodes.append(int(tree.parent[nodes[-1]]))
    return nodes


def edges(tree: Tree, a: int, b: int) -> int:
    above_a, above_b = line(tree, a), line(tree, b)
    return min(above_a.index(node) + above_b.index(node) for node in above_a if node in above_b)


@pytest.mark.parametrize("seed", range(4))
def test_facts_against_walks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts, vectors = rng.integers(0, 50, C).astype(float), rng.normal(size=(C, D))
    trees = viewed(rng, counts)
    data = viewer_data(trees, counts=counts, class_names=None, vectors=vectors)
    share = counts / counts.sum()
    assert data["names"] == [str(c) for c in range(C)]
    assert data["reference"] == 1
    assert unpack(data["share"]) == pytest.approx(share)
    seen = share[share > 0]
    assert data["entropy"] == pytest.approx(-(seen * np.log2(seen)).sum())
    assert unpack(data["idealBits"]) == pytest.approx([-math.log2(s) if s else math.inf for s in share])
    nearest = unpack(data["neighbours"]["nearest"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = np.where(counts[None] > 0, unit @ unit.T, -2) - 3 * np.eye(C)
    assert nearest.tolist() == [int(cosine[c].argmax()) if counts[c] else -1 for c in range(C)]
    assert unpack(data["neighbours"]["cosine"])[counts > 0] == pytest.approx(cosine.max(axis=1)[counts > 0], abs=1e-6)
    for one, facts in zip(trees, data["trees"], strict=True):
        tree, cost = one.tree, node_costs(one.tree, D)
        paths = [line(tree, c)[1:] for c in range(C)]
        bits = [sum(math.log2(tree.arities[n]) for n in path) for path in paths]
        costs = [sum(cost[n] for n in path) for path in paths]
        assert unpack(facts["depth"]).tolist() == [len(path) for path in paths]
        assert unpack(facts["bits"]) == pytest.approx(bits)
        assert unpack(facts["classCost"]) == pytest.approx(costs)
        assert facts["expectedDepth"] == pytest.approx(share @ [len(path) for path in paths])
        assert facts["expectedBits"] == pytest.approx(share @ bits)
        assert facts["cost"] == pytest.approx(share @ costs)
        assert facts["maxDepth"] == max(map(len, paths))
        between = [edges(tree, c, nearest[c]) if nearest[c] >= 0 else 0 for c in range(C)]
        assert unpack(facts["edges"]).tolist() == between
        siblings = [nearest[c] >= 0 and paths[c][0] == paths[nearest[c]][0] for c in range(C)]
        assert facts["siblingShare"] == pytest.approx(share @ siblings)
        # nodes
        assert unpack(facts["parent"]).tolist() == tree.parent[1:].tolist()
        assert unpack(facts["leafClass"]).tolist() == tree.leaf_class.tolist()
        assert unpack(facts["arity"]).tolist() == tree.arities.tolist()
        assert unpack(facts["projection"]).tolist() == tree.projection_dim.tolist()
        below = [[c for c in range(C) if node in paths[c]] for node in range(tree.num_internal)]
        assert unpack(facts["nodeClasses"]).tolist() == list(map(len, below))
        assert unpack(facts["nodeShare"]) == pytest.approx([share[of].sum() for of in below])
        for of, words in zip(below, unpack(facts["words"]).reshape(-1, 3).tolist(), strict=True):
            assert len({w for w in words if w >= 0}) == min(3, len(of))
            assert {w for w in words if w >= 0} <= set(of)


def test_without_vectors_or_with_one_class() -> None:
    counts = np.array([5.0, 3.0, 2.0, 0.0])
    tree = build_tree("huffman", counts=counts)
    data = viewer_data([ViewedTree("huffman", tree)], counts=counts, class_names=list("abcd"), vectors=None)
    assert (data["byVectors"], data["neighbours"], data["trees"][0]["edges"]) == (False, None, None)
    assert unpack(data["trees"][0]["words"])[:3].tolist() == [0, 1, 2]
    alone = viewer_data(
        [ViewedTree("huffman", Tree.from_nested(0))], counts=[4.0], class_names=["only"], vectors=np.ones((1, 2))
    )
    assert alone["trees"][0]["siblingShare"] is None
    assert unpack(alone["trees"][0]["depth"]).tolist() == [0]
    assert alone["entropy"] == 0.0
    json.dumps([data, alone], allow_nan=False)


def test_node_names_are_kept_and_visible() -> None:
    tree = Tree.from_nested([[0, 1], 2]).annotate(node_names=["all", "\x1b[2Jpair"])
    data = viewer_data([ViewedTree("huffman", tree)], counts=[1, 1, 1], class_names=None, vectors=None)
    assert data["trees"][0]["nodeNames"] == ["all", "\\x1b[2Jpair"]


def test_the_rarest_of_too_many_classes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is what stands without the cut, and nodes count all of their classes."""
    rng = np.random.default_rng(3)
    counts, vectors = rng.permutation(C) + 1.0, rng.normal(size=(C, D))
    names = [f"name {c}" for c in range(C)]
    trees = viewed(rng, counts)
    monkeypatch.setattr(tree_data, "NUM_COMPARED", 10)
    whole = viewer_data(trees, counts=counts, class_names=names, vectors=vectors)
    monkeypatch.setattr(tree_data, "MAX_CLASSES", 13)
    cut = viewer_data(trees, counts=counts, class_names=names, vectors=vectors)
    kept = np.sort(np.argsort(-counts)[:13])
    assert unpack(cut["ids"]).tolist() == kept.tolist()
    assert cut["names"] == [names[c] for c in kept]
    assert (cut["numClasses"], cut["keptShare"]) == (C, pytest.approx(counts[kept].sum() / counts.sum()))
    nearest = unpack(cut["neighbours"]["nearest"])
    before = unpack(whole["neighbours"]["nearest"])[kept]
    assert [kept[n] if n >= 0 else -1 for n in nearest] == before.tolist()
    assert (before >= 0).sum() == 10
    for one, part, all_of_it in zip(trees, cut["trees"], whole["trees"], strict=True):
        tree = one.tree
        for fact in ("depth", "bits", "classCost", "edges"):
            assert unpack(part[fact]) == pytest.approx(unpack(all_of_it[fact])[kept])
        for fact in ("expectedDepth", "expectedBits", "cost", "maxDepth", "siblingShare", "numInternal"):
            assert part[fact] == pytest.approx(all_of_it[fact])
        nodes = sorted({node for c in kept for node in line(tree, c)})
        inner = [node for node in nodes if node < tree.num_internal]
        assert [nodes[p] for p in unpack(part["parent"])] == tree.parent[nodes[1:]].tolist()
        assert kept[unpack(part["leafClass"])].tolist() == [
            tree.leaf_class[node - tree.num_internal] for node in nodes[len(inner) :]
        ]
        for fact in ("arity", "nodeClasses", "nodeShare", "projection"):
            assert unpack(part[fact]) == pytest.approx(unpack(all_of_it[fact])[inner])
        for node, words in zip(inner, unpack(part["words"]).reshape(-1, 3).tolist(), strict=True):
            below = {int(c) for c in kept if node in line(tree, c)}
            found = [int(kept[w]) for w in words if w >= 0]
            assert words[len(found) :] == [-1] * (3 - len(found))
            assert len(set(found)) == min(3, len(below))
            assert set(found) <= below


def test_hostile_names_become_text() -> None:
    counts = np.arange(len(HOSTILE), 0, -1)
    tree = build_tree("huffman", counts=counts)
    data = viewer_data([ViewedTree("huffman", tree)], counts=counts, class_names=HOSTILE, vectors=None)
    names = data["names"]
    text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    text.encode()  # no lone surrogate is left
    assert len(set(names)) == len(names)
    assert not any(c in text for c in "\x1b\x00\x07\x9b\u202e\u2066")
    for name in ("<!--", "שלום", "مرحبا", "👩\u200d👩\u200d👧", "__proto__"):
        assert name in names
    assert "\\x1b[31mred\\x1b[0m" in names
    assert [name for name in names if name.startswith("same")] == [f"same #{i}" for i in (23, 24)]
    assert {"(empty) #21", "(blank) #22"} <= set(names)


@given(st.lists(st.sampled_from(["a", "a #1", "a #0", "a #1 #1", "", "(empty)", " ", "(empty) #0", "b"]), max_size=8))
def test_labels_are_different_and_say_the_name(names: list[str]) -> None:
    labels = class_labels(names, list(range(len(names))))
    assert len(set(labels)) == len(names)
    for name, label in zip(names, labels, strict=True):
        assert label.startswith(name.strip() or ("(blank)" if name else "(empty)"))
        if names.count(name) > 1 or not name.strip():
            assert label != name


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u1"),
        ([-1, 127], "i1"),
        ([0, 65535], "u2"),
        ([-1, 300], "i2"),
        ([0, 70000], "u4"),
        ([-1, 70000], "i4"),
        ([0.5, math.inf], "f4"),
        ([], "f4"),
    ],
)
def test_packed_types(values: list[float], kind: str) -> None:
    packed = pack(values)
    assert packed["type"] == kind
    assert unpack(packed).tolist() == values


def test_few_values_are_packed_as_a_table() -> None:
    values = np.random.default_rng(0).choice([0.5, 1.25, math.inf], 1000)
    packed = pack(values)
    assert (packed["type"], packed["table"]["type"]) == ("u1", "f4")
    assert unpack(packed).tolist() == values.tolist()
    assert len(json.dumps(packed)) < 1000 * 4 / 3 + 100


@pytest.mark.slow
def test_many_classes_take_little_room() -> None:
    rng, num = np.random.default_rng(0), 30_000
    counts, vectors = np.floor(1e6 / (np.arange(num) + 3)), rng.normal(size=(num, 32)).astype(np.float32)
    builders = {"best": "clustered", "huffman": "huffman", "balanced": "balanced"}
    trees = [
        ViewedTree(name, build_tree(builder, counts=counts, vectors=vectors)) for name, builder in builders.items()
    ]
    names = [f"a word {c}" for c in range(num)]
    data = viewer_data(trees, counts=counts, class_names=names, vectors=vectors)
    assert len(json.dumps(data, allow_nan=False)) < 4_000_000


def test_assets_are_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    page = ROOT / "treesearch" / "report" / "page"
    installed = {
        path for pattern in settings["treesearch.report.page"] for path in page.glob(pattern) if path.is_file()
    }
    assert installed == {path for path in (page / "assets").rglob("*") if path.is_file()}
    viewer = [path.stem for path in installed if path.parent.name == "viewer"]
    assert sorted(viewer) == sorted(VIEWER_MODULES)  # in the page, each once


def test_what_does_not_fit() -> None:
    counts = [3.0, 2.0, 1.0]
    tree = build_tree("huffman", counts=counts)
    fit: dict[str, Any] = {"counts": counts, "class_names": None, "vectors": None}
    one = ViewedTree("huffman", tree)
    with pytest.raises(DataError, match="different names, but are huffman, huffman"):
        viewer_data([one, one], **fit)
    with pytest.raises(DataError, match="no viewed tree is named 'huffman'; did you mean 'hufman'"):
        viewer_data([ViewedTree("hufman", tree)], **fit)
    with pytest.raises(DataError, match="'huffman' has 3 and there are 2 counts"):
        viewer_data([one], **{**fit, "counts": [1, 2]})
    with pytest.raises(DataError, match="got 2 for 3 classes"):
        viewer_data([one], **{**fit, "class_names": ["a", "b"]})
    with pytest.raises(DataError, match="vectors must be one row for each of 3 classes"):
        viewer_data([one], **{**fit, "vectors": np.ones((2, 2))})
    projected = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=[0, 2])
    with pytest.raises(DataError, match="'huffman' has projections, whose cost depends on the features; pass in_feat"):
        viewer_data([ViewedTree("huffman", projected)], **fit)
    cost = viewer_data([ViewedTree("huffman", projected)], **fit, in_features=4)["trees"][0]["cost"]
    assert cost == pytest.approx(1 + 0.5 * (2 / 4 + 2 / 20))
