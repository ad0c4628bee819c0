"""States as bytes: exact round trips, and bytes that nobody should trust."""

import io
import json
import pickle
import zipfile
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from treesearch.errors import RunError
from treesearch.state import pack_state, unpack_state

STATE = {
    "none": None,
    "numbers": [True, -1, 2**127 + 1, 0.1, float("inf")],
    "tuple": (0.9, (0.999, "λ\n")),
    "by_number": {0: {"step": torch.tensor(3.0)}, 1: {}},
    "tensors": [torch.arange(6).reshape(2, 3), torch.zeros(0), torch.ones(2, 2).T, torch.tensor([True])],
    "arrays": [np.arange(3, dtype=np.int8), np.zeros((0, 2)), np.array(5.0), np.array([["a", "bc"]])],
    "rng": np.random.default_rng(0).bit_generator.state,
    "generator": torch.Generator().manual_seed(7).get_state(),
    "header": "a key of that name is nothing special",
}


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other) or one != one


def test_round_trip() -> None:
    assert same(unpack_state(pack_state(STATE)), STATE)
    assert pack_state(STATE) == pack_state(STATE)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st_numpy.arrays(st.sampled_from([np.float32, np.int64, np.uint8]), st_numpy.array_shapes(max_side=3))
)
keys = st.text(max_size=3) | st.integers()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        keys,
        st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
        max_size=4,
    )
)
def test_round_trip_of_any_nesting(state: dict[Any, Any]) -> None:
    assert same(unpack_state(pack_state(state)), state)


def test_generators_continue_exactly() -> None:
    numpy_rng, torch_rng = np.random.default_rng(3), torch.Generator().manual_seed(3)
    numpy_rng.standard_normal(3, dtype=np.float32)
    numpy_rng.integers(5, dtype=np.int32)  # leaves half a draw in the generator's buffer
    torch.rand(5, generator=torch_rng)
    state = unpack_state(pack_state({"numpy": numpy_rng.bit_generator.state, "torch": torch_rng.get_state()}))
    other = np.random.default_rng(0)
    other.bit_generator.state = state["numpy"]
    assert (
        other.integers(2**31, size=9, dtype=np.int32).tolist()
        == numpy_rng.integers(2**31, size=9, dtype=np.int32).tolist()
    )
    again = torch.Generator()
    again.set_state(state["torch"])
    assert torch.equal(torch.rand(9, generator=again), torch.rand(9, generator=torch_rng))


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.float32(1).astype(object).__class__])
def test_what_cannot_be_packed(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        pack_state({"value": value})


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a pickle was executed",)


def archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def header(state: object, **more: object) -> np.ndarray[Any, Any]:
    text = json.dumps({"format": "treesearch.agent-state/1", "state": state, **more})
    return np.frombuffer(text.encode(), np.uint8)


def bomb() -> bytes:
    """A gigabyte of zeros in a megabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("header.npy", "w") as entry:
        for _ in range(1100):
            entry.write(bytes(1 << 20))
    return buffer.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"not an archive",
    "pickle": pickle.dumps(Trap()),
    "pickled array": archive(header=np.array([Trap()], object)),
    "pickle inside": archive(header=header(["dict", [["a", ["array", "x"]]]]), x=np.array([Trap()], object)),
    "no header": archive(x=np.ones(2)),
    "no JSON": archive(header=np.frombuffer(b"{", np.uint8)),
    "other format": archive(header=header(["dict", []], format="other")),
    "no dictionary": archive(header=header(["list", []])),
    "missing array": archive(header=header(["dict", [["a", ["array", "x"]]]])),
    "unknown tag": archive(header=header(["dict", [["a", ["eval", "1"]]]])),
    "bad pair": archive(header=header(["dict", [["a"]]])),
    "unhashable key": archive(header=header(["dict", [[["list", []], 1]]])),
    "tensor of text": archive(header=header(["dict", [["a", ["tensor", "x"]]]]), x=np.array(["a"])),
    "deep": archive(header=np.frombuffer(b"[" * 100_000 + b"]" * 100_000, np.uint8)),
    "truncated": pack_state(STATE)[:-40],
}


@pytest.mark.parametrize("packed", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_in_one_line(packed: bytes) -> None:
    with pytest.raises(RunError, match="a packed state must be an archive") as caught:
        unpack_state(packed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.slow
def test_a_bomb_is_refused_in_one_line() -> None:
    test_hostile_bytes_are_refused_in_one_line(bomb())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read(data: st.DataObject) -> None:
    packed = bytearray(pack_state({"a": np.arange(4), "b": [1, 2.5]}))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RunError):
        assert isinstance(unpack_state(bytes(packed)), dict)
