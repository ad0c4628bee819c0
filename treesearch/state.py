"""A state, such as an agent's, as bytes: an npz archive of arrays and a JSON header. No pickle, nothing is executed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from treesearch.errors import RunError

FORMAT = "treesearch.state/1"
HEADER = "header"
# States are small; a larger archive is a mistake or an attack.
MAX_BYTES = 1 << 30


def pack_state(state: Mapping[str, Any]) -> bytes:
    """The bytes of a state; the same state gives the same bytes.

    Args:
        state: Dictionaries, lists and tuples of None, bool, int (of any size), float, str, NumPy arrays and torch
            tensors. A NumPy generator goes in as ``bit_generator.state``, a torch generator as ``get_state()``.

    Raises:
        TypeError: Anything else is in it.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    header = json.dumps({"format": FORMAT, "state": _encode(dict(state), arrays)})
    arrays[HEADER] = np.frombuffer(header.encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_state(packed: bytes) -> dict[str, Any]:
    """The state that `pack_state` packed.

    Raises:
        RunError: Truncated, too large, or not written by `pack_state`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"it would take {size} bytes")
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays[HEADER].tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r:.40}")
        state = _decode(header["state"], arrays)
        if not isinstance(state, dict):
            raise ValueError("it holds no dictionary")
        return state
    except Exception as error:  # Bytes from outside can make every layer below fail in its own way.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"a packed state must be an archive of format {FORMAT!r}, but this one cannot be read ({reason:.160});"
            " resume from an intact run folder"
        ) from None


def _encode(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """JSON for ``value``: containers become tagged lists, arrays move to ``arrays``."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return ["dict", [[_encode(key, arrays), _encode(item, arrays)] for key, item in value.items()]]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [_encode(item, arrays) for item in value]]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        key = f"array{len(arrays)}"
        arrays[key] = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        return ["tensor" if isinstance(value, torch.Tensor) else "array", key]
    raise TypeError(f"a state cannot hold a {type(value).__name__}: {value!r:.80}")


def _decode(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(value, list):
        return value
    tag, content = value
    if tag == "dict":
        return {_decode(key, arrays): _decode(item, arrays) for key, item in content}
    if tag in ("list", "tuple"):
        items = [_decode(item, arrays) for item in content]
        return tuple(items) if tag == "tuple" else items
    if tag == "array":
        return arrays[content]
    if tag == "tensor":
        return torch.from_numpy(arrays[content])
    raise ValueError(f"it holds a {tag!r:.40}")
