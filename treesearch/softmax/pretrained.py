"""A trained layer on disk: a folder of tree, weights and settings. Nothing in it is executed when it is read.

tree.json           the tree, see `treesearch.tree_files`
model.safetensors   the parameters by name; its metadata name the tree
config.json         format, version, the tree's hash and the settings of the layer
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from treesearch.errors import DataError, TreeError
from treesearch.tree import Tree
from treesearch.tree_files import write_atomically

FORMAT = "treesearch.softmax"
VERSION = 1
TREE_FILE = "tree.json"
TENSOR_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OWN_KEYS = ("format", "version", "tree_hash")  # of the config file; the rest belongs to the layer
MAX_CONFIG_BYTES = 1 << 20  # settings take some hundred bytes; anything near this is a mistake or an attack

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


class SavedLayer(NamedTuple):
    """What `load_layer` returns."""

    tree: Tree
    tensors: dict[str, Tensor]
    config: dict[str, Any]  # the settings that were saved; in_features (int >= 1) and bias (bool) are among them


def save_layer(folder: Path, *, tree: Tree, tensors: Mapping[str, Tensor], config: Mapping[str, JSON]) -> None:
    """Write tree, parameters and settings into ``folder``, which is made where it is missing.

    Each file is replaced whole. The settings come last: a folder without them was not finished.

    Args:
        folder: Where to; files of the same names are replaced.
        tree: The layer's.
        tensors: At least one, dense, on any device and of any type; values only, no gradients.
        config: Settings, with ``in_features`` (int >= 1) and ``bias`` (bool) among them.

    Raises:
        DataError: A setting is missing, not JSON, or named like one of this format; a tensor is not dense.
        OSError: It cannot be written.
    """
    taken = sorted(set(config) & set(OWN_KEYS))
    if taken:
        raise DataError(f"settings must not be named {', '.join(OWN_KEYS)}, but got {taken[0]!r}; rename it")
    _check_settings(config)
    _check_tensors(tensors)
    fields = {"format": FORMAT, "version": VERSION, "tree_hash": tree.hash, **config}
    try:
        text = json.dumps(fields, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"settings must be JSON, but {error}; convert them to plain numbers and strings") from None
    if len(text) > MAX_CONFIG_BYTES:
        raise DataError(f"settings must take at most {MAX_CONFIG_BYTES} bytes, but take {len(text)}; leave some out")

    folder.mkdir(parents=True, exist_ok=True)
    tree.save(folder / TREE_FILE)
    # Copies of their own: views, and tensors that share memory, are refused by the format.
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    metadata = {"format": "pt", "tree_hash": tree.hash}
    write_atomically(folder / TENSOR_FILE, lambda file: file.write(safetensors.torch.save(plain, metadata)))
    write_atomically(folder / CONFIG_FILE, lambda file: file.write(text.encode()))


def load_layer(
    folder: Path, *, device: torch.device | str | None = None, layer: str = "HierarchicalSoftmax"
) -> SavedLayer:
    """Read what `save_layer` wrote; bit for bit the same tensors.

    Args:
        folder: Written by `save_layer`.
        device: Of the tensors; None: the CPU.
        layer: Class that the settings must name as ``layer``; where they name none, it is `HierarchicalSoftmax`.

    Raises:
        TreeError: The tree is missing or damaged, or the three files are not of one tree.
        DataError: The folder, the weights or the settings are missing or damaged, or of another format or class.
    """
    if not folder.is_dir():
        raise DataError(f"no saved layer at {str(folder)!r}: it must be a folder that save_pretrained wrote")
    config = _read_config(folder / CONFIG_FILE)
    saved_class = config.get("layer", "HierarchicalSoftmax")
    if saved_class != layer:
        raise DataError(
            f"the layer in {str(folder)!r} must be a {layer}, but is a {saved_class!r:.60}; load it with its class"
        )
    tree = Tree.load(folder / TREE_FILE)
    tensors, tensor_hash = _read_tensors(folder / TENSOR_FILE, device)
    for name, theirs in ((CONFIG_FILE, config["tree_hash"]), (TENSOR_FILE, tensor_hash)):
        if theirs != tree.hash:
            raise TreeError(
                f"all files in {str(folder)!r} must belong to the tree in {TREE_FILE}, {tree.hash}, but {name} names"
                f" {theirs!r:.50}; save the layer again"
            )
    return SavedLayer(tree, tensors, {key: value for key, value in config.items() if key not in OWN_KEYS})


def _read_config(path: Path) -> dict[str, Any]:
    _check_is_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise DataError(f"it must have at most {MAX_CONFIG_BYTES} bytes")
        config = json.loads(data)
        if not isinstance(config, dict):
            raise DataError(f"the top level must be an object, but is {type(config).__name__}")
        found = config.get("format"), config.get("version")
        # bool is an int to Python, not to the format
        if found != (FORMAT, VERSION) or isinstance(found[1], bool):
            raise DataError(
                f"format must be {FORMAT!r} version {VERSION}, but got {found[0]!r:.40} version {found[1]!r:.40}"
            )
        if "tree_hash" not in config:
            raise DataError("'tree_hash' must be given")
        _check_settings(config)
    except (OSError, ValueError, RecursionError, MemoryError, DataError) as error:
        raise _unusable(path, error) from None
    return config


def _read_tensors(path: Path, device: torch.device | str | None) -> tuple[dict[str, Tensor], str | None]:
    """The tensors by name, and the hash of the tree that the file names."""
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tree_hash = (file.metadata() or {}).get("tree_hash")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
        _check_tensors(tensors)
    except Exception as error:  # the parser's own, and whatever torch makes of sizes that it lets through
        raise _unusable(path, error) from None
    # What was read is a view of the file, and would change with it.
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}, tree_hash


def _check_settings(config: Mapping[str, Any]) -> None:
    in_features, bias = config.get("in_features"), config.get("bias")
    if not isinstance(in_features, int) or isinstance(in_features, bool) or in_features < 1:
        raise DataError(f"'in_features' must be a whole number >= 1, but got {in_features!r:.40}")
    if not isinstance(bias, bool):
        raise DataError(f"'bias' must be true or false, but got {bias!r:.40}")


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise DataError("a layer must have at least one tensor, but there is none; pass its state_dict()")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "without values" if tensor.is_meta else str(tensor.layout)
            raise DataError(f"tensors must be dense, but {name!r} is {kind}; give it values, or use to_dense()")


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"no file {path.name} in {str(path.parent)!r}; save the layer again")


def _unusable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{str(path)!r} is not usable (truncated or not written by save_pretrained): {reason:.160}; save it again"
    )
