"""Reading over HTTP: what clients may rely on, and what strangers do not see."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from common.json_bodies import JsonObject
from metering.reporting import focus
from metering.reporting.focus import COLUMNS
from tenants.keys import create_api_key
from tenants.scope import tenant_scope
from tests.cases import each_case
from tests.factories import Account, make_event, send
from tests.metering.rollups.test_batches import make_events, roll_everything_up, void

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESSES = [
    "/v1/usage",
    "/v1/events",
    "/v1/traces/t-1",
    "/v1/sessions/s-1",
    "/v1/export/focus.csv?month=2026-11",
]


def get(client: Client, account: Account, address: str, **parameters: object) -> Any:
    query = urlencode(parameters, doseq=True)
    return client.get(f"{address}?{query}" if query else address, headers=account.headers)


def refusal(response: Any) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def pages(client: Client, account: Account, address: str, **parameters: object) -> Iterator[Any]:
    while True:
        answer = get(client, account, address, **parameters).json()
        yield answer
        if answer["next_cursor"] is None:
            return
        parameters["cursor"] = answer["next_cursor"]


def test_usage_answers_the_fields_of_the_contract(client: Client, account: Account) -> None:
    send(
        account,
        [
            make_event(
                team="growth",
                cost_usd="0.001234567",
                cache_read_tokens=300,
                cache_write_tokens=20,
                reasoning_tokens=40,
            ),
            make_event(team="growth", operation="tool", tool="sh", status="error", cost_usd="1"),
        ],
    )
    answer = get(client, account, "/v1/usage", group_by="team", interval="none").json()
    measures = {
        "cost_usd": "1.001234567",
        "requests": 1,
        "errors": 1,
        "unpriced": 0,
        "input_tokens": 2000,
        "output_tokens": 200,
        "cache_read_tokens": 300,
        "cache_write_tokens": 20,
        "reasoning_tokens": 40,
        "tool_calls": 1,
    }
    (row,) = answer["data"]
    assert row.pop("start").endswith("Z")
    assert row == {"group": {"team": "growth"}, **measures}
    assert answer["total"] == measures
    assert answer["next_cursor"] is None


def test_usage_is_by_utc_day_of_the_last_thirty_days(client: Client, account: Account) -> None:
    now = datetime.now(UTC)
    times = [now + timedelta(minutes=4), now - timedelta(days=29), now - timedelta(days=31)]
    send(account, [make_event(time=time.isoformat()) for time in times])
    answer = get(client, account, "/v1/usage").json()
    starts = [row["start"] for row in answer["data"]]
    assert starts == [f"{time:%Y-%m-%dT00:00:00Z}" for time in sorted(times[:2])]
    assert answer["total"]["requests"] == 2


def test_days_begin_at_midnight_of_the_timezone(client: Client, account: Account) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    evening = day - timedelta(days=3, minutes=30)  # 23:30 UTC is the next day in Kathmandu
    send(account, [make_event(time=evening.isoformat())])
    roll_everything_up(account)
    answer = get(client, account, "/v1/usage", timezone="Asia/Kathmandu").json()
    assert [row["start"] for row in answer["data"]] == [
        (day - timedelta(days=4) + timedelta(hours=18, minutes=15)).isoformat()[:19] + "Z"
    ]


def test_pages_of_usage_make_the_whole(client: Client, account: Account) -> None:
    send(account, make_events(80))
    roll_everything_up(account)
    send(account, make_events(20, seed=2))
    whole = get(client, account, "/v1/usage", group_by="customer,team", limit=500).json()
    parts = list(pages(client, account, "/v1/usage", group_by="customer,team", limit=7))
    assert [row for part in parts for row in part["data"]] == whole["data"]
    assert len(parts) > 2
    assert {json.dumps(part["total"]) for part in parts} == {json.dumps(whole["total"])}
    total = sum(Decimal(row["cost_usd"]) for row in whole["data"])
    assert total == Decimal(whole["total"]["cost_usd"])


def test_usage_is_filtered_by_any_of_several_values(client: Client, account: Account) -> None:
    send(
        account,
        [
            make_event(feature="a", cost_usd="1"),
            make_event(feature="b", cost_usd="2"),
            make_event(feature="c", cost_usd="4"),
            make_event(cost_usd="8", tags={"environment": "prod"}),
        ],
    )

    def cost(**filters: object) -> str:
        result = get(client, account, "/v1/usage", **filters).json()
        return str(result["total"]["cost_usd"])

    assert cost(**{"filter[feature]": ["a", "b"]}) == "3"
    assert cost(**{"filter[feature]": ""}) == "8"
    assert cost(**{"filter[feature]": "a", "filter[status]": "error"}) == "0"
    assert cost(**{"filter[tags.environment]": "prod"}) == "8"


def test_percentiles_come_when_asked_for(client: Client, account: Account) -> None:
    send(account, [make_event(latency_ms=1000, cost_usd="0.5") for _ in range(3)])
    roll_everything_up(account)
    answer = get(client, account, "/v1/usage", group_by="model", percentiles="true").json()
    (row,) = answer["data"]
    assert 950 <= row["latency_ms"]["p50"] <= 1050
    assert 0.475 <= float(row["request_cost_usd"]["p99"]) <= 0.525
    assert row["time_to_first_token_ms"] == {"p50": None, "p95": None, "p99": None}
    refused = get(client, account, "/v1/usage", group_by="user", percentiles="true")
    assert refusal(refused) == (400, "percentiles_unavailable")


@each_case(
    ("parameters", "code"),
    [
        ({"colour": "red"}, "unknown_parameter"),
        ({"interval": ["day", "hour"]}, "unknown_parameter"),
        ({"interval": "minute"}, "unknown_interval"),
        ({"group_by": "colour"}, "unknown_dimension"),
        ({"group_by": "team,team"}, "invalid_group_by"),
        ({"group_by": "team,"}, "unknown_dimension"),
        ({"filter[colour]": "red"}, "unknown_dimension"),
        ({"filter[status]": "fine"}, "unknown_value"),
        ({"filter[team]": "a\x00b"}, "invalid_value"),
        ({"filter[tags.]": "x"}, "unknown_dimension"),
        ({"timezone": "Mars/Olympus"}, "unknown_timezone"),
        ({"timezone": ""}, "unknown_timezone"),
        ({"timezone": "/etc/localtime"}, "unknown_timezone"),
        ({"timezone": "a\x00b"}, "invalid_value"),
        ({"from": "yesterday"}, "invalid_time"),
        ({"from": "2026-11-01T00:00:00"}, "invalid_time"),
        ({"from": "9999-12-31T23:59:59Z"}, "invalid_time"),
        ({"from": "2199-12-31T23:59:59Z"}, "invalid_range"),
        ({"to": "1970-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"from": "2026-11-02T00:00:00Z", "to": "2026-11-02T00:00:00Z"}, "invalid_range"),
        ({"from": "2026-01-01T00:00:00Z", "interval": "15min"}, "range_too_long"),
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "501"}, "invalid_limit"),
        ({"limit": "ten"}, "invalid_limit"),
        ({"cursor": "abc"}, "invalid_cursor"),
        ({"cursor": "W10"}, "invalid_cursor"),
        ({"cursor": ""}, "invalid_cursor"),
        ({"percentiles": "yes"}, "invalid_flag"),
    ],
)
def test_wrong_parameters_of_usage_are_refused(
    client: Client, account: Account, parameters: JsonObject, code: str
) -> None:
    assert refusal(get(client, account, "/v1/usage", **parameters)) == (400, code)


def test_a_zone_with_an_unescaped_plus_is_understood(client: Client, account: Account) -> None:
    response = client.get(
        "/v1/usage?from=2026-11-01T00:00:00+01:00&to=2026-11-02T00:00:00+01:00",
        headers=account.headers,
    )
    assert response.status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_reading_needs_a_key_with_the_scope(client: Client, account: Account, address: str) -> None:
    assert refusal(client.get(address)) == (401, "unauthenticated")
    with account.scope():
        _, key = create_api_key(
            tenant=account.tenant, name="ingest", actor="tests", scopes=["ingest"]
        )
    response = client.get(address, headers={"Authorization": f"Bearer {key}"})
    assert refusal(response) == (403, "forbidden")


def test_a_stranger_sees_nothing(client: Client, account: Account, stranger: Account) -> None:
    send(account, [make_event(trace="t-1", session="s-1")])
    roll_everything_up(account)
    assert get(client, stranger, "/v1/usage").json()["data"] == []
    assert get(client, stranger, "/v1/events").json()["data"] == []
    for address in ("/v1/traces/t-1", "/v1/sessions/s-1"):
        assert get(client, account, address).status_code == 200
        assert refusal(get(client, stranger, address)) == (404, "not_found")
    export = get(client, stranger, "/v1/export/focus.csv", month=f"{datetime.now(UTC):%Y-%m}")
    assert len(export.getvalue().splitlines()) == 1


def test_events_are_answered_as_stored(client: Client, account: Account) -> None:
    event = make_event(
        provider="anthropic",
        team="growth",
        span="1",
        trace="t-1",
        tags={"environment": "prod"},
        latency_ms=812,
        cost_usd="0.25",
        saved_usd="0.000000001",
    )
    send(account, [event])
    (result,) = get(client, account, "/v1/events").json()["data"]
    assert {
        name: result[name] for name in ("id", "source", "provider", "team", "span", "trace")
    } == {name: event[name] for name in ("id", "source", "provider", "team", "span", "trace")}
    assert result["operation"] == "llm"
    assert result["status"] == "success"
    assert (result["input_tokens"], result["output_tokens"]) == (1000, 100)
    assert (result["cost_usd"], result["cost_source"]) == ("0.25", "given")
    assert result["saved_usd"] == "0.000000001"
    assert result["customer"] is None
    assert result["tags"] == {"environment": "prod"}
    assert result["void"] is False
    assert datetime.fromisoformat(result["time"]) == datetime.fromisoformat(event["time"])


def test_events_are_filtered(client: Client, account: Account) -> None:
    now = datetime.now(UTC)
    events = [
        make_event(id="failed", status="error", time=(now - timedelta(hours=2)).isoformat()),
        make_event(id="unpriced", model="a model nobody knows"),
        make_event(id="taken-back"),
    ]
    send(account, events)
    void(account, events[2])

    def ids(**parameters: object) -> set[str]:
        result = get(client, account, "/v1/events", **parameters).json()["data"]
        return {event["id"] for event in result}

    assert ids() == {"failed", "unpriced", "taken-back"}
    assert ids(status="error") == {"failed"}
    assert ids(unpriced="true") == {"unpriced"}
    assert ids(unpriced="false") == {"failed", "taken-back"}
    assert ids(**{"filter[model]": "a model nobody knows"}) == {"unpriced"}
    assert ids(to=(now - timedelta(hours=1)).isoformat()) == {"failed"}
    assert ids(**{"from": (now - timedelta(hours=1)).isoformat()}) == {"unpriced", "taken-back"}
    result = get(client, account, "/v1/events", **{"filter[source]": "tests"}).json()["data"]
    assert {event["id"] for event in result if event["void"]} == {"taken-back"}


def test_pages_of_events_make_the_whole(client: Client, account: Account) -> None:
    time = datetime.now(UTC).isoformat()
    send(account, [make_event(id=f"e-{number}", time=time) for number in range(9)])
    result = [
        event["id"]
        for part in pages(client, account, "/v1/events", limit=2)
        for event in part["data"]
    ]
    assert sorted(result) == [f"e-{number}" for number in range(9)]


@each_case(
    ("parameters", "code"),
    [
        ({"group_by": "team"}, "unknown_parameter"),
        ({"status": "fine"}, "unknown_value"),
        ({"unpriced": "1"}, "invalid_flag"),
        ({"cursor": "abc"}, "invalid_cursor"),
        ({"from": "2026"}, "invalid_time"),
    ],
)
def test_wrong_parameters_of_events_are_refused(
    client: Client, account: Account, parameters: JsonObject, code: str
) -> None:
    assert refusal(get(client, account, "/v1/events", **parameters)) == (400, code)


def test_a_trace_is_answered_as_a_tree(client: Client, account: Account) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    spans = [("a", None, "1"), ("b", "a", "0.5"), ("x", "y", "2"), ("y", "x", "4")]
    send(
        account,
        [
            make_event(
                id=span,
                trace="t-1",
                span=span,
                parent_span=parent,
                cost_usd=cost,
                time=(start + timedelta(seconds=index)).isoformat(),
            )
            for index, (span, parent, cost) in enumerate(spans)
        ],
    )
    answer = get(client, account, "/v1/traces/t-1").json()
    assert (answer["cost_usd"], answer["event_count"], answer["is_truncated"]) == ("7.5", 4, False)
    first, second = answer["roots"]
    assert (first["id"], first["cost_usd"], first["subtree_cost_usd"]) == ("a", "1", "1.5")
    assert [child["id"] for child in first["children"]] == ["b"]
    assert (second["id"], second["subtree_cost_usd"]) == ("x", "6")
    assert refusal(get(client, account, "/v1/traces/none")) == (404, "not_found")
    assert refusal(get(client, account, "/v1/traces/%00")) == (404, "not_found")


def test_a_session_is_answered_in_order(client: Client, account: Account) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    send(
        account,
        [
            make_event(
                session="s/1",
                agent=f"agent-{number}",
                cost_usd="0.5",
                time=(start + timedelta(seconds=number)).isoformat(),
            )
            for number in range(2)
        ],
    )
    outcome = {"session": "s/1", "success": True, "value_usd": "12.5"}
    reported = client.post(
        "/v1/outcomes", outcome, content_type="application/json", headers=account.headers
    )
    assert reported.status_code in (200, 201)
    answer = get(client, account, "/v1/sessions/s%2F1").json()
    assert [event["running_cost_usd"] for event in answer["events"]] == ["0.5", "1"]
    assert answer["total"]["cost_usd"] == "1"
    assert [(share["agent"], share["cost_usd"]) for share in answer["by_agent"]] == [
        ("agent-0", "0.5"),
        ("agent-1", "0.5"),
    ]
    assert answer["outcome"]["success"] is True
    assert answer["outcome"]["value_usd"] == "12.5"


def test_the_focus_export_sums_to_usage(client: Client, account: Account) -> None:
    now = datetime.now(UTC)
    send(account, make_events(60))
    roll_everything_up(account)
    send(
        account,
        [
            make_event(team="=1+1", agent='say "hi", all', cost_usd="0.000000001"),
            make_event(model="@SUM(A1)", cost_usd="2"),
        ],
    )
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    until = (first + timedelta(days=32)).replace(day=1)
    response = get(client, account, "/v1/export/focus.csv", month=f"{now:%Y-%m}")
    assert response.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.getvalue().decode())))
    usage = get(
        client,
        account,
        "/v1/usage",
        interval="none",
        to=until.isoformat(),
        **{"from": first.isoformat()},
    ).json()
    assert tuple(rows[0]) == COLUMNS
    for column in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(row[column]) for row in rows) == Decimal(usage["total"]["cost_usd"])
    assert {row["SubAccountId"] for row in rows} >= {"'=1+1", ""}
    assert "'@SUM(A1)" in {row["ResourceName"] for row in rows}
    cells = [cell for row in rows for cell in row.values()]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    tags = [json.loads(row["Tags"]) for row in rows]
    assert {"team": "=1+1", "agent": 'say "hi", all'} in tags


def test_the_focus_export_reads_a_stretch_a_transaction(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    days = [now - timedelta(days=day) for day in range(min(now.day, 4))]
    send(account, [make_event(time=day.isoformat()) for day in days for _ in range(5)])
    month = f"{now:%Y-%m}"
    whole = get(client, account, "/v1/export/focus.csv", month=month).getvalue()
    assert whole.count(b"\n") == 1 + len(days)
    monkeypatch.setattr(focus, "STEP_EVENTS", 3)
    transactions = []

    def counted(tenant_id: int) -> AbstractContextManager[None]:
        transactions.append(tenant_id)
        return tenant_scope(tenant_id)

    monkeypatch.setattr("metering.core.event_stretches.tenant_scope", counted)
    assert get(client, account, "/v1/export/focus.csv", month=month).getvalue() == whole
    assert len(transactions) > 5 * len(days) // 3


@each_case("month", ["", "2026", "2026-13", "1999-01", "2026-11-01", "٢٠٢٦-11"])
def test_a_month_that_is_none_is_refused(client: Client, account: Account, month: str) -> None:
    response = get(client, account, "/v1/export/focus.csv", month=month)
    assert refusal(response) == (400, "invalid_month")
