import numpy as np
import pytest

from treesearch.data.categories import load_categories
from treesearch.errors import DataError

NAMES = ("cat", "oak", "dog", "New York", "elm")


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(content):
        path = tmp_path / "categories.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path, names=NAMES):
    with pytest.raises(DataError) as caught:
        load_categories(path, names)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "categories"),
    [
        ("cat\tanimal\noak\ttree\ndog\tanimal\nNew York\tcity\nelm\ttree\n", [0, 1, 0, 2, 1]),
        ("elm\ttree\n\n  \ncat\tanimal", [0, 1, 1, 1, 2]),  # numbered by class, not by line; no final newline
        ("dog\tanimal\r\ncat\tanimal\r\n", [0, 1, 0, 1, 1]),
        ("cat\tanimal\ncat\tanimal\nunicorn\tmyth\n", [0, 1, 1, 1, 1]),
        ("cat\ta\tb\ndog\ta\n", [0, 1, 2, 1, 1]),  # a category may hold a tab
        ("cat\t\ndog\tx", [0, 1, 2, 1, 1]),  # nor is an empty one that of the unnamed
        ("é\tx", [0]),
        ("\ufeffcat\tanimal\r\ndog\tanimal", [0, 1, 0, 1, 1]),  # a byte order mark is no part of a name
        ("cat\ta\u2028b\x0b\x85c\ndog\ta", [0, 1, 2, 1, 1]),  # only a line feed ends a line
    ],
)
def test_categories(write, content, categories):
    names = ("é",) if content.startswith("é") else NAMES
    found = load_categories(write(content), names)
    assert found.tolist() == categories
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cat animal\n", "line 1: expected 'class name TAB category', but got 'cat animal'"),
        ("cat\tanimal\n\noak\n", "line 3"),
        ("cat\tanimal\ncat\tpet\n", "line 2: class 'cat' has two categories; give it one"),
        ("unicorn\tmyth\n", "names none of the 5 classes; the first is 'cat'"),
        ("", "names none of the 5 classes"),
        (b"\xff\xfec\x00", "must be UTF-8"),
        ("x" * 10_000, "line 1"),
    ],
)
def test_files_that_cannot_be_used(write, content, says):
    assert says in refusal(write(content))


def test_files_that_cannot_be_read(tmp_path):
    assert "none.tsv cannot be read (No such file" in refusal(tmp_path / "none.tsv")
    assert "cannot be read" in refusal(tmp_path)
