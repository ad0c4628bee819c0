"""Codes of word2vec against paths one by one, and trees made binary and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nested import nested_trees
from treesearch import Tree, build_tree
from treesearch.errors import TreeError
from treesearch.exchange.binarize import ORIGIN, binarize, restore
from treesearch.exchange.codes import Codes, codes_of, decode, read_codes, write_codes

RNG = np.random.default_rng(0)


def path_of(tree: Tree, cls: int) -> tuple[list[int], list[int]]:
    """Branches and nodes from the root to a class, from the bottom up."""
    branches, nodes, node = [], [], int(tree.class_leaf[cls])
    while tree.parent[node] >= 0:
        above = int(tree.parent[node])
        branches.append(tree.children(above).tolist().index(node))
        nodes.append(above)
        node = above
    return branches[::-1], nodes[::-1]


@pytest.mark.slow
@settings(deadline=None)  # kernels compile
@given(nested_trees())
def test_codes_against_one_path_after_the_other_and_back(nested: Any) -> None:
    tree = binarize(Tree.from_nested(nested))
    codes = codes_of(tree)
    assert (codes.ptr.dtype, codes.code.dtype, codes.point.dtype) == (np.int64, np.uint8, np.uint32)
    for cls in range(tree.num_classes):
        own = slice(codes.ptr[cls], codes.ptr[cls + 1])
        assert (codes.code[own].tolist(), codes.point[own].tolist()) == path_of(tree, cls)
    decoded = decode(codes)
    assert decoded.tree == tree
    assert decoded.point.tolist() == list(range(tree.num_internal))
    assert not decoded.flipped.any()


@settings(deadline=None)
@given(nested_trees(), st.integers(0, 2**32 - 1))
def test_nodes_numbered_and_branches_turned_in_any_way(nested: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = binarize(Tree.from_nested(nested))
    codes = codes_of(tree)
    number = rng.permutation(tree.num_internal).astype(np.uint32)
    turned = rng.random(tree.num_internal) < 0.5
    point = number[codes.point] if codes.point.size else codes.point
    code = codes.code ^ turned[codes.point].astype(np.uint8) if codes.point.size else codes.code
    decoded = decode(Codes(codes.ptr, code, point))
    assert decoded.tree == tree
    np.testing.assert_array_equal(decoded.point, number)
    np.testing.assert_array_equal(decoded.flipped, turned)


#               0 -> (class 0, 1 -> (class 1, class 2))
GOOD = {"ptr": [0, 1, 3, 5], "code": [0, 1, 0, 1, 1], "point": [0, 0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ptr": [0, 1, 3, 4]}, "ptr must rise from 0 to the number of entries (5)"),
        ({"ptr": [0, 3, 1, 5]}, "ptr must rise"),
        ({"ptr": [0]}, "ptr must rise"),
        ({"ptr": [0.0, 1, 3, 5]}, "ptr must be a flat array of integers, but is float64"),
        ({"code": [0, 1, 0, 1, 2]}, "codes must be 0 or 1, but range from 0 to 2"),
        ({"point": [0, 0, 1, 0, 2]}, "nodes must be in [0, 2)"),
        ({"point": [0, 0, 1, 0]}, "code and point must be of one length"),
        ({"point": [1, 0, 1, 0, 1]}, "all paths must start at one node"),
        (
            {"code": [0, 1, 0, 1, 0]},
            "branch 0 of node 1 leads to class 2 and to class 1; no code may begin with another",
        ),
        ({"code": [1, 1, 0, 1, 1]}, "branch 1 of node 0 leads to"),
        ({"ptr": [0, 1, 3], "code": [0, 1, 1], "point": [0, 0, 0]}, "leads to class 1 and to node 0"),
        ({"ptr": [0, 0, 1], "code": [0], "point": [0]}, "class 0 has none"),
        ({"ptr": [0, 1, 2, 4], "code": [0, 1, 1, 0], "point": [0, 0, 0, 1]}, "branch 1 of node 0 leads to"),
        ({"ptr": [0, 1, 3, 4], "code": [0, 1, 0, 1], "point": [0, 0, 1, 0]}, "branch 1 of node 0 leads to"),
        ({"ptr": [0, 2, 4, 5], "code": [0, 0, 0, 1, 1], "point": [0, 0, 0, 0, 0]}, "branch 0 of node 0 leads to"),
        ({"ptr": [0, 1], "code": [0], "point": [0]}, "nodes must be in [0, 0)"),
    ],
)
def test_codes_that_are_of_no_tree(changes: dict[str, Any], says: str) -> None:
    arrays = {name: np.array(values) for name, values in (GOOD | changes).items()}
    with pytest.raises(TreeError) as caught:
        decode(Codes(**arrays))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_node_with_one_branch_is_refused() -> None:
    codes = Codes(np.array([0, 2, 3, 4]), np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0]))
    with pytest.raises(TreeError, match="leads to"):
        decode(codes)
    codes = Codes(np.array([0, 2, 3]), np.array([0, 0, 1], np.uint8), np.array([0, 0, 0], np.uint32))
    with pytest.raises(TreeError):
        decode(codes)


def test_what_codes_cannot_hold() -> None:
    with pytest.raises(TreeError, match="a node has 3 children; make it binary with --binarize"):
        codes_of(Tree.from_nested([0, 1, 2]))
    with pytest.raises(TreeError, match="no place for projections"):
        codes_of(Tree.from_parents([-1, 0, 0, 1, 1], [0, 1, 2], projection_dim=[0, 3]))


class TestFile:
    """The .npz file."""

    def test_names_metadata_and_record_come_back(self, tmp_path: Path) -> None:
        tree = Tree.from_nested([[0, 1, 2], 3], class_names=["a", 'b"', "ü", ""], metadata={"x": [1]})
        write_codes(binarize(tree), tmp_path / "codes.npz")
        again = read_codes(tmp_path / "codes.npz")
        assert (again.class_names, again.metadata["x"]) == (tree.class_names, [1])
        assert restore(again) == tree

    def test_arrays_of_another_program(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "codes.npz", **{name: np.array(values, np.int64) for name, values in GOOD.items()})
        assert read_codes(tmp_path / "codes.npz") == Tree.from_nested([0, [1, 2]])

    @pytest.mark.parametrize(
        ("header", "says"),
        [
            ({"hash": "0" * 32}, "the content hash must be"),
            ({"class_names": ["a"]}, "one name per class"),
            ({"class_names": 3}, "class_names must be null or a list"),
            ({"metadata": 3}, "metadata must be an object"),
            ({"metadata": {ORIGIN: [0]}}, "must hold a node for each of 2 binary nodes"),
            ({"metadata": {ORIGIN: "ab"}}, "must hold a node for each of 2 binary nodes"),
            ([1], "the header must be an object"),
            (b"{", "codes"),
        ],
    )
    def test_a_header_that_is_wrong(self, tmp_path: Path, header: Any, says: str) -> None:
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        arrays = {name: np.array(values) for name, values in GOOD.items()}
        np.savez(tmp_path / "codes.npz", header=np.frombuffer(data, np.uint8), **arrays)
        with pytest.raises(TreeError) as caught:
            read_codes(tmp_path / "codes.npz")
        assert says in str(caught.value)
        assert str(tmp_path / "codes.npz") in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all"])
    def test_a_file_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "codes.npz").write_bytes(content)
        with pytest.raises(TreeError, match="not a usable file of codes"):
            read_codes(tmp_path / "codes.npz")
        np.savez(tmp_path / "codes.npz", ptr=np.array(GOOD["ptr"]))
        with pytest.raises(TreeError, match="arrays ptr, code and point must be there, but code is not"):
            read_codes(tmp_path / "codes.npz")
        np.savez(tmp_path / "codes.npz", **{**{n: np.array(v) for n, v in GOOD.items()}, "code": np.array([{}] * 5)})
        with pytest.raises(TreeError, match="not a usable file of codes"):
            read_codes(tmp_path / "codes.npz")


class TestBinarize:
    """Nodes of any arity as binary ones."""

    @settings(deadline=None)
    @given(nested_trees(), st.booleans(), st.integers(0, 2**32 - 1))
    def test_there_and_back(self, nested: Any, weighted: bool, seed: int) -> None:
        tree = Tree.from_nested(nested, metadata={"kept": 1})
        counts = np.random.default_rng(seed).integers(0, 9, size=tree.num_classes) + 1.0
        binary = binarize(tree, counts=counts if weighted else None)
        assert binary.num_internal == tree.num_classes - 1
        assert set(binary.arities.tolist()) <= {2}
        assert restore(binary) == tree
        assert restore(binary).metadata == {"kept": 1}
        origin = binary.metadata.get(ORIGIN, list(range(tree.num_internal)))
        for cls in range(tree.num_classes):  # a class passes the same nodes in the same order
            passed = [origin[node] for node in path_of(binary, cls)[1]]
            assert list(dict.fromkeys(passed)) == path_of(tree, cls)[1]

    @pytest.mark.parametrize("num", [2, 3, 4, 5, 9, 33])
    def test_depths_without_and_with_counts(self, num: int) -> None:
        flat = Tree.from_nested(list(range(num)))
        depths = binarize(flat).depths
        assert depths.max() - depths.min() <= 1
        assert depths.max() == int(np.ceil(np.log2(num)))
        counts = RNG.integers(1, 100, size=num).astype(float)
        huffman = build_tree("huffman", counts=counts)
        assert binarize(flat, counts=counts).expected_depth(counts) == pytest.approx(huffman.expected_depth(counts))

    def test_a_binary_tree_stays(self) -> None:
        tree = Tree.from_nested([[0, 1], 2])
        assert binarize(tree) is tree
        assert restore(tree) is tree
        assert binarize(Tree.from_nested(0)).num_classes == 1

    def test_projections_are_refused(self) -> None:
        tree = Tree.from_parents([-1, 0, 0, 1, 1, 1], [0, 1, 2, 3], projection_dim=[0, 3])
        with pytest.raises(TreeError, match="--drop-projections"):
            binarize(tree)

    def test_a_record_that_does_not_fit(self) -> None:
        tree = Tree.from_nested([[0, 1], 2]).annotate(metadata={ORIGIN: [0, 7]})
        with pytest.raises(TreeError, match="must be below 2, but one is 7"):
            restore(tree)
        chain = Tree.from_nested([0, [1, [2, 3]]])
        for record in ([0, 1, 0], [0, 2, 2], [1, 1, 1]):
            with pytest.raises(TreeError):
                restore(chain.annotate(metadata={ORIGIN: record}))
