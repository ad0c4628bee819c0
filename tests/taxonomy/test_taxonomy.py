"""Taxonomies: the same hierarchy from every source, levels and names, the tree, and what is refused."""

import difflib
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treesearch import Tree, build_tree, taxonomy_tree
from treesearch.errors import DataError, TreeError, TreeSearchError, did_you_mean
from treesearch.taxonomy import (
    Taxonomy,
    as_taxonomy,
    load_taxonomy,
    taxonomy_from_edges,
    taxonomy_from_nested,
    taxonomy_from_networkx,
    taxonomy_from_paths,
)

EDGES = [
    ("animal", "ROOT"),
    ("dog", "animal"),
    ("poodle", "dog"),
    ("beagle", "dog"),
    ("cat", "animal"),
    ("thing", "ROOT"),
    ("tool", "thing"),
    ("hammer", "tool"),
]
CLASSES = ["poodle", "beagle", "cat", "hammer"]
PATHS = ["animal/dog/poodle", "animal/dog/beagle", "animal/cat", "thing/tool/hammer"]
NESTED = {"animal": {"dog": ["poodle", "beagle"], "cat": {}}, "thing": {"tool": ["hammer"]}}
OBJECTS = {
    "name": "ROOT",
    "children": [
        {
            "name": "animal",
            "children": [{"name": "dog", "children": [{"name": "poodle"}, {"name": "beagle"}]}, {"name": "cat"}],
        },
        {"name": "thing", "children": [{"name": "tool", "children": [{"name": "hammer"}]}]},
    ],
}
GRAPH = networkx.DiGraph([(parent, child) for child, parent in EDGES])


def facts(taxonomy: Taxonomy) -> dict[str, Any]:
    """What a taxonomy says of each name, whatever its numbering."""
    parents = {
        name: None if above < 0 else taxonomy.names[above]
        for name, above in zip(taxonomy.names, taxonomy.parent.tolist(), strict=True)
    }
    return {"parents": parents, "classes": taxonomy.class_names}


