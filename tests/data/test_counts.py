import numpy as np
import pytest

from treesearch.data.counts import load_counts, load_vectors
from treesearch.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(content, name="counts.tsv"):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(load, path):
    with pytest.raises(DataError) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "counts", "names"),
    [
        ("3\n1\n2\n", [3, 1, 2], None),
        ("3\n\n1.5\n  \n1e3", [3, 1.5, 1000], None),
        ("the\t3\nof\t1\n", [3, 1], ("the", "of")),
        ("New York\t3\na\tb\t1\n", [3, 1], ("New York", "a\tb")),
        ("3\t3\n\t1\n", [3, 1], ("3", "")),
        ("é漢\t3\r\nx\t1\r\n", [3, 1], ("é漢", "x")),
        ("0\n0", [0, 0], None),
    ],
)
def test_text(write, content, counts, names):
    found, found_names = load_counts(write(content))
    np.testing.assert_array_equal(found, counts)
    assert found.dtype == np.float64
    assert found_names == names


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, ">i4"])
def test_npy(write, dtype):
    found, names = load_counts(write(np.array([3, 1, 2], dtype), "counts.npy"))
    np.testing.assert_array_equal(found, [3.0, 1.0, 2.0])
    assert (found.dtype, names) == (np.float64, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no counts"),
        ("\n \n", "holds no counts"),
        ("3\nmany\n", "line 2: expected 'name TAB count' or 'count', but got 'many'"),
        ("the 3\n", "line 1"),
        ("3\tthe\n", "line 1"),
        ("the\t\n", "line 1"),
        ("the\t3\n4\n", "1 of 2 have"),
        (b"\xff\xfe3\x00", "UTF-8"),
        ("x" * 10_000, "line 1"),
    ],
)
def test_text_that_holds_no_counts(write, content, says):
    message = refusal(load_counts, write(content))
    assert says in message
    assert len(message) < 300


def test_missing_files(tmp_path):
    for load, name in ((load_counts, "none.tsv"), (load_counts, "none.npy"), (load_vectors, "none.npy")):
        assert name in refusal(load, tmp_path / name)
    refusal(load_counts, tmp_path)


@pytest.mark.parametrize("load", [load_counts, load_vectors])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"3\n1\n",
        b"\x93NUMPY\x01\x00",
        np.array(["a", "b"]),
        np.array([True, False]),
        np.array([1j, 2]),
        np.array([{"pickled": "object"}, None], object),
    ],
    ids=["empty", "text", "truncated", "strings", "booleans", "complex", "objects"],
)
def test_npy_that_holds_no_numbers(write, load, content):
    if isinstance(content, np.ndarray) and content.dtype == object:
        path = write(b"", "x.npy")
        np.save(path, content, allow_pickle=True)
    else:
        path = write(content, "x.npy")
    refusal(load, path)


def test_vectors(write):
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(load_vectors(write(vectors, "v.npy")), vectors)
