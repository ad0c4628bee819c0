"""The benchmark of the page at a toy's size."""

import sys

import pytest

from treesearch.bench import report
from treesearch.errors import ExecutionError


@pytest.mark.slow
@pytest.mark.parametrize("browser", [True, False])
def test_a_row_for_every_size(browser, monkeypatch, capsys):
    if not browser:
        monkeypatch.setattr(report, "missing_browser", lambda: "no browser here")
    browser = browser and report.missing_browser() is None
    (row,) = report.run(sizes=((40, 30),), repeats=1)
    assert (row["classes"], row["evaluations"]) == (40, 30)
    assert all(row[f"{part}_s"] > 0 for part in ("reading", "figures", "viewer", "page"))
    assert row["write_s"] > row["reading_s"]
    assert 4 < row["MB"] < 15
    if browser:
        assert 0 < row["paint_s"] < row["drawn_s"]
    else:
        assert row["paint_s"] is row["drawn_s"] is None
        assert "the page is written, but not opened" in capsys.readouterr().err


def test_a_command_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ExecutionError, match="treesearch report failed"):
        report._command_seconds(tmp_path)
