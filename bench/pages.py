"""How long pages and their charts take over three months of usage while more comes in, and what
pages that stay open cost.

A database that was filled once is used again: `--folder` names where it is.
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

from bench import drawn, reading
from bench.events import Load, budget_bodies
from bench.kit.figures import Row
from bench.kit.load import percentile, send
from bench.kit.service import Service, headers_of
from bench.kit.wire import JsonObject

# Events of the whole range are taken in: by default they would be refused after 35 days.
ENVIRONMENT: Final = {"EVENT_MAX_AGE_DAYS": "100"}
DAYS: Final = 90
FILL_BATCHES: Final = 20
BATCH_SIZE: Final = 1_000
CONNECTIONS: Final = 8
EVENTS_A_SECOND: Final = 2_000
LIVE_BATCH_SIZE: Final = 500
LIVE_DAYS: Final = 1 / 1440
REPEATS: Final = 9
PATIENCE_SECONDS: Final = 30
FORM: Final = "application/x-www-form-urlencoded"
FIRST_BYTE_MS: Final = 300
FIGURES_MS: Final = 600
CHARTS_MS: Final = 1_500
# What has to be told of an owner and a key to use a folder again.
TENANT_FILE: Final = "pages.json"

MONTH: Final = "period=30d"
# All that is stored, from the first whole day on.
_TODAY: Final = datetime.now(UTC).date()
QUARTER: Final = f"from={_TODAY - timedelta(days=DAYS - 1)}&to={_TODAY}"
# Pages, by what a row of the table calls them. Every metric that explore offers is asked for.
METRICS: Final = (
    *("cost", "requests", "cost_per_request", "error_rate", "cost_per_user", "users", "sessions"),
    *("customers", "p95_cost_usd", "p99_latency_ms", "cost_per_success_usd"),
)
PAGES: Final = (
    "/",
    f"/?{MONTH}",
    f"/?{QUARTER}",
    f"/?{MONTH}&filter[team]=team-3",
    *(f"/explore?{MONTH}&group_by=team&metric={metric}" for metric in METRICS),
    *(f"/explore?{MONTH}&group_by=user&metric={metric}" for metric in METRICS),
    f"/explore?{QUARTER}&group_by=customer,agent",
    f"/explore?{MONTH}&group_by=customer,model&metric=p95_cost_usd",
    f"/sessions?{MONTH}",
    "/sessions?period=7d&order=unusual",
    f"/sessions?{MONTH}&filter[customer]=customer-150",
    f"/calls?{MONTH}",
    f"/calls?{MONTH}&filter[user]=user-900",
    "/budgets",
    f"/unit-economics?{MONTH}",
    f"/unit-economics?{MONTH}&unit=user",
    f"/unit-economics?{MONTH}&unit=session",
    f"/savings?{MONTH}",
    "/incidents",
    "/enforcement/requests",
    "/enforcement/halts",
    "/enforcement/decisions",
    "/enforcement/estimates",
    "/enforcement/unknown",
    "/reports",
    "/annotations",
    "/search?q=agent-1",
    "/settings/members",
    "/settings/sources",
    "/settings/prices",
    "/settings/audit-log",
)
# What a page reads after it is painted.
LATER: Final = (
    f"/charts/spend.json?{QUARTER}",
    f"/charts/month.json?{MONTH}",
    f"/explore/chart.json?{QUARTER}&group_by=customer",
    f"/explore/chart.json?{MONTH}&group_by=user&metric=p95_cost_usd",
    f"/explore/chart.json?{MONTH}&group_by=team&metric=users",
    f"/explore/composition.json?{MONTH}&group_by=customer,agent",
    f"/explore/ranking.html?{MONTH}&group_by=user",
    f"/explore/ranking.html?{QUARTER}&group_by=customer,agent",
    f"/sessions.html?{MONTH}",
    "/sessions.html?period=7d&order=unusual",
    f"/sessions.html?{MONTH}&filter[customer]=customer-150",
    f"/calls.html?{MONTH}&filter[user]=user-900",
    f"/unit-economics/chart.json?{MONTH}&unit=user",
    *(
        f"/explore/ranking.html?{MONTH}&group_by={group}&metric={metric}"
        for group in ("team", "user")
        for metric in ("users", "sessions", "customers")
    ),
    *(
        f"/explore/ranking.html?{MONTH}&group_by={group}&metric=p95_cost_usd"
        for group in ("team", "customer", "model")
    ),
    f"/unit-economics/figures.html?{MONTH}&unit=session",
    f"/unit-economics/all?{MONTH}",
    f"/unit-economics/agents?{MONTH}",
    f"/savings/findings?{MONTH}",
    "/search/results?q=agent-1",
)
# Pages that are opened in a browser.
DRAWN: Final = ("/", f"/?{QUARTER}", f"/explore?{MONTH}&group_by=team", f"/explore?{MONTH}")


class Timed(NamedTuple):
    """A request of a page: its status, when its first byte came, and what came."""

    status: int
    milliseconds: float
    mark: str
    body: bytes


class Browser:
    """A person who is signed in."""

    def __init__(self, port: int, *, email: str, password: str) -> None:
        self._port = port
        self._cookies = SimpleCookie()
        form = self.get("/login").body.decode()
        token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[0]
        fields = {"username": email, "password": password, "csrfmiddlewaretoken": token}
        signed_in = self._ask("POST", "/login", {"Content-Type": FORM}, urlencode(fields))
        if signed_in.status != HTTPStatus.FOUND:
            raise SystemExit(f"Signing in failed with {signed_in.status}.")

    @property
    def cookies(self) -> dict[str, str]:
        """What says who has signed in."""
        return {name: morsel.value for name, morsel in self._cookies.items()}

    def get(self, path: str, *, mark: str = "", is_live: bool = False) -> Timed:
        """Ask for a page; with `mark`, whether it is still what it was."""
        headers = {"If-None-Match": mark} if mark else {}
        return self._ask("GET", path, headers | ({"X-Live": "1"} if is_live else {}))

    def _ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> Timed:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            begun = time.perf_counter()
            connection.request(method, path, body, {**headers, "Cookie": cookies})
            answer = connection.getresponse()
            taken = (time.perf_counter() - begun) * 1000
            for cookie in answer.headers.get_all("Set-Cookie", []):
                self._cookies.load(cookie)
            return Timed(answer.status, taken, answer.headers.get("ETag", ""), answer.read())


def measure(service: Service, row: Row, *, stored: int) -> None:
    """Fill the folder unless it is filled, and show how long pages take."""
    owner = _fill(service, stored)
    service.api_key = owner["api_key"]
    browser = Browser(service.port, email=owner["email"], password=owner["password"])
    paths = list(_found_in(browser))
    pages = [*PAGES, *paths]
    later = [*LATER, paths[0].replace("/sessions/", "/usual-of-session/")]
    _measure_open(service, browser, row)
    with _ingest(service):
        slowest = _measure_each(browser, pages, row, FIRST_BYTE_MS)
        row(f"First byte of {len(pages)} pages, the slowest's p95", f"{slowest:,.0f} ms", "300 ms")
        slowest = _measure_each(browser, later, row, FIGURES_MS)
        row(f"{len(later)} parts read later, the slowest's p95", f"{slowest:,.0f} ms", "600 ms")
        _measure_drawn(service, browser, row)


def _measure_each(browser: Browser, paths: Sequence[str], row: Row, wanted_ms: int) -> float:
    """Show what is too slow; return the slowest 95th percentile."""
    taken: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(REPEATS):
        for path in paths:
            answer = browser.get(path)
            if answer.status != 200:
                raise SystemExit(f"{path}: {answer.status}")
            taken[path].append(answer.milliseconds)
    for path in sorted(paths, key=lambda path: -max(taken[path])):
        ordered = sorted(taken[path])
        p95_ms = percentile(ordered, 95)
        row(f"  {path}", f"{p95_ms:,.0f} ms (half: {percentile(ordered, 50):,.0f})", f"{wanted_ms}")
    return max(percentile(sorted(times), 95) for times in taken.values())


def _measure_drawn(service: Service, browser: Browser, row: Row) -> None:
    """Open pages in Chromium; show when their numbers can be read and their charts are drawn."""
    with drawn.chromium(f"http://127.0.0.1:{service.port}", browser.cookies) as window:
        if window is None:
            row("Pages in Chromium", "skipped: needs Chromium and Playwright", "")
            return
        for path in DRAWN:
            shown = [window.open(path) for _ in range(REPEATS)]
            for what, wanted_ms in (("numbers", FIGURES_MS), ("charts", CHARTS_MS)):
                taken = sorted(getattr(opened, what) for opened in shown)
                half, p95_ms = percentile(taken, 50), percentile(taken, 95)
                figure = f"{p95_ms:,.0f} ms (half: {half:,.0f})"
                row(f"Its {what} in Chromium, cold, p95: {path}", figure, f"{wanted_ms:,} ms")


def _measure_open(service: Service, browser: Browser, row: Row) -> None:
    """Ask for open pages again while nothing comes, and note what one answer costs."""
    with service.connect() as connection:
        reading.wait_for_roll_ups(connection)
    taken = []
    for path in PAGES[:4]:
        mark = browser.get(path).mark
        for _ in range(REPEATS):
            answer = browser.get(path, mark=mark, is_live=True)
            if answer.status == 304:
                taken.append(answer.milliseconds)
            mark = answer.mark
    p95_ms = percentile(sorted(taken), 95) if taken else float("inf")
    row("An open page asks again while nothing comes, p95", f"{p95_ms:,.0f} ms", "20 ms")


def _found_in(browser: Browser) -> Iterator[str]:
    """Yield a session, a trace, a call and a budget: those that lists name first."""
    for listed, pattern in (
        (f"/sessions.html?{MONTH}", r'href="(/sessions/[^"?]+)'),
        (f"/calls?{MONTH}", r'href="(/calls/[^"?]+)'),
        ("/budgets", r'href="(/budgets/\d+)["?]'),
    ):
        match = re.search(pattern, browser.get(listed).body.decode())
        if match is None:
            raise SystemExit(f"Nothing is listed on {listed}.")
        yield match[1]


def _fill(service: Service, stored: int) -> JsonObject:
    """Store events of 90 days in the order of their time, through the API; return who owns them."""
    file = Path(service.folder) / TENANT_FILE
    if file.exists():
        owner: JsonObject = json.loads(file.read_text())
        return owner
    printed = service.manage("create_tenant", "pages", "--owner", "pages@example.com", "--json")
    owner = json.loads(printed.splitlines()[-1])
    service.api_key = owner["api_key"]
    for body in budget_bodies():
        service.call("POST", "/v1/budgets", body)
    while (first := owner.get("stored", 0)) < stored:
        days = DAYS * FILL_BATCHES * BATCH_SIZE / stored
        ago = max(0.0, DAYS * (stored - first) / stored - days)
        load = Load(
            seed=first,
            name=f"fill-{first}",
            days=days,
            until_days_ago=ago,
            has_steady_sessions=True,
        )
        bodies = load.bodies(batches=FILL_BATCHES, size=BATCH_SIZE)
        owner["stored"] = first + _send(service.port, owner["api_key"], bodies)
    with service.connect() as connection:
        reading.wait_for_roll_ups(connection)
    file.write_text(json.dumps(owner))
    return owner


def _send(port: int, api_key: str, bodies: Sequence[bytes]) -> int:
    sent = send(port=port, headers=headers_of(api_key), bodies=bodies, connections=CONNECTIONS)
    return sent.accepted


@contextmanager
def _ingest(service: Service) -> Iterator[None]:
    """Send 2,000 events a second meanwhile, from a process of its own."""
    context = get_context("fork")
    stop = context.Event()
    process = context.Process(target=_keep_sending, args=(service.port, service.api_key, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def _keep_sending(port: int, api_key: str, stop: Event) -> None:
    begun = time.monotonic()
    load = Load(seed=1, name=f"live-{time.time_ns()}", days=LIVE_DAYS)
    sent = 0
    while not stop.is_set():
        sent += _send(port, api_key, load.bodies(batches=1, size=LIVE_BATCH_SIZE))
        stop.wait(max(0.0, begun + sent / EVENTS_A_SECOND - time.monotonic()))
