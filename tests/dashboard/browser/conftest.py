"""One Chromium for all tests of this package, and one tab of it.

A new tab is a process that knows nothing: to start it, and to compile plotly again, took 5 s of
processor time for each test that had one of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.dashboard.walk import Walker, watch

CHROMIUM: Final = Path("/usr/bin/chromium")
FLAGS: Final = (
    "--no-sandbox",
    "--disable-background-networking",
    # There is no graphics card here, and to imitate one is slower than to do without.
    "--disable-gpu",
    "--disable-software-rasterizer",
)


# A busy machine changes no test's outcome.
PATIENCE_MS: Final = 60_000
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Chromium where there is none."""
    if CHROMIUM.exists():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            reason = f"Page tests need {CHROMIUM}: apt-get install chromium."
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    # The driver runs an event loop in this thread, which Django takes for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS])
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="package")
def only_tab(browser: Browser, live_server: LiveServer) -> Iterator[tuple[Page, list[str]]]:
    """The tab, and what the browser complains about in it."""
    with browser.new_context(base_url=live_server.url, timezone_id="Asia/Tokyo") as window:
        window.set_default_timeout(PATIENCE_MS)
        page = window.new_page()
        yield page, watch(page, live_server.url)


@pytest.fixture
def tab(only_tab: tuple[Page, list[str]]) -> Iterator[Page]:
    """The tab, in which no one has signed in. At the end it has had no error, no failed and no
    external request, and no violation of the policy.
    """
    page, complaints = only_tab
    complaints.clear()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(media="screen", color_scheme="light")
    yield page
    # A page that stays open would ask on, and one of elsewhere would take a new process.
    page.context.clear_cookies()
    page.goto("/login")
    assert complaints == []


@pytest.fixture
def walker(tab: Page, only_tab: tuple[Page, list[str]]) -> Walker:
    """Who opens addresses in the tab."""
    return Walker(*only_tab)


@pytest.fixture
def owners_tab(tab: Page, owner: Client, live_server: LiveServer) -> Page:
    """A tab in which the owner has signed in."""
    enter(tab, owner, live_server.url)
    return tab


def enter(tab: Page, client: Client, url: str) -> None:
    """Let the person of this client in."""
    session = client.cookies["sessionid"].value
    tab.context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
