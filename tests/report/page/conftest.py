"""One browser for all tests of pages: to start it takes longer than most of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import resize, start_browser
from tests.report.page.browser_page import PATIENCE, prefer

WIDTH, HEIGHT = 1280, 900  # pixels


@pytest.fixture(scope="package")
def started_browser() -> Iterator[Any]:
    with start_browser(WIDTH, HEIGHT) as driver:
        driver.set_script_timeout(PATIENCE)
        prefer(driver, dark=False)
        yield driver


@pytest.fixture
def browser(started_browser: Any) -> Iterator[Any]:
    """The browser, whose window, theme and storage are put back after the test; the page that is open stays."""
    yield started_browser
    resize(started_browser, WIDTH, HEIGHT)
    prefer(started_browser, dark=False)
    started_browser.execute_script("if (location.protocol === 'file:') localStorage.clear()")
