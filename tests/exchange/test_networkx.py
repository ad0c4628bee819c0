"""Graphs, against networkx."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings

from tests.exchange.samples import chain, projected
from tests.nested import nested_trees
from treesearch import Tree
from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.networkx import from_networkx, read_networkx, to_networkx, write_networkx

nx = pytest.importorskip("networkx")
GRAPH = {"directed": True, "multigraph": False, "graph": {}}


def read(tmp_path, data):
    path = tmp_path / "graph.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_networkx(path)


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_networkx_reads_what_we_write_and_we_read_what_it_writes(tmp_path_factory, nested):
    folder = tmp_path_factory.mktemp("networkx")
    tree = Tree.from_nested(nested)
    tree = tree.annotate(class_names=[f'"{cls}"' for cls in range(tree.num_classes)])
    write_networkx(tree, folder / "tree.json")
    data = json.loads((folder / "tree.json").read_text())
    graph = to_networkx(tree)
    assert data == nx.node_link_data(graph, edges="edges")
    assert nx.utils.graphs_equal(nx.node_link_graph(data, edges="edges"), graph)
    assert graph.number_of_nodes() == 1 or nx.is_arborescence(graph)
    for edges in ("edges", "links"):
        again = read(folder, nx.node_link_data(graph, edges=edges))
        assert (again, again.class_names) == (tree, tree.class_names)
    assert from_networkx(graph) == tree


def test_projections_and_attributes(tmp_path):
    tree = projected()
    graph = to_networkx(tree)
    assert graph.nodes[1] == {"projection_dim": 7}
    assert [graph.nodes[leaf] for leaf in tree.class_leaf.tolist()] == [
        {"class": cls, "name": name} for cls, name in enumerate("abcd")
    ]
    assert from_networkx(graph) == tree
    assert from_networkx(graph).class_names == tree.class_names


def test_depths_by_networkx():
    tree = Tree.from_nested([[0, [1, 2]], [3, 4], 5])
    lengths = nx.single_source_shortest_path_length(to_networkx(tree), 0)
    assert [lengths[leaf] for leaf in tree.class_leaf.tolist()] == tree.depths.tolist()


def test_graphs_of_others():
    taxonomy = nx.DiGraph(
        [("animal", "cat family"), ("cat family", "lion"), ("cat family", "tiger"), ("animal", "dog family")]
    )
    taxonomy.add_edge("dog family", "wolf")  # a node with one child
    tree = from_networkx(taxonomy)
    assert (tree.class_names, tree.to_nested()) == (("lion", "tiger", "wolf"), [[0, 1], 2])
    nx.set_node_attributes(taxonomy, {"lion": "L", "tiger": "T", "wolf": "W"}, "name")
    assert from_networkx(taxonomy).class_names == ("L", "T", "W")
    nx.set_node_attributes(taxonomy, {"lion": 2, "tiger": 0, "wolf": 1}, "class")
    tree = from_networkx(taxonomy)
    assert (tree.class_names, tree.to_nested()) == (("T", "W", "L"), [[0, 2], 1])
    assert from_networkx(nx.DiGraph([((1, 2), 1), ((1, 2), 0)])).to_nested() == [0, 1]
    balanced = nx.balanced_tree(2, 3, create_using=nx.DiGraph)
    assert np.all(from_networkx(balanced).depths == 3)


def test_any_depth():
    tree = chain(10_000)
    assert from_networkx(to_networkx(tree)) == tree


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (nx.Graph([(0, 1)]), "DiGraph must be given, but got Graph"),
        (nx.MultiDiGraph([(0, 1)]), "but got MultiDiGraph"),
        ([(0, 1)], "but got list"),
        (nx.DiGraph(), "but 0 of 0 have none"),
        (nx.DiGraph([(0, 1), (2, 3)]), "but 2 of 4 have none"),
        (nx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 3)]), "must have one parent, but 3 has several"),
        (nx.DiGraph([(0, 1), (1, 0)]), "but 0 of 2"),
        (nx.DiGraph([(0, 1), (0, 2), (3, 4), (4, 3)]), "cycle"),
        (nx.DiGraph([(0, 0)]), "but 0 of 1"),
        (nx.DiGraph([(0, "1"), (0, 1)]), "'1' stands twice"),
    ],
)
def test_what_is_no_tree(graph, says):
    with pytest.raises(TreeError, match=says):
        from_networkx(graph)


NODES = [{"id": 0}, {"id": 1}, {"id": 2}]
EDGES = [{"source": 0, "target": 1}, {"source": 0, "target": 2}]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[1, 2]", "top level must be an object"),
        ('{"nodes": ' + "[" * 100_000, "truncated, or of another format"),
        ({"nodes": NODES, "edges": EDGES}, "must be directed"),
        (GRAPH | {"multigraph": True, "nodes": NODES, "edges": EDGES}, "no multigraph"),
        (GRAPH | {"directed": 1, "nodes": NODES, "edges": EDGES}, "must be directed"),
        (GRAPH | {"edges": EDGES}, "'nodes' must be a list of objects"),
        (GRAPH | {"nodes": {"id": 0}, "edges": []}, "'nodes' must be a list of objects"),
        (GRAPH | {"nodes": [0, 1], "edges": []}, "'nodes' must be a list of objects"),
        (GRAPH | {"nodes": NODES}, "'links' must be a list of objects"),
        (GRAPH | {"nodes": [{"name": "a"}], "edges": []}, "every entry of 'nodes' must have 'id'"),
        (GRAPH | {"nodes": [{"id": True}], "edges": []}, "must have 'id', a string or an integer"),
        (GRAPH | {"nodes": [{"id": [1]}], "edges": []}, "must have 'id', a string or an integer"),
        (GRAPH | {"nodes": [{"id": {}}], "edges": []}, "must have 'id', a string or an integer"),
        (GRAPH | {"nodes": NODES, "edges": [{"source": 0}]}, "every entry of 'edges' must have 'target'"),
        (GRAPH | {"nodes": [*NODES, {"id": 1}], "edges": EDGES}, "4 nodes have 3 ids"),
        (GRAPH | {"nodes": NODES, "edges": [*EDGES, {"source": 0, "target": 9}]}, "0 -> 9 names one that is none"),
        (GRAPH | {"nodes": NODES, "edges": [*EDGES, EDGES[0]]}, "one parent, but 1 has several"),
        (GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": 0}, {"id": 2}], "edges": EDGES}, "'class' must be"),
        (
            GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": 0}, {"id": 2, "class": 0}], "edges": EDGES},
            "class 0 sits at 2",
        ),
        (GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": 0}, {"id": 2, "class": 5}], "edges": EDGES}, "0 .. 1"),
        (
            GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": 0}, {"id": 2, "class": 10**30}], "edges": EDGES},
            "leaf_class",
        ),
        (
            GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": "0"}, {"id": 2, "class": 1}], "edges": EDGES},
            "'class' must",
        ),
        (GRAPH | {"nodes": [{"id": 0}, {"id": 1, "name": 5}, {"id": 2}], "edges": EDGES}, "'name' must be of type str"),
        (GRAPH | {"nodes": [{"id": 0}, {"id": 1, "name": ""}, {"id": 2}], "edges": EDGES}, "or absent from all"),
        (
            GRAPH | {"nodes": [{"id": 0}, {"id": 1, "class": 0}, {"id": 2, "class": True}], "edges": EDGES},
            "'class' must",
        ),
        (GRAPH | {"nodes": [{"id": 0, "projection_dim": -1}, *NODES[1:]], "edges": EDGES}, "'projection_dim' must be"),
        (GRAPH | {"nodes": [{"id": 0, "projection_dim": 2**31}, *NODES[1:]], "edges": EDGES}, "'projection_dim' must"),
        (GRAPH | {"nodes": [*NODES[:2], {"id": 2, "projection_dim": 3}], "edges": EDGES}, "but a leaf has it"),
    ],
)
def test_refuses(tmp_path, data, says):
    with pytest.raises(TreeError, match=says) as caught:
        read(tmp_path, data)
    assert len(str(caught.value).splitlines()) == 1


def test_without_networkx(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match="networkx"):
        to_networkx(Tree.from_nested([0, 1]))
