"""Writing the report: once, or again and again while a search goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from treesearch.errors import RunError
from treesearch.report.page.document import run_page, runs_page
from treesearch.report.page.frame import GENERATOR
from treesearch.report.page.run_view import RunView, at_work, find_runs
from treesearch.search.run_folder import RunFolder
from treesearch.tree_files import write_atomically

DEFAULT_NAME = "report.html"
MARK = f'<meta name="generator" content="{GENERATOR}">'
HEAD_BYTES = 10_000  # of a file, in which the mark stands where it is a report


def report_file(paths: Sequence[Path]) -> Path:
    """Where the report goes by default: into the one folder, or for several ones into this directory."""
    return RunFolder(paths[0]).report_file if len(paths) == 1 else Path(DEFAULT_NAME)


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of a run, or of several side by side.

    Args:
        paths: Folders of searches, studies or sweeps.
        out: The file; an earlier report is replaced. None takes `report_file`.

    Returns:
        The file.

    Raises:
        RunError: A folder holds no run, or the file cannot be written, or is something else.
    """
    file = report_file(paths) if out is None else out
    _check(file)
    _write(find_runs(paths), file, refresh=None)
    return file


def watch_report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    interval: float,
    told: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Write the page again after every ``interval`` seconds for as long as a process works there.

    That is on one of the runs, or on the study or the sweep that they are of. The page loads itself again as often. The
    last one, also after an interrupt, does not. What cannot be read at some time while a process works on it, as a
    search that is begun anew, may be whole the next time.

    Args:
        paths: As in `write_report`.
        out: Likewise.
        interval: Seconds.
        told: Gets a line when the page was written first, and last.
        sleep: Waits.

    Raises:
        RunError: As in `write_report`.
    """
    file = report_file(paths) if out is None else out
    _check(file)
    first = True
    try:
        while True:
            working = any(map(at_work, paths))  # asked first: what ends meanwhile is shown by the next page
            try:
                views = find_runs(paths)
                running = working or any(view.running for view in views)
                _write(views, file, refresh=interval if running else None)
            except RunError as error:
                if first or not working:
                    raise
                told(f"{error}; looking again in {interval:g} s")
                sleep(interval)
                continue
            if not running:
                told(f"wrote {file}; no process works on {'it' if len(views) == 1 else 'them'} any more")
                return file
            if first:
                told(f"wrote {file}; open it, it follows the search every {interval:g} s (Ctrl-C to end)")
            first = False
            sleep(interval)
    except KeyboardInterrupt:
        _write(find_runs(paths), file, refresh=None)
        raise


def _write(views: Sequence[RunView], file: Path, *, refresh: float | None) -> None:
    page = run_page(views[0], refresh=refresh) if len(views) == 1 else runs_page(views, refresh=refresh)
    try:
        write_atomically(file, lambda stream: stream.write(page.encode("utf-8", "backslashreplace")))
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}); choose another --out") from None


def _check(file: Path) -> None:
    """Refuse to replace what is no report."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return  # whether one can write there is seen when it is written
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}); choose another --out") from None
    if head and MARK.encode() not in head:
        raise RunError(f"{file} exists and is no report of treesearch; choose another --out")
