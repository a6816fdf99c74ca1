"""Counts of what sources send: recorded beside the requests, bounded, written within a second."""

import threading
import time
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

import msgspec
import pytest
import time_machine
from django.db import OperationalError, connection
from django.utils import timezone

from common.errors import EventRejected, MalformedBody
from common.json_bodies import JsonObject
from metering.api.counters import count_job, count_refused_body
from metering.calls.ingest_job import IngestJob
from metering.intake.ingest import ingest
from metering.jobs.tasks import remove_old_rows
from metering.models import Route, SourceCount, SourceOutcome
from metering.usage import sources
from metering.usage.decoders import native
from metering.usage.decoders.native import PassedOver
from metering.usage.source_advice import ADVICE, what_to_set
from metering.usage.sources import OTHER, PROCESS_RECORDER, SourceRecorder, Tally, record_reports
from tests.factories import Account, make_event

ACCEPTED = SourceOutcome.ACCEPTED
REJECTED = SourceOutcome.REJECTED


class RecorderByHand(SourceRecorder):
    """Without a thread: what it writes, and when, is the test's."""

    def _start(self) -> None:
        """Nothing."""


@pytest.fixture
def recorder() -> SourceRecorder:
    return RecorderByHand()


def accepted(source: str, count: int = 1) -> Tally:
    return Tally(source, Route.NATIVE, ACCEPTED, count)


def rejected(source: str, code: str = "unknown_usage", **fields: Any) -> Tally:
    return Tally(source, Route.OTLP, REJECTED, 1, code, **fields)


def stored(account: Account) -> list[tuple[Any, ...]]:
    with account.scope():
        return list(
            SourceCount.objects.order_by("source", "route", "outcome", "code").values_list(
                "source", "route", "outcome", "code", "count", "detail", "sample"
            )
        )


def take(account: Account, events: list[JsonObject]) -> IngestJob:
    """Take events in and count them, as the web process does."""
    items = native.decode_json(msgspec.json.encode(events))
    job = ingest(items, tenant_id=account.tenant.id, route=Route.NATIVE)
    count_job(job)
    PROCESS_RECORDER.flush()
    return job


def flush_elsewhere(recorder: SourceRecorder) -> None:
    recorder.flush()
    connection.close()


def record_and_end(tenant_id: int) -> None:
    """What a worker does that is told to end right after its last request."""
    record_reports(tenant_id, [accepted("app", 3)])


def test_counts_add_up_over_flushes_and_keep_the_latest_detail_and_sample(
    account: Account, recorder: SourceRecorder
) -> None:
    tenant_id = account.tenant.id
    recorder.record(tenant_id, [accepted("app", 3), accepted("app"), accepted("")])
    recorder.record(tenant_id, [rejected("app", detail="first", sample="{1}")])
    recorder.flush()
    recorder.record(tenant_id, [accepted("app", 5), rejected("app", detail="second")])
    recorder.flush()
    recorder.flush()
    native_route, otlp = Route.NATIVE.value, Route.OTLP.value
    assert stored(account) == [
        ("", native_route, 1, "", 1, "", None),
        ("app", native_route, 1, "", 9, "", None),
        ("app", otlp, 6, "unknown_usage", 2, "second", "{1}"),
    ]
    with account.scope():
        source_count = SourceCount.objects.get(source="app", route=otlp)
    assert timedelta() < source_count.last_at - source_count.first_at < timedelta(seconds=30)


def test_a_tenant_has_at_most_200_sources_a_day(
    account: Account, stranger: Account, recorder: SourceRecorder
) -> None:
    tenant_id = account.tenant.id
    recorder.record(tenant_id, [accepted(f"s-{number:03}") for number in range(150)])
    recorder.flush()
    recorder.record(tenant_id, [accepted(f"s-{number:03}") for number in range(100, 260)])
    recorder.record(stranger.tenant.id, [accepted("s-259")])
    recorder.flush()
    rows = stored(account)
    counts = {row[0]: row[4] for row in rows}
    assert len(rows) == 201
    assert counts.pop(OTHER) == 60
    assert counts == {f"s-{number:03}": 1 + (100 <= number < 150) for number in range(200)}
    assert [row[0] for row in stored(stranger)] == ["s-259"]
    with time_machine.travel(timezone.now() + timedelta(days=1), tick=False):
        recorder.record(tenant_id, [accepted("s-259")])
        recorder.flush()
    assert {row[0]: row[4] for row in stored(account)}["s-259"] == 1


