"""When the numbers of a page can be read and its charts are drawn, in Chromium with nothing in its
cache. Skipped without Playwright, which the service itself does not need.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM: Final = Path("/usr/bin/chromium")
PATIENCE_MS: Final = 30_000
# Noted when a frame shows it: what is read after the page is there, and what is drawn.
_WATCH: Final = """
    window.shown = {};
    const look = () => {
        if (document.readyState === "loading") return;
        const isThere = {
            numbers: !document.querySelector("[hx-trigger=load] .skeleton"),
            charts: !document.querySelector(".chart[id]:not([data-ready])"),
        };
        for (const name in isThere) {
            if (!isThere[name] || name in window.shown) continue;
            window.shown[name] = null;
            requestAnimationFrame(() => setTimeout(() => (window.shown[name] = performance.now())));
        }
    };
    const everything = { subtree: true, childList: true, attributes: true };
    new MutationObserver(look).observe(document, everything);
    document.addEventListener("DOMContentLoaded", look);
"""
_IS_SHOWN: Final = "() => window.shown.numbers && window.shown.charts"


class Shown(NamedTuple):
    """When a page showed what it has, in milliseconds since it was asked for."""

    numbers: float
    charts: float


class Window:
    """Chromium, in which a person has signed in."""

    def __init__(self, chromium: "Browser", address: str, cookies: Mapping[str, str]) -> None:
        self._chromium = chromium
        self._address = address
        self._cookies = cookies

    def open(self, path: str) -> Shown:
        """Open a page as one who has never been there."""
        with self._chromium.new_context(base_url=self._address) as context:
            context.add_cookies(
                [
                    {"name": name, "value": value, "url": self._address}
                    for name, value in self._cookies.items()
                ]
            )
            page = context.new_page()
            page.add_init_script(_WATCH)
            page.goto(path, wait_until="commit")
            page.wait_for_function(_IS_SHOWN, timeout=PATIENCE_MS)
            return Shown(**page.evaluate("() => window.shown"))


@contextmanager
def chromium(address: str, cookies: Mapping[str, str]) -> Iterator[Window | None]:
    """Start Chromium; yields None where it or what drives it is not installed."""
    if not CHROMIUM.exists() or find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may not be installed

    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield Window(browser, address, cookies)
        browser.close()
