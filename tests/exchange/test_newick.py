"""Newick, against the package of that name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange.samples import HOSTILE
from tests.nested import nested_trees
from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.exchange import import_tree
from treesearch.exchange.newick import read_newick, write_newick

newick = pytest.importorskip("newick")


def written(tree, folder):
    path = folder / "tree.nwk"
    write_newick(tree, path)
    return path


def read(tmp_path, text):
    path = tmp_path / "tree.nwk"
    path.write_bytes(text.encode())
    return read_newick(path)


def labelled(node):
    """Nested lists of a parsed node, labels at the leaves, by recursion."""
    return (node.unquoted_name or "") if node.is_leaf else [labelled(child) for child in node.descendants]


def with_names(nested, names):
    return [with_names(child, names) for child in nested] if isinstance(nested, list) else names[nested]


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees(), data=st.data())
def test_the_package_reads_what_we_write_and_we_read_what_it_prints(tmp_path_factory, nested, data):
    tree, folder = Tree.from_nested(nested), tmp_path_factory.mktemp("newick")
    # The package ends a quoted label at a backslash.
    some = st.sampled_from([name for name in HOSTILE if "\\" not in name]) | st.text("ab '_,", max_size=4)
    C = tree.num_classes
    tree = tree.annotate(class_names=data.draw(st.lists(some, min_size=C, max_size=C, unique=True)))
    (node,) = newick.loads(written(tree, folder).read_bytes().decode())
    assert labelled(node) == with_names(tree.to_nested(), tree.class_names)
    for inner in node.walk():  # as a file with all that the grammar allows
        inner.length = 0.5
        if not inner.is_leaf:
            inner.name = "'an inner label'"
            inner.comments = ["&NHX:a=1"]
    again = read(folder, newick.dumps([node]))
    assert sorted(again.class_names or "0") == sorted(tree.class_names)
    assert import_tree(folder / "tree.nwk", format="newick", class_names=tree.class_names) == tree


@pytest.mark.parametrize(
    ("text", "nested", "names"),
    [
        # From Felsenstein's description of the format.
        ("(,,(,));", None, "every leaf must have a label"),
        ("(A,B,(C,D));", [0, 1, [2, 3]], "ABCD"),
        ("(A,B,(C,D)E)F;", [0, 1, [2, 3]], "ABCD"),
        ("(:0.1,:0.2,(:0.3,:0.4):0.5);", None, "every leaf must have a label"),
        ("(A:0.1,B:0.2,(C:0.3,D:0.4)E:0.5)F:0.0;", [0, 1, [2, 3]], "ABCD"),
        ("((B:0.2,(C:0.3,D:0.4)E:0.5)F:0.1)A;", [0, [1, 2]], "BCD"),  # the root has one child
        ("(2,(0,1));", [[0, 1], 2], None),
        ("0;", 0, None),
        ("a ;", 0, "a"),
        (" ( a\n,\tb ) ;\r\n", [0, 1], "ab"),
        ("[&R] ((a[one [nested] comment],b),[x]c)[y]:1e-3;[after]\n", [[0, 1], 2], "abc"),
        ("('it''s','',''''  , 'a b');", [0, 1, 2, 3], ("it's", "", "'", "a b")),
        ("(a_b,'c_d');", [0, 1], ("a_b", "c_d")),
        ("('(',')[');", [0, 1], ("(", ")[")),
        ("((((a))),b);", [0, 1], "ab"),
        ("(((a)));", 0, "a"),
        ("\ufeff(a,b);", [0, 1], "ab"),  # the mark that Windows puts first
    ],
)
def test_grammar(tmp_path, text, nested, names):
    if nested is None:
        with pytest.raises(TreeError, match=names):
            read(tmp_path, text)
        return
    tree = read(tmp_path, text)
    assert (tree.to_nested(), tree.class_names) == (nested, None if names is None else tuple(names))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must end in ';'"),
        (";", "every leaf must have a label, but ';'"),
        ("(a,b)", "must end in ';'"),
        ("((a,b);", r"must balance .* but ';' stands at character 6 with 1 brackets open"),
        ("(a,b));", r"must balance .* but '\)' stands at character 5 with 0"),
        ("a,b;", r"must balance .* ',' stands at character 1"),
        ("(a,b)(c,d);", r"but '\(' stands at character 5"),
        ("(a(b,c));", r"but '\(' stands at character 2"),
        ("(a,b);(c,d);", r"must hold one tree, but there is '\('"),
        ("(a,b);x", "must hold one tree, but there is 'x'"),
        ("(a,,b);", "every leaf must have a label, but ','"),
        ("(a,b,);", r"every leaf must have a label, but '\)'"),
        ("();", r"every leaf must have a label, but '\)'"),
        ("(a b,c);", "one word or stand in quotes, but 'b' follows one at character 3"),
        ("('a'b,c);", "but 'b' follows one"),
        ("(a,b)c d;", "but 'd' follows one"),
        ("(a:1 2,b);", "but '2' follows one"),
        ("(a:x,b);", "branch length must be a number, but got 'x'"),
        ("(a:,b);", "',' stands at character 3"),
        ("(a:1:2,b);", "':' stands at character 4"),
        ("('a,b);", 'paired, but "\'" at character 1'),
        ("(a,b]);", "paired, but ']' at character 4"),
        ("(a,[b);", r"paired, but '\[' at character 3"),
        ("(a,(b,a));", "'a' stands twice"),
        ("(" * 50_000, "must end in ';'"),
        ("[" * 50_000, "paired"),
    ],
)
def test_refuses(tmp_path, text, says):
    with pytest.raises(TreeError, match=says) as caught:
        read(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_quoted(tmp_path):
    names = ["plain-1.2", "a\\b", "new york", "a_b", "it's", "", "漢"]
    text = written(Tree.from_nested(list(range(7)), class_names=names), tmp_path).read_text(encoding="utf-8")
    assert text == "(plain-1.2,a\\b,'new york','a_b','it''s','',漢);"


@pytest.mark.parametrize("character", "()[]':;,_ \t\n\u00a0\ufeff")
def test_each_mark_is_quoted(tmp_path, character):
    tree = Tree.from_nested([0, 1], class_names=["a", f"b{character}"])
    text = written(tree, tmp_path).read_bytes().decode()
    assert text == f"(a,'b{character.replace(chr(39), chr(39) * 2)}');"
    assert read(tmp_path, text).class_names == tree.class_names


def test_a_lone_surrogate_is_refused(tmp_path):
    with pytest.raises(TreeError, match=r"valid Unicode, but one has the lone surrogate '\\ud800'"):
        written(Tree.from_nested([0, 1], class_names=["a", "\ud800"]), tmp_path)
    assert list(tmp_path.iterdir()) == []
