"""Opens pages in Chromium as a person does, and collects what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request, expect

WIDTHS: Final = (1440, 390)
Scheme = Literal["light", "dark"]
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    width: int
    scheme: Scheme


# A busy machine changes no outcome.
SETTLED_MS: Final = 60_000
LOOKS: Final = tuple(Look(width, scheme) for width in WIDTHS for scheme in SCHEMES)
# What axe finds of a page may depend on its theme; widths differ in what does not fit.
OF_THEMES: Final = ("color-contrast",)


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
    ).to_have_count(0, timeout=SETTLED_MS)
    expect(page.locator(".chart[id]:not([data-ready])")).to_have_count(0, timeout=SETTLED_MS)


def problems_of(page: Page, *, rules: Sequence[str] = (), asks_axe: bool = True) -> list[str]:
    """What is wrong with the page as it stands: content wider than the window, and violations of
    these rules of axe (none named: of all), where it is installed.
    """
    wider = overflow(page)
    result = [f"{wider} px wider than the window"] if wider > 0 else []
    if not asks_axe or find_spec("axe_playwright_python") is None:
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


class Walker:
    """Opens addresses in a tab, as the person who has signed in there; `complaints` is what is
    watched of it.
    """

    def __init__(self, page: Page, complaints: list[str]) -> None:
        self.page = page
        self.problems: dict[str, list[str]] = {}
        self._complaints = complaints

    def visit(self, path: str, looks: Sequence[Look]) -> None:
        """Open a page and look at it in each of these ways, without asking for it again."""
        self._look(looks[0])
        self.page.goto(path)
        self._judge(path, looks[0])
        for look in looks[1:]:
            self._look(look)
            self._judge(path, look, rules=OF_THEMES)

    def visit_refused(self, path: str, look: Look, *, status: int) -> None:
        """Open what is answered with an error page. Chromium itself writes of the status, and that
        alone.
        """
        self._look(look)
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status == status
        said = [
            line
            for line in self._complaints
            if f"the server responded with a status of {status}" in line
        ]
        assert len(said) == 1
        self._complaints.remove(said[0])
        self._judge(path, look)

    def _look(self, look: Look) -> None:
        self.page.set_viewport_size({"width": look.width, "height": 900})
        self.page.emulate_media(color_scheme=look.scheme)

    def _judge(self, path: str, look: Look, *, rules: Sequence[str] = ()) -> None:
        settle(self.page)
        result = problems_of(self.page, rules=rules, asks_axe=look.width == WIDTHS[0])
        if result := self._complaints + result:
            self.problems[f"{path} {look.scheme} {look.width}"] = result
        self._complaints.clear()
