"""Trees on disk: round trips, golden files, damage and malice."""

import io
import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests import nested as naive
from treesearch import Tree
from treesearch.errors import TreeError
from treesearch.tree_files import write_atomically

SUFFIXES = (".tree.json", ".npz")
GOLDEN = Path(__file__).parent / "golden"


def full_tree() -> Tree:
    """Names beyond ASCII, metadata of every JSON type, projections."""
    shape = Tree.from_nested([0, [1, [2, 3, 4]], [5, 6]])
    return Tree.from_parents(
        shape.parent,
        shape.leaf_class,
        projection_dim=[0, 8, 4, 2],
        class_names=["the", "Ärger", "猫", "", 'a "b"\n', "\x00", "<eos>"],
        metadata={"builder": "hand", "seed": 3, "options": {"q": 0.5, "cutoffs": [1, 2]}, "ok": True, "none": None},
    )


def saved(tmp_path: Path, suffix: str, tree: Tree | None = None) -> Path:
    path = tmp_path / f"tree{suffix}"
    (tree or full_tree()).save(path)
    return path


def assert_unusable(path: Path, message: str = "not a usable tree file") -> None:
    with pytest.raises(TreeError, match=message) as caught:
        Tree.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_keeps_everything(tmp_path: Path, suffix: str) -> None:
    tree = full_tree()
    again = Tree.load(saved(tmp_path, suffix))
    assert again == tree
    assert again.class_names == tree.class_names
    assert again.metadata == tree.metadata
    np.testing.assert_array_equal(again.projection_dim, tree.projection_dim)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_one_class_a_chain_and_a_random_tree(tmp_path: Path, suffix: str) -> None:
    chain: naive.Naive = 0
    for cls in range(1, 5000):
        chain = [cls, chain]
    for nested in (0, chain, naive.random_nested(np.random.default_rng(0), 500)):
        tree = Tree.from_nested(nested)
        again = Tree.load(saved(tmp_path, suffix, tree))
        assert again.hash == tree.hash
        assert (again.class_names, again.metadata) == (None, {})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = saved(tmp_path, suffix).read_bytes()
    assert saved(tmp_path, suffix, Tree.load(tmp_path / f"tree{suffix}")).read_bytes() == first


