"""A headless Chromium, for what can only be seen in a browser; it and selenium are optional."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
MISSING = "no Chromium: install chromium and chromium-driver"


def missing_browser() -> str | None:
    """Why pages cannot be looked at here; None where they can."""
    if not any(map(shutil.which, BROWSERS)) or not shutil.which(DRIVER):
        return MISSING
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium: pip install selenium"
    return None


@contextmanager
def start_browser(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """A selenium driver of a Chromium with a profile of its own, which ends with the context.

    ``driver.get_log("browser")`` holds what pages wrote to the console since it was last read. There must be a browser,
    as `missing_browser` tells.

    Args:
        width: Of what a page sees, pixels; narrower than a real window can be is possible.
        height: Likewise.
        dark: Whether the system prefers dark pages.
    """
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which(DRIVER))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            resize(driver, width, height)
            prefer(driver, dark=dark)
            yield driver
        finally:
            driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Let pages see a window of this size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(driver: Any, *, dark: bool) -> None:
    """Let the system prefer dark pages, or light ones."""
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
