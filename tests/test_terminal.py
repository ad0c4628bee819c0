"""What a search sends to a terminal, in a process of its own, and to a file."""

import re
import signal

import pytest

from tests import tiny
from tests.terminals import cursor_shown, on_terminal, screen

SEARCH = ("-m", "treesearch.cli", "search")
SHORT = ("--set=search.evaluations=36", "--set=confirm.seeds=0")


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "settings"), [(80, SHORT[:1]), (40, SHORT)])
def test_a_search_draws_its_panel(columns, settings, tiny_config, tmp_path):
    done = on_terminal([*SEARCH, tiny_config, "--out", "run", *settings], columns=columns, cwd=tmp_path)
    assert done.code == 0, done.sent
    assert cursor_shown(done.sent)
    rows = screen(done.sent)
    text = "\n".join(rows)
    panel = [row for row in rows if row.startswith(("╭", "│", "╰"))]
    assert {len(row) for row in panel} == {columns}, "one panel, of one width, and every row is whole"
    assert (panel[0][0], panel[-1][0]) == ("╭", "╰")
    assert rows[0].startswith("61 classes"), "a message stands above it"
    assert rows[rows.index(panel[-1]) + 1] == "best tree: run/best.tree.json"
    for fact in ("36/36", "over Huffman", "0 failed", "0 stopped", *"▁█"):
        assert fact in text
    if columns == 80:
        for stage in ("encoder", "search", "warm", "joint", "confirm", "timing"):
            assert re.search(rf"│ {stage}  .*━ +(\d+)/\1 ", text), stage
        sent = re.sub(r"\x1b\[[\d;]*m", "", done.sent)
        assert "1/1 workers busy" in sent
        assert " evaluations/s" in sent
    assert "\x1b" not in done.out
    assert "36 frozen evaluations (0 failed)" in done.out


@pytest.mark.slow
def test_an_interrupted_search_leaves_the_terminal_in_order(tiny_config, tmp_path):
    interrupted = []

    def interrupt(process, sent):
        if "busy" in sent and not interrupted:
            interrupted.append(True)
            process.send_signal(signal.SIGINT)

    done = on_terminal(
        [*SEARCH, tiny_config, "--out", "run", "--set=search.evaluations=5000"],
        columns=80,
        cwd=tmp_path,
        watch=interrupt,
    )
    assert done.code == 130
    assert cursor_shown(done.sent)
    rows = screen(done.sent)
    assert rows[-2:] == ["interrupted", ""]
    told = [row for row in rows if row and row[0] not in "╭│╰"]
    waited = "stopping: evaluations that are under way are finished; once more to end at once"
    assert [row for row in told[1:] if row != waited] == ["go on with: treesearch resume run", "interrupted"]
    assert any("/5000" in row for row in rows), "how far it came is still to be seen"


def test_an_error_half_way_leaves_the_terminal_in_order(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "from treesearch.progress import ProgressReporter\n"
        "with ProgressReporter(title='x') as progress:\n"
        "    progress.update('search', 1, 2)\n"
        "    print('to standard output')\n"
        "    raise SystemExit('error: it broke')\n"
    )
    done = on_terminal([script], columns=60)
    assert done.code == 1
    assert cursor_shown(done.sent)
    assert screen(done.sent)[-2:] == ["error: it broke", ""]
    assert done.out == "to standard output\n", "a pipe gets what is meant for it"


def test_a_log_file_has_lines_only(tiny_config, tmp_path):
    done = tiny.treesearch("search", tiny_config, "--out", "run", *SHORT, cwd=tmp_path)
    assert done.code == 0, done.err
    assert all(character >= " " or character == "\n" for character in done.err + done.out)
    last = next(line for line in done.err.splitlines() if line.startswith("search: 36/36"))
    assert re.fullmatch(
        r"search: 36/36, \d+ s, best reward -\d\.\d{4} \([+-]\d\.\d{4} over Huffman\), [\d.-]+ evaluations/s,"
        r" 1/1 workers busy, 0 failed, 0 stopped early",
        last,
    )
