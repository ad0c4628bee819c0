import os
import re

import pytest

from treesearch import Tree
from treesearch.errors import ConfigError
from treesearch.exchange import WRITERS, export_tree

HOSTILE = [
    'say "hi"',
    "back\\slash",
    'both \\" ends \\',
    "line\nbreak\ttab",
    "\x00\x1b[31m\x7f",
    "<b>html</b> &amp; {a|b}",
    "ünï漢🌲\u2028\u202e\ud800",
    "",
    '"];} digraph evil {',
]
TOKEN = re.compile(r'\s+|"(?P<string>(?:[^"\\]|\\.)*)"|(?P<word>\w+)|(?P<mark>->|[{}\[\];=,])')


def parse_dot(text):
    """Nodes with attributes and edges of a digraph, by a tokeniser that knows strings, words and marks only."""
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        assert match, f"no token at {text[position : position + 40]!r}"
        if match.lastgroup:
            tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    assert [value for _, value in tokens[:3]] == ["digraph", "tree", "{"]
    assert tokens[-1] == ("mark", "}")
    nodes, edges, statement = {}, [], []
    for kind, value in tokens[3:-1]:
        if (kind, value) != ("mark", ";"):
            statement.append((kind, value))
            continue
        values = [value for _, value in statement]
        if "->" in values and len(values) == 3:
            edges.append((values[0], values[2]))
        else:
            pairs = [value for kind, value in statement[2:-1] if kind != "mark"]
            nodes[values[0]] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        statement = []
    assert statement == []
    nodes.pop("node")  # defaults
    return nodes, edges


def exported(tree, tmp_path):
    path = tmp_path / "tree.dot"
    export_tree(tree, path, format="dot")
    return parse_dot(path.read_bytes().decode("utf-8"))


def test_dot_has_every_node_and_edge(tmp_path):
    tree = Tree.from_parents([-1, 0, 0, 1, 1, 0], [0, 2, 1, 3], projection_dim=[0, 7])
    nodes, edges = exported(tree, tmp_path)
    assert sorted(edges) == sorted((f"n{p}", f"n{i}") for i, p in enumerate(tree.parent.tolist()) if p >= 0)
    assert nodes["n1"] == {"shape": "ellipse", "label": "projection 7"}
    assert {node["label"] for name, node in nodes.items() if int(name[1:]) >= tree.num_internal} == set("0123")


def test_dot_of_hostile_names_is_still_one_graph(tmp_path):
    tree = Tree.from_nested(list(range(len(HOSTILE))), class_names=HOSTILE)
    nodes, edges = exported(tree, tmp_path)
    text = (tmp_path / "tree.dot").read_text(encoding="utf-8")
    assert all(character.isprintable() or character == "\n" for character in text)
    assert len(text.splitlines()) == 2 + len(nodes) + len(edges) + 1
    assert len(edges) == len(HOSTILE)
    labels = [nodes[f"n{1 + leaf}"]["label"] for leaf in range(len(HOSTILE))]
    unquoted = [re.sub(r"\\(.)", r"\1", label) for label in labels]
    for name, label in zip(HOSTILE, unquoted, strict=True):
        assert label == "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)


def test_dot_of_a_single_class(tmp_path):
    assert exported(Tree.from_nested(0), tmp_path) == ({"n0": {"label": "0"}}, [])


@pytest.mark.parametrize("format", ["json", "npz"])
def test_own_formats_come_back(tmp_path, format):
    tree = Tree.from_nested([[0, 1], 2], class_names=["a", "b", "c"], metadata={"x": 1})
    export_tree(tree, tmp_path / f"tree.{format}", format=format)
    again = Tree.load(tmp_path / f"tree.{format}")
    assert (again, again.class_names, again.metadata) == (tree, tree.class_names, tree.metadata)


def test_the_format_decides_not_the_suffix(tmp_path):
    tree = Tree.from_nested([[0, 1], 2])
    export_tree(tree, tmp_path / "tree.txt", format="json")
    os.rename(tmp_path / "tree.txt", tmp_path / "tree.json")
    assert Tree.load(tmp_path / "tree.json") == tree


@pytest.mark.parametrize(("format", "says"), [("jsn", "did you mean 'json'?"), ("", f"known: {', '.join(WRITERS)}")])
def test_an_unknown_format(tmp_path, format, says):
    with pytest.raises(ConfigError, match="unknown format") as caught:
        export_tree(Tree.from_nested([0, 1]), tmp_path / "x", format=format)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []
