"""Saved layers: round trips bit by bit, files that do not belong together, damage and malice."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from treesearch import Tree
from treesearch.errors import DataError, TreeSearchError
from treesearch.softmax.pretrained import SavedLayer, load_layer, save_layer

FILES = ("tree.json", "model.safetensors", "config.json")
CONFIG: dict[str, Any] = {
    "in_features": 4,
    "bias": True,
    "sparse": False,
    "note": "Ärger 猫",
    "nested": {"a": [1, 2.5]},
}


def a_tree(last: int = 3) -> Tree:
    names = [f"class {i}\n" for i in range(last)] + ["猫"]
    return Tree.from_nested([0, list(range(1, last + 1))], class_names=names, metadata={"builder": "hand"})


def some_tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4)))
    values[0, :3] = torch.tensor([torch.nan, -0.0, torch.inf])
    return {
        "weights.0": values.to(dtype),
        "biases.0": torch.arange(5).to(dtype),
        "weights.1": torch.empty(0, 2, dtype=dtype),
    }


def saved(tmp_path: Path, **changes: Any) -> Path:
    folder = tmp_path / "layer"
    save_layer(folder, **{"tree": a_tree(), "tensors": some_tensors(), "config": CONFIG} | changes)
    return folder


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape)
        assert bits(tensor) == bits(other[name])


def refusal(folder: Path) -> str:
    """The one line that loading answers."""
    with pytest.raises(TreeSearchError) as caught:
        load_layer(folder)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16], ids=str)
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    tree, tensors = a_tree(), some_tensors(dtype)
    found = load_layer(saved(tmp_path, tree=tree, tensors=tensors))
    assert isinstance(found, SavedLayer)
    assert found.tree == tree
    assert (found.tree.class_names, found.tree.metadata) == (tree.class_names, tree.metadata)
    assert found.config == CONFIG
    assert_same_tensors(found.tensors, tensors)


def test_one_class_and_projections(tmp_path: Path) -> None:
    shape = Tree.from_nested([0, [1, 2]])
    projected = Tree.from_parents(shape.parent, shape.leaf_class, projection_dim=[0, 2])
    for tree in (Tree.from_nested(0), projected):
        found = load_layer(saved(tmp_path, tree=tree))
        assert found.tree.hash == tree.hash
        assert found.tree.class_names is None


def test_views_shared_memory_and_gradients(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    tensors = {"a": whole.T, "b": whole[1:3, ::2], "c": whole, "d": whole, "e": parameter, "f": torch.tensor(2.0)}
    found = load_layer(saved(tmp_path, tensors=tensors)).tensors
    assert_same_tensors(found, {name: tensor.detach() for name, tensor in tensors.items()})
    assert not any(tensor.requires_grad for tensor in found.values())
    assert parameter.requires_grad


def test_the_device_is_the_callers(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for device in ("meta", torch.device("meta")):
        found = load_layer(folder, device=device)
        assert {tensor.device.type for tensor in found.tensors.values()} == {"meta"}
    assert {tensor.device.type for tensor in load_layer(folder).tensors.values()} == {"cpu"}


def test_what_was_loaded_is_independent_of_the_file(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    found = load_layer(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"\xff" * os.path.getsize(folder / "model.safetensors"))
    assert_same_tensors(found.tensors, some_tensors())


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    folder = saved(tmp_path / "made" / "on" / "the way")
    other = {"weights.0": torch.ones(2, 2)}
    saved(tmp_path / "made" / "on" / "the way", tree=a_tree(5), tensors=other, config={"in_features": 2, "bias": False})
    found = load_layer(folder)
    assert found.tree == a_tree(5)
    assert found.config == {"in_features": 2, "bias": False}
    assert_same_tensors(found.tensors, other)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_what_the_files_say(tmp_path: Path) -> None:
    """Other programs read these; the format must not change unnoticed."""
    folder = saved(tmp_path)
    assert json.loads((folder / "config.json").read_text()) == {
        "format": "treesearch.softmax", "version": 1, "tree_hash": a_tree().hash, **CONFIG,
    }  # fmt: skip
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "tree_hash": a_tree().hash}
    assert Tree.load(folder / "tree.json") == a_tree()


@pytest.mark.parametrize("finished", range(3))
def test_a_crash_leaves_no_half_of_a_file(tmp_path: Path, finished: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    replace, calls = os.replace, []

    def fail(source: str, target: Path) -> None:
        calls.append(target)
        if len(calls) > finished:
            raise OSError("no space left")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            saved(tmp_path, tree=a_tree(5))
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    if finished:
        assert "must belong to the tree" in refusal(folder)
    else:
        assert load_layer(folder).tree == a_tree()


# -- what cannot be saved ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": CONFIG | {"tree_hash": "x"}}, "must not be named .* but got 'tree_hash'"),
        ({"config": CONFIG | {"format": "x", "version": 2}}, "but got 'format'"),
        ({"config": {"bias": True}}, "'in_features' must be a whole number >= 1, but got None"),
        ({"config": CONFIG | {"in_features": 0}}, "but got 0"),
        ({"config": CONFIG | {"in_features": True}}, "but got True"),
        ({"config": {"in_features": 3}}, "'bias' must be true or false, but got None"),
        ({"config": CONFIG | {"bias": 1}}, "but got 1"),
        ({"config": CONFIG | {"more": {1, 2}}}, "settings must be JSON"),
        ({"config": CONFIG | {"more": float("nan")}}, "settings must be JSON"),
        ({"config": CONFIG | {"more": "x" * (1 << 20)}}, "at most 1048576 bytes"),
        ({"tensors": {}}, "at least one tensor"),
        ({"tensors": {"a": torch.ones(2, 2).to_sparse()}}, "'a' is torch.sparse_coo"),
        ({"tensors": {"a": torch.ones(2, device="meta")}}, "'a' is without values"),
    ],
)
def test_a_layer_that_cannot_be_saved(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        saved(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "layer").write_text("")
    with pytest.raises(FileExistsError):
        saved(tmp_path)
    assert "DataError: no saved layer at" in refusal(tmp_path / "layer")


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "it must be a folder that save_pretrained wrote" in refusal(tmp_path / "missing")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_or_a_folder_in_its_place(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path)
    (folder / name).unlink()
    missing = refusal(folder)
    assert name in missing
    (folder / name).mkdir()
    assert refusal(folder) == missing
    assert missing.startswith("TreeError" if name == "tree.json" else "DataError")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_tree(tmp_path: Path, name: str) -> None:
    folder, other = saved(tmp_path / "a"), saved(tmp_path / "b", tree=a_tree(5))
    (folder / name).write_bytes((other / name).read_bytes())
    message = refusal(folder)
    assert message.startswith("TreeError: all files in")
    assert a_tree().hash in message
    assert a_tree(5).hash in message


def test_weights_that_name_no_tree(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    write_safetensors(folder, {"a": entry([1], 4)}, b"0000")
    assert "model.safetensors names None" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "but got 'other' version 1"),
        ({"format": None}, "but got None version 1"),
        ({"version": 2}, "but got 'treesearch.softmax' version 2"),
        ({"version": True}, "version True"),
        ({"version": [[1]]}, r"version [[1]]"),
        ({"in_features": "4"}, "'in_features' must be a whole number >= 1, but got '4'"),
        ({"in_features": 4.5}, "but got 4.5"),
        ({"in_features": -1}, "but got -1"),
        ({"bias": None}, "'bias' must be true or false"),
        ({"tree_hash": None}, "config.json names None"),
        ({"tree_hash": ["\ud800\n"] * 1000}, "config.json names"),
    ],
)
def test_settings_of_another_format(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert message in refusal(folder)
    assert len(refusal(folder)) < 500


@pytest.mark.parametrize("key", ["format", "version", "tree_hash", "in_features", "bias"])
def test_settings_that_lack_something(tmp_path: Path, key: str) -> None:
    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert key in refusal(folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"null", b"[]", b"3", b"\xff\xfe{", b"[" * 200_000, b"9" * 5000, b" " * ((1 << 20) + 1)]
)
def test_settings_that_are_no_settings(tmp_path: Path, text: bytes) -> None:
    folder = saved(tmp_path)
    (folder / "config.json").write_bytes(text)
    assert refusal(folder).startswith(f"DataError: {str(folder / 'config.json')!r} is not usable")


# -- damage and malice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eighths", range(8))
@pytest.mark.parametrize("name", FILES)
def test_truncated(tmp_path: Path, name: str, eighths: int) -> None:
    path = saved(tmp_path) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * eighths // 8])
    assert "not" in refusal(path.parent)
    assert name in refusal(path.parent)


@pytest.mark.parametrize("cut", [1, 7, 8, 9])
def test_truncated_by_a_little(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for data in (whole[:cut], whole[:-cut], whole + b"\0" * cut):
        path.write_bytes(data)
        assert "is not usable" in refusal(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_random_bytes(tmp_path: Path, name: str) -> None:
    path, rng = saved(tmp_path) / name, np.random.default_rng(0)
    for size in (0, 1, 8, 30, 1000):
        path.write_bytes(rng.bytes(size))
        refusal(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_one_wrong_byte_gives_a_layer_or_an_error(tmp_path: Path, name: str) -> None:
    path, rng = saved(tmp_path) / name, np.random.default_rng(0)
    whole, messages, loaded = path.read_bytes(), [], []
    for place in rng.permutation(len(whole))[:150].tolist():
        path.write_bytes(whole[:place] + bytes([int(rng.integers(256))]) + whole[place + 1 :])
        try:
            loaded.append(load_layer(path.parent).tree)
        except TreeSearchError as error:
            messages.append(str(error))
    assert all(tree == a_tree() for tree in loaded)  # names and numbers may differ, the tree may not
    assert messages
    assert not any("\n" in message for message in messages)


def entry(shape: list[int], size: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}


def write_safetensors(folder: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({}, b""),  # no tensor
        ({"__metadata__": {"tree_hash": 3}, "a": entry([1], 4)}, b"0000"),
        ({"a": entry([1], 4, "F99")}, b"0000"),
        ({"a": entry([4], 3, "F6_E2M3")}, b"000"),
        ({"a": entry([-1], 4)}, b"0000"),
        ({"a": entry([1 << 62, 4], 4)}, b"0000"),
        ({"a": entry([0, 1 << 63], 0)}, b""),
        ({"a": entry([1], 1 << 40)}, b"0000"),
        ({"a": entry([2], 8), "b": entry([1], 4)}, b"0" * 8),  # both at the same place
        ({"a\x00\n\x1b": entry([2], 4)}, b"0000"),
        (b'{"a":' * 100_000, b""),
        (b"\xff\xff", b""),
        (b'{"\\ud800": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0000"),
    ],
)
def test_hostile_weights(tmp_path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    folder = saved(tmp_path)
    write_safetensors(folder, header, data)
    assert refusal(folder).startswith(f"DataError: {str(folder / 'model.safetensors')!r} is not usable")


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_header_of_hostile_length(tmp_path: Path, length: int) -> None:
    folder = saved(tmp_path)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    assert "is not usable" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.name)], ids=["pipe", "loop"])
def test_no_ordinary_file(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    path = saved(tmp_path) / name
    path.unlink()
    make(path)
    assert name in refusal(path.parent)
