"""Bars, panel and plain lines, with a clock that tests move; the whole command is in test_terminal.py."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from treesearch.progress import ProgressReporter
from treesearch.search_panel import SearchStatus
from treesearch.stages import Stage, clock_time

STATUS = SearchStatus(114, 150, -2.6516, -2.7969, (-2.9, -2.8, -2.7), 0, 2, 3.21, 64)
SCREENS = {"utf-8": io.StringIO, "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)}


class Pool:
    num_workers, num_busy = 2, 1


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def plain(clock):
    """A reporter into a file, and the lines in it."""
    file = io.StringIO()
    reporter = ProgressReporter(console=Console(file=file), clock=clock)
    return reporter, lambda: file.getvalue().splitlines()


def on_screen(clock, width=80, *, title="treesearch search, runs/a-1", encoding="utf-8", **options):
    console = Console(file=SCREENS[encoding](), force_terminal=True, width=width, **options)
    return ProgressReporter(console=console, clock=clock, title=title)


def drawn(reporter):
    """The rows that are to be seen now, without colours."""
    console = reporter._console
    with console.capture() as capture:
        console.print(reporter._drawn())
    return re.sub(r"\x1b\[[\d;]*m", "", capture.get()).splitlines()


# -- plain lines


def test_plain_lines_are_rare_but_the_last_step_is_always_told(plain, clock):
    reporter, lines = plain
    with reporter:
        for step in range(1, 101):
            clock.now += 0.5
            reporter.update("search", step, 100, f"best {step}")
    assert 5 <= len(lines()) <= 7
    assert lines()[-1] == "search: 100/100, 50 s, best 100"
    assert lines()[2] == "search: 41/100, 20 s, 30 s left, best 41"


def test_they_go_to_standard_error(capsys):
    with ProgressReporter() as reporter:
        reporter.update("search", 1, 1)
    assert capsys.readouterr() == ("", "search: 1/1, 0 s\n")


def test_time_left_is_proportional(plain, clock):
    reporter, lines = plain
    reporter.update("joint", 0, 4)
    clock.now += 30
    reporter.update("joint", 1, 4)
    assert lines() == ["joint: 0/4, 0 s, - left", "joint: 1/4, 30 s, 90 s left"]


def test_messages_are_one_line_and_literal(plain):
    reporter, lines = plain
    reporter.say("[bold]" + "x" * 500)
    reporter.say("runs/\x1b[31m\nerror: \u202e")
    reporter.update("a\x1b", 1, 1, "b\rc")
    assert lines() == ["[bold]" + "x" * 500, r"runs/\x1b[31m\nerror: \u202e", r"a\x1b: 1/1, 0 s, b\rc"]


def test_quiet(capsys):
    with ProgressReporter(quiet=True, title="x") as reporter:
        reporter.update("search", 1, 1)
        reporter.search(STATUS)
        reporter.say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_line_of_a_search_has_all_facts(plain, clock):
    reporter, lines = plain
    with reporter, reporter.watching(Pool()):
        clock.now += 30
        reporter.search(STATUS)
    assert lines() == [
        "search: 114/150, 30 s, 11 s left, best reward -2.6516 (+0.1453 over Huffman), 3.2 evaluations/s,"
        " 1/2 workers busy, 0 failed, 2 stopped early"
    ]


@pytest.mark.parametrize("variables", [{"TERM": "dumb", "FORCE_COLOR": "1"}, {"TERM": "xterm"}])
def test_where_the_cursor_cannot_move_there_are_plain_lines(variables, capsys, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ProgressReporter(title="x") as reporter:
        reporter.search(STATUS)
        reporter.say("done")
    err = capsys.readouterr().err
    assert re.fullmatch(r"[ -~]+\n[ -~]+\n", err), err


# -- time left


def test_nothing_is_known_of_the_time_left_at_the_start():
    stage = Stage.begin("search", at=0.0).step(1, 100, "", now=0.001)
    assert stage.seconds_left(0.001) is None
    assert stage.line(0.001) == "search: 1/100, 0 s, - left"
    assert stage.step(2, 100, "", now=0.9).seconds_left(0.9) is None, "too short to tell"


def test_what_was_looked_up_at_the_start_tells_nothing_of_the_pace():
    stage = Stage.begin("confirm", at=0.0)
    for done in range(1, 21):  # a resumed run has these
        stage = stage.step(done, 30, "", now=0.01 * done)
    stage = stage.step(21, 30, "", now=5.2)
    assert stage.seconds_left(5.2) == pytest.approx(9 * 5.0)


def test_it_counts_down_between_two_steps_but_never_to_nothing():
    stage = Stage.begin("joint", at=0.0).step(1, 3, "", now=10.0)
    assert [stage.seconds_left(now) for now in (10.0, 14.0, 19.0, 60.0)] == [20, 16, 15, 15]
    last = stage.step(2, 3, "", now=20.0)
    assert [last.seconds_left(now) for now in (20.0, 24.0, 99.0)] == [10, 6, 5]
    assert last.step(3, 3, "", now=30.0).seconds_left(30.0) is None
    assert last.step(3, 3, "", now=30.0).elapsed(99.0) == 30.0, "the clock of a stage stops at its end"


def test_a_stage_that_begins_anew_is_timed_anew(plain, clock):
    reporter, lines = plain
    for _ in range(2):
        for step in (1, 2):
            clock.now += 20
            reporter.update("encoder", step, 2)
    assert lines() == ["encoder: 1/2, 20 s, 20 s left", "encoder: 2/2, 40 s"] * 2


@pytest.mark.parametrize(("seconds", "text"), [(None, "-"), (0.4, "0:00"), (65, "1:05"), (7205.2, "2:00:05")])
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


# -- bars and panel


def test_the_panel_has_all_facts(clock):
    reporter = on_screen(clock)
    for step in (1, 10):
        clock.now += 6
        reporter.update("encoder", step, 10)
    with reporter.watching(Pool()):
        clock.now += 30
        reporter.search(STATUS)
        clock.now += 2
        rows = drawn(reporter)
    assert [row.strip("│╭╮╰╯─ ") for row in rows] == [
        "treesearch search, runs/a-1",
        "encoder  " + "━" * 40 + "    10/10  0:12",
        "search   " + "━" * 40 + "  114/150  0:32  0:11 left",
        "",
        "best reward -2.6516, +0.1453 over Huffman",
        "mean reward of each batch ▁▅█ -2.9000 to -2.7000",
        "3.2 evaluations/s (last 64) · 1/2 workers busy · 0 failed · 2 stopped early",
        "",
    ]


def test_what_comes_after_is_in_the_same_panel(clock):
    reporter = on_screen(clock)
    reporter.search(SearchStatus(150, 150, -2.6, None, (), 1, 0, 3.0, 64))
    clock.now += 4
    reporter.update("warm", 1, 11, "found #7: ok")
    text = "\n".join(drawn(reporter))
    assert "1/11  0:04  0:40 left  found #7: ok" in text
    assert "best reward -2.6000  " in text, "without Huffman's there is no gain"
    assert "1 failed" in text
    assert "evaluations/s" not in text, "it has ended"


def test_failures_are_coloured_only_where_there_are_some(clock):
    def colours(num_failed):
        reporter = on_screen(clock, color_system="standard")
        reporter.search(SearchStatus(1, 9, num_failed=num_failed))
        with reporter._console.capture() as capture:
            reporter._console.print(reporter._drawn())
        (row,) = (row for row in capture.get().splitlines() if "failed" in row)
        return "\x1b[1;31m" in row

    assert not colours(0)
    assert colours(1)


@pytest.mark.parametrize("encoding", SCREENS)
@pytest.mark.parametrize("title", ["treesearch search, runs/" + "漢" * 60, None])
@pytest.mark.parametrize("width", [20, 40, 41, 60, 79, 80, 100, 250])
def test_no_row_is_wider_than_the_terminal(width, title, encoding, clock):
    reporter = on_screen(clock, width, title=title, encoding=encoding)
    with reporter.watching(Pool()):
        for stage in ("encoder, refined", "search of 漢字", "a" * 100):
            clock.now += 40000
            reporter.update(stage, 99999, 100000, "two-level(by=frequency, 漢字漢字漢字漢字漢字漢字): ok")
        reporter.search(SearchStatus(12345, 100000, -12.6516, -11.5, tuple(range(999)), 12345, 12345, 0.00123, 64))
        rows = drawn(reporter)
    assert max(map(cell_len, rows)) <= min(width, 250 if title is None else 100)
    text = " ".join(rows)
    if width >= 40:
        assert "12345/100000" in text
        assert "12345 failed" in text
        assert "1/2" in text
        assert "-12.6516" in text
    if encoding == "ascii":
        assert text.isascii()


def test_names_cannot_steer_the_terminal(clock):
    reporter = on_screen(clock, title="runs/\x1b]0;x\x07[bold]", color_system=None)
    reporter.update("a\x1b[2J", 1, 2, "b\x9b\n\u202e")
    rows = drawn(reporter)
    assert all(not re.search("[\x00-\x1f\x7f-\x9f\u202e]", row) for row in rows)
    assert r"runs/\x1b]0;x\x07[bold]" in rows[0]
    assert r"b\x9b\n\u202e" in rows[1]


def test_a_message_stands_above_the_bars_and_the_cursor_comes_back(clock):
    reporter = on_screen(clock)

    def fail():
        with reporter:
            reporter.update("search", 1, 2, "best [1, 2]")
            reporter.say("hello")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    sent = reporter._console.file.getvalue()
    assert "best [1, 2]" in sent
    assert sent.rindex("hello") < sent.rindex("best [1, 2]")
    assert sent.rindex("\x1b[?25l") < sent.rindex("\x1b[?25h")


def test_without_a_stage_there_is_nothing_but_messages(clock):
    reporter = on_screen(clock)
    with reporter:
        reporter.say("hello")
    assert reporter._console.file.getvalue() == "hello\n"


def test_outside_of_the_context_the_cursor_is_left_alone(clock):
    reporter = on_screen(clock)
    reporter.update("search", 1, 2)
    assert reporter._console.file.getvalue() == ""
