"""Arrays on their way to workers."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch.errors import DataError
from treesearch.search.shared_arrays import MappedFile, num_bytes, pack, unpack


def mapped(path: Path, order: str = "C") -> np.memmap:
    np.save(path, np.asarray(np.arange(12.0).reshape(4, 3), np.float16, order=order))  # type: ignore[call-overload]
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_array_travels_as_its_file(tmp_path: Path, order: str) -> None:
    array = mapped(tmp_path / "x.npy", order)
    travelled = pickle.dumps(MappedFile.of(array))
    assert len(travelled) < 1000
    again = pickle.loads(travelled).open()
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    assert again.dtype == np.float16
    np.testing.assert_array_equal(again, array)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    file = MappedFile.of(mapped(tmp_path / "x.npy"))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match="same path on every node"):
        file.open()


def test_pack_and_unpack(tmp_path: Path) -> None:
    shared = np.arange(5)
    arrays = {"a": shared, "b": mapped(tmp_path / "x.npy"), "c": shared, "d": np.arange(5)}
    stored: list[Any] = []

    def put(array: Any) -> int:
        stored.append(array)
        return len(stored) - 1

    packed = pack(arrays, put)
    assert len(stored) == 2  # one array by two names is put once
    assert num_bytes(arrays) == 2 * shared.nbytes
    back = unpack(packed, lambda refs: [stored[ref] for ref in refs])
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
