"""Pages, the API, CSV and FOCUS agree to the nano-dollar in every zone, over clock changes."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from pytest_django import Settings

from metering.rollups import roll_up
from tenants.models import Tenant
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.explore.test_explore import body_amounts, csv_of, page, total_of
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send
from tests.seed import dice

ZONES = (
    *("UTC", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"),
    *("America/New_York", "Europe/Berlin"),
)
DAYS_AROUND = 3
QUERIES = 3
ONE_DAY = timedelta(days=1)


def last_change(zone: ZoneInfo) -> date:
    """The last day on which the clock was changed; some day of last month where it never is."""
    noon = datetime.now(zone).replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon - timedelta(days=back) for back in range(DAYS_AROUND + 1, 380)]
    for later, earlier in pairwise(days):
        if later.utcoffset() != earlier.utcoffset():
            return later.date()
    return days[25].date()


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, account: Account, settings: Settings) -> ZoneInfo:
    """The zone of the account, with usage around its clock change, a part of it rolled up."""
    settings.EVENT_MAX_AGE = timedelta(days=400)
    zone = ZoneInfo(request.param)
    with account.scope():
        Tenant.objects.filter(id=account.tenant.id).update(timezone=zone.key)
    chance = dice(f"zones {zone.key}")
    change = last_change(zone)
    noon = datetime(change.year, change.month, change.day, 12, tzinfo=zone).astimezone(UTC)
    events = []
    for index in range(150):
        minutes = chance.randrange(2 * DAYS_AROUND * 24 * 60 + 1)
        at = noon - timedelta(days=DAYS_AROUND) + timedelta(minutes=minutes)
        # Where days and their changes of the clock begin and end.
        if index % 5 == 0:
            edge = datetime.combine(at.astimezone(zone).date(), datetime.min.time(), tzinfo=zone)
            at = edge.astimezone(UTC) + timedelta(microseconds=chance.choice((-1, 0, 1)))
        events.append(
            make_event(
                time=at.isoformat(),
                team=chance.choice(("red", "blue", ...)),
                agent=chance.choice(("a", "b", "c", ...)),
                feature=chance.choice(("f", "g", ...)),
                cost_usd=str(Decimal(chance.randrange(1, 10**10)) / 10**9),
            )
        )
    send(account, events[:100])
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
    send(account, events[100:])
    return zone


def read_csv(client: Client, address: str) -> list[dict[str, str]]:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def amounts(rows: Sequence[Mapping[str, Any]], name: str = "cost_usd") -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def key_of(row: dict[str, str], names: list[str]) -> tuple[object, ...]:
    """A row as every answer has it: when, whose, and how much."""
    start = datetime.fromisoformat(row["start"]).astimezone(UTC)
    return start, [row[name] for name in names], Decimal(row["cost_usd"])


def ask(client: Client, account: Account, asked: dict[str, str]) -> tuple[list[Any], Decimal]:
    """Every row of `/v1/usage`, page by page, and the total."""
    rows: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        address = f"/v1/usage?{urlencode({**asked, **cursor, 'limit': '100'})}"
        answer = client.get(address, headers=account.headers).json()
        rows += answer["data"]
        if answer["next_cursor"] is None:
            return rows, Decimal(answer["total"]["cost_usd"])
        cursor = {"cursor": answer["next_cursor"]}


@pytest.mark.parametrize("team", [None, "red"])
def test_page_api_csv_and_focus_agree_in_every_zone(
    account: Account, owner: Client, zone: ZoneInfo, team: str | None
) -> None:
    chance, change = dice(f"questions {zone.key} {team}"), last_change(zone)
    reader = sign_in(make_team_member(account, Role.VIEWER, team)) if team else owner
    for _ in range(QUERIES):
        first, last = sorted(change + timedelta(days=chance.randint(-3, 3)) for _ in range(2))
        chosen: dict[str, str] = {}
        if chance.random() < 0.5:
            chosen["filter[agent]"] = chance.choice(("a", "b", ""))
        if chance.random() < 0.3:
            chosen["filter[feature]"] = "f"
        group_by = chance.choice(("team", "agent,team", "feature,agent", "model"))
        interval = chance.choice(("hour", "day", "month"))
        asked = {"group_by": group_by, "interval": interval, **chosen}
        query = urlencode(
            {**asked, "from": first.isoformat(), "to": last.isoformat(), "compare": "off"}
        )
        api = {
            **({"filter[team]": team} if team else {}),
            **asked,
            "from": midnight(first, zone).isoformat(),
            "to": midnight(last + ONE_DAY, zone).isoformat(),
            "timezone": zone.key,
        }
        rows, total = ask(owner, account, api)
        assert amounts(rows) == total
        names = group_by.split(",")
        exported = csv_of(reader, f"/explore/usage.csv?{query}")
        answered = [
            {**row["group"], "start": row["start"], "cost_usd": row["cost_usd"]} for row in rows
        ]
        assert [key_of(row, names) for row in exported] == [key_of(row, names) for row in answered]
        focus = csv_of(reader, f"/explore/focus.csv?{query}")
        assert amounts(focus, "BilledCost") == total
        for row in focus:
            charged = (row["ChargePeriodStart"], row["ChargePeriodEnd"])
            begin, end = map(datetime.fromisoformat, charged)
            assert midnight(first, zone) <= begin < end <= midnight(last + ONE_DAY, zone)
        spend = read_csv(reader, f"/charts/spend.csv?{query}")
        assert amounts(spend) == total
        if total:
            html = page(reader, query)
            assert total_of(html) == sum(body_amounts(html)) == total
            overview = reader.get(f"/?{query}").content.decode()
            assert f'value="{total.normalize():f}"' in overview
