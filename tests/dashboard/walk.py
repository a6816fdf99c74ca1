"""Walks pages in Chromium as a person does, and collects what is wrong with them."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request

SCHEMES: Final = ("light", "dark")
WIDTHS: Final = (1440, 390)


def watch(page: Page, server_url: str) -> list[str]:
    """What the browser complains about from now on: errors of scripts and of the policy, requests
    that fail, and requests to elsewhere.
    """
    complaints: list[str] = []
    own = urlsplit(server_url).netloc

    def asked(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in {"http", "https"} and address.netloc != own:
            complaints.append(f"external request: {request.url}")

    def failed(request: Request) -> None:
        # A page that is left behind asks for nothing any more.
        if request.failure != "net::ERR_ABORTED":
            complaints.append(f"failed request: {request.url} {request.failure}")

    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)
    page.on("requestfailed", failed)
    return complaints


def problems_of(page: Page) -> list[str]:
    """What is wrong with the page as it stands: content wider than the window, and violations that
    axe finds, where it is installed.
    """
    wider = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    found = [f"{wider} px wider than the window"] if wider > 0 else []
    if find_spec("axe_playwright_python") is None:
        return found
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - may not be installed

    response = Axe().run(page, options={"preload": False}).response
    return found + [
        f"axe {one['id']}: {one['help']}: {node['html'][:120]}"
        for one in response["violations"]
        for node in one["nodes"][:3]
    ]


def walk(
    browser: Browser,
    server_url: str,
    paths: Sequence[str],
    *,
    cookies: Sequence[dict[str, str]] = (),
) -> dict[str, list[str]]:
    """Open every path light and dark, wide and narrow; return the problems of each. `cookies` are
    those of a session (`Client.cookies`), so that one walks as any person.
    """
    problems: dict[str, list[str]] = {}
    for scheme in SCHEMES:
        for width in WIDTHS:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
                base_url=server_url,
            )
            context.add_cookies(
                [{"name": one["name"], "value": one["value"], "url": server_url} for one in cookies]
            )
            page = context.new_page()
            complaints = watch(page, server_url)
            for path in paths:
                page.goto(path)
                if page.locator(".chart[id]").count():
                    page.wait_for_selector(".chart[data-ready]")
                if found := complaints + problems_of(page):
                    problems[f"{path} {scheme} {width}"] = found
                complaints.clear()
            context.close()
    return problems