@pytest.mark.parametrize("source", [EDGES, PATHS, NESTED, OBJECTS, OBJECTS["children"], [NESTED], GRAPH], ids=str)
def test_every_source_gives_the_same(source: Any) -> None:
    taxonomy = as_taxonomy(source, classes=CLASSES)
    assert facts(taxonomy) == {"parents": {"ROOT": None} | dict(EDGES), "classes": tuple(CLASSES)}
    tree = taxonomy_tree(source, classes=CLASSES)
    assert tree.to_nested() == [[[0, 1], 2], 3]
    assert tree.class_names == tuple(CLASSES)
    assert tree.node_names == ("ROOT", "animal", "dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "".join(f"{child}\t{parent}\n\n" for child, parent in EDGES)),
        ("t.txt", "\ufeff" + "\r\n".join(PATHS)),
        ("t.csv", "".join(f" {child} \t{parent}\r\n" for child, parent in EDGES * 2)),
        ("t.json", '{"animal": {"dog": ["poodle", "beagle"], "cat": null}, "thing": [{"tool": "hammer"}]}'),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert facts(load_taxonomy(path, classes=CLASSES)) == facts(as_taxonomy(EDGES, classes=CLASSES))


def test_levels_and_chains_survive_what_the_tree_leaves_out() -> None:
    taxonomy = as_taxonomy(EDGES, classes=CLASSES)
    assert taxonomy.num_levels == 3
    at = [[None if node < 0 else taxonomy.names[node] for node in taxonomy.ancestors(level)] for level in range(4)]
    assert at[1] == ["animal", "animal", "animal", "thing"]
    assert at[2] == ["dog", "dog", "cat", "tool"]
    assert at[3] == ["poodle", "beagle", None, "hammer"]
    chain = taxonomy.tree_node[taxonomy.nodes(["thing", "tool", "hammer"])]
    assert chain.tolist() == [taxonomy.tree.class_leaf[3]] * 3
    assert taxonomy.num_classes_below[taxonomy.node("animal")] == 3
    with pytest.raises(DataError, match=r"level must lie in \[0, 3\]"):
        taxonomy.ancestors(4)
    with pytest.raises(DataError, match="no node 'poodel'; did you mean 'poodle'"):
        taxonomy.node("poodel")


def test_a_class_at_an_inner_node_gets_a_leaf_of_its_own() -> None:
    taxonomy = taxonomy_from_edges(EDGES, classes=["dog", "poodle", "tool", "hammer", "animal"])
    assert taxonomy.tree.to_nested() == [[[0, 1], 4], [2, 3]]  # beagle, cat and the chain have no class
    assert set(taxonomy.names) == {"ROOT", "animal", "dog", "poodle", "thing", "tool", "hammer"}
    leaf, inner = taxonomy.tree.class_leaf, taxonomy.tree_node[taxonomy.nodes(["dog", "animal", "tool"])]
    assert taxonomy.tree.parent[leaf[[0, 4, 2]]].tolist() == inner.tolist()
    assert [taxonomy.tree.node_names[node] for node in inner] == ["dog", "animal", "tool"]  # type: ignore[index]


def test_paths_with_equal_ends_are_different_nodes() -> None:
    taxonomy = as_taxonomy(["a/other", "b/other", "b/x"])
    assert taxonomy.class_names == ("a/other", "b/other", "x")
    assert as_taxonomy(["a/other", "b/other", "b/x"], classes=["b/x", "a/other"]).class_names == ("x", "a/other")
    assert as_taxonomy(["a>x", "b"], separator=">").names == ("ROOT", "a", "b", "x")


def test_several_parents() -> None:
    graph = networkx.DiGraph([("r", "a"), ("a", "b"), ("b", "x"), ("r", "x"), ("a", "y"), ("a", "x")])
    above = {rule: taxonomy_from_networkx(graph, parents=rule) for rule in ("first", "shallowest", "deepest")}
    assert {rule: facts(one)["parents"]["x"] for rule, one in above.items()} == {
        "first": "b",
        "shallowest": "r",
        "deepest": "b",
    }
    # b has nothing below it where x goes elsewhere; it stays, as a class.
    assert above["shallowest"].class_names == ("b", "x", "y")
    with pytest.raises(TreeError, match="'x' is given 3 times, under 'b', 'r', 'a'"):
        taxonomy_from_networkx(graph, parents="error")
    with pytest.raises(TreeError, match="parents must be one of"):
        taxonomy_from_networkx(graph, parents="best")  # type: ignore[arg-type]


@st.composite
def edges(draw: st.DrawFn) -> list[tuple[str, str]]:
    size = draw(st.integers(1, 30))
    above = [draw(st.integers(0, node)) for node in range(size)]
    links = [(f"n{node + 1}", f"n{parent}" if parent else "ROOT") for node, parent in enumerate(above)]
    return draw(st.permutations(links))


@settings(deadline=None)
@given(edges(), st.randoms(use_true_random=False))
def test_tree_nodes_have_the_classes_of_their_taxonomy_nodes(links: list[tuple[str, str]], random: Any) -> None:
    names = [child for child, _ in links]
    classes = random.sample(names, random.randint(1, len(names)))
    taxonomy = taxonomy_from_edges(links, classes=classes)
    tree = taxonomy.tree
    parent_of = dict(links)
    below: dict[str, set[int]] = {name: set() for name in taxonomy.names}
    for cls, name in enumerate(classes):
        while name != "ROOT":
            below[name].add(cls)
            name = parent_of[name]
        below["ROOT"].add(cls)
    in_tree: list[set[int]] = [set() for _ in range(tree.num_nodes)]
    for cls, leaf in enumerate(tree.class_leaf.tolist()):
        while leaf >= 0:
            in_tree[leaf].add(cls)
            leaf = tree.parent[leaf]
    assert [in_tree[node] for node in taxonomy.tree_node] == [below[name] for name in taxonomy.names]
    assert taxonomy.nodes_in(tree).tolist() == taxonomy.tree_node.tolist()
    assert taxonomy.num_classes_below.tolist() == [len(below[name]) for name in taxonomy.names]
    other = build_tree("random", counts=np.ones(len(classes)), seed=random.randint(0, 9))
    sets: list[set[int]] = [set() for _ in range(other.num_nodes)]
    for cls, leaf in enumerate(other.class_leaf.tolist()):
        while leaf >= 0:
            sets[leaf].add(cls)
            leaf = other.parent[leaf]
    expected = [sets.index(below[name]) if below[name] in sets else -1 for name in taxonomy.names]
    assert taxonomy.nodes_in(other).tolist() == expected


@settings(deadline=None)
@given(edges())
def test_lowest_common_ancestors_and_heights(links: list[tuple[str, str]]) -> None:
    taxonomy = taxonomy_from_edges(links)
    nodes = range(taxonomy.num_nodes)
    up = []
    for node in nodes:
        path = [node]
        while taxonomy.parent[path[-1]] >= 0:
            path.append(int(taxonomy.parent[path[-1]]))
        up.append(path)
    first, second = map(np.ravel, np.meshgrid(nodes, nodes))
    expected = [next(node for node in up[a] if node in up[b]) for a, b in zip(first, second, strict=True)]
    assert taxonomy.lowest_common_ancestors(first, second).tolist() == expected
    for bad in (([0], [taxonomy.num_nodes]), ([-1], [0]), ([0, 0], [0]), ([0.5], [0])):
        with pytest.raises(DataError, match=r"nodes must (be two|lie)"):
            taxonomy.lowest_common_ancestors(*bad)
    heights = [max(path.index(node) for path in up if node in path) for node in nodes]
    assert taxonomy.heights.tolist() == heights


def test_saved_trees_keep_their_taxonomy(tmp_path: Path) -> None:
    taxonomy = taxonomy_from_edges(EDGES, classes=[*CLASSES, "dog"])
    for suffix in (".json", ".npz"):
        taxonomy.tree.save(tmp_path / f"t{suffix}")
        loaded = Tree.load(tmp_path / f"t{suffix}")
        assert loaded.node_names == taxonomy.tree.node_names
        assert facts(Taxonomy.of(loaded)) == facts(taxonomy)
    with pytest.raises(TreeError, match="holds no taxonomy"):
        Taxonomy.of(Tree.from_nested([0, 1]))
    for damage in ({"parent": [-1, 5]}, {"names": ["a"]}, {"class_node": [0, 0]}, {"class_node": "x"}):
        content = {"parent": [-1, 0, 0], "names": ["r", "a", "b"], "class_node": [1, 2]} | damage
        with pytest.raises(TreeError, match="damaged"):
            Taxonomy.of(Tree.from_nested([0, 1], metadata={"taxonomy": content}))


def test_any_tree_can_carry_a_taxonomy() -> None:
    taxonomy = taxonomy_from_edges(EDGES, classes=CLASSES)
    tree = taxonomy.annotate(Tree.from_nested([[0, 1], [2, 3]], metadata={"builder": "mine"}))
    assert tree.node_names == ("ROOT", "dog", "")
    assert (tree.class_names, tree.metadata["builder"]) == (tuple(CLASSES), "mine")
    assert facts(Taxonomy.of(tree)) == facts(taxonomy)


def test_a_chain_of_ten_thousand() -> None:
    taxonomy = taxonomy_from_edges([(str(i + 1), str(i) if i else "ROOT") for i in range(10_000)])
    assert (taxonomy.num_levels, taxonomy.tree.num_nodes) == (10_000, 1)
    assert taxonomy.names[taxonomy.ancestors(17)[0]] == "17"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([("a", "b"), ("b", "a")], "no cycle, but 'a' -> 'b' leads back to 'a'"),
        ([("a", "a")], "no cycle, but 'a' leads back to 'a'"),
        ([("a", "z")], "'z', the parent of 'a', has none; add a line 'z' TAB 'ROOT'"),
        ([("a", "ROOT"), ("b", "a"), ("b", "root")], "must be written 'ROOT', but the parent of 'b' is 'root'"),
        ([("a", "ROOT"), ("", "a")], "not empty and without white space at their ends, but got ''; rename it"),
        ([("a", "ROOT"), ("b ", "a")], "white space at their ends, but got 'b '"),
        ([("a", " ROOT")], "white space at their ends, but got ' ROOT'"),
        (networkx.DiGraph([("a", "b\n")]), r"white space at their ends, but got 'b\\n'"),
        ({"a": ["b", " b "]}, "'b' stands twice"),
        ([("a", "ROOT"), ("b", "ROOT"), ("c", "a"), ("c", "b")], "'c' is given 2 times, under 'a', 'b'"),
        ([("ROOT", "a")], "'ROOT' is the root"),
        ({"a": ["b", "a"]}, "'a' stands twice"),
        (networkx.Graph([("r", "a")]), "networkx.DiGraph must be given, but got Graph"),
        (["a\tb"], "without tabs or line ends"),
        ({"a": [3]}, "must be strings, not empty, but got 3"),
        ({}, "at least one node"),
        (["a/b", "a/b"], "'a/b' stands twice"),
        (["a//b"], "no empty part, but got 'a//b'"),
        (networkx.DiGraph([(1, 2), (2, 1)]), "no cycle, but 1 -> 2 leads back"),
        ([], "must be a file, pairs"),
        (3, "must be a file, pairs"),
    ],
)
def test_no_taxonomy(source: Any, message: str) -> None:
    with pytest.raises(TreeError, match=message) as caught:
        as_taxonomy(source)
    assert "\n" not in str(caught.value)


