"""What holds of every page, also of those that are yet to be written: a person who may not change
anything cannot, a member of teams reads no other team's money, and no address breaks a page.
"""

import csv
import re
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any, Final
from urllib.parse import quote

import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client

from alerts.models import Delivery, DeliveryState
from common.csv_files import safe_cell
from common.json_bodies import JsonObject
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.limits.halts import insert_halt
from metering.models import HaltKind
from tenants.roles import Role
from tests.alerts.examples import make_anomaly, make_incident
from tests.cases import each_case
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.everything import address_of, addresses, fill
from tests.dashboard.test_team_members import make_team_member
from tests.factories import NANOS, Account, make_budget
from tests.seed import dice
from tests.tenants.test_isolation import tables

ADDRESSES: Final = list(addresses())

# Money of the foreign team, as pages, charts and files write it: what it spent, and its limit.
FOREIGN: Final = re.compile(r"(?<![0-9A-Za-z])(?:75,?319\.53|75,?320|75\.3k|8,?642(?![0-9A-Za-z]))")
FOREIGN_USD: Final = Decimal("75319.53")
QUERIES: Final = (
    "",
    "?group_by=team&filter[team]=zqforeign&compare=off",
    "?group_by=agent,team&period=today&q=zq&state=sent&unit=session&order=unusual",
)


@pytest.fixture
def two_teams(account: Account) -> tuple[JsonObject, JsonObject]:
    """Everything twice: of the team "own", and of another that spends far more."""
    own = fill(account, "ours", team="own", cost_usd="1.25")
    theirs = fill(account, "zqtheirs", team="zqforeign", cost_usd=str(FOREIGN_USD), limit_usd=8642)
    nanos = int(FOREIGN_USD * NANOS)
    money: JsonObject = {"facts": {"cost_nanos": nanos}, "excess_nanos": nanos}
    make_incident(account, cause="both", match={"team": ["own", "zqforeign"]}, **money)
    make_incident(account, cause="everything", match={}, **money)
    of_both = {"team": ["own", "zqforeign"]}
    shared = make_budget(account, name="shared", match=of_both, cost_usd=8642)
    with account.scope(), connection.cursor() as cursor:
        reason = {"budget": shared.id, "name": "shared", "detail": f"${FOREIGN_USD:,} was spent"}
        insert_decisions(
            cursor,
            account.tenant.id,
            [_refusal({"session": "ours", "team": "own"}, reason)],
        )
        insert_halt(
            cursor,
            tenant_id=account.tenant.id,
            match={},
            reason=f"Everything: ${FOREIGN_USD:,} was spent",
            kind=HaltKind.BREAKER,
            actor="spendgate",
        )
    # One cause shows in the team's own series and in that of all teams.
    incident = make_incident(account, cause="own", match={"team": "own"}, facts={})
    make_anomaly(account, incident, dimension="", value="", actual=float(FOREIGN_USD) * NANOS)
    return own | {"incident_id": incident.id}, theirs


def _refusal(dimensions: JsonObject, reason: JsonObject) -> DecisionRow:
    return DecisionRow(datetime.now(UTC), "refuse", "budget_exceeded", dimensions, [reason])


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.VIEWER])
def test_a_member_of_a_team_reads_no_other_teams_money(
    account: Account, two_teams: tuple[JsonObject, JsonObject], role: Role
) -> None:
    client = sign_in(make_team_member(account, role, "own"))
    told = []
    for name, parts in ADDRESSES:
        for objects in two_teams if parts else two_teams[:1]:
            for query in QUERIES:
                answer = client.get(address_of(name, parts, objects) + query)
                match = FOREIGN.search(_text(answer))
                if match:
                    told.append((name, objects is two_teams[0], query, match[0]))
    assert told == []


def test_an_owner_reads_that_money(
    account: Account, two_teams: tuple[JsonObject, JsonObject], owner: Client
) -> None:
    """Otherwise the test above would prove nothing."""
    reading = {
        *("overview", "spend_chart", "spend_csv", "month_table", "explore_csv", "explore_focus"),
        *("calls", "incidents", "incident", "attempts", "incident_spenders", "session", "trace"),
        *("call", "call_facts", "savings", "units_csv", "audit_log", "annotations", "stopped"),
        *("customers", "customers_csv", "customer", "unassigned"),
    }
    result = {
        name
        for name, parts in ADDRESSES
        if FOREIGN.search(_text(owner.get(address_of(name, parts, two_teams[1]))))
    }
    assert reading - {"stopped"} <= result