# -- golden files: the format must not change unnoticed ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depths", "projections", "digest"),
    [
        ("single", [0], [], "2a47b1368407246737496c8da0b5c71b"),
        ("huffman", [1, 2, 3, 4, 4], [0, 0, 0, 0], "e8d3437430b603df3255635868e4a3f6"),
        ("adaptive", [1, 1, 2, 2, 2, 2, 2], [0, 4, 1], "a6f1c0bf3d7bc71baeed1bf19a5d7613"),
    ],
)
def test_golden(tmp_path: Path, name: str, depths: list[int], projections: list[int], digest: str) -> None:
    golden = GOLDEN / f"{name}.tree.json"
    tree = Tree.load(golden)
    assert tree.depths.tolist() == depths
    assert tree.projection_dim.tolist() == projections
    assert tree.hash == digest == json.loads(golden.read_text())["hash"]
    assert saved(tmp_path, ".tree.json", tree).read_bytes() == golden.read_bytes()


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenths", range(10))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(tmp_path: Path, suffix: str, tenths: int) -> None:
    path = saved(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * tenths // 10])
    assert_unusable(path)


@pytest.mark.parametrize("kind", ["json", "stored", "compressed"])
def test_one_wrong_byte_gives_the_same_tree_or_an_error(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, ".tree.json" if kind == "json" else ".npz")
    if kind == "compressed":
        with np.load(path) as arrays:
            members = dict(arrays)
        np.savez_compressed(path, **members)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for position in rng.permutation(len(data))[:400]:
        flipped = bytearray(data)
        flipped[position] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            same = Tree.load(path) == full_tree()  # a name, a time stamp
        except TreeError as error:
            refused += 1
            same = "\n" not in str(error)
        assert same
    assert refused > 100


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, suffix)
    before = path.read_bytes()

    def fail(file: BinaryIO) -> None:
        file.write(b"half a tree")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    with pytest.raises(TypeError, match="not JSON serializable"):
        full_tree().annotate(metadata={"not JSON": object()}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        pytest.fail("it was written to")

    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        mode = saved(tmp_path, ".npz").stat().st_mode
    finally:
        os.umask(before)
    assert stat.S_IMODE(mode) == 0o640


@pytest.mark.parametrize("name", ["tree", "tree.txt", "tree.pkl", "tree.npy"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(TreeError, match=rf"must end in \.json or \.npz, but got '{name}'"):
        full_tree().save(path)
    path.write_bytes(b"")
    with pytest.raises(TreeError, match=rf"must end in \.json or \.npz, but got '{name}'"):
        Tree.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file(tmp_path: Path, suffix: str) -> None:
    assert_unusable(tmp_path / f"absent{suffix}", "no tree file at .* write one with")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert_unusable(folder, "no tree file at")


# -- malice: JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format must be 'treesearch.tree' version 1, but got 'other'"),
        ({"version": 2}, "version 1, but got 'treesearch.tree' version 2"),
        ({"version": "9" * 500}, "version 1, but got"),
        ({"version": None}, "version None"),
        ({"hash": "0" * 32}, "content hash must be '0000.* the file was changed"),
        ({"hash": 7}, "content hash must be 7"),
        ({"leaf_class": [0, 5, 6, 1, 4, 3, 2][::-1]}, "content hash"),
        ({"projection_dim": [0, 8, 4, 3]}, "content hash"),
        ({"parent": "abc"}, "parent must be a flat array of integers"),
        ({"parent": {"0": 1}}, "parent must be a flat array of integers"),
        ({"parent": None}, "parent must be a flat array of integers"),
        ({"parent": [-1, 2**62, 0]}, "parent must fit 32 bits"),
        ({"parent": [-1, 2**63, 0]}, "parent must"),
        ({"parent": [-1, 10**400, 0]}, "parent must be a flat array of integers"),
        ({"leaf_class": [0.5] * 7}, "leaf_class must be a flat array of integers"),
        ({"leaf_class": [float("nan")] * 7}, "leaf_class must be a flat array of integers"),
        ({"leaf_class": [float("inf")] * 7}, "leaf_class must be a flat array of integers"),
        ({"leaf_class": [True] * 7}, "leaf_class must be a flat array of integers"),
        ({"leaf_class": []}, "at least one leaf"),
        ({"projection_dim": [[[[1]]]]}, "projection_dim must be a flat array of integers"),
        ({"projection_dim": [-4, 0, 0, 0]}, "projection_dim must be >= 0"),
        ({"class_names": "abcdefg"}, "class_names must be null or a list of strings"),
        ({"class_names": [1, 2, 3, 4, 5, 6, 7]}, "class_names must be null or a list of strings"),
        ({"class_names": ["a"]}, "got 1 names for 7 classes"),
        ({"metadata": [1]}, "metadata must be an object"),
        ({"metadata": None}, "metadata must be an object"),
    ],
)
def test_json_with_a_wrong_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, ".tree.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert_unusable(path, message)


@pytest.mark.parametrize("key", ["format", "version", "parent", "leaf_class", "projection_dim"])
def test_json_with_a_missing_field(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path, ".tree.json")
    fields = json.loads(path.read_text())
    del fields[key]
    path.write_text(json.dumps(fields))
    assert_unusable(path, key)


@pytest.mark.parametrize("digest", [{}, {"hash": None}])
def test_a_file_written_by_hand_may_leave_the_hash_out(tmp_path: Path, digest: dict[str, None]) -> None:
    path = tmp_path / "hand.tree.json"
    arrays = {"parent": [-1, 0, 0, 1, 1], "leaf_class": [2, 1, 0], "projection_dim": [0, 4]}
    path.write_text(json.dumps({"format": "treesearch.tree", "version": 1} | arrays | digest))
    assert Tree.load(path).to_nested() == [[0, 1], 2]


@pytest.mark.parametrize(
    "text",
    [
        b"[1, 2]",
        b"null",
        b"NaN",
        b'"treesearch.tree"',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"parent": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"format": "treesearch.tree", "version": 1, "parent": ' + b"[" * 80 + b"]" * 80 + b"}",
        b'{"version": ' + b"9" * 100_000 + b"}",
        b"\x80\x04." + pickle.dumps([0, 1]),
    ],
    ids=lambda text: text[:12].decode("latin1"),
)
def test_json_that_is_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.tree.json"
    path.write_bytes(text)
    assert_unusable(path)


# -- malice: npz -------------------------------------------------------------------------------------------------------


class _Bomb:
    """Unpickling it creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def npz_members(tmp_path: Path) -> dict[str, Any]:
    with np.load(saved(tmp_path, ".npz")) as arrays:
        return dict(arrays)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("member", ["header", "parent", "leaf_class", "projection_dim"])
def test_npz_never_unpickles(tmp_path: Path, member: str) -> None:
    marker = tmp_path / "executed"
    array = np.empty(1, object)
    array[0] = _Bomb(marker)
    members = npz_members(tmp_path) | {member: array}
    path = tmp_path / "bad.npz"
    np.savez(path, **members)
    assert_unusable(path, "pickle")
    assert not marker.exists()


@pytest.mark.parametrize("member", ["header", "parent", "leaf_class", "projection_dim"])
def test_npz_with_a_missing_or_foreign_member(tmp_path: Path, member: str) -> None:
    members = npz_members(tmp_path)
    path = tmp_path / "bad.npz"
    np.savez(path, **{key: value for key, value in members.items() if key != member})
    assert_unusable(path, member)
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in members.items():
            archive.writestr(f"{key}.npy", b"no array at all" if key == member else npy(value))
    assert_unusable(path)
    with zipfile.ZipFile(path, "w") as archive:  # four terabytes declared, none given
        for key, value in members.items():
            whole = npy(value)
            shape = str(value.shape).encode()
            huge = whole.replace(shape, b"(1099511627776,)").replace(b" " * (16 - len(shape)) + b"\n", b"\n")
            archive.writestr(f"{key}.npy", huge if key == member else whole)
    assert_unusable(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": np.zeros(3)}, "header must be bytes"),
        ({"header": np.frombuffer(b"[1]", np.uint8)}, "header must be an object"),
        ({"header": np.frombuffer(b"{", np.uint8)}, "of another format"),
        ({"header": np.frombuffer(b"[" * 200_000, np.uint8)}, "of another format"),
        ({"parent": np.zeros((2, 5), np.int32)}, "parent must be a flat array"),
        ({"parent": np.full(11, np.nan)}, "parent must be a flat array of integers, but got float64"),
        ({"parent": np.full(11, 2**60)}, "parent must fit 32 bits"),
        ({"leaf_class": np.array(["a"] * 7)}, "leaf_class must be a flat array"),
        ({"leaf_class": np.zeros(7, "i4,i4")}, "leaf_class must be a flat array"),
        ({"leaf_class": np.int32(0)}, "leaf_class must be a flat array"),
        ({"projection_dim": np.array([0, 8, 4, 3])}, "content hash"),
    ],
)
def test_npz_with_a_wrong_member(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **(npz_members(tmp_path) | changes))
    assert_unusable(path, message)


def test_npz_that_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    for data in (b"", b"PK\x03\x04", b"no zip at all", pickle.dumps([0, 1]), npy(np.arange(3))):
        path.write_bytes(data)
        assert_unusable(path)


def test_npz_that_declares_a_huge_size(tmp_path: Path) -> None:
    path = saved(tmp_path, ".npz")
    data = bytearray(path.read_bytes())
    position = data.find(b"PK\x01\x02")  # the entries of the central directory; the unpacked size stands at byte 24
    while position >= 0:
        data[position + 24 : position + 28] = struct.pack("<I", 0xFFFFFFF0)
        position = data.find(b"PK\x01\x02", position + 1)
    path.write_bytes(data)
    assert_unusable(path, "must unpack to at most 4294967296 bytes, but it declares 17179869120")


def test_npz_with_encrypted_members(tmp_path: Path) -> None:
    path = saved(tmp_path, ".npz")
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        position = data.find(magic)
        while position >= 0:
            data[position + flags] |= 1
            position = data.find(magic, position + 1)
    path.write_bytes(data)
    assert_unusable(path)
