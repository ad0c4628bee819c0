import pytest

from treesearch import progress
from treesearch.progress import ProgressReporter


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_are_rare_but_the_last_step_is_always_told(clock, capsys):
    with ProgressReporter() as reporter:
        for step in range(1, 101):
            clock[0] += 0.5
            reporter.update("search", step, 100, f"best {step}")
    out, err = capsys.readouterr()
    assert out == "", "progress goes to stderr"
    lines = err.splitlines()
    assert 5 <= len(lines) <= 7
    assert lines[-1] == "search: 100/100, 50 s, 0 s left best 100"


def test_time_left_is_proportional(clock, capsys):
    reporter = ProgressReporter()
    reporter.update("joint", 0, 4)
    clock[0] += 30
    reporter.update("joint", 1, 4)
    assert capsys.readouterr().err.splitlines()[-1] == "joint: 1/4, 30 s, 90 s left"


def test_messages_are_one_line_and_literal(capsys):
    ProgressReporter().say("[bold]" + "x" * 500)
    assert capsys.readouterr().err == "[bold]" + "x" * 500 + "\n"


def test_quiet(capsys):
    with ProgressReporter(quiet=True) as reporter:
        reporter.update("search", 1, 1)
        reporter.say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with ProgressReporter() as reporter:
        for step in (1, 2):
            reporter.update("search", step, 2, "best [1, 2]")
    err = capsys.readouterr().err
    assert "search" in err
    assert "best [1, 2]" in err
    assert "2/2" in err
