"""How long it takes to write the page of a run, how large it is, and how soon a browser shows it.

The runs are made up (`treesearch.bench.made_up_runs`): every evaluation is a tree of its own, scores are random. The
command runs in a process of its own, so that ``write_s`` has Python's start and imports in it. Chromium opens the
page each time with a new profile, without a GPU. Targets, for 30,000 classes and 10,000 evaluations: written in 10 s,
15 MB, first text after 3 s.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from treesearch.bench.browser import missing_browser, start_browser
from treesearch.bench.made_up_runs import large
from treesearch.bench.timing import call_seconds
from treesearch.console import tell
from treesearch.errors import ExecutionError
from treesearch.report.page.document import run_page
from treesearch.report.page.figures import run_figures
from treesearch.report.page.run_view import RunView, load_run
from treesearch.report.page.tree_data import viewer_data
from treesearch.report.page.viewed_trees import viewed_trees

SIZES = ((5_000, 150), (30_000, 10_000), (100_000, 1_000))  # classes, evaluations
PATIENCE = 120.0  # seconds that a browser has to draw a page
DRAWN = """
new MutationObserver((_, observer) => {
  if (document.documentElement?.dataset.drawn !== "true") return;
  window.drawnAt = performance.now();
  observer.disconnect();
}).observe(document, {attributes: true, childList: true, subtree: true});
"""
PAINTED = "return performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"


def run(sizes: tuple[tuple[int, int], ...] = SIZES, repeats: int = 3) -> list[dict[str, Any]]:
    """Write and open the page of a run of each size.

    Args:
        sizes: Classes and evaluations.
        repeats: Of each measurement; medians count.

    Returns:
        One row per size: ``classes``, ``evaluations``; ``write_s`` of the whole command, and of what it is made
        of in a process that has imported everything: ``reading_s`` of the ledger, ``figures_s``,
        ``viewer_s`` of the trees, and ``page_s`` of all that follows reading; ``MB``; ``paint_s`` until the first
        text is there and ``drawn_s`` until all plots are, None where there is no browser.
    """
    reason = missing_browser()
    if reason:
        tell(f"{reason}; the page is written, but not opened")
    rows = []
    for num_classes, num_evaluations in sizes:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            large(folder, num_evaluations=num_evaluations, num_classes=num_classes)
            file = folder / "report.html"
            written = [_command_seconds(folder) for _ in range(repeats)]
            parts = [_parts(folder) for _ in range(repeats)]
            opened = [] if reason else [_opened(file) for _ in range(repeats)]
            row: dict[str, Any] = (
                {"classes": num_classes, "evaluations": num_evaluations, "write_s": median(written)}
                | {key: median(part[key] for part in parts) for key in parts[0]}
                | {"MB": file.stat().st_size / 1e6}
            )
            for place, key in enumerate(("paint_s", "drawn_s")):
                row[key] = median(one[place] for one in opened) if opened else None
            rows.append(row)
    return rows


def _command_seconds(folder: Path) -> float:
    command = [sys.executable, "-m", "treesearch.cli", "report", str(folder)]
    begin = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = perf_counter() - begin
    if done.returncode:
        raise ExecutionError(f"treesearch report failed: {done.stderr.strip()}")
    return seconds


def _parts(folder: Path) -> dict[str, float]:
    """Where the time goes; a view keeps what it has computed, as it does for the page."""
    run_page(load_run(folder))  # what is loaded at first use
    views = [load_run(folder) for _ in range(2)]
    seconds = {
        "reading_s": call_seconds(lambda: load_run(folder)),
        "figures_s": call_seconds(lambda: run_figures(views[0])),
        "viewer_s": call_seconds(lambda: _viewer(views[0])),
    }
    return seconds | {"page_s": call_seconds(lambda: run_page(views[1]))}


def _viewer(view: RunView) -> dict[str, Any]:
    assert view.counts is not None, "made-up runs have counts"
    width = view.config.encoder.features
    names, vectors = view.class_names, view.class_vectors
    return viewer_data(viewed_trees(view), counts=view.counts, class_names=names, vectors=vectors, in_features=width)


def _opened(file: Path) -> tuple[float, float]:
    """Seconds from navigation until the first text is painted, and until all plots are drawn."""
    with start_browser() as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": DRAWN})
        driver.get(file.as_uri())
        until = perf_counter() + PATIENCE
        while (drawn := driver.execute_script("return window.drawnAt")) is None:
            if perf_counter() > until:
                raise ExecutionError(f"the plots of the page were not drawn within {PATIENCE:g} s")
            time.sleep(0.05)
        return driver.execute_script(PAINTED)[0] / 1000, drawn / 1000
