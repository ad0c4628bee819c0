"""Hierarchies, against the package nbdt and the files in it."""

import importlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.nested import nested_trees, random_nested
from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.exchange import import_tree
from treesearch.exchange.nbdt import read_nbdt, wnids, write_nbdt

WNIDS = ["n02691156", "n02958343", "n01503061", "n02121620", "n02430045"]

# nbdt reads images and loads vision models where it is imported; nothing here uses them.
UNUSED = {
    "PIL": {"Image": None},
    "pytorchcv": {},
    "pytorchcv.models": {},
    "pytorchcv.models.efficientnet": {},
    "pytorchcv.models.wrn_cifar": dict.fromkeys(("wrn28_10_cifar10", "wrn28_10_cifar100", "get_wrn_cifar")),
    "torchvision": {},
    "torchvision.datasets": {},
    "torchvision.models": {},
    "torchvision.transforms": {},
}


@pytest.fixture(scope="module")
def nbdt():
    """The modules of nbdt that read hierarchies and compute with them."""
    pytest.importorskip("nbdt")
    with pytest.MonkeyPatch.context() as patch:
        for name, attributes in UNUSED.items():
            module = ModuleType(name)
            vars(module).update(attributes)
            patch.setitem(sys.modules, name, module)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        vars(sys.modules["torchvision.datasets"]).update(Dataset=None)
        for name in ("CIFAR10", "CIFAR100", "ImageFolder"):
            setattr(sys.modules["torchvision.datasets"], name, object)
        # It asks a shell for the width of the terminal, and leaves the pipe open.
        patch.setattr("os.popen", lambda *_: io.StringIO("24 80"))
        yield {name: importlib.import_module(f"nbdt.{name}") for name in ("graph", "data.custom", "loss", "analysis")}
        for name in [name for name in sys.modules if name.startswith("nbdt.")]:
            del sys.modules[name]  # they hold what was put in the place of the others


def written(tree, folder):
    """The hierarchy, and the file of ids beside it."""
    write_nbdt(tree, folder / "graph.json")
    (folder / "wnids.txt").write_text("\n".join(wnids(tree)))
    return folder / "graph.json"


def subtree(graph, node):
    """Nested lists of ids, by recursion."""
    return [subtree(graph, child) for child in graph.succ[node]] or node


@settings(max_examples=40, deadline=None)
@given(nested=nested_trees())
def test_nbdt_reads_what_we_write_and_we_read_what_it_writes(tmp_path_factory, nbdt, nested):
    folder, graphs = tmp_path_factory.mktemp("nbdt"), nbdt["graph"]
    tree = Tree.from_nested(nested)
    graph = graphs.read_graph(str(written(tree, folder)))
    assert graphs.get_wnids(str(folder / "wnids.txt")) == wnids(tree)
    root = graphs.get_root(graph)

    def with_classes(ids):
        return [with_classes(one) for one in ids] if isinstance(ids, list) else int(ids[1:])

    assert with_classes(subtree(graph, root)) == tree.to_nested()
    assert set(graphs.get_leaves(graph)) == set(wnids(tree))
    assert graphs.get_depth(graph) == tree.max_depth + 1
    paths = graphs.get_leaf_to_path(graph)
    assert [len(paths[one]) - 1 for one in wnids(tree)] == tree.depths.tolist()
    graphs.write_graph(graph, str(folder / "again.json"))
    assert read_nbdt(folder / "again.json") == tree


def test_its_decisions_are_those_of_the_tree(tmp_path, nbdt):
    """Soft rules: a node splits by the softmax over the mean logits of its children's classes."""
    tree = Tree.from_nested(random_nested(np.random.default_rng(0), 9, max_arity=3))
    path = written(tree, tmp_path)
    classes = [f"class {cls}" for cls in range(9)]
    rules = nbdt["analysis"].SoftEmbeddedDecisionRules(
        path_graph=str(path), path_wnids=str(tmp_path / "wnids.txt"), classes=classes, dataset="CIFAR10"
    )
    outputs = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))

    def below(entry):
        return [cls for child in entry for cls in below(child)] if isinstance(entry, list) else [entry]

    def fill(entry, logits, share, into):
        if not isinstance(entry, list):
            into[entry] = share
            return
        means = torch.stack([logits[below(child)].mean() for child in entry])
        for child, part in zip(entry, torch.softmax(means, 0).tolist(), strict=True):
            fill(child, logits, share * part, into)

    expected = torch.zeros(4, 9)
    for row in range(4):
        fill(tree.to_nested(), outputs[row], 1.0, expected[row])
    torch.testing.assert_close(rules.forward(outputs), expected)