@each_case(
    ("path", "theirs"),
    [
        *((path, "zqtheirs") for path in ("/", "/explore", "/calls", "/sessions", "/annotations")),
        *(
            (path, "zqtheirs")
            for path in ("/savings", "/incidents", "/unpriced", "/charts/spend.csv")
        ),
        *((path, "zqtheirs") for path in ("/settings/sources", "/explore/focus.csv")),
        ("/settings/prices", "model zqtheirs"),
        ("/settings/audit-log", "budget zqtheirs"),
        ("/settings/audit-log.csv", "budget zqtheirs"),
        ("/search/results?q=zqth", "zqtheirs"),
        ("/incidents/deliveries?state=waiting", "incident zqtheirs"),
        ("/incidents/deliveries?state=waiting", "incident both"),
    ],
)
def test_what_another_team_uses_is_not_named(
    account: Account, two_teams: tuple[JsonObject, JsonObject], path: str, theirs: str
) -> None:
    client = sign_in(make_team_member(account, Role.VIEWER, "own"))
    assert theirs not in _text(client.get(path))


def test_badges_count_what_the_person_may_see(
    account: Account, two_teams: tuple[JsonObject, JsonObject], owner: Client
) -> None:
    with account.scope():
        Delivery.objects.update(state=DeliveryState.DEAD)
        of_own = Delivery.objects.filter(incident__match={"team": "own"}).count()
        assert 0 < of_own < Delivery.objects.count()
    client = sign_in(make_team_member(account, Role.VIEWER, "own"))
    assert "2 need attention" in _text(client.get("/"))
    assert "5 need attention" in _text(owner.get("/"))
    page = re.sub(r"<[^>]*>", " ", _text(client.get("/incidents/deliveries")))
    assert re.search(rf"\b{of_own} (?:failed|messages|deliveries)|Failed\s+{of_own}\b", page)


def test_nothing_of_another_team_is_found_by_its_number(
    account: Account, two_teams: tuple[JsonObject, JsonObject]
) -> None:
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    named = {"incident_id", "delivery_id", "session", "trace", "sent_id"}
    for name, parts in ADDRESSES:
        if named.isdisjoint(parts) or name == "test_state":
            continue
        address = address_of(name, parts, two_teams[1])
        is_button = "POST" in client.options(address).headers.get("Allow", "")
        answer = client.post(address) if is_button else client.get(address)
        assert answer.status_code in {403, 404}, name


def _text(answer: Any) -> str:
    if answer.streaming:
        return b"".join(answer.streaming_content).decode()
    return str(answer.content.decode())


# What a person does to their own account, wherever they belong.
OF_ONE_ACCOUNT: Final = {
    *("account", "end_session", "end_sessions", "password", "forgotten", "new_password", "login"),
    *("logout", "switch_tenant", "invitation"),
}
# These only lead to the first page of a section.
LEADING_ON: Final = {"enforcement", "settings"}
# What an engineer may do: halt, ask, handle incidents, and keep views.
OF_ENGINEERS: Final = {
    *("acknowledge", "take", "assign", "give_back", "snooze", "wake", "comment", "resolve"),
    *("save_view", "rename_view", "delete_view", "pin_view", "unpin_view", "schedule_report"),
    *("delete_report", "test_report", "make_halt"),
}
# Of these tables an engineer of a team changes no row: all are of another team here.
OF_OTHERS: Final = {"incident", "incident_entry", "report_schedule", "budget", "channel"}
FORM: Final = {
    "name": "taken over",
    "query": "",
    "readers": "owner",
    "email": "me@example.com",
    "role": "owner",
    "scopes": "manage",
    "model": "m",
    "tool": "t",
    "text": "mine",
    "for": "week",
    "cadence": "daily",
    "hour": "7",
    "dimension": "agent",
    "value": "a",
    "reason": "mine",
    "budget": "1",
    "note": "",
    "duration": "3600",
    "starts_at": "2026-11-30T10:00",
    "ends_at": "2026-12-01T10:00",
    "timezone": "UTC",
    "unpriced_policy": "allow",
    "limit": "1",
    "kind": "webhook",
    "url": "https://example.com/",
    "input_per_mtok_usd": "1",
    "call_usd": "1",
    "_confirmed": "yes",
    "members": "1",
    "leads": "1",
    "quiet_from": "",
    "digest_at": "09:00",
}


def rows_of(account: Account) -> dict[str, str]:
    """What each table of the tenant holds, in short."""
    names = [name for name, _ in tables()]
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{name}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t"
                for name in names
            )
        )
        return dict(cursor.fetchall())


