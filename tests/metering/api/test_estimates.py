"""`GET /v1/estimates`: how far reservations were from what calls cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.json_bodies import JsonObject
from metering.jobs.tasks import expire_reservations
from metering.models import Reservation
from metering.reporting.cursors import fingerprint, write_cursor
from tenants.keys import create_api_key
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Answer, Caller, caller

# A dollar buys this many input tokens of the model.
MODEL = {"provider": "openai", "model": "gpt-4o"}
TOKENS_PER_USD = 400_000
pytestmark = pytest.mark.django_db(transaction=True)


def hold(account: Account, usd: float, *, kind: str = "amount", **fields: object) -> str:
    """Reserve so many dollars, by an estimate of that kind."""
    asked: JsonObject = {"amount_usd": usd}
    if kind != "amount":
        tokens = {"input_tokens": round(usd * TOKENS_PER_USD), "max_output_tokens": 0}
        asked = {**MODEL, **tokens, "estimate": kind}
    body = {"agent": "researcher", **asked, **fields}
    answer = caller(account).post(
        "/v1/reservations", {name: value for name, value in body.items() if value is not ...}
    )
    assert answer.status == 201, answer.body
    return str(answer.body["id"])


def settle(account: Account, reservation: str, usd: float) -> None:
    body = {"id": f"call-{reservation}", "cost_usd": usd}
    answer = caller(account).post(f"/v1/reservations/{reservation}/settle", body)
    assert answer.status == 200, answer.body


def spend(account: Account, *amounts: tuple[float, float], **fields: Any) -> None:
    """Reserve the first of each two amounts, and then cost the second."""
    for held, cost in amounts:
        settle(account, hold(account, held, **fields), cost)


def move(account: Account, **moments: datetime) -> None:
    """Let all open reservations have been made, or end, at another time."""
    with account.scope():
        Reservation.objects.filter(tenant=account.tenant, state=1).update(**moments)


def estimates(account: Account, **parameters: object) -> Answer:
    return caller(account).get("/v1/estimates", **parameters)


def test_errors_of_estimates_are_told_by_agent_and_kind(account: Account) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    late = hold(account, 0.5)
    for _ in range(2):
        hold(account, 1, kind="max")
    move(account, expires_at=past)
    expire_reservations()
    settle(account, late, 0.5)
    spend(account, (1, 0.1), (1, 0.2), (1, 0.5), (1, 1.5), kind="max")
    released = hold(account, 1, kind="max")
    assert caller(account).post(f"/v1/reservations/{released}/release").status == 200
    hold(account, 1, kind="max")
    answer = estimates(account)
    assert answer.status == 200
    assert answer.body == {
        "data": [
            {
                "group": {"agent": "researcher"},
                "estimate": "amount",
                "settled": 1,
                "released": 0,
                "expired": 0,
                "open": 0,
                "late": 1,
                "over": 0,
                "reserved_usd": "0.5",
                "cost_usd": "0.5",
                "overrun_usd": "0",
                "used_percent": {"p50": 100, "p95": 100},
                "mean_absolute_error_percent": 0.0,
            },
            {
                "group": {"agent": "researcher"},
                "estimate": "max",
                "settled": 4,
                "released": 1,
                "expired": 2,
                "open": 1,
                "late": 0,
                "over": 1,
                "reserved_usd": "4",
                "cost_usd": "2.3",
                "overrun_usd": "0.5",
                "used_percent": {"p50": 20, "p95": 150},
                # 0.9, 0.8, 0.5 and 0.5 away from 2.3 dollars in all
                "mean_absolute_error_percent": 117.4,
            },
        ],
        "next_cursor": None,
    }


def test_percentiles_are_nearest_ranks(account: Account) -> None:
    spend(account, *((1, number / 100) for number in range(1, 21)))
    (row,) = estimates(account).body["data"]
    assert row["used_percent"] == {"p50": 10, "p95": 19}
    spend(account, *[(1, 3)] * 2)
    (row,) = estimates(account).body["data"]
    assert row["used_percent"] == {"p50": 11, "p95": 300}


def test_what_was_held_for_nothing_has_an_overrun_and_no_percentage(account: Account) -> None:
    spend(account, (0, 0.25), agent=...)
    hold(account, 1, agent="idle")
    without_agent, idle = estimates(account).body["data"]
    assert without_agent["group"] == {"agent": ""}
    assert (without_agent["over"], without_agent["overrun_usd"]) == (1, "0.25")
    assert without_agent["mean_absolute_error_percent"] == 100.0
    assert (idle["settled"], idle["open"], idle["reserved_usd"]) == (0, 1, "0")
    assert idle["mean_absolute_error_percent"] is None
    for row in (without_agent, idle):
        assert row["used_percent"] == {"p50": None, "p95": None}


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [("agent", ["a", "b"]), ("feature", ["", "search"]), ("model", ["", "gpt-4o"])],
)
def test_errors_are_grouped_by_what_is_asked_for(
    account: Account, group_by: str, groups: list[str]
) -> None:
    spend(account, (1, 0.5), agent="a")
    spend(account, (1, 0.5), agent="b", feature="search", **MODEL)
    rows = estimates(account, group_by=group_by).body["data"]
    assert [row["group"] for row in rows] == [{group_by: value} for value in groups]


def test_an_expected_hold_is_told_apart_from_the_worst_case(account: Account) -> None:
    spend(account, (1, 0.5), kind="expected")
    spend(account, (1, 0.5), kind="max")
    rows = estimates(account).body["data"]
    assert [(row["estimate"], row["settled"]) for row in rows] == [("expected", 1), ("max", 1)]


def test_a_range_is_the_last_seven_days_unless_named(account: Account) -> None:
    now = datetime.now(UTC)
    for days in (0, 6, 8):
        reservation = hold(account, 1)
        move(account, created_at=now - timedelta(days=days, minutes=1))
        settle(account, reservation, 0.5)

    def settled(**parameters: datetime) -> int:
        texts = {name.rstrip("_"): at.isoformat() for name, at in parameters.items()}
        return sum(row["settled"] for row in estimates(account, **texts).body["data"])

    assert settled() == 2
    assert settled(from_=now - timedelta(days=9)) == 3
    assert settled(to=now - timedelta(days=3)) == 2
    assert settled(from_=now - timedelta(days=9), to=now - timedelta(days=7)) == 1


def test_pages_make_the_whole(account: Account) -> None:
    for agent in ("a", "b", "Ä", ...):
        for kind in ("max", "amount"):
            hold(account, 1, agent=agent, kind=kind)
    whole = estimates(account).body["data"]
    assert len(whole) == 8
    result: list[Any] = []
    parameters: JsonObject = {"limit": 3}
    while True:
        body = estimates(account, **parameters).body
        result.append(body["data"])
        if body["next_cursor"] is None:
            break
        parameters["cursor"] = body["next_cursor"]
    assert [len(rows) for rows in result] == [3, 3, 2]
    assert [row for rows in result for row in rows] == whole


@each_case(
    ("parameters", "code"),
    [
        ({"group_by": "team"}, "invalid_group_by"),
        ({"group_by": "agent,model"}, "invalid_group_by"),
        ({"from": "yesterday"}, "invalid_time"),
        ({"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "invalid_range"),
        ({"to": "1970-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"limit": "0"}, "invalid_limit"),
        ({"cursor": "nonsense"}, "invalid_cursor"),
        ({"colour": "red"}, "unknown_parameter"),
    ],
)
def test_what_makes_no_sense_is_refused(
    account: Account, parameters: dict[str, str], code: str
) -> None:
    answer = estimates(account, **parameters)
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    "position",
    [{}, {"after": ["a"]}, {"after": ["a", 1]}, {"after": ["\x00", ""]}],
)
def test_a_cursor_that_no_page_handed_out_is_refused(
    account: Account, position: JsonObject
) -> None:
    cursor = write_cursor(fingerprint("estimates", "agent"), position)
    answer = estimates(account, cursor=cursor)
    assert (answer.status, answer.code) == (400, "invalid_cursor")
    other = write_cursor(fingerprint("estimates", "model"), {"after": ["a", "max"]})
    assert estimates(account, cursor=other).code == "invalid_cursor"


def test_a_stranger_sees_nothing_and_a_key_needs_the_scope(
    account: Account, stranger: Account
) -> None:
    spend(account, (1, 0.5))
    assert estimates(stranger).body == {"data": [], "next_cursor": None}
    with account.scope():
        _, key = create_api_key(
            tenant=account.tenant, name="writer", actor="tests", scopes=["ingest"]
        )
    answer = Caller(key).get("/v1/estimates")
    assert (answer.status, answer.code) == (403, "forbidden")
    assert Caller(None).get("/v1/estimates").status == 401
