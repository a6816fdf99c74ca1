"""Lists by pages while what they list moves: every row once."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.reporting import UsageQuestion, usage, usage_cursors
from tests.factories import Account, make_event, send
from tests.metering.api.caller import Caller, caller

pytestmark = pytest.mark.django_db(transaction=True)


def question(account: Account, **fields: Any) -> UsageQuestion:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"starts_at": today - timedelta(days=2), "ends_at": today + timedelta(days=2)}
    return UsageQuestion(
        tenant_id=account.tenant.id,
        **{"interval": "none", "group_by": ("customer",)} | span | fields,
    )


@pytest.mark.parametrize("shown_max", [600, 5], ids=["by cost", "then by value"])
def test_every_group_comes_once_whatever_overtakes_what(
    account: Account, monkeypatch: pytest.MonkeyPatch, shown_max: int
) -> None:
    monkeypatch.setattr(usage_cursors, "SHOWN_MAX", shown_max)
    chance = Random(shown_max)
    names = [f"c{number}" for number in range(12)]
    send(account, [make_event(customer=name, cost_usd=str(at)) for at, name in enumerate(names)])
    for limit in (1, 2, 5):
        asked = question(account)
        seen: list[str] = []
        cursor = None
        while True:
            with account.scope():
                page = usage(asked, limit=limit, cursor=cursor)
            seen += [row.group["customer"] for row in page.rows]
            if (cursor := page.next_cursor) is None:
                break
            movers = [*chance.choices(names, k=2), f"new-{limit}"]
            send(account, [make_event(customer=name, cost_usd="50") for name in movers])
        counts = Counter(seen)
        assert {name: counts[name] for name in names} == dict.fromkeys(names, 1)
        assert max(counts.values()) == 1


def test_groups_that_stand_still_come_by_cost_and_then_by_value(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_cursors, "SHOWN_MAX", 4)
    send(account, [make_event(customer=f"c{at}", cost_usd=str(at)) for at in range(9)])
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        with account.scope():
            page = usage(question(account), limit=2, cursor=cursor)
        seen += [row.group["customer"] for row in page.rows]
        cursor = page.next_cursor
    assert seen == ["c8", "c7", "c6", "c5", "c0", "c1", "c2", "c3", "c4"]


def rest(api: Caller, path: str, first: Any, **parameters: object) -> list[Any]:
    """The rows of the pages after the first one."""
    rows: list[Any] = []
    cursor = first["next_cursor"]
    while cursor is not None:
        answer = api.get(path, **parameters, cursor=cursor)
        assert answer.status == 200, answer.body
        rows += answer.body["data"]
        cursor = answer.body["next_cursor"]
    return rows


def test_events_that_arrive_between_two_pages_displace_none(account: Account) -> None:
    now = datetime.now(UTC)

    def at(minutes: int) -> JsonObject:
        return make_event(time=(now - timedelta(minutes=minutes)).isoformat())

    events = [at(minutes) for minutes in (1, 5, 5, 5, 9)]
    send(account, events)
    api = caller(account)
    first = api.get("/v1/events", limit=2).body
    send(account, [at(0), at(3), at(5), at(7)])
    ids = [event["id"] for event in (*first["data"], *rest(api, "/v1/events", first, limit=1))]
    assert Counter(ids) & Counter(event["id"] for event in events) == Counter(
        event["id"] for event in events
    )
    assert max(Counter(ids).values()) == 1


def test_a_default_range_stands_still_between_two_pages(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = caller(account)
    for agent in ("a", "b", "c"):
        ask = {"amount_usd": "1", "agent": agent}
        assert api.post("/v1/reservations", ask).status == 201
        api.post("/v1/events", make_event(source=agent))
    estimates = api.get("/v1/estimates", limit=1).body
    sources = api.get("/v1/sources", limit=1).body
    later = Mock(wraps=timezone, now=lambda: datetime.now(UTC) + timedelta(days=8))
    monkeypatch.setattr("metering.api.estimates.timezone", later)
    monkeypatch.setattr("metering.reporting.source_counts.timezone", later)
    agents = [row["group"]["agent"] for row in rest(api, "/v1/estimates", estimates, limit=1)]
    assert agents == ["b", "c"]
    assert [row["source"] for row in rest(api, "/v1/sources", sources, limit=1)] == ["b", "c"]
