"""Commands on a pseudo-terminal, and what is then to be seen on its screen."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|\r\n|[\r\n]")


class OnTerminal(NamedTuple):
    """A command that has ended."""

    code: int
    out: str  # of standard output, which is a pipe
    sent: str  # to the terminal, as standard error


def on_terminal(
    arguments: Sequence[object],
    *,
    columns: int,
    lines: int = 40,
    cwd: Path | None = None,
    watch: Callable[[subprocess.Popen[str], str], None] = lambda process, sent: None,
    environment: dict[str, str] | None = None,
    timeout: float = 120,
) -> OnTerminal:
    """Run ``python ARGUMENTS`` with a terminal as its standard error; ``watch`` is called with all that it was sent."""
    own, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=its,
        cwd=cwd,
        text=True,
        env=inherited | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | (environment or {}),
    )
    os.close(its)
    sent, end = b"", time.monotonic() + timeout
    while True:
        assert time.monotonic() < end, f"still running after: {sent[-2000:]!r}"
        if select.select([own], [], [], 0.1)[0]:
            try:
                chunk = os.read(own, 65536)
            except OSError:  # nobody holds the other end any more
                break
            if not chunk:
                break
            sent += chunk
        watch(process, sent.decode(errors="ignore"))
    os.close(own)
    out, _ = process.communicate(timeout=30)
    return OnTerminal(process.returncode, out, sent.decode())


def screen(sent: str) -> list[str]:
    """The lines that are left, of a terminal that never scrolls: cursor up, erasing a line, returns and line feeds."""
    rows, row, column = [""], 0, 0
    position = 0
    for match in [*_CONTROL.finditer(sent), None]:
        text = sent[position : match.start() if match else len(sent)]
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text), f"an unknown control sequence: {text!r}"
        rows[row] = rows[row].ljust(column)[:column] + text + rows[row][column + len(text) :]
        column += len(text)
        if match is None:
            break
        position = match.end()
        if match[0].endswith("\n"):
            row, column = row + 1, 0 if match[0] == "\r\n" else column
            rows += [""] * (row + 1 - len(rows))
        elif match[0] == "\r":
            column = 0
        elif match[2] == "A":
            row = max(0, row - int(match[1] or 1))
        elif match[2] == "K":
            rows[row] = "" if match[1] == "2" else rows[row][:column]
        else:
            assert match[2] in ("m", "h", "l", None), f"an unknown control sequence: {match[0]!r}"
    return [line.rstrip() for line in rows]


def cursor_shown(sent: str) -> bool:
    """Whether the last that was said of the cursor is that it is shown."""
    return sent.rfind("\x1b[?25h") >= sent.rfind("\x1b[?25l")
