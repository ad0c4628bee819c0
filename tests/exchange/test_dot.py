"""Graphviz: read back by a tokeniser of the test, and by pydot."""

import re

import pytest

from tests.exchange import samples
from treesearch import Tree
from treesearch.exchange import export_tree

HOSTILE = [*samples.HOSTILE, "\ud800"]
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


def test_dot_names_inner_nodes(tmp_path):
    tree = Tree.from_nested([[0, 1], 2]).annotate(node_names=["all", 'a "b"'])
    nodes, _ = exported(tree, tmp_path)
    assert [nodes[name]["label"] for name in ("n0", "n1")] == ["all", r"a \"b\""]
    projected = Tree.from_parents([-1, 0, 0, 1, 1], [0, 1, 2], projection_dim=[0, 7], node_names=["all", "a"])
    assert exported(projected, tmp_path)[0]["n1"] == {"shape": "ellipse", "label": r"a\nprojection 7"}


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
        assert label == "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def test_dot_of_a_single_class(tmp_path):
    assert exported(Tree.from_nested(0), tmp_path) == ({"n0": {"label": "0"}}, [])


# pydot 4 calls pyparsing by names that pyparsing 3.3 deprecates.
@pytest.mark.filterwarnings("ignore:.*deprecated - use:DeprecationWarning")
def test_pydot_reads_it(tmp_path):
    pydot = pytest.importorskip("pydot")
    tree = Tree.from_nested([[0, 1], 2], class_names=['say "hi"', "a\\b", "<c>"])
    export_tree(tree, tmp_path / "tree.dot", format="dot")
    (graph,) = pydot.graph_from_dot_data((tmp_path / "tree.dot").read_text())
    edges = {(edge.get_source(), edge.get_destination()) for edge in graph.get_edges()}
    assert edges == {(f"n{p}", f"n{i}") for i, p in enumerate(tree.parent.tolist()) if p >= 0}
