"""Nested brackets, against nltk."""

import pytest
from hypothesis import given, settings

from tests.exchange.samples import chain
from tests.nested import nested_trees
from treesearch import Tree
from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.nested import from_nltk, read_nested, to_nltk, write_nested

nltk = pytest.importorskip("nltk")


def written(tree, tmp_path):
    path = tmp_path / "tree.txt"
    write_nested(tree, path)
    return path


def nltk_nested(node):
    """Nested lists of an nltk tree with ids at the leaves, by recursion."""
    return [nltk_nested(child) for child in node] if isinstance(node, nltk.Tree) else int(node)


@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_nltk_reads_what_we_write_and_we_read_what_it_prints(tmp_path_factory, nested):
    tree, folder = Tree.from_nested(nested), tmp_path_factory.mktemp("nested")
    read = nltk.Tree.fromstring(written(tree, folder).read_text())
    assert read == to_nltk(tree)
    assert nltk_nested(read) == (tree.to_nested() if tree.num_internal else [0])
    (folder / "printed.txt").write_text(str(read))  # with line breaks where it is wide
    assert read_nested(folder / "printed.txt") == tree == from_nltk(read)


def test_names(tmp_path):
    names = ["漢字", "a:b", "x\\", "\\(", "don't", '"q"']
    names.remove("\\(")
    tree = Tree.from_nested([[0, 1, 2], [3, 4]], class_names=names)
    text = written(tree, tmp_path).read_text(encoding="utf-8")
    assert sorted(nltk.Tree.fromstring(text).leaves()) == sorted(names)
    again = read_nested(tmp_path / "tree.txt")
    assert (again, again.class_names) == (tree, tuple(names))


@pytest.mark.parametrize("name", ["", "New York", "a(b", "a)", "\\(", "a\u00a0b", "a\n"])
def test_names_that_brackets_cannot_hold(tmp_path, name):
    with pytest.raises(TreeError, match="neither white space nor brackets and not be empty, but one is"):
        written(Tree.from_nested([0, 1], class_names=["x", name]), tmp_path)
    assert list(tmp_path.iterdir()) == []
    tree = Tree.from_nested([0, 1], class_names=["x", name])
    assert from_nltk(to_nltk(tree)).class_names == tree.class_names  # objects need no brackets


def test_a_parse_of_a_sentence(tmp_path):
    """Labels of phrases go, and so do the nodes that have one word."""
    path = tmp_path / "parse.txt"
    path.write_text("(S\n  (NP (DT the) (NN cat))\n  (VP (VBD sat) (PP (IN on) (NP (DT a) (NN mat)))))\n")
    tree = read_nested(path)
    assert tree.class_names == ("the", "cat", "sat", "on", "a", "mat")
    assert tree.to_nested() == [[0, 1], [2, [3, [4, 5]]]]
    assert from_nltk(nltk.Tree.fromstring(path.read_text())) == tree


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must balance, but none are open"),
        ("(T a b", "must balance, but 1 are open at the end"),
        ("(T a b))", "closes at character 7 that none opened"),
        (")", "closes at character 0"),
        ("(T a b) (T c d)", "one outer bracket, but got '.T'"),
        ("(T a b) c", "one outer bracket, but got 'c'"),
        ("a", "one outer bracket"),
        ("(T a (T) b)", "children or be a class, but 1 are neither"),
        ("()", "children or be a class"),
        ("(T a (T b a))", "'a' stands twice"),
        ("(T a \\(b)", None),
    ],
)
def test_what_is_read_and_refused(tmp_path, text, says):
    path = tmp_path / "tree.txt"
    path.write_text(text)
    if says is None:
        assert read_nested(path).class_names == tuple(nltk.Tree.fromstring(text).leaves())
        return
    with pytest.raises(TreeError, match=says) as caught:
        read_nested(path)
    assert str(path) in str(caught.value)


def test_any_depth(tmp_path):
    tree = chain(10_000)
    assert from_nltk(to_nltk(tree)) == tree == read_nested(written(tree, tmp_path))


def test_leaves_of_other_types():
    assert from_nltk(nltk.Tree("S", [2, nltk.Tree("T", [0, 1])])).to_nested() == [[0, 1], 2]


@pytest.mark.parametrize("wrong", [None, "(T a b)", [[0], 1]])
def test_no_nltk_tree(wrong):
    with pytest.raises(TreeError, match=r"an nltk\.Tree must be given, but got"):
        from_nltk(wrong)


def test_without_nltk(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nltk.tree", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'treesearch\[interop\]'"):
        to_nltk(Tree.from_nested([0, 1]))