def test_a_class_of_two_nodes_is_none() -> None:
    with pytest.raises(TreeError, match="'x' stands twice"):
        as_taxonomy({"a": ["x", "z"], "b": ["x", "y"]}, classes=["x", "y"])
    assert as_taxonomy({"a": ["x", "z"], "b": ["x", "y"]}, classes=["z", "y"]).class_names == ("z", "y")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([*CLASSES, "hamer"], r"1 of 5 are not \('hamer'\); did you mean 'hammer'"),
        (["cat", "cat"], "'cat' stands twice"),
        ([], "at least one class"),
        ("cat", r"a list of names, but got 'cat'; give \['cat'\]"),
        (3, "a list of names, but got 3"),
        ([1, 2], "a list of names, but it has 1"),
        (np.array([0.5]), "a list of names, but it has 0.5"),
        (np.array([["cat"]]), r"a list of names, but it has \['cat'\]"),
        (np.array("cat"), "a list of names, but it has 'cat'"),
        (np.array([1, 77]), r"must lie in 0 \.\. 8, but classes has 77"),
        (np.array([-1]), "but classes has -1"),
        (np.array([2, 2]), "'dog' stands twice"),
        (np.array(["cat", "cat"]), "'cat' stands twice"),
    ],
)
def test_no_classes(classes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_taxonomy(EDGES, classes=classes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", b"a\tb\tc\n", "line 1 of .* is 'a.tb.tc'"),
        ("t.tsv", b"a\tROOT\nb\n", "line 2 of .* is 'b'"),
        ("t.tsv", b"\n\n", "is empty"),
        ("t.tsv", b"\nChild\tParent\na\tROOT\n", "line 2 of .* looks like a heading: 'Child TAB Parent'; leave it out"),
        ("t.tsv", b"a\tROOT\nb\tparent\n", "'parent', the parent of 'b', has none"),
        ("t.tsv", b"name\tparent\nb\tparent\n", "'parent', the parent of 'name', has none"),
        (
            "t.txt",
            b"a\nb  ROOT\n",
            "need a tab between child and parent, or '/' .* but line 2 of .* has spaces: 'b  ROOT'",
        ),
        ("t.txt", b"animal\n  dog\n", "need a tab"),  # an outline
        ("t.tsv", b"\xff\xfe", "must be UTF-8"),
        ("t.json", b"{", "must be JSON"),
        ("t.json", b'{"a": 1, "a": 2}', "has 'a' twice"),
        ("t.json", b"[" * 100_000, "nested too deep|must be JSON"),
        ("none.tsv", None, "cannot be read"),
    ],
)
def test_files_that_hold_none(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TreeSearchError, match=message):
        load_taxonomy(tmp_path / name)