@pytest.mark.parametrize("person", ["viewer", "engineer of a team", "stranger"])
def test_a_post_changes_nothing_for_who_may_not(
    account: Account, stranger: Account, person: str
) -> None:
    theirs = fill(account, "theirs", team="zqforeign", cost_usd="3")
    email = {
        "viewer": lambda: make_member(account, Role.VIEWER),
        "engineer of a team": lambda: make_team_member(account, Role.ENGINEER, "own"),
        "stranger": lambda: stranger.email,
    }[person]()
    client = sign_in(email)
    allowed = OF_ONE_ACCOUNT | (OF_ENGINEERS if person.startswith("engineer") else set())
    is_owner = person == "stranger"
    before, changed, odd = rows_of(account), [], []
    for name, parts in ADDRESSES:
        if name in OF_ONE_ACCOUNT:
            continue
        answer = client.post(address_of(name, parts, theirs), FORM)
        # A form that comes back, for want of its token or a field, was not refused. A stranger is
        # the owner of a tenant, whose forms come back.
        is_refused = answer.status_code in {403, 404, 405}
        if answer.status_code >= 500 or not (
            is_refused or name in allowed | LEADING_ON or is_owner
        ):
            odd.append((name, answer.status_code))
        after = rows_of(account)
        differing = {table for table, rows in after.items() if rows != before[table]}
        if (differing and name not in allowed) or differing & OF_OTHERS:
            changed.append((name, differing))
        before = after
    assert (changed, odd) == ([], [])


# Values that a page must survive in any parameter.
HOSTILE: Final = (
    "<script>alert(1)</script>\u202e",
    "\"'><img src=x onerror=alert(1)>",
    "=cmd|'/c calc'!A0",
    "x" * 200,
    "a\0b",
    "\ud800",
    "9" * 30,
    "9999-12-31",
    "a,b,c,,team,team",
    "//[",
    "q" * 10_000,
)
# How many of these an address is asked with.
DRAWN: Final = 4
RAW: Final = re.compile(r"<script>alert|<img src=x|onerror=alert\(1\)>")
# What pages look for only where another parameter has a certain value.
KNOWN: Final = ("from", "to", "cursor", "before", "filter[team]", "filter[agent]", "dimension")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all parameters that pages look for, as they do."""
    names: set[str] = set(KNOWN)

    def watched(read: Any) -> Any:
        def reading(query: QueryDict, name: str, *rest: Any) -> Any:
            if isinstance(name, str):
                names.add(name)
            return read(query, name, *rest)

        return reading

    for method in ("get", "getlist"):
        monkeypatch.setattr(QueryDict, method, watched(getattr(QueryDict, method)))
    return names


def _query(names: list[str], index: int) -> str:
    """Every parameter with a hostile value of its own; which one moves on with the place."""
    values = (HOSTILE[(index + at) % len(HOSTILE)] for at in range(len(names)))
    return "&".join(
        f"{quote(name)}={quote(value.encode('utf-8', 'surrogatepass'))}"
        for name, value in zip(names, values, strict=True)
    )


def _wrong(objects: JsonObject, index: int) -> JsonObject:
    """What no object is called, in the place of each."""
    text = (
        HOSTILE[index].encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("/", "")
    )
    return {
        name: 10 ** (index + 15) if type(each) is int else text for name, each in objects.items()
    }


def test_no_address_breaks_a_page(account: Account, owner: Client, asked: set[str]) -> None:
    text = "=cmd|'/c calc'!A0<script>alert(1)</script>"
    objects = fill(account, text, team=text, cost_usd="3")
    owner.raise_request_exception = False
    broken = []
    for name, parts in ADDRESSES:
        broken += _faults(owner, name, address_of(name, parts, objects))
    names = sorted(asked)
    assert {"q", "here", "page", "posted", "metric", "group_by", "interval", "before"} <= asked
    for name, parts in ADDRESSES:
        if owner.options(address_of(name, parts, objects)).headers.get("Allow", "") == "POST":
            continue
        # Each run draws others: all of them at all addresses would take minutes.
        for index in dice("hostile", name).sample(range(len(HOSTILE)), DRAWN):
            filled = _wrong(objects, index) if index % 3 == 0 else objects
            address = f"{address_of(name, parts, filled)}?{_query(names, index)}"
            broken += _faults(owner, name, address)
    assert broken == []


def _faults(client: Client, name: str, address: str) -> list[tuple[str, str, str]]:
    answer = client.get(address)
    kind = answer.headers.get("Content-Type", "")
    text = _text(answer)
    faults = []
    if answer.status_code >= 500:
        faults.append("status")
    if kind.startswith("text/html") and RAW.search(text):
        faults.append("markup")
    if kind.startswith("text/csv") and any(
        safe_cell(cell) != cell for row in csv.reader(StringIO(text)) for cell in row
    ):
        faults.append("formula")
    return [(name, fault, address[:200]) for fault in faults]
