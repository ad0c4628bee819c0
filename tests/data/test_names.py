"""Class names from files."""

from pathlib import Path

import pytest

from treesearch.data.names import read_names
from treesearch.errors import DataError


def test_read_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("a b\n\tc \n\n漢\u2028x\r\nlast".encode())
    assert read_names(path) == ("a b", "\tc ", "", "漢\u2028x", "last")
    path.write_bytes(b"a\nb\n")
    assert read_names(path) == ("a", "b")
    for content, says in ((b"", "is empty"), (b"\xff", "must be UTF-8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_names(tmp_path / "none")
    path.write_bytes(b"a\nb\na\n")
    with pytest.raises(DataError, match="'a' in lines 1 and 3"):
        read_names(path)