def test_a_link_may_stand_twice() -> None:
    again = [EDGES[2], *EDGES, *EDGES[:4]]
    for rule in ("error", "first", "deepest"):
        assert facts(as_taxonomy(again, classes=CLASSES, parents=rule)) == facts(as_taxonomy(EDGES, classes=CLASSES))
    with pytest.raises(
        TreeError, match=r"'cat' is given 2 times, under 'animal', 'dog'; .* parents='first', .* --parents"
    ):
        as_taxonomy([*again, ("cat", "dog"), ("cat", "dog")])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (taxonomy_from_edges(EDGES), {"classes": CLASSES}, "a Taxonomy takes no options, but got classes="),
        (taxonomy_from_edges(EDGES), {"parents": "first"}, "a Taxonomy takes no options"),
        (
            EDGES,
            {"separator": "/"},
            "a list of pairs takes the option parents alone, but got separator='/'; leave it out",
        ),
        (PATHS, {"parents": "first"}, "a list of paths takes the option separator alone, but got parents='first'"),
        (NESTED, {"parents": "first"}, "a nested taxonomy takes no options, but got parents='first'"),
        (GRAPH, {"separator": np.zeros(99)}, "a graph takes the option parents alone"),
        ("t.json", {"parents": "first"}, r"t.json' takes no options"),
        ("t.tsv", {"separator": "/"}, r"t.tsv', a list of pairs, takes the option parents alone"),
        ("t.txt", {"parents": "first"}, r"t.txt', a list of paths, takes the option separator alone"),
    ],
)
def test_options_that_a_source_does_not_take(
    tmp_path: Path, source: Any, options: dict[str, Any], message: str
) -> None:
    if isinstance(source, str):
        source = tmp_path / source
        content = {".json": '{"a": ["b"]}', ".tsv": "a\tROOT\n", ".txt": "a/b\n"}
        source.write_text(content[source.suffix])
    with pytest.raises(TreeError, match=message) as caught:
        taxonomy_tree(source, **options)
    assert "\n" not in str(caught.value)
    as_taxonomy(source, parents="error")  # what every source does where it has no rule