def test_its_own_hierarchies(nbdt):
    """All in the package; those in which a node has several parents are no trees."""
    folder = Path(sys.modules["nbdt"].__path__[0])
    read = {}
    for path in sorted(folder.glob("hierarchies/*/*.json")):
        ids = (folder / "wnids" / f"{path.parent.name}.txt").read_text().split()
        key = f"{path.parent.name}/{path.stem}"
        try:
            tree = import_tree(path, format="nbdt", class_names=ids)
        except TreeError as error:
            read[key] = str(error)
            continue
        read[key] = tree
        assert tree.class_names == tuple(ids)
        data = json.loads(path.read_text())
        parents = {edge["target"]: edge["source"] for edge in data["links"]}
        arity = {one: list(parents.values()).count(one) for one in parents.values()}
        for cls, one in enumerate(ids):
            depth, node = 0, one
            while node in parents:
                node = parents[node]
                depth += arity[node] > 1
            assert tree.depths[cls] == depth
    assert isinstance(read["CIFAR10/graph-induced"], Tree)
    assert read["CIFAR10/graph-induced"].num_classes == 10
    assert isinstance(read["CIFAR100/graph-induced"], Tree)
    assert all(isinstance(one, Tree) or "has several" in one for one in read.values())


def test_names_and_wordnet_ids(tmp_path):
    tree = Tree.from_nested([[0, 4], [1, [2, 3]]], class_names=WNIDS)
    assert wnids(tree) == WNIDS
    path = written(tree, tmp_path)
    assert [node["id"] for node in json.loads(path.read_text())["nodes"]][:5] == WNIDS
    again = read_nbdt(path)
    assert (again, again.class_names) == (tree, tree.class_names)
    mixed = tree.annotate(class_names=[*WNIDS[:4], "cat"])
    assert wnids(mixed) == [f"f{cls:08d}" for cls in range(5)]
    again = read_nbdt(written(mixed, tmp_path))
    assert (again, again.class_names) == (mixed, mixed.class_names)
    with pytest.raises(TreeError, match="'n02691156' stands twice"):
        wnids(Tree.from_nested([0, 1], class_names=WNIDS[:1] * 2))


def test_the_order_of_nodes_in_the_file_is_free(tmp_path):
    tree = Tree.from_nested([[0, 3], [1, 2]], class_names=["a", "b", "c", "d"])
    path = written(tree, tmp_path)
    data = json.loads(path.read_text())
    for key in ("nodes", "links", "edges"):
        data[key].reverse()
    path.write_text(json.dumps(data))
    again = read_nbdt(path)
    assert (again, again.class_names) == (tree, tree.class_names)


GRAPH = {"directed": True, "multigraph": False, "graph": {}}


@pytest.mark.parametrize(
    ("nodes", "edges", "says"),
    [
        ("rab", ["ra", "rb", "ba"], "must have one parent, but 'a' has several"),
        ("rab", ["ra"], "but 2 of 3 have none"),
        ("rab", ["rc"], "'r' -> 'c' names one that is none"),
        ("raa", ["ra"], "3 nodes have 2 ids"),
        ("rabcd", ["ra", "rb", "cd", "dc"], "cycle"),
        ("", [], "but 0 of 0 have none"),
    ],
)
def test_refuses(tmp_path, nodes, edges, says):
    data = GRAPH | {
        "nodes": [{"id": one, "label": ""} for one in nodes],
        "links": [{"source": edge[0], "target": edge[1]} for edge in edges],
    }
    (tmp_path / "graph.json").write_text(json.dumps(data))
    with pytest.raises(TreeError, match=says):
        read_nbdt(tmp_path / "graph.json")


def test_labels_of_the_wrong_type(tmp_path):
    data = GRAPH | {
        "nodes": [{"id": "r"}, {"id": "f00000000", "label": 1}, {"id": "f00000001", "label": "a"}],
        "links": [{"source": "r", "target": "f00000000"}, {"source": "r", "target": "f00000001"}],
    }
    (tmp_path / "graph.json").write_text(json.dumps(data))
    with pytest.raises(TreeError, match="'label' must be of type str at every leaf"):
        read_nbdt(tmp_path / "graph.json")
