import pytest

from treesearch.search_panel import BLOCKS, SearchStatus, search_rows, sparkline


def test_a_sparkline_spans_its_values():
    assert sparkline(range(8), 8) == BLOCKS
    assert sparkline([3.0, -1.0, 1.0], 8) == "█▁▅"
    assert sparkline([2.0, 2.0], 8) == "▁▁"
    assert sparkline([], 8) == ""


@pytest.mark.parametrize(("num", "width"), [(9, 8), (100, 7), (5, 5), (1000, 40)])
def test_more_values_than_columns_are_averaged(num, width):
    line = sparkline([float(i) for i in range(num)], width)
    assert len(line) == width
    assert list(line) == sorted(line, key=BLOCKS.index)
    assert (line[0], line[-1]) == (BLOCKS[0], BLOCKS[-1])
    assert sparkline([0.0, 0.0, 4.0, 4.0], 2) == "▁█"


def test_gain():
    assert SearchStatus(1, 2, -2.0, -3.0).gain == 1.0
    assert SearchStatus(1, 2, -2.0).gain is None
    assert SearchStatus(1, 2).line(None) == "- evaluations/s, 0 failed, 0 stopped early"


@pytest.mark.parametrize(("rate", "text"), [(None, "-/s"), (0.0123, "0.012/s"), (3.21, "3.2/s"), (1234.5, "1234/s")])
def test_rates(rate, text):
    rows = search_rows(SearchStatus(1, 2, rate=rate, rate_window=1), 40, None, ascii_only=False)
    assert [row.plain for row in rows] == ["best -", f"{text}, 0 failed, 0 stopped"]
