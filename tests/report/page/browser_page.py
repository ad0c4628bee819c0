"""An open page in the browser that tests share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.browser import console_errors, open_page

PATIENCE = 60.0  # seconds for what takes less than one
DRAWN = """
const [done] = arguments, root = document.documentElement;
const look = () => root.dataset.drawn === "true" && done();
new MutationObserver(look).observe(root, {attributes: true});
look();
"""
SCROLLING_TABLES = """
return [...document.querySelectorAll(".tv-scroll")].filter(box => box.scrollWidth > box.clientWidth)
  .map(box => [box.ariaLabel, box.scrollWidth, box.clientWidth]);
"""  # of the tree viewer, sideways
HOLDING = """
window.held = [];
const later = window.setTimeout.bind(window);
window.setTimeout = (what, delay, ...rest) => delay === %d ? window.held.push(what) : later(what, delay, ...rest);
"""


class OpenPage:
    """What tests do with an open page."""

    def __init__(self, driver: Any, path: Path) -> None:
        """Open the page anew."""
        self.driver = driver
        console_errors(driver)
        open_page(driver, path)

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, code: str, what: str) -> Any:
        """Wait for a value that is true; what a page says that is being left does not count."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while True:
            try:
                if value := self.js(code):
                    return value
            except WebDriverException:
                pass
            assert time.monotonic() < end, f"waited for {what}"
            time.sleep(0.05)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector: str) -> list[str]:
        return self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)

    def press(self, key: str) -> None:
        self.driver.switch_to.active_element.send_keys(key)


class ReportPage(OpenPage):
    """A page of the report, whose plots are drawn."""

    def __init__(self, driver: Any, path: Path) -> None:
        """Open the page anew."""
        super().__init__(driver, path)
        self.drawn()

    @classmethod
    def shared(cls, driver: Any, path: Path) -> Self:
        """The page as a test before left it, or opened anew if that one left another page, or spoiled this one."""
        if driver.current_url != path.resolve().as_uri() or driver.execute_script("return window.spoiled"):
            return cls(driver, path)
        page = cls.__new__(cls)
        page.driver = driver
        console_errors(driver)
        page.drawn()
        return page

    def spoil(self) -> None:
        """Say that no other test can use the page as it is now."""
        self.js("window.spoiled = true")

    def drawn(self) -> None:
        self.driver.execute_async_script(DRAWN)

    def theme(self) -> str:
        return self.js("return document.documentElement.dataset.theme")


def prefer(driver: Any, *, dark: bool) -> None:
    """Let the system prefer dark pages, or light ones, and no motion: what scrolls smoothly cannot be clicked on."""
    wanted = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@contextmanager
def hold_timers(driver: Any, *, seconds: float) -> Iterator[None]:
    """Timers of just this length do not run in pages that are opened meanwhile; they are listed in ``window.held``."""
    source = {"source": HOLDING % round(1000 * seconds)}
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
