"""The drawing, parsed as XML."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings

from tests.exchange.samples import HOSTILE, chain, projected
from tests.nested import nested_trees, random_nested
from treesearch import Tree, build_tree
from treesearch.exchange.svg import MAX_NAME, MAX_NODES, write_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(tree, folder):
    write_svg(tree, folder / "tree.svg")
    return ElementTree.fromstring((folder / "tree.svg").read_bytes())


def texts(root, note=False):
    """Text at each position, top to bottom; either the names or the notes."""
    found = [element for element in root.iter(SVG + "text") if (element.get("class") == "note") == note]
    return [element.text or "" for element in sorted(found, key=lambda element: float(element.get("y")))]


def leaves(nested):
    return [leaf for child in nested for leaf in leaves(child)] if isinstance(nested, list) else [nested]


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_every_node_is_drawn_and_inside(tmp_path_factory, nested):
    tree = Tree.from_nested(nested)
    root = drawn(tree, tmp_path_factory.mktemp("svg"))
    assert texts(root) == list(map(str, leaves(tree.to_nested())))
    assert texts(root, note=True) == []
    assert len(root.findall(SVG + "circle")) == tree.num_internal
    assert len(root.findall(SVG + "path")) == tree.num_nodes - 1
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter(SVG + "text"):
        assert 0 < float(element.get("x")) < width
        assert 0 < float(element.get("y")) < height
    ends = [
        tuple(map(float, re.fullmatch(r"M(\S+) (\S+)V(\S+)H(\S+)", path.get("d")).groups()))
        for path in root.iter(SVG + "path")
    ]
    dots = {(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(SVG + "circle")}
    assert {(x, y) for x, y, _, _ in ends} <= dots, "a line starts at an inner node"


def test_hostile_names(tmp_path):
    names = [*HOSTILE, "\ud800", "\ufffe", '</text><script>alert("x")</script>', "x" * 1000]
    tree = Tree.from_nested(list(range(len(names))), class_names=names)
    root = drawn(tree, tmp_path)
    assert {element.tag for element in root.iter()} == {
        SVG + tag for tag in ("svg", "style", "title", "text", "path", "circle")
    }
    spelled = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in name) for name in names]
    expected = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in spelled]
    assert texts(root) == expected


def test_projections_are_marked(tmp_path):
    (circle,) = [c for c in drawn(projected(), tmp_path).iter(SVG + "circle") if c.get("class") == "projected"]
    assert circle.find(SVG + "title").text == "projection 7"


@pytest.mark.parametrize(
    ("tree", "levels", "nodes"),
    [
        (build_tree("balanced", counts=np.ones(4096)), 9, 2**10 - 1),
        (build_tree("flat", counts=np.ones(5000)), 0, 1),
        (chain(5000), 999, 1999),
    ],
)
def test_of_a_large_tree_the_top_is_drawn_and_it_says_so(tmp_path, tree, levels, nodes):
    root = drawn(tree, tmp_path)
    *cut, note = texts(root, note=True)
    assert note == f"The top {levels} of {tree.max_depth} levels: {nodes} of {tree.num_nodes} nodes."
    assert len(list(root.iter(SVG + "path"))) == nodes - 1
    below = sum(int(re.fullmatch(r"… (\d+) classes", text)[1]) for text in cut)
    assert below + len(texts(root)) == tree.num_classes


def test_exactly_the_limit_is_drawn_whole(tmp_path):
    C = MAX_NODES // 2 + 1  # of a binary tree, 2 C - 1 nodes
    tree = Tree.from_nested(random_nested(np.random.default_rng(0), C - 1, max_arity=2))
    assert tree.num_nodes == MAX_NODES - 1
    assert texts(drawn(tree, tmp_path), note=True) == []


def test_light_and_dark(tmp_path):
    style = drawn(Tree.from_nested([0, 1]), tmp_path).find(SVG + "style").text
    assert "prefers-color-scheme:dark" in style
