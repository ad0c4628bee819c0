import numpy as np
import pytest

from treesearch import Tree, build_tree
from treesearch.errors import TreeError
from treesearch.search.tree_blobs import pack_tree, unpack_tree

TREES = {
    "one class": Tree.from_nested(0),
    "flat": Tree.from_nested(list(range(7))),
    "huffman": build_tree("huffman", counts=1 / np.arange(1, 3001)),
    "projections": build_tree("adaptive", counts=np.arange(2000, 0, -1.0), cutoffs=[100, 700], in_features=64),
}


@pytest.mark.parametrize("name", TREES)
def test_round_trip(name):
    tree = TREES[name]
    again = unpack_tree(pack_tree(tree))
    assert (again, again.hash) == (tree, tree.hash)
    for one, other in ((again.parent, tree.parent), (again.projection_dim, tree.projection_dim)):
        np.testing.assert_array_equal(one, other)
    assert pack_tree(again) == pack_tree(tree)


def test_smaller_than_the_arrays():
    tree = TREES["huffman"]
    assert len(pack_tree(tree)) < (tree.parent.nbytes + tree.leaf_class.nbytes + tree.projection_dim.nbytes) / 4


@pytest.mark.parametrize("cut", [0, 5, 12, 40, -1])
def test_what_is_not_whole_is_refused(cut):
    with pytest.raises(TreeError, match="must be whole"):
        unpack_tree(pack_tree(TREES["huffman"])[:cut])


def test_nor_what_says_another_size():
    packed = bytearray(pack_tree(TREES["flat"]))
    packed[0] += 1
    with pytest.raises(TreeError, match="bytes in place of"):
        unpack_tree(bytes(packed))
