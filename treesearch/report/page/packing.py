"""Arrays as short JSON values, which ``assets/viewer/arrays.js`` unpacks: base64 of little-endian numbers."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")  # those that JavaScript has typed arrays of
FLOAT = "f4"


def pack(values: ArrayLike) -> dict[str, Any]:
    """A flat array in the fewest bytes: the smallest type of integers that holds it, else float32.

    Where few values occur, a table of them and the place of each in it. Infinity is kept; it is inside the base64.

    Returns:
        ``{"type", "data"}``, and ``"table"``, packed itself, where ``data`` are places in it.
    """
    array = np.ravel(np.asarray(values))
    plain = _narrow(array)
    distinct, place = np.unique(plain, return_inverse=True)
    if distinct.size <= 1 << 16:
        index = _narrow(place)
        if distinct.nbytes + index.nbytes < plain.nbytes:
            return {**_encoded(index), "table": _encoded(distinct)}
    return _encoded(plain)


def unpack(packed: dict[str, Any]) -> NDArray[Any]:
    """The array again."""
    array = np.frombuffer(base64.b64decode(packed["data"]), "<" + packed["type"])
    return unpack(packed["table"])[array] if "table" in packed else array


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f":
        return array.astype("<" + FLOAT)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for name in INTEGERS:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return array.astype("<" + name)
    raise AssertionError("numbers of a tree fit 32 bits")


def _encoded(array: NDArray[Any]) -> dict[str, Any]:
    return {"type": array.dtype.str.lstrip("<|"), "data": base64.b64encode(array.tobytes()).decode("ascii")}
