import io

import pytest
from rich.console import Console

from treesearch import Tree
from treesearch.errors import DataError
from treesearch.report.describe import top_of_tree, tree_statistics

COUNTS = [8, 4, 2, 1, 1]
HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]], class_names=["the", "of", "and", "[b]", "x"])


def drawn(tree, **options):
    console = Console(file=io.StringIO(), width=200, highlight=False, markup=False)
    console.print(top_of_tree(tree, **options))
    return console.file.getvalue()


def test_statistics_by_hand():
    found = tree_statistics(HUFFMAN, COUNTS)
    assert (found["classes"], found["internal nodes"], found["arities"]) == (5, 4, "2 (4x)")
    assert (found["expected depth"], found["max depth"], found["cost"], found["dot products"]) == (
        1.875,
        4,
        1.875,
        1.875,
    )
    assert (found["projections"], found["weighted by"], found["hash"]) == ("none", "training counts", HUFFMAN.hash)


def test_statistics_without_counts_weigh_every_class_alike():
    found = tree_statistics(HUFFMAN)
    assert found["expected depth"] == (1 + 2 + 3 + 4 + 4) / 5
    assert found["weighted by"] == "classes"


def test_many_arities_are_cut_short():
    sizes, start, nested = range(2, 13), 0, []
    for size in sizes:
        nested.append(list(range(start, start + size)))
        start += size
    assert tree_statistics(Tree.from_nested(nested))["arities"].endswith("and 3 more up to 12")


def test_projections():
    tree = Tree.from_parents([-1, 0, 0, 1, 1], [2, 0, 1], projection_dim=[8, 4])
    assert tree_statistics(tree)["projections"] == "4, 8"
    assert "projection 4" in drawn(tree)


def test_counts_must_fit():
    with pytest.raises(DataError):
        tree_statistics(HUFFMAN, [1, 2])


def test_the_top_has_shares_and_names_heaviest_first():
    root, first, second, *rest = drawn(HUFFMAN, levels=1, counts=COUNTS).splitlines()
    assert "100.0 %  2-way, 5 classes: the of and [b] x" in root
    assert "50.0 %  the" in first
    assert "50.0 %  2-way, 4 classes: of and [b] x" in second
    assert rest == []


def test_all_levels_show_every_class_once():
    text = drawn(HUFFMAN, levels=10, counts=COUNTS)
    assert [sum(line.endswith(f"%  {name}") for line in text.splitlines()) for name in HUFFMAN.class_names] == [1] * 5


def test_wide_nodes_are_cut():
    lines = drawn(Tree.from_nested(list(range(20))), levels=1, width=3).splitlines()
    assert len(lines) == 5
    assert "... 17 more" in lines[-1]


def test_level_zero_is_the_root_alone():
    assert len(drawn(HUFFMAN, levels=0).splitlines()) == 1


def test_a_single_class():
    tree = Tree.from_nested(0, class_names=["only"])
    assert drawn(tree).split() == ["100.0", "%", "only"]
    assert tree_statistics(tree)["classes"] == 1


def test_a_deep_tree_needs_no_recursion():
    nested = 0
    for cls in range(1, 3000):
        nested = [cls, nested]
    assert "3000 classes" in drawn(Tree.from_nested(nested), levels=1)


def test_inner_nodes_are_drawn_with_their_names():
    tree = Tree.from_nested([[0, 1], 2], class_names=["poodle", "beagle", "hammer"]).annotate(node_names=["all", "dog"])
    lines = drawn(tree, levels=1).splitlines()
    assert lines[0].startswith("100.0 %  all  2-way, 3 classes")
    assert "66.7 %  dog  2-way, 2 classes: poodle beagle" in lines[1]
