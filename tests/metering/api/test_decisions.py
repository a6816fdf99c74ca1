"""Decisions over HTTP: recorded with their reasons, found again, and forgotten in time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.jobs.tasks import remove_old_rows
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.models import Decision
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RESERVATION = UUID("0197a1b2-0000-7000-8000-000000000001")
REASON: JsonObject = {
    "budget": 5,
    "name": "Daily",
    "group": {"agent": "researcher"},
    "window_start": "2026-11-21T00:00:00Z",
    "level_percent": 100,
    "action": "block",
    "mode": "enforce",
    "part": "cost_usd",
    "limit_usd": "50",
    "spent_usd": "49.5",
    "reserved_usd": "0",
    "asked_usd": "0.75",
    "detail": "The budget has no room.",
}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def refusal(minutes: int = 0, **fields: Any) -> DecisionRow:
    return DecisionRow(
        **{
            "decided_at": AT + timedelta(minutes=minutes),
            "decision": "refuse",
            "code": "budget_exceeded",
            "dimensions": {"agent": "researcher", "team": "growth"},
            "reasons": [REASON],
            **fields,
        }
    )


def record(account: Account, rows: Sequence[DecisionRow]) -> None:
    with account.scope(), connection.cursor() as cursor:
        insert_decisions(cursor, account.tenant.id, rows)


def listed(api: Caller, **parameters: object) -> list[JsonObject]:
    answer = api.get("/v1/decisions", **parameters)
    assert answer.status == 200, answer.body
    result: list[JsonObject] = answer.body["data"]
    return result


def test_a_decision_is_answered_with_its_reasons_and_money_as_text(
    account: Account, api: Caller
) -> None:
    row = refusal(asked_nanos=750_000_001, asked_tokens=1100)
    record(account, [row])
    (result,) = listed(api)
    assert result == {
        "id": result["id"],
        "decided_at": "2026-11-21T12:00:00Z",
        "decision": "refuse",
        "code": "budget_exceeded",
        "reservation": None,
        "dimensions": {"agent": "researcher", "team": "growth"},
        "asked_usd": "0.750000001",
        "asked_tokens": 1100,
        "saved_usd": None,
        "reasons": [REASON],
    }


def test_a_downgrade_names_its_reservation_and_what_it_saved(account: Account, api: Caller) -> None:
    record(
        account,
        [
            refusal(
                decision="downgrade",
                code="",
                dimensions={},
                reservation_id=RESERVATION,
                saved_nanos=0,
            )
        ],
    )
    (result,) = listed(api)
    assert (result["decision"], result["code"]) == ("downgrade", "")
    assert (result["reservation"], result["saved_usd"]) == (str(RESERVATION), "0")
    assert (result["asked_usd"], result["asked_tokens"], result["dimensions"]) == (None, None, {})


def test_decisions_come_newest_first_in_pages_whatever_their_ids(
    account: Account, api: Caller
) -> None:
    # Ids are handed out in blocks to connections, so later ones may be smaller.
    minutes = [3, 1, 4, 1, 5, 9, 2, 6]
    record(account, [refusal(minute, asked_tokens=index) for index, minute in enumerate(minutes)])
    times = [each["decided_at"] for each in listed(api)]
    assert times == sorted(times, reverse=True)
    pages, cursor = [], None
    while True:
        more: JsonObject = {"cursor": cursor} if cursor else {}
        body = api.get("/v1/decisions", limit=3, **more).body
        pages.append(body["data"])
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert [len(page) for page in pages] == [3, 3, 2]
    asked = [each["asked_tokens"] for page in pages for each in page]
    assert sorted(asked) == list(range(8))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {1, 2, 3, 4}),
        ({"from": "2026-11-21T12:02:00Z"}, {2, 3, 4}),
        ({"to": "2026-11-21T12:02:00Z"}, {1}),
        ({"from": "2026-11-21T12:02:00Z", "to": "2026-11-21T12:04:00Z"}, {2, 3}),
        ({"agent": "writer"}, {2}),
        ({"agent": ""}, {3}),
        ({"decision": "allow"}, {4}),
        ({"code": "throttled"}, {2}),
        ({"budget": "5"}, {1, 3}),
        ({"budget": "6"}, {3, 4}),
        ({"budget": "6", "decision": "refuse"}, {3}),
        ({"budget": "7"}, set()),
    ],
)
def test_decisions_are_found_by_time_agent_decision_code_and_budget(
    account: Account, api: Caller, parameters: dict[str, str], expected: set[int]
) -> None:
    other = {**REASON, "budget": 6}
    rows = [
        refusal(1),
        refusal(2, dimensions={"agent": "writer"}, code="throttled", reasons=[{"limit": 5}]),
        refusal(3, dimensions={}, reasons=[other, REASON]),
        refusal(4, decision="allow", code="", reasons=[other]),
    ]
    record(account, [row._replace(asked_tokens=index) for index, row in enumerate(rows, 1)])
    assert {each["asked_tokens"] for each in listed(api, **parameters)} == expected


@each_case(
    "parameters",
    [
        {"decision": "maybe"},
        {"budget": "x"},
        {"budget": "0"},
        {"budget": "99999999999999999999"},
        {"from": "yesterday"},
        {"cursor": "nonsense"},
        {"limit": "501"},
        {"colour": "red"},
    ],
)
def test_a_wrong_question_is_refused(api: Caller, parameters: dict[str, str]) -> None:
    refused = api.get("/v1/decisions", **parameters)
    assert refused.status == 400
    assert refused.code


def test_another_tenants_decisions_are_not_listed_and_reading_needs_its_scope(
    account: Account, stranger: Account
) -> None:
    record(account, [refusal()])
    assert listed(caller(stranger)) == []
    body = {"name": "agent", "scopes": ["enforce", "ingest", "manage"]}
    agent = Caller(caller(account).post("/v1/keys", body).body["key"])
    refused = agent.get("/v1/decisions")
    assert (refused.status, refused.code) == (403, "forbidden")


def test_decisions_are_forgotten_after_their_time_and_no_sooner(
    account: Account, stranger: Account
) -> None:
    kept_from = timezone.now() - settings.RETENTION_DECISIONS
    for each in (account, stranger):
        old = refusal()._replace(decided_at=kept_from - timedelta(minutes=1))
        young = refusal()._replace(decided_at=kept_from + timedelta(minutes=1))
        record(each, [old, young])
    remove_old_rows()
    for each in (account, stranger):
        with each.scope():
            (kept,) = Decision.objects.all()
            assert kept.decided_at > kept_from


class Unreached:
    """A cursor that nothing may be asked of."""

    def execute(self, statement: str, parameters: object, /) -> None:
        raise AssertionError(statement)


def test_nothing_to_record_asks_the_database_nothing() -> None:
    insert_decisions(Unreached(), 1, [])