def test_what_waits_is_bounded_and_loses_no_count(
    account: Account, recorder: SourceRecorder
) -> None:
    sent = [rejected(f"source-{number}", sample="x" * 5000) for number in range(2000)]
    recorder.record(account.tenant.id, sent)
    waiting = recorder._waiting[account.tenant.id]
    assert len(waiting) == recorder._size == sources.TENANT_COUNTS_MAX + 1
    assert sum(count.count for count in waiting.values()) == 2000
    recorder.flush()
    rows = stored(account)
    assert len(rows) == 201
    assert sum(row[4] for row in rows) == 2000
    assert {len(row[6]) for row in rows} == {2048}


def test_texts_that_cannot_be_stored_are_mended(account: Account, recorder: SourceRecorder) -> None:
    recorder.record(
        account.tenant.id,
        [rejected("a\x00b\ud800" + "x" * 300, "c" * 300, detail="d" * 900, sample="é" * 2000)],
    )
    recorder.flush()
    ((source, _, _, code, count, detail, sample),) = stored(account)
    assert source == ("a\ufffdb?" + "x" * 300)[:200]
    assert (code, count, detail) == ("c" * 100, 1, "d" * 500)
    assert sample == "é" * 1024


def test_a_database_that_fails_delays_the_counts_and_fails_nobody(
    account: Account, recorder: SourceRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(batch: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr(sources, "_write", fail)
        recorder.record(account.tenant.id, [accepted("app", 2)])
        recorder.flush()
        recorder.record(account.tenant.id, [accepted("app", 3)])
        recorder.flush()
    assert stored(account) == []
    assert sum(row["count"] for row in recorder.unwritten(account.tenant.id)) == 5
    recorder.flush()
    assert [row[4] for row in stored(account)] == [5]


def test_counts_that_can_never_be_written_are_dropped_alone(
    account: Account, stranger: Account, recorder: SourceRecorder
) -> None:
    recorder.record(account.tenant.id, [accepted("app", 2**63)])
    recorder.record(stranger.tenant.id, [accepted("app", 2)])
    recorder.flush()
    recorder.flush()
    assert stored(account) == []
    assert [row[4] for row in stored(stranger)] == [2]


def test_tenants_share_transactions_of_so_many_counts(
    account: Account,
    stranger: Account,
    recorder: SourceRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together: list[list[int]] = []
    write = sources._write

    def noted(batches: Any) -> None:
        together.append([batch.tenant_id for batch in batches])
        write(batches)

    monkeypatch.setattr(sources, "_write", noted)
    # Written in one order, so that two processes never wait for each other.
    for each in (stranger, account):
        recorder.record(each.tenant.id, [accepted("app"), accepted(each.tenant.name)])
    recorder.flush()
    assert together == [[account.tenant.id, stranger.tenant.id]]
    monkeypatch.setattr(sources, "WRITTEN_TOGETHER", 1)
    for each in (stranger, account):
        recorder.record(each.tenant.id, [accepted("app"), accepted("other")])
    recorder.flush()
    assert together[1:] == [[account.tenant.id], [stranger.tenant.id]]
    for each in (account, stranger):
        counts = {row[0]: row[4] for row in stored(each)}
        assert counts == {"app": 2, each.tenant.name: 1, "other": 1}


def test_a_snapshot_counts_what_it_does_not_see_once(
    account: Account, recorder: SourceRecorder
) -> None:
    """What is written while a reader reads is in its answer, and not twice in the next one's."""
    tenant_id = account.tenant.id
    recorder.record(tenant_id, [accepted("app", 2)])
    recorder.flush()
    recorder.record(tenant_id, [accepted("app", 3)])

    def visible() -> list[bool]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_visible_in_snapshot(t::xid8, pg_current_snapshot())"
                " FROM unnest(%s::text[]) AS t",
                [[row["transaction"] for row in recorder.unwritten(tenant_id)]],
            )
            return [row[0] for row in cursor.fetchall()]

    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT sum(count) FROM source_count")
        assert cursor.fetchone()[0] == 2
        writer = threading.Thread(target=flush_elsewhere, args=[recorder])
        writer.start()
        writer.join()
        cursor.execute("SELECT sum(count) FROM source_count")
        assert cursor.fetchone()[0] == 2
        assert visible() == [True, False]
    assert visible() == [True, True]


def test_processes_that_write_at_once_count_everything(account: Account) -> None:
    recorders = [RecorderByHand() for _ in range(4)]

    def work(number: int, recorder: SourceRecorder) -> None:
        try:
            for turn in range(10):
                names = [f"{number}-{turn}-{index}" for index in range(10)]
                tallies = [accepted("shared"), *(accepted(name) for name in names)]
                recorder.record(account.tenant.id, tallies)
                recorder.flush()
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=each) for each in enumerate(recorders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {row[0]: row[4] for row in stored(account)}
    assert len(counts) == 201
    assert counts["shared"] == 40
    assert sum(counts.values()) == 40 * 11


def test_a_thread_writes_within_a_second_and_a_stop_writes_at_once(account: Account) -> None:
    recorder = SourceRecorder()
    recorder.record(account.tenant.id, [accepted("app")])
    end = time.monotonic() + 60
    while not stored(account):
        assert time.monotonic() < end
        time.sleep(0.05)
    recorder.record(account.tenant.id, [accepted("app")])
    thread = recorder._thread
    recorder.stop()
    assert thread is not None
    assert not thread.is_alive()
    assert [row[4] for row in stored(account)] == [2]
    recorder.record(account.tenant.id, [accepted("app")])
    recorder.stop()
    assert [row[4] for row in stored(account)] == [3]


def test_the_end_of_a_process_writes_what_waits(account: Account) -> None:
    """As a web worker ends, which `multiprocessing` starts."""
    connection.close()
    worker = get_context("fork").Process(target=record_and_end, args=[account.tenant.id])
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    assert [(row[0], row[4]) for row in stored(account)] == [("app", 3)]


def test_a_body_is_counted_by_source_outcome_and_reason(account: Account) -> None:
    event = make_event(source="app", id="one")
    take(account, [event, make_event(source="app", model="nobody-knows-it")])
    job = take(account, [event, {**event, "input_tokens": 5}, make_event(source="app", usage={})])
    assert job.answer().duplicates == 1
    route = Route.NATIVE.value
    rows = {(row[0], row[2], row[3]): row[4] for row in stored(account)}
    assert {row[1] for row in stored(account)} == {route}
    assert rows[("app", ACCEPTED, "")] == 2
    assert rows[("app", SourceOutcome.DUPLICATE, "")] == 1
    assert rows[("app", SourceOutcome.UNPRICED, "no_price")] == 1
    assert rows[("app", REJECTED, "id_conflict")] == 1


def test_sources_of_one_body_are_told_apart(account: Account) -> None:
    take(account, [make_event(source=name) for name in ("a", "b", "b")])
    assert [(row[0], row[4]) for row in stored(account)] == [("a", 1), ("b", 2)]


def test_sources_of_one_body_that_fare_differently_are_told_apart(account: Account) -> None:
    known = make_event(source="a", id="known")
    take(account, [known])
    take(
        account,
        [
            known,
            {**known, "input_tokens": 5},
            make_event(source="a"),
            make_event(source="b", model="nobody-knows-it"),
            make_event(source="b", time="2020-01-01T00:00:00Z"),
        ],
    )
    assert [(row[0], row[2], row[3], row[4]) for row in stored(account)] == [
        ("a", ACCEPTED, "", 2),
        ("a", SourceOutcome.DUPLICATE, "", 1),
        ("a", REJECTED, "id_conflict", 1),
        ("b", ACCEPTED, "", 1),
        ("b", SourceOutcome.UNPRICED, "no_price", 1),
        ("b", REJECTED, "time_out_of_range", 1),
    ]


def test_what_a_job_tells_besides_its_events_is_counted(account: Account) -> None:
    job = ingest([], tenant_id=account.tenant.id, route=Route.OTLP)
    job.passed_over = [PassedOver("app", "not_a_call", 7, "{}"), PassedOver("", "wrong_signal")]
    job.errors = [(0, EventRejected("unknown_usage", "No.", source="app", sample="{2}"))]
    count_job(job)
    count_refused_body(account.tenant.id, Route.LITELLM, MalformedBody("too_deep", "Too deep."))
    PROCESS_RECORDER.flush()
    assert stored(account) == [
        ("", Route.OTLP.value, 7, "wrong_signal", 1, "", None),
        ("", Route.LITELLM.value, 6, "too_deep", 1, "Too deep.", None),
        ("app", Route.OTLP.value, 6, "unknown_usage", 1, "No.", "{2}"),
        ("app", Route.OTLP.value, 7, "not_a_call", 7, "", "{}"),
    ]


def test_a_failure_to_count_fails_no_request(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: IngestJob) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("metering.api.counters.tallies_of", fail)
    assert take(account, [make_event()]).answer().accepted == 1


def test_counts_go_after_35_days(account: Account, recorder: SourceRecorder) -> None:
    recorder.record(account.tenant.id, [accepted("app")])
    recorder.flush()
    with time_machine.travel(timezone.now() + timedelta(days=35), tick=False):
        remove_old_rows()
    assert len(stored(account)) == 1
    with time_machine.travel(timezone.now() + timedelta(days=36), tick=False):
        remove_old_rows()
    assert stored(account) == []


def test_every_reason_says_what_to_set() -> None:
    for code, advice in ADVICE.items():
        assert advice.detail.endswith("."), code
        assert advice.what_to_set.endswith("."), code
    assert what_to_set("usage_missing").startswith("Set stream_options.include_usage=true")
    assert what_to_set("never heard of") == (
        "See the detail and the sample; GET /v1/docs describes what can be sent."
    )
