"""`GET /v1/sources`: what a client sent is in its next answer, with reasons and what to set."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from common.json_bodies import JsonObject
from metering.models import Route, SourceOutcome
from metering.usage.sources import PROCESS_RECORDER, Tally, record_reports
from tests.factories import Account, make_event
from tests.metering.api.caller import Caller, caller

NOTHING = {
    "accepted": 0,
    "merged": 0,
    "duplicates": 0,
    "conflicts": 0,
    "unpriced": 0,
    "rejected": 0,
    "passed_over": 0,
}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def listed(api: Caller, **parameters: object) -> list[JsonObject]:
    answer = api.get("/v1/sources", **parameters)
    assert answer.status == 200, answer.body
    result: list[JsonObject] = answer.body["data"]
    return result


def record(account: Account, *sources: str) -> None:
    tallies = [Tally(source, Route.NATIVE, SourceOutcome.ACCEPTED, 1) for source in sources]
    record_reports(account.tenant.id, tallies)
    PROCESS_RECORDER.flush()


def counts_of(row: JsonObject) -> dict[str, int]:
    return {name: row[name] for name in NOTHING}


@pytest.mark.parametrize("is_written", [False, True])
def test_what_was_sent_is_in_the_next_answer_once(
    account: Account, api: Caller, is_written: bool
) -> None:
    event = make_event(source="app")
    unpriced = make_event(source="app", model="nobody-knows-it")
    assert api.post("/v1/events", [event, unpriced]).status == 200
    refused = {"id": "x", "source": "app", "input_tokens": 1, "time": "2020-01-01T00:00:00Z"}
    assert api.post("/v1/events", [event, refused]).body["rejected"] == 1
    if is_written:
        PROCESS_RECORDER.flush()
    for _ in range(2):
        (row,) = listed(api)
        assert (row["source"], row["route"]) == ("app", "native")
        assert counts_of(row) == {
            **NOTHING,
            "accepted": 2,
            "duplicates": 1,
            "unpriced": 1,
            "rejected": 1,
        }
        assert row["first_at"] <= row["last_at"]
        reasons = {reason["code"]: reason for reason in row["reasons"]}
        assert reasons.keys() == {"no_price", "time_out_of_range"}
        late = reasons["time_out_of_range"]
        assert {**late, "last_at": ""} == {
            "outcome": "rejected",
            "code": "time_out_of_range",
            "detail": "'time' must be within the last 35 days and at most 5 minutes ahead.",
            "count": 1,
            "last_at": "",
            "sample": None,
            "what_to_set": "Set the sender's clock by NTP, and send calls within EVENT_MAX_AGE_DAYS"
            " (35 by default).",
        }
        assert reasons["no_price"]["detail"] == ("The model had no price when the call arrived.")


def test_a_range_answers_the_days_that_it_touches(account: Account, api: Caller) -> None:
    with time_machine.travel(datetime(2026, 11, 10, 23, 59, 59, tzinfo=UTC), tick=False):
        record(account, "old", "app")
    with time_machine.travel(datetime(2026, 11, 12, 0, 0, 1, tzinfo=UTC), tick=False):
        record(account, "app")
        assert [row["source"] for row in listed(api)] == ["app", "old"]
        assert listed(api)[0]["accepted"] == 2
        result = listed(api, **{"from": "2026-11-10T10:00:00Z", "to": "2026-11-11T00:00:00Z"})
        assert [(row["source"], row["accepted"]) for row in result] == [("app", 1), ("old", 1)]
        assert result[0]["last_at"] == "2026-11-10T23:59:59Z"
        assert [row["source"] for row in listed(api, **{"from": "2026-11-11T00:00:00Z"})] == ["app"]
    with time_machine.travel(datetime(2026, 11, 17, 0, 0, 1, tzinfo=UTC), tick=False):
        assert [row["accepted"] for row in listed(api)] == [1]


def test_pages_hold_every_source_once(account: Account, api: Caller) -> None:
    names = ["", "a", "B", "ä", "a b", "名前"]
    record(account, *names)
    result: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = api.get("/v1/sources", limit=2, **cursor).body
        result += [row["source"] for row in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert result == sorted(names)


def test_a_wrong_question_is_refused(account: Account, api: Caller) -> None:
    record(account, "a", "b")
    cursor = api.get("/v1/sources", limit=1).body["next_cursor"]
    for parameters, code in (
        ({"cursor": "none"}, "invalid_cursor"),
        ({"cursor": cursor, "from": "2026-01-01T00:00:00Z"}, "invalid_cursor"),
        ({"limit": "501"}, "invalid_limit"),
        ({"from": "yesterday"}, "invalid_time"),
        ({"from": "2026-11-11T00:00:00Z", "to": "2026-11-11T00:00:00Z"}, "invalid_range"),
        ({"from": "2024-01-01T00:00:00Z", "to": "2026-11-11T00:00:00Z"}, "range_too_long"),
        ({"source": "a"}, "unknown_parameter"),
    ):
        answer = api.get("/v1/sources", **parameters)
        assert (answer.status, answer.code) == (400, code), parameters


def test_a_stranger_sees_nothing_and_the_scope_is_needed(
    account: Account, stranger: Account, api: Caller
) -> None:
    assert api.post("/v1/events", make_event(source="app")).status == 200
    assert listed(caller(stranger)) == []
    PROCESS_RECORDER.flush()
    assert listed(caller(stranger)) == []
    body = {"name": "ingest only", "scopes": ["ingest"]}
    refused = Caller(api.post("/v1/keys", body).body["key"]).get("/v1/sources")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert Caller(None).get("/v1/sources").status == 401


def test_counts_last_their_time(account: Account, api: Caller) -> None:
    """A day's counts are there for all of the range that can be asked for by default."""
    record(account, "app")
    with time_machine.travel(datetime.now(UTC) + timedelta(days=6), tick=False):
        assert [row["source"] for row in listed(api)] == ["app"]


def test_a_body_that_is_refused_as_a_whole_is_counted(api: Caller) -> None:
    assert api.send("POST", "/v1/events", b"{").status == 400
    assert api.send("POST", "/v1/traces", b"{}", content_type="text/plain").status == 415
    result = [
        (
            row["source"],
            row["route"],
            row["rejected"],
            [reason["code"] for reason in row["reasons"]],
        )
        for row in listed(api)
    ]
    assert result == [
        ("", "native", 1, ["malformed_json"]),
        ("", "otlp", 1, ["unsupported_media_type"]),
    ]


def test_settles_are_counted_by_source(api: Caller) -> None:
    asked = api.post("/v1/reservations", {"amount_usd": "1"}).body
    event = {"id": "call", "source": "app", "cost_usd": "0.5"}
    for _ in range(2):
        assert api.post(f"/v1/reservations/{asked['id']}/settle", event).status == 200
    (row,) = listed(api)
    assert (row["source"], row["route"], counts_of(row)) == (
        "app",
        "settle",
        {**NOTHING, "accepted": 1},
    )
