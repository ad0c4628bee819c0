import numpy as np
import pytest

from treesearch.data.feature_files import FeatureWriter
from treesearch.errors import DataError

RNG = np.random.default_rng(0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_all(folder, parts):
    with FeatureWriter(folder) as writer:
        for x, y in parts:
            writer.write(x, y)


def rows(count, width=3):
    return RNG.standard_normal((count, width)), RNG.integers(0, 9, count)


@pytest.mark.parametrize("dtype", ["float16", np.float32])
@pytest.mark.parametrize("sizes", [[1], [5, 0, 7], [10] * 1100])
def test_numpy_reads_what_was_streamed(tmp_path, dtype, sizes):
    parts = [rows(size) for size in sizes]
    with FeatureWriter(tmp_path / "made" / "here", dtype=dtype) as writer:
        for x, y in parts:
            writer.write(x, y)
        assert writer.num_rows == sum(sizes)
    folder = tmp_path / "made" / "here"
    assert names(folder) == ["x.npy", "y.npy"]
    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    assert isinstance(x, np.memmap)
    assert (x.dtype, y.dtype) == (np.dtype(dtype), np.int32)
    np.testing.assert_array_equal(x, np.concatenate([x for x, _ in parts]).astype(dtype))
    np.testing.assert_array_equal(y, np.concatenate([y for _, y in parts]))
    assert (folder / "x.npy").read_bytes()[:8] == b"\x93NUMPY\x01\x00"


def test_files_are_the_bytes_that_numpy_would_write(tmp_path):
    x, y = rows(12)
    with FeatureWriter(tmp_path) as writer:
        writer.write(x[:5], y[:5])
        writer.write(x[5:], y[5:])
    np.save(tmp_path / "x2.npy", x.astype(np.float16))
    np.save(tmp_path / "y2.npy", y.astype(np.int32))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "x2.npy").read_bytes()
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "y2.npy").read_bytes()


def test_any_memory_order_and_byte_order(tmp_path):
    x, y = rows(6)
    with FeatureWriter(tmp_path, dtype=">f4") as writer:
        writer.write(np.asfortranarray(x).astype(">f8"), y.astype(np.uint16)[::1])
    assert np.load(tmp_path / "x.npy").dtype == np.dtype("<f4")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x.astype(np.float32))


def test_an_exception_leaves_what_was_there(tmp_path):
    x, y = rows(4)
    with FeatureWriter(tmp_path) as writer:
        writer.write(x, y)
    before = (tmp_path / "x.npy").read_bytes()
    with pytest.raises(KeyError):
        write_all(tmp_path, ((-x, y) if part == 0 else {}[part] for part in range(2)))
    assert names(tmp_path) == ["x.npy", "y.npy"]
    assert (tmp_path / "x.npy").read_bytes() == before
    with FeatureWriter(tmp_path) as writer:
        writer.write(-x, y)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), (-x).astype(np.float16))


X, Y = rows(2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one row"),
        ([(X[:0], Y[:0])], "at least one row"),
        ([(X, Y[:1])], r"y \[n\], but got \(2, 3\) and \(1,\)"),
        ([(X, Y[:, None])], r"\(2, 1\)"),
        ([(X[0], Y)], r"D >= 1"),
        ([(X[:, :0], Y)], r"D >= 1"),
        ([(X, Y), (X[:, :2], Y)], r"x \[n, 3\]"),
        ([(X, Y), (np.array([[0, 1, 2], [3, 4, np.nan]]), Y)], "row 3 holds NaN"),
        ([(np.array([[0, 1, 2], [3, -1e5, 4]]), Y)], "up to 65504, but rows from 1 on reach 100000; use float32"),
        ([(X, Y - 20)], "targets must be integers from 0"),
        ([(X, np.array([0, 2**31]))], "2147483648"),
        ([(X, Y / 2)], "float64"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, parts, message):
    with pytest.raises(DataError, match=message) as error:
        write_all(tmp_path, parts)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("dtype", ["float64", "int32", "no type", object])
def test_types_that_cannot_be_used(tmp_path, dtype):
    with pytest.raises(DataError, match="float16 or float32"):
        FeatureWriter(tmp_path, dtype=dtype)
