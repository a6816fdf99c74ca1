"""Opens pages in Chromium as a person does, and collects what is wrong with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, expect

WIDTHS: Final = (1440, 390)
Scheme = Literal["light", "dark"]


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    width: int
    scheme: Scheme
    # What axe looks for; none named: all that it can.
    rules: tuple[str, ...] = ()


# What of a page depends on its theme and width.
OF_LOOKS: Final = ("color-contrast",)
# Each theme and each width. The walks of other members look in the other two ways.
EVERY_LOOK: Final = (Look(1440, "light"), Look(390, "dark", OF_LOOKS))


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


def overflow(page: Page) -> int:
    """How many pixels the content is wider than the window."""
    result: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return result


def settle(page: Page) -> None:
    """Wait until all parts are read and all charts drawn."""
    expect(
        page.locator("[hx-trigger=load].htmx-request, [hx-trigger=load] .skeleton")
    ).to_have_count(0, timeout=15_000)
    expect(page.locator(".chart[id]:not([data-ready])")).to_have_count(0, timeout=15_000)


def problems_of(page: Page, *, rules: Sequence[str] = ()) -> list[str]:
    """What is wrong with the page as it stands: content wider than the window, and violations of
    these rules of axe (none named: of all), where it is installed.
    """
    wider = overflow(page)
    result = [f"{wider} px wider than the window"] if wider > 0 else []
    if find_spec("axe_playwright_python") is None:
        return result
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe_script())
    options = {"preload": False, "resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    answer = page.evaluate("(options) => axe.run(options)", options)
    return result + [
        f"axe {violation['id']}: {violation['help']}: {node['html'][:120]}"
        for violation in answer["violations"]
        for node in violation["nodes"][:3]
    ]


@cache
def _axe_script() -> str:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - may not be installed

    return str(Axe().axe_script)


def walk(
    browser: Browser,
    server_url: str,
    paths: Sequence[str],
    *,
    session: str = "",
    looks: Iterable[Look] = EVERY_LOOK,
) -> dict[str, list[str]]:
    """Open every path in these looks; return the problems of each. `session` is the cookie of a
    person who has signed in.
    """
    problems: dict[str, list[str]] = {}
    # An open page keeps the server from ending, so this closes after a failure, too.
    with browser.new_context(base_url=server_url) as context:
        if session:
            context.add_cookies([{"name": "sessionid", "value": session, "url": server_url}])
        page = context.new_page()
        complaints = watch(page, server_url)
        for look in looks:
            page.set_viewport_size({"width": look.width, "height": 900})
            page.emulate_media(color_scheme=look.scheme)
            for path in paths:
                page.goto(path)
                settle(page)
                if result := complaints + problems_of(page, rules=look.rules):
                    problems[f"{path} {look.scheme} {look.width}"] = result
                complaints.clear()
    return problems