@pytest.mark.parametrize(
    ("paths", "message"),
    [([1, 2], "paths must be strings, but got 1"), ("ab", "must be a list, but got the string 'ab'")],
)
def test_no_paths(paths: Any, message: str) -> None:
    with pytest.raises(TreeError, match=message):
        taxonomy_from_paths(paths)


@pytest.mark.parametrize("separator", ["", 3, None])
def test_no_separator(tmp_path: Path, separator: Any) -> None:
    (tmp_path / "t.txt").write_text("a/b")
    for source in (["a/b"], tmp_path / "t.txt"):
        with pytest.raises(TreeError, match=f"must be a string, not empty, but got {separator!r}; give '/'"):
            as_taxonomy(source, separator=separator)


def test_classes_as_an_array() -> None:
    expected = facts(as_taxonomy(EDGES, classes=CLASSES))
    for array in (np.array(CLASSES), np.array(CLASSES, object)):
        assert facts(as_taxonomy(EDGES, classes=array)) == expected
        assert facts(as_taxonomy(PATHS, classes=array)) == expected


@pytest.mark.parametrize(
    ("nested", "names"),
    [
        ([{"name": "a", "size": "big"}, {"name": " b ", "size": 2, "colour": None}], ["a", "b"]),
        ([{"name": "a", "value": [1], "children": [{"name": "b", "size": 0.5}]}], ["a", "b"]),
        ([{"name": "a", "cat": ["b"]}], ["name", "cat", "a", "b"]),  # keys that hold nodes are nodes
    ],
)
def test_objects_with_other_keys(nested: Any, names: list[str]) -> None:
    assert taxonomy_from_nested(nested).names == ("ROOT", *names)


def test_names_alone_are_one_level(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("New York\ncat  \n")
    assert load_taxonomy(path).names == ("ROOT", "New York", "cat")
    path.write_text("a/b  c\nd\n")
    assert load_taxonomy(path).names == ("ROOT", "a", "d", "b  c")


def test_one_of_very_many_names_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = difflib.get_close_matches

    def counting(word: str, names: list[str], n: int) -> list[str]:
        compared.append(len(names))
        return compare(word, names, n=n)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    known = [f"{start}{number}{end}" for start in ("class", "label") for number in range(5_000) for end in "ab"]
    for name, nearest in (("clas4321a", "class4321a"), ("xabel77b", "label77b")):
        assert did_you_mean(name, known) == f"; did you mean {nearest!r}?"
    assert did_you_mean("?", known) == ""
    assert max(compared) <= 200
