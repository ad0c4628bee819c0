"""A headless Chromium for tests that look at pages; without one they skip, or fail if TREESEARCH_BROWSER=required."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from treesearch.bench import browser
from treesearch.bench.browser import prefer, resize

__all__ = ["console_errors", "open_page", "prefer", "require_browser", "resize", "start_browser"]


def require_browser() -> None:
    """Skip the test where there is no browser, or fail it where there must be one."""
    reason = browser.missing_browser()
    if reason and os.environ.get("TREESEARCH_BROWSER") == "required":
        pytest.fail(f"TREESEARCH_BROWSER=required, but {reason}")
    if reason:
        pytest.skip(reason)


@contextmanager
def start_browser(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """As `treesearch.bench.browser.start_browser`, where there is a browser."""
    require_browser()
    with browser.start_browser(width, height, dark) as driver:
        yield driver


def console_errors(driver: Any) -> list[str]:
    """Errors and warnings that pages wrote to the console since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def open_page(driver: Any, path: Path) -> None:
    """Open a file as by double click."""
    driver.get(path.resolve().as_uri())
