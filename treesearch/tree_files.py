"""Trees on disk: JSON to read and exchange, npz for size. Both carry a versioned schema; neither executes anything."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from treesearch.errors import TreeError
from treesearch.tree import Tree

FORMAT = "treesearch.tree"
VERSION = 1
# A tree of 100 million classes takes about 1 GB; anything larger is a mistake or an attack.
MAX_BYTES = 4 << 30


def save_tree(tree: Tree, path: Path) -> None:
    """Write ``tree``; see `Tree.save`."""
    writers: dict[str, Callable[[Tree, Path], None]] = {".json": write_json, ".npz": write_npz}
    writer = writers.get(path.suffix)
    if writer is None:
        raise TreeError(f"a tree file must end in .json or .npz, but got {path.name!r}")
    writer(tree, path)


def write_json(tree: Tree, path: Path) -> None:
    """Write JSON, whatever the suffix."""
    write_atomically(path, lambda file: _write_json(tree, file))


def write_npz(tree: Tree, path: Path) -> None:
    """Write npz, whatever the suffix."""
    write_atomically(path, lambda file: _write_npz(tree, file))


def load_tree(path: Path) -> Tree:
    """Read a tree; see `Tree.load`."""
    readers: dict[str, Callable[[Path], Tree]] = {".json": read_json, ".npz": read_npz}
    reader = readers.get(path.suffix)
    if reader is None:
        raise TreeError(f"a tree file must end in .json or .npz, but got {path.name!r}")
    return reader(path)


def read_json(path: Path) -> Tree:
    """Read what `write_json` wrote, whatever the suffix."""
    with reading(path, "tree file"):
        return _from_fields(json_object(path))


def read_npz(path: Path) -> Tree:
    """Read what `write_npz` wrote, whatever the suffix."""
    with reading(path, "tree file"):
        return _from_fields(_npz_fields(path))


@contextmanager
def reading(path: Path, kind: str, *, folder: bool = False) -> Iterator[None]:
    """Turn whatever is wrong with a file or a folder into one line that names it.

    Args:
        path: What is read inside the context.
        kind: What it ought to be, such as ``tree file``.
        folder: Whether a folder is read.

    Raises:
        TreeError: There is nothing at ``path``, or it could not be read.
    """
    if not (path.is_dir() if folder else path.is_file()):
        raise TreeError(f"no {kind} at {path}; write one with 'treesearch export' or 'treesearch build'")
    try:
        yield
    except TreeError as error:
        raise TreeError(f"{path} is not a usable {kind}: {error}") from None
    # RuntimeError: encrypted zip members and, as subclasses, unknown compression and JSON that is nested too deep.
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TreeError(f"{path} is not a usable {kind} (truncated, or of another format): {reason:.160}") from None


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside ``path`` and move it there, so that a reader or a crash never sees half of it.

    Raises:
        OSError: It cannot be; where ``path`` is a folder, before anything is written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def current_umask() -> int:
    """The permission bits that new files of this process go without."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _header(tree: Tree) -> dict[str, Any]:
    node_names = {} if tree.node_names is None else {"node_names": list(tree.node_names)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "hash": tree.hash,
        "num_classes": tree.num_classes,
        "class_names": None if tree.class_names is None else list(tree.class_names),
        **node_names,
        "metadata": dict(tree.metadata),
    }


def _write_json(tree: Tree, file: BinaryIO) -> None:
    fields = _header(tree) | {
        "parent": tree.parent.tolist(),
        "leaf_class": tree.leaf_class.tolist(),
        "projection_dim": tree.projection_dim.tolist(),
    }
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in fields.items())
    file.write(f"{{\n{lines}\n}}\n".encode())


def json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; call it inside `reading`."""
    fields = json.loads(limited_bytes(path))
    if not isinstance(fields, dict):
        raise TreeError("the top level must be an object")
    return fields


def limited_bytes(path: Path) -> bytes:
    """The whole of a file that has at most `MAX_BYTES`; call it inside `reading`."""
    if path.stat().st_size > MAX_BYTES:
        raise TreeError(f"a tree file must be at most {MAX_BYTES} bytes, but it has {path.stat().st_size}")
    return path.read_bytes()


def _write_npz(tree: Tree, file: BinaryIO) -> None:
    header = np.frombuffer(json.dumps(_header(tree), sort_keys=True).encode(), np.uint8)
    np.savez(file, header=header, parent=tree.parent, leaf_class=tree.leaf_class, projection_dim=tree.projection_dim)


def check_unpacked_size(path: Path) -> None:
    """Refuse an npz file that unpacks to more than `MAX_BYTES`; call it inside `reading`."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise TreeError(f"a tree must unpack to at most {MAX_BYTES} bytes, but it declares {size}")


def _npz_fields(path: Path) -> dict[str, Any]:
    check_unpacked_size(path)
    with np.load(path, allow_pickle=False) as arrays:
        header = np.asarray(arrays["header"])  # a member that is no array comes back as bytes
        if header.dtype != np.uint8:
            raise TreeError("the header must be bytes")
        fields = json.loads(header.tobytes())
        if not isinstance(fields, dict):
            raise TreeError("the header must be an object")
        return fields | {key: arrays[key] for key in ("parent", "leaf_class", "projection_dim")}


def _from_fields(fields: dict[str, Any]) -> Tree:
    if fields.get("format") != FORMAT or fields.get("version") != VERSION:
        raise TreeError(
            f"format must be {FORMAT!r} version {VERSION}, but got {fields.get('format')!r:.40}"
            f" version {fields.get('version')!r:.40}"
        )
    names = {key: fields.get(key) for key in ("class_names", "node_names")}
    for key, own in names.items():
        if own is not None and not (isinstance(own, list) and all(isinstance(name, str) for name in own)):
            raise TreeError(f"{key} must be null or a list of strings")
    metadata = fields.get("metadata", {})
    if not isinstance(metadata, dict):
        raise TreeError("metadata must be an object")
    tree = Tree.from_parents(
        fields["parent"],
        fields["leaf_class"],
        projection_dim=fields["projection_dim"],
        class_names=names["class_names"],
        node_names=names["node_names"],
        metadata=metadata,
    )
    if fields.get("hash") not in (None, tree.hash):
        raise TreeError(
            f"the content hash must be {fields['hash']!r:.50}, but the arrays give {tree.hash!r}; the file was changed"
        )
    return tree
