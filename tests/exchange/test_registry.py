"""What holds for every format of the registry."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.exchange.samples import HOSTILE, chain, projected, projected_binary
from tests.nested import nested_trees, random_nested
from treesearch import Tree
from treesearch.errors import ConfigError, TreeError
from treesearch.exchange import FORMATS, Format, export_tree, import_tree
from treesearch.exchange.binarize import binarize

READABLE = [name for name, format in FORMATS.items() if format.read]
HOLDING_PROJECTIONS = [name for name in READABLE if FORMATS[name].projections]
# These know a class by its id, so that a tree comes back the same without its names; the others go by labels.
WITH_IDS = {"json", "npz", "networkx", "nbdt", "pecos", "napkinxc", "codes"}
NAMELESS = {"pecos", "napkinxc"}


def shape_for(format, nested):
    """Of a random tree, what the format can hold."""
    tree = Tree.from_nested(nested)
    wide = tree.num_internal and tree.arities.max() > 2
    return chain(tree.num_classes) if wide and not FORMATS[format].wide else tree


def exported(tree, tmp_path_factory, format, **options):
    path = tmp_path_factory.mktemp(format) / "tree"
    export_tree(tree, path, format=format, **options)
    return path


@pytest.mark.parametrize("format", READABLE)
@settings(max_examples=60, deadline=None)
@given(nested=nested_trees())
def test_a_tree_comes_back(tmp_path_factory, format, nested):
    tree = shape_for(format, nested)
    again = import_tree(exported(tree, tmp_path_factory, format), format=format)
    assert again == tree
    assert again.class_names is None


@pytest.mark.slow
@pytest.mark.parametrize("format", READABLE)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), nested=nested_trees(max_leaves=12))
def test_names_come_back_or_are_refused(tmp_path_factory, format, data, nested):
    tree = shape_for(format, nested)
    some = st.sampled_from(HOSTILE) | st.text(max_size=5)
    C = tree.num_classes
    tree = tree.annotate(class_names=data.draw(st.lists(some, min_size=C, max_size=C, unique=True)))
    try:
        path = exported(tree, tmp_path_factory, format)
    except TreeError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert "name" in refusal
        assert len(refusal.splitlines()) == 1
        return
    again = import_tree(path, format=format, class_names=tree.class_names)
    assert (again, again.class_names) == (tree, tree.class_names)
    alone = import_tree(path, format=format)
    if format in NAMELESS:
        assert (alone, alone.class_names) == (tree, None)
    elif format in WITH_IDS:
        assert (alone, alone.class_names) == (tree, tree.class_names)
    elif alone.class_names is not None:
        assert sorted(alone.class_names) == sorted(tree.class_names)
        order = {name: cls for cls, name in enumerate(alone.class_names)}
        depths = alone.depths[[order[name] for name in tree.class_names]]
        assert depths.tolist() == tree.depths.tolist()


@pytest.mark.parametrize("format", READABLE)
@pytest.mark.parametrize("nested", [0, [0, 1], [1, [2, 0]], list(range(300))])
def test_small_and_flat_trees(tmp_path_factory, format, nested):
    tree = shape_for(format, nested)
    assert import_tree(exported(tree, tmp_path_factory, format), format=format) == tree


@pytest.mark.parametrize("format", READABLE)
def test_random_trees_of_hundreds_of_classes(tmp_path_factory, format):
    for seed in range(3):
        tree = shape_for(format, random_nested(np.random.default_rng(seed), 500))
        assert import_tree(exported(tree, tmp_path_factory, format), format=format) == tree


@pytest.mark.parametrize("format", FORMATS)
def test_a_deep_chain(tmp_path_factory, format):
    tree = chain(3_000 if format == "codes" else 10_000)  # codes have an entry for each decision: millions
    if format == "pecos":
        with pytest.raises(TreeError, match=r"repeats every class .* 50004999 entries .* at most"):
            exported(tree, tmp_path_factory, format)
        tree = chain(300)
    path = exported(tree, tmp_path_factory, format)
    if format in READABLE:
        assert import_tree(path, format=format) == tree


@pytest.mark.parametrize("format", READABLE)
def test_tree_load_reads_the_format(tmp_path_factory, format):
    tree = Tree.from_nested([0, [1, 2]])
    assert Tree.load(exported(tree, tmp_path_factory, format), format=format) == tree


@pytest.mark.parametrize("format", FORMATS)
def test_projections_are_kept_or_refused(tmp_path, tmp_path_factory, format):
    tree = projected() if FORMATS[format].wide else projected_binary()
    if format in HOLDING_PROJECTIONS:
        assert import_tree(exported(tree, tmp_path_factory, format), format=format) == tree
    elif not FORMATS[format].projections:
        with pytest.raises(TreeError, match=r"no place for projections, but 1 nodes.* --drop-projections"):
            export_tree(tree, tmp_path / "x", format=format)
        assert list(tmp_path.iterdir()) == []
    bare = exported(tree, tmp_path_factory, format, drop_projections=True)
    if format in READABLE:
        again = import_tree(bare, format=format, class_names=tree.class_names)
        assert again == tree.without_projections() != tree
        assert again.class_names == tree.class_names


@pytest.mark.parametrize("format", sorted({"nested", "newick"} & set(READABLE)))
def test_two_classes_of_one_name_are_refused(tmp_path, format):
    tree = Tree.from_nested([0, [1, 2]], class_names=["a", "b", "a"])
    with pytest.raises(TreeError, match="label of its own, but 'a' stands twice"):
        export_tree(tree, tmp_path / "x", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", sorted(WITH_IDS - NAMELESS))
def test_two_classes_of_one_name_are_kept_where_ids_tell_them_apart(tmp_path_factory, format):
    tree = Tree.from_nested([0, [1, 2]], class_names=["a", "b", "a"])
    again = import_tree(exported(tree, tmp_path_factory, format), format=format)
    assert (again, again.class_names) == (tree, tree.class_names)


@pytest.mark.slow
def test_a_binary_format_refuses_wide_nodes(tmp_path, monkeypatch):
    written = []
    narrow = Format("narrow", "for this test", lambda tree, path: written.append(tree), wide=False)
    monkeypatch.setitem(FORMATS, "narrow", narrow)
    with pytest.raises(TreeError, match=r"binary trees alone, but a node has 3 children; .* --binarize"):
        export_tree(Tree.from_nested([0, 1, 2]), tmp_path / "x", format="narrow")
    binary = binarize(Tree.from_nested([0, 1, 2]))
    export_tree(Tree.from_nested([0, 1, 2]), tmp_path / "x", format="narrow", binarize=True)
    export_tree(Tree.from_nested([0, 1]), tmp_path / "x", format="narrow")
    export_tree(Tree.from_nested(0), tmp_path / "x", format="narrow")
    assert written == [binary, Tree.from_nested([0, 1]), Tree.from_nested(0)]


@pytest.mark.parametrize("format", READABLE)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"(" * 100_000, b"{}", b"null", b"\x00" * 9])
def test_nonsense_is_one_line(tmp_path, format, content):
    path = tmp_path / "tree"
    if FORMATS[format].folder:
        path.mkdir()
        (path / "config.json").write_bytes(content)
    else:
        path.write_bytes(content)
    with pytest.raises(TreeError, match="is not a usable") as caught:
        import_tree(path, format=format)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("format", READABLE)
def test_truncated_files_are_refused_or_the_same(tmp_path_factory, format):
    tree = Tree.from_nested(shape_for(format, [[0, 3], [2, [1, 4]]]).to_nested(), class_names=list("abcde"))
    path = exported(tree, tmp_path_factory, format)
    file = path / "C1.npz" if FORMATS[format].folder else path
    data = file.read_bytes()
    for size in range(0, len(data) - 1, max(1, len(data) // 200)):
        file.write_bytes(data[:size])
        try:
            same = import_tree(path, format=format, class_names=tree.class_names) == tree
        except TreeError as error:
            same = "\n" not in str(error)
        assert same, f"{size} of {len(data)} bytes give another tree"


@pytest.mark.parametrize("format", READABLE)
def test_nothing_there(tmp_path, format):
    with pytest.raises(TreeError, match=r"^no .* at "):
        import_tree(tmp_path / "none", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, format):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    monkeypatch.setattr("treesearch.exchange.files.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        export_tree(Tree.from_nested([0, [1, 2]]), tmp_path / "x", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.folder])
def test_a_folder_is_new_or_empty(tmp_path, format):
    path = tmp_path / "tree"
    path.mkdir()
    export_tree(Tree.from_nested([0, 1]), path, format=format)
    before = sorted(path.iterdir())
    with pytest.raises(ConfigError, match="must be new or empty"):
        export_tree(Tree.from_nested([0, 1]), path, format=format)
    assert sorted(path.iterdir()) == before
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ConfigError, match="must be new or empty"):
        export_tree(Tree.from_nested([0, 1]), file, format=format)
    assert file.read_text() == "kept"


@pytest.mark.parametrize("format", ["json", "npz"])
def test_metadata_comes_back_in_own_formats(tmp_path, format):
    tree = Tree.from_nested([[0, 1], 2], class_names=["a", "b", "c"], metadata={"x": 1})
    export_tree(tree, tmp_path / "tree.txt", format=format)  # the format decides, not the suffix
    again = import_tree(tmp_path / "tree.txt", format=format)
    assert (again, again.class_names, again.metadata) == (tree, tree.class_names, tree.metadata)


@pytest.mark.parametrize(("format", "says"), [("jsn", "did you mean 'json'?"), ("", f"known: {', '.join(FORMATS)}")])
def test_an_unknown_format(tmp_path, format, says):
    for call in (
        lambda: export_tree(Tree.from_nested([0, 1]), tmp_path / "x", format=format),
        lambda: import_tree(tmp_path / "x", format=format),
    ):
        with pytest.raises(ConfigError, match="unknown format") as caught:
            call()
        assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_formats_that_are_not_read(tmp_path):
    with pytest.raises(ConfigError, match="'dot' is written only; readable are json, npz"):
        import_tree(tmp_path / "x", format="dot")
    with pytest.raises(ConfigError, match=r"pickle .*to_softmax_node"):
        import_tree(tmp_path / "x", format="hierarchicalsoftmax")


@pytest.mark.parametrize("format", sorted({"networkx", "nbdt"}))
def test_json_in_ascii_holds_any_name(tmp_path, format):
    tree = Tree.from_nested([0, 1], class_names=["\ud800", "漢"])
    export_tree(tree, tmp_path / "x", format=format)
    assert json.loads((tmp_path / "x").read_bytes().decode("ascii"))
    assert import_tree(tmp_path / "x", format=format).class_names == tree.class_names


def test_wide_nodes_are_merged_by_counts(tmp_path):
    tree, counts = Tree.from_nested([0, 1, 2, 3]), [8, 4, 2, 2]
    export_tree(tree, tmp_path / "x", format="codes", binarize=True, counts=counts)
    assert import_tree(tmp_path / "x", format="codes") == Tree.from_nested([0, [1, [2, 3]]])
    export_tree(tree, tmp_path / "x", format="codes", binarize=True)
    assert import_tree(tmp_path / "x", format="codes").depths.tolist() == [2, 2, 2, 2]
