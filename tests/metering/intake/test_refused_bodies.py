"""What is refused costs its own tenant alone, is told in our own words, and leaves nothing."""

import gc
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

import msgspec
import pytest

from common.json_bodies import JsonObject
from metering.api.fast_path import HotResponse, handle_events, run
from metering.api.fast_reservations import handle_reserve, handle_settle
from metering.calls import ingest_job as jobs
from metering.calls.ingest_job import IngestJob
from metering.calls.prepared_event import PreparedEvent
from metering.intake import ingest as ingesting
from metering.models import UsageEvent
from metering.reservations.commands import new_id
from tests.factories import Account, make_budget, make_event, send, windows_of
from tests.metering.requests import request_of

pytestmark = pytest.mark.django_db(transaction=True)
NUL_IN_TAGS: Any = {"tags": {"a": "x\x00y"}}


def post(
    account: Account, body: bytes, handle: Any = handle_events, **options: object
) -> HotResponse:
    headers = {**account.headers, "content-type": "application/json"}
    return run(handle(request_of(headers, body), **options))


def refuse(monkeypatch: pytest.MonkeyPatch, ids: set[str]) -> None:
    """Let the database meet a value in these events that nobody has thought of."""
    line = PreparedEvent.line

    def beyond(event: PreparedEvent, event_id: int) -> str:
        if event.body.id in ids:
            event.cost_nanos = 2**63
        return line(event, event_id)

    monkeypatch.setattr(PreparedEvent, "line", beyond)


def test_a_body_that_is_committed_in_parts_keeps_its_warnings(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, {"bad"})
    misspelled = make_event(id="misspelled", model="claude-sonet-4-5")
    answer = send(account, [misspelled, make_event(id="bad"), make_event(id="good")])
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert [warning["model"] for warning in answer["warnings"]] == ["claude-sonet-4-5"]


def test_values_are_judged_before_the_database_sees_them(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(job: IngestJob) -> object:
        pytest.fail("the database refused a value")

    monkeypatch.setattr(IngestJob, "without_what_failed", unexpected)
    bad: list[JsonObject] = [
        *({name: "x\x00y"} for name in ("id", "customer", "model", "session", "error_type")),
        NUL_IN_TAGS,
        {"tags": {"\x00": 1}},
        {"tags": {"a": "\\\x00"}},
        {"step": 2**31},
        {"latency_ms": 2**53 + 1},
        {"input_tokens": 10**12 + 1},
        {"cost_usd": "1000000000.01"},
        {"cost_usd": "10000000.01"},
        {"time": "0001-01-01T00:00:00Z"},
        {"time": "9999-12-31T23:59:59Z"},
        {"customer": "c" * 201},
    ]
    good: list[JsonObject] = [
        {
            "tags": {
                "a": "\\u0000",
                "b": r"\\u0000",
                "c": 1e308,
                "d": 2**63,
                "e": "\ud7ff\U0010ffff",
            }
        },
        {"customer": "\\u0000", "model": "\\N", "session": "\\."},
        {"step": 2**31 - 1, "latency_ms": 2**53, "max_output_tokens": 2**53},
        {"saved_usd": "1000000000", "cost_usd": "10000000"},
        {"input_tokens": 10**12, "output_tokens": 10**12, "web_searches": 2**53, "cost_usd": "0"},
        {"customer": "\U0001f4b8" * 200, "session": "\U0001f4b8" * 200},
    ]
    answer = send(account, [make_event(**fields) for fields in [*bad, *good]])
    assert [error["index"] for error in answer["errors"]] == list(range(len(bad)))
    assert answer["accepted"] == len(good)


def test_what_the_database_refuses_all_the_same_is_refused_alone_in_our_words(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, {"e3", "e50"})
    budget = make_budget(account)
    events = [make_event(id=f"e{n}") for n in range(60)]
    answer = msgspec.json.decode(post(account, msgspec.json.encode(events)).body)
    assert (answer["accepted"], answer["rejected"]) == (58, 2)
    assert [(error["index"], error["id"]) for error in answer["errors"]] == [(3, "e3"), (50, "e50")]
    assert {error["detail"] for error in answer["errors"]} == {jobs.NOT_STORABLE}
    assert windows_of(account, budget)[0].spent_requests == 58


def test_a_body_of_nothing_but_such_values_makes_a_bounded_number_of_transactions(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, {f"e{n}" for n in range(64)})
    turns: list[int] = []
    commit = ingesting._commit_as_configured

    def counted(tenant_id: int, together: Sequence[IngestJob]) -> None:
        turns.append(sum(job.weight for job in together))
        if len(turns) == 1:
            together[0].attempts.left = 10
        commit(tenant_id, together)

    monkeypatch.setattr(ingesting, "_commit_as_configured", counted)
    events = [make_event(id=f"e{n}") for n in range(64)]
    response = post(account, msgspec.json.encode(events))
    answer = msgspec.json.decode(response.body)
    assert (response.status, answer["rejected"]) == (422, 64)
    assert len(turns) < 24
    assert jobs.NOT_TRIED in {error["detail"] for error in answer["errors"]}
    with account.scope():
        assert not UsageEvent.objects.exists()


def test_refusals_leave_nothing_that_only_a_search_for_cycles_frees(account: Account) -> None:
    """Such a search is rare in a web process, and a body may have megabytes."""
    make_budget(account, cost_usd=0)
    bad = [make_event(cost_usd="-1"), make_event(usage={"what": 1}), make_event(**NUL_IN_TAGS)]
    bodies: list[tuple[bytes, Any, JsonObject]] = [
        (msgspec.json.encode(bad), handle_events, {}),
        (msgspec.json.encode([{**bad[1], "unknown": 1}, {}, 7]), handle_events, {}),
        (msgspec.json.encode([bad[0], make_event()]), handle_events, {}),
        (b"[", handle_events, {}),
        (b'{"amount_usd": "1"}', handle_reserve, {}),
        (b'{"amount_usd": "x"}', handle_reserve, {}),
        (
            b'{"model": "nobody-knows-it", "input_tokens": 1, "max_output_tokens": 1}',
            handle_reserve,
            {},
        ),
        (msgspec.json.encode(bad[1]), handle_settle, {"reservation_id": new_id()}),
        (msgspec.json.encode(make_event()), handle_settle, {"reservation_id": new_id()}),
    ]

    def refuse_all() -> list[int]:
        return [post(account, body, handle, **options).status for body, handle, options in bodies]

    assert refuse_all() == [422, 422, 200, 400, 402, 400, 402, 404, 404]
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        refuse_all()
        gc.collect()
        kinds = (BaseException, FrameType, TracebackType, IngestJob)
        left = [type(kept).__name__ for kept in gc.garbage if isinstance(kept, kinds)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
