"""Every page there is, as each person finds it: by status, and in Chromium."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from django.test import Client
from django.urls import URLPattern, reverse
from pytest_django.live_server_helper import LiveServer

from dashboard.urls import urlpatterns
from tenants.models import User
from tenants.roles import Role
from tests.dashboard.browser.conftest import enter
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_team_members import make_team_member
from tests.dashboard.walk import LOOKS, SCHEMES, WIDTHS, Look, Walker
from tests.dashboard.walk_tenant import AGENT, TEAM, furnish
from tests.factories import Account, make_account
from tests.seed import dice

# For who has not signed in, or has but a link.
PUBLIC: Final = {"login", "forgotten", "new_password", "invitation", "styleguide"}
# What a page asks for besides its path.
QUERIES: Final = {
    "confirm_halt": "?dimension=agent&value=writer",
    "add_channel": "?kind=email",
    "search": "?q=re",
    "search_results": "?q=re",
    "spend_chart": "?group_by=agent",
    "add_raise": "?budget={budget_id}",
}
# Pages that look otherwise with another query.
ALSO: Final = (
    "/?group_by=team&period=today",
    "/explore?group_by=agent,customer",
    "/explore?group_by=agent,customer&shape=flow",
    "/explore?metric=p95_cost_usd&group_by=agent",
    "/sessions?order=unusual",
    "/settings/prices?q=claude",
    "/customers?month=2026-01&q=x",
    "/customers/unassigned?by=feature",
    "/budgets/new?start=customer&customer=a",
    "/customers/credits?show=wallets",
    "/customers/credits?show=notes",
    "/customers/credits?show=coupons",
    "/customers/reconciliation?kind=stripe",
)


@dataclass(frozen=True)
class Address:
    """An address of the pages, with the tenant's rows in it."""

    name: str
    path: str
    is_of_row: bool


def addresses(objects: dict[str, object]) -> Iterator[Address]:
    """All addresses that there are. What `objects` has by a page's name stands for the page's
    parameter; parameters that it has not got are of buttons alone.
    """
    for pattern in urlpatterns:
        assert isinstance(pattern, URLPattern), pattern
        name = str(pattern.name or "")
        names = list(pattern.pattern.converters)
        if not name:
            continue  # leads to another page
        values = {each: objects.get(name, objects.get(each, 1)) for each in names}
        path = reverse(f"dashboard:{name}", kwargs=values)
        query = QUERIES.get(name, "")
        is_of_row = "{" in query or any(each != "kind" for each in names)
        yield Address(name, path + query.format(**objects), is_of_row)


def read(client: Client, path: str) -> tuple[int, bytes]:
    """The status and the whole body, which a download gives only when it is asked for."""
    answer = client.get(path)
    return answer.status_code, answer.getvalue()


# What a person reads where there is nothing to open.
REFUSALS: Final = {
    403: "<h1>You don\N{RIGHT SINGLE QUOTATION MARK}t have permission</h1>",
    404: "<h1>Page not found</h1>",
}


def is_page(body: bytes) -> bool:
    """Whether an answer is a whole page: not a file or a part."""
    return body.lstrip()[:15].lower() == b"<!doctype html>"


@dataclass(frozen=True)
class Opened:
    """What addresses answer to a person."""

    pages: list[str]
    # An address of each status.
    refused: dict[int, str]


def open_all(client: Client, objects: dict[str, object]) -> Opened:
    """Ask for every address; what may not be opened is refused by a page that says so."""
    pages, refused = [], {}
    for address in addresses(objects):
        status, body = read(client, address.path)
        assert status in {200, 302, 405, *REFUSALS}, address
        if status in REFUSALS:
            assert REFUSALS[status] in body.decode(), address
            assert AGENT.encode() not in body, address
            refused[status] = address.path
        elif status == 200 and is_page(body):
            pages.append(address.path)
    return Opened(pages, refused)


@pytest.fixture
def objects(account: Account, owner: Client) -> dict[str, object]:
    """What stands for the parameters of addresses, in a tenant with something on every page."""
    return furnish(account, owner)


def test_every_page_opens_for_members_and_for_no_one_else(
    account: Account, owner: Client, objects: dict[str, object]
) -> None:
    stranger = sign_in(make_account().email)
    # The others walk, below.
    members = [sign_in(make_member(account, role)) for role in (Role.ADMIN, Role.FINANCE)]
    shown = 0
    for address in addresses(objects):
        status, _ = read(owner, address.path)
        assert status in {200, 302, 405}, address
        member = dice("member", address.name).choice(members)
        assert read(member, address.path)[0] in {status, 403, 404}, address
        if status != 200 or address.name in PUBLIC:
            continue
        shown += 1
        signed_out = Client().get(address.path)
        assert signed_out.status_code == 302, address
        assert signed_out["Location"].startswith("/login?next="), address
        status, body = read(stranger, address.path)
        assert status == (404 if address.is_of_row else 200), address
        assert AGENT.encode() not in body, address
        assert b"onerror" not in body, address
    assert shown > 50


def test_the_owner_finds_no_page_that_breaks_a_rule(
    walker: Walker, live_server: LiveServer, owner: Client, objects: dict[str, object]
) -> None:
    opened = open_all(owner, objects)
    assert (len(opened.pages) > 35, opened.refused) == (True, {})
    enter(walker.page, owner, live_server.url)
    for path in (*opened.pages, *ALSO):
        for width in WIDTHS:
            walker.visit(path, [Look(width, scheme) for scheme in SCHEMES])
    assert walker.problems == {}


# Each looks at every page once, in the next of the ways; so all of them are looked in at each.
PEOPLE: Final[dict[str, Callable[[Account], str]]] = {
    "engineer of a team": lambda account: make_team_member(account, Role.ENGINEER, TEAM),
    "viewer": lambda account: make_member(account, Role.VIEWER),
    "owner of another tenant": lambda account: make_account().email,
}


@pytest.mark.parametrize("person", list(PEOPLE))
def test_others_find_no_page_that_breaks_a_rule(
    walker: Walker,
    live_server: LiveServer,
    account: Account,
    objects: dict[str, object],
    person: str,
) -> None:
    client = sign_in(PEOPLE[person](account))
    opened = open_all(client, objects)
    assert len(opened.pages) > 25
    assert opened.refused
    enter(walker.page, client, live_server.url)
    for number, path in enumerate(opened.pages, list(PEOPLE).index(person)):
        walker.visit(path, [LOOKS[number % len(LOOKS)]])
    for status, path in opened.refused.items():
        for look in LOOKS:
            walker.visit_refused(path, look, status=status)
    assert walker.problems == {}


def test_who_belongs_nowhere_or_has_not_signed_in_finds_no_page_that_breaks_a_rule(
    walker: Walker, live_server: LiveServer, objects: dict[str, object]
) -> None:
    for path in [*(each.path for each in addresses(objects) if each.name in PUBLIC), "/"]:
        for width in WIDTHS:
            walker.visit(path, [Look(width, scheme) for scheme in SCHEMES])
    User.objects.create_user("nobody@example.com")
    enter(walker.page, sign_in("nobody@example.com"), live_server.url)
    for look in LOOKS:
        walker.visit_refused("/", look, status=403)
    assert walker.problems == {}
    # Swagger's own page has faults that axe finds (docs/decisions/0035), but breaks no policy.
    walker.visit("/v1/docs", LOOKS[:1])
    assert [
        problem
        for of_page in walker.problems.values()
        for problem in of_page
        if not problem.startswith("axe")
    ] == []
