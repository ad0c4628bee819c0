"""Context windows against the definition, position by position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treesearch.data.contexts import context_windows
from treesearch.errors import DataError


def test_literal_windows() -> None:
    windows = context_windows(np.array([5, 6, 7, 8], np.int32), size=2, pad=9)
    assert windows.tolist() == [[9, 9], [9, 5], [5, 6], [6, 7]]


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 8), st.integers(-1, 60))
def test_equals_the_definition(ids: list[int], size: int, pad: int) -> None:
    windows = context_windows(np.array(ids, np.int32), size=size, pad=pad)
    assert windows.shape == (len(ids), size)
    assert windows.dtype == np.int32
    for t in range(len(ids)):
        assert windows[t].tolist() == [ids[s] if s >= 0 else pad for s in range(t - size, t)]


def test_is_a_view_whose_batches_can_be_written() -> None:
    stream = np.arange(1000, dtype=np.int32)
    windows = context_windows(stream, size=100, pad=0)
    assert windows.strides == (4, 4)
    assert not windows.flags.writeable
    assert windows[np.array([3, 5])].flags.writeable


@pytest.mark.parametrize("size", [0, -1])
def test_size_must_be_positive(size: int) -> None:
    with pytest.raises(DataError, match=f"size >= 1, but got {size}"):
        context_windows(np.zeros(3, np.int32), size=size, pad=0)


def test_stream_must_be_one_dimensional() -> None:
    with pytest.raises(DataError, match=r"\(2, 3\)"):
        context_windows(np.zeros((2, 3), np.int32), size=2, pad=0)
