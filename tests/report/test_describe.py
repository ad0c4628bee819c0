import io

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from treesearch import Tree
from treesearch.cost import tree_cost
from treesearch.errors import DataError
from treesearch.report.describe import statistics_lines, top_of_tree, tree_statistics

COUNTS = [8, 4, 2, 1, 1]
HUFFMAN = Tree.from_nested([0, [1, [2, [3, 4]]]], class_names=["the", "of", "and", "[b]", "x"])


def drawn(tree, screen=200, **options):
    console = Console(file=io.StringIO(), width=screen, highlight=False, markup=False)
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


def test_the_cost_of_projections_is_by_the_features_of_the_layer():
    """Of 16 features, node 0 projects to 8 and node 1 to 4; where nobody knows the features that is said."""
    tree = Tree.from_parents([-1, 0, 0, 1, 1], [2, 0, 1], projection_dim=[8, 4])
    known, assumed = tree_statistics(tree, [1, 1, 2], 16), tree_statistics(tree, [1, 1, 2])
    assert known["cost"] == tree_cost(tree, [1, 1, 2], in_features=16).cost != assumed["cost"]
    assert "features" not in known
    assert assumed["features"] == "taken as 8, the widest projection"
    assert "features" not in tree_statistics(HUFFMAN)


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


# -- what fits a screen


@pytest.mark.parametrize("screen", [40, 80, 100])
def test_every_node_has_one_line_that_fits_the_screen(screen):
    names = ["x" * 300, "漢字" * 50, "👩\u200d👩\u200d👧 family", *(f"a longer name of class {i}" for i in range(297))]
    nested = [list(range(start, start + 30)) for start in range(0, 300, 30)]
    tree = Tree.from_nested(nested, class_names=names).annotate(node_names=["all of them", *("group " * 20,) * 10])
    lines = drawn(tree, screen, levels=2, width=40).splitlines()
    assert len(lines) == tree.num_nodes
    assert max(map(cell_len, lines)) <= screen
    assert any("…" in line for line in lines)


def test_long_names_leave_room_for_others():
    tree = Tree.from_nested([0, 1, 2], class_names=["x" * 300, "second", "third"])
    assert drawn(tree, 100, levels=0).rstrip().endswith("xxx… second third")


def test_names_cannot_steer_the_terminal():
    names = ["\x1b[31mred", "a\u202eb", "line\nbreak", "[bold]", "<b>"]
    tree = Tree.from_nested([[0, 1], 2, 3, 4], class_names=names).annotate(node_names=["\x9b2J", "\x07"])
    text = drawn(tree)
    assert len(text.splitlines()) == tree.num_nodes
    assert not set("\x1b\x9b\x07\u202e\r") & set(text)
    for shown in (r"\x1b[31mred", r"a\u202eb", r"line\nbreak", "[bold]", "<b>", r"\x9b2J", r"\x07"):
        assert shown in text


def test_small_shares_are_not_nothing():
    text = drawn(Tree.from_nested([0, 1, 2, 3]), counts=[1e7, 2e3, 1, 0], levels=1)
    assert [line.split("%")[0].split("─")[-1].strip() for line in text.splitlines()] == [
        "100.0",
        "100.0",
        "0.02",
        "< 0.001",
        "0.0",
    ]


def test_statistics_are_wrapped_and_lose_nothing():
    found = {"arities": ", ".join(f"{a} (12345x)" for a in range(2, 10)), "hash": "0123456789abcdef" * 2, "empty": ""}
    lines = statistics_lines(found, width=60)
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("        arities: 2 (12345x), 3")
    assert " ".join(" ".join(lines).split()) == " ".join(f"{key}: {value}".strip() for key, value in found.items())


def test_with_class_vectors_a_node_is_told_by_what_sets_it_apart():
    """Class 0 is the heaviest of its node but lies where the other node is."""
    tree = Tree.from_nested([[0, 1, 2], [3, 4, 5]]).annotate(class_names=["the", "cat", "dog", "one", "two", "ten"])
    vectors = np.array([[0, 1], [2, 0], [1.5, 0], [0, 2], [0, 2], [0, 2]], float)
    counts = [50, 30, 10, 40, 30, 20]
    assert "3-way, 3 classes: the cat dog" in drawn(tree, counts=counts)
    assert "3-way, 3 classes: cat dog the" in drawn(tree, counts=counts, vectors=vectors)
