"""Roll-ups sum to exactly the events of the batches that they hold."""

import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from common.json_bodies import JsonObject
from metering import rollups
from metering.audit.ledger import audit_tenant
from metering.core.periods import floor_seconds
from metering.intake.corrections import correct_event
from metering.jobs import tasks
from metering.models import (
    BATCH_ID_STRIDE,
    MEASURES,
    CostSource,
    IngestBatch,
    Operation,
    Status,
    UsageEvent,
    UsageHistogram,
    UsageRollup,
)
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import usage
from metering.rollups import OTHER, batches, bins, long_tail
from metering.rollups.sets import DAY_SECONDS, HISTOGRAM_SETS, SETS, DimensionSet
from tenants import claims
from tenants.claims import TRANSACTION_SECONDS, ClaimSize
from tenants.scope import platform_scope
from tests.factories import Account, make_event, send
from tests.seed import dice

TEAMS = ["growth", "platform", ""]
pytestmark = pytest.mark.django_db(transaction=True)


def make_events(count: int, *, seed: int = 1) -> list[JsonObject]:
    """Events over three days, with values that repeat and values that need escaping."""
    chance = dice("batches", seed)
    now = datetime.now(UTC)
    return [
        make_event(
            id=f"{seed}-{number}",
            time=(now - timedelta(seconds=chance.randrange(3 * 86_400))).isoformat(),
            team=chance.choice(["growth", "platform", ...]),
            customer=chance.choice(["acme", "tab\there", "back\\slash\nline", "Größe"]),
            agent=f"agent-{chance.randrange(4)}",
            user=f"user-{chance.randrange(30)}",
            feature=chance.choice(["search", ...]),
            model=chance.choice(["claude-sonnet-4-5", "gpt-4o", "a model nobody knows"]),
            provider=chance.choice(["anthropic", "openai"]),
            status=chance.choice(["success", "success", "error"]),
            latency_ms=chance.choice([0, 1, 812, 40_000, ...]),
            cost_usd=chance.choice([..., ..., "0.000000007", "1.25"]),
            **chance.choice([{}, {"operation": "tool", "tool": "web_search"}]),
        )
        for number in range(count)
    ]


def roll_everything_up(account: Account) -> int:
    count = 0
    with account.scope():
        while done := rollups.roll_up(tenant_id=account.tenant.id):
            count += done
    return count


def expected_rollups(account: Account) -> dict[tuple[object, ...], tuple[int, ...]]:
    """Every set's sums, added up here from the events of rolled-up batches."""
    with account.scope():
        held = set(IngestBatch.objects.exclude(rolled_up_at=None).values_list("id", flat=True))
        events = [
            event
            for event in UsageEvent.objects.filter(tenant=account.tenant, is_void=False)
            if event.id // BATCH_ID_STRIDE in held
        ]
    sums: dict[tuple[Any, ...], tuple[int, ...]] = defaultdict(lambda: (0,) * len(MEASURES))
    for event in events:
        for each in SETS:
            key = (
                each.number,
                floor_seconds(event.time, each.grain_seconds),
                *values_of(event, each),
            )
            sums[key] = tuple(map(sum, zip(sums[key], measures_of(event), strict=True)))
    return dict(sums)


def values_of(event: UsageEvent, each: DimensionSet) -> tuple[str, str]:
    values = [getattr(event, name) for name in each.dimensions]
    return tuple([*values, "", ""][:2])


def measures_of(event: UsageEvent) -> tuple[int, ...]:
    is_tool = event.operation == Operation.TOOL
    by_name = {
        "cost_nanos": event.cost_nanos or 0,
        "requests": int(not is_tool),
        "errors": int(event.status == Status.ERROR),
        "unpriced": int(event.cost_nanos is None),
        "tool_calls": int(is_tool),
        "given_nanos": (event.cost_nanos or 0) if event.cost_source == CostSource.GIVEN else 0,
    }
    return tuple(by_name.get(name, getattr(event, name, 0)) for name in MEASURES)


def stored_rollups(account: Account) -> dict[tuple[object, ...], tuple[int, ...]]:
    with account.scope():
        rows = UsageRollup.objects.filter(tenant=account.tenant).values_list(
            "dimension_set", "starts_at", "value_1", "value_2", *MEASURES
        )
        return {row[:4]: row[4:] for row in rows if any(row[4:])}


def test_every_set_sums_to_the_events(account: Account) -> None:
    send(account, make_events(300))
    send(account, make_events(50, seed=2))
    assert roll_everything_up(account) == 2
    expected = expected_rollups(account)
    assert stored_rollups(account) == expected
    assert {key[0] for key in expected} == {each.number for each in SETS}


def test_a_second_run_adds_nothing(account: Account) -> None:
    send(account, make_events(20))
    roll_everything_up(account)
    before = stored_rollups(account)
    assert roll_everything_up(account) == 0
    assert stored_rollups(account) == before


def test_batches_of_a_claim_are_read_in_portions(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PORTION_EVENTS_MAX", 30)
    for seed in range(5):
        send(account, make_events(20, seed=seed))
    with account.scope():
        assert rollups.roll_up(tenant_id=account.tenant.id) == 5
    assert stored_rollups(account) == expected_rollups(account)


def test_portions_of_a_claim_share_their_days_and_long_tails(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PORTION_EVENTS_MAX", 10)
    monkeypatch.setattr(long_tail, "SETS", tuple(each._replace(values_max=3) for each in SETS))
    for seed in range(3):
        send(account, make_events(40, seed=seed))
    with account.scope():
        assert rollups.roll_up(tenant_id=account.tenant.id) == 3
        rows = UsageRollup.objects.filter(dimension_set=28).values_list("starts_at", "value_1")
        of_days = Counter(starts_at for starts_at, value in rows if value != OTHER)
        assert OTHER in {value for _, value in rows}
    assert max(of_days.values()) == 3
    assert audit_tenant(account.tenant.id) == []


def test_sums_are_distinct_and_come_in_the_order_of_the_index(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[tuple[Any, ...]]] = []

    def watch(name: str, *, numbers_in_key: int) -> None:
        add_up = getattr(batches, name)

        def watched(*arguments: object, **options: object) -> Iterator[object]:
            for rows in add_up(*arguments, **options):
                key = (rows.starts, *rows.values, *rows.numbers[:numbers_in_key])
                written.append([(rows.set_number, *row) for row in zip(*key, strict=True)])
                yield rows

        monkeypatch.setattr(batches, name, watched)

    watch("sums_by_set", numbers_in_key=0)
    watch("counts_by_set", numbers_in_key=2)
    send(account, make_events(200))
    roll_everything_up(account)
    assert len(written) == len(SETS) + len(HISTOGRAM_SETS)
    for rows in written:
        assert rows == sorted(set(rows))


def test_a_claim_is_bounded_and_takes_the_oldest(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CLAIM_EVENTS", ClaimSize(least=1, first=25, most=25))
    for seed in range(3):
        send(account, make_events(10, seed=seed))
    with account.scope():
        assert rollups.roll_up(tenant_id=account.tenant.id) == 2
        waiting = IngestBatch.objects.filter(rolled_up_at=None)
        assert list(waiting) == list(IngestBatch.objects.order_by("-id")[:1])


def test_a_claim_is_smaller_where_the_last_one_took_long(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CLAIM_EVENTS", ClaimSize(least=1, first=40, most=40))
    # As if each took longer than it may, so that the next claims a half.
    monkeypatch.setattr(
        claims,
        "time",
        SimpleNamespace(monotonic=itertools.count(0, 2 * TRANSACTION_SECONDS).__next__),
    )
    for seed in range(7):
        send(account, make_events(10, seed=seed))
    with account.scope():
        claimed = [rollups.roll_up(tenant_id=account.tenant.id) for _ in range(4)]
    # A batch is the least that one can claim.
    assert claimed == [4, 2, 1, 0]
    assert stored_rollups(account) == expected_rollups(account)


def test_a_run_that_dies_leaves_nothing_behind(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, make_events(20))
    monkeypatch.setattr(batches, "ADD_HISTOGRAMS", "SELECT 1 / 0 FROM tenant WHERE id = %s")
    with pytest.raises(Exception, match="division by zero"):
        roll_everything_up(account)
    assert stored_rollups(account) == {}
    monkeypatch.undo()
    assert roll_everything_up(account) == 1
    assert stored_rollups(account) == expected_rollups(account)


def test_another_tenant_is_not_touched(account: Account, stranger: Account) -> None:
    send(account, make_events(10))
    send(stranger, make_events(10, seed=2))
    roll_everything_up(account)
    with stranger.scope():
        assert UsageRollup.objects.count() == 0
        assert IngestBatch.objects.filter(rolled_up_at=None).count() == 1


def test_the_task_rolls_up_every_tenant_once_further_reports_have_come(
    account: Account, stranger: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(team="growth")])
    send(stranger, [make_event()])
    tasks.roll_up()
    with platform_scope("see what waits"):
        assert rollups.tenants_waiting() == [account.tenant.id, stranger.tenant.id]
    monkeypatch.setattr(tasks, "GRACE", timedelta())
    monkeypatch.setattr(tasks, "FEW_PATIENCE", timedelta())
    tasks.roll_up()
    with platform_scope("see what waits"):
        assert rollups.tenants_waiting() == []
    assert stored_rollups(stranger) == expected_rollups(stranger)


def test_a_few_old_events_gather_before_they_are_added_up(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    for days in (0, 3):
        send(account, [make_event(time=(now - timedelta(days=days)).isoformat())])

    def added_up(patience: timedelta) -> int:
        with account.scope():
            return rollups.roll_up(tenant_id=account.tenant.id, patience=patience)

    assert added_up(timedelta(minutes=1)) == 0
    monkeypatch.setattr(batches, "CLAIM_EVENTS", ClaimSize(least=1, first=2, most=2))
    assert added_up(timedelta(minutes=1)) == 2
    monkeypatch.undo()
    for days in (0, 3):
        send(account, [make_event(time=(now - timedelta(days=days)).isoformat())])
    assert added_up(timedelta(microseconds=1)) == 2
    assert stored_rollups(account) == expected_rollups(account)


def test_tenants_of_few_events_wait_for_more_of_them(
    account: Account, stranger: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    minute = timedelta(minutes=1)

    def waiting(**options: timedelta) -> list[int]:
        with platform_scope("see what waits"):
            return rollups.tenants_waiting(**options)

    monkeypatch.setattr(batches, "FEW_EVENTS", 3)
    both = [account.tenant.id, stranger.tenant.id]
    for each, count in ((account, 2), (stranger, 3)):
        send(each, [make_event() for _ in range(count)])
    assert (waiting(), waiting(patience=minute)) == (both, both[1:])
    assert waiting(grace=minute) == []
    with account.scope():
        IngestBatch.objects.update(received_at=datetime.now(UTC) - minute)
    assert (waiting(patience=minute), waiting(grace=minute)) == (both, both[:1])


@contextmanager
def running(*jobs: object) -> Iterator[None]:
    """Run jobs in threads of their own; what one raises fails the test."""
    errors: list[BaseException] = []

    def run(job: Any) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    assert errors == []


def test_ingest_and_two_workers_at_once_count_each_event_once(account: Account) -> None:
    done = threading.Event()

    def take_in() -> None:
        for seed in range(12):
            send(account, make_events(25, seed=seed))

    def work() -> None:
        while not done.is_set():
            roll_everything_up(account)

    with running(work, work):
        with running(take_in):
            pass
        done.set()
    roll_everything_up(account)
    assert stored_rollups(account) == expected_rollups(account)


def test_a_batch_that_a_correction_holds_is_left_for_later(account: Account) -> None:
    send(account, make_events(5))
    send(account, make_events(5, seed=2))
    with account.scope():
        first = IngestBatch.objects.order_by("id").values_list("id", flat=True)[0]
        assert rollups.lock_batches(tenant_id=account.tenant.id, batch_ids=[first]) == set()
        with running(lambda: roll_everything_up(account)):
            pass
        waiting = IngestBatch.objects.filter(rolled_up_at=None).values_list("id", flat=True)
        assert list(waiting) == [first]
    assert roll_everything_up(account) == 1
    assert stored_rollups(account) == expected_rollups(account)


def test_a_voided_event_leaves_the_rollups_it_was_in(account: Account) -> None:
    events = make_events(40)
    send(account, events)
    roll_everything_up(account)
    void(account, events[3])
    send(account, events_after := make_events(5, seed=9))
    void(account, events_after[0])
    assert stored_rollups(account) == expected_rollups(account)
    roll_everything_up(account)
    assert stored_rollups(account) == expected_rollups(account)
    assert sum_of_histograms(account) == expected_histograms(account)


def void(account: Account, event: JsonObject) -> None:
    with account.scope():
        correct_event(
            tenant_id=account.tenant.id,
            source=event["source"],
            sent_id=event["id"],
            replacement=None,
            reason="sent by mistake",
            actor="tests",
        )


def sum_of_histograms(account: Account) -> dict[int, int]:
    with account.scope():
        rows = UsageHistogram.objects.filter(dimension_set=HISTOGRAM_SETS[0].number)
        counts: dict[int, int] = defaultdict(int)
        for row in rows:
            counts[row.measure] += row.count
    return dict(counts)


def expected_histograms(account: Account) -> dict[int, int]:
    counts: dict[int, int] = defaultdict(int)
    with account.scope():
        calls = UsageEvent.objects.filter(is_void=False).exclude(operation=Operation.TOOL)
        for event in calls:
            for measure, column in bins.MEASURE_COLUMNS.items():
                counts[measure] += getattr(event, column) is not None
    return {measure: count for measure, count in counts.items() if count}


def test_new_values_beyond_the_limit_are_added_up_as_one(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tuple(each._replace(values_max=3) for each in SETS)
    monkeypatch.setattr(long_tail, "SETS", small)
    time = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    first = [make_event(time=time, customer=f"c-{n}", cost_usd=f"{n}") for n in range(5)]
    send(account, first)
    roll_everything_up(account)
    send(account, [make_event(time=time, customer=f"c-{n}", cost_usd="10") for n in range(7)])
    roll_everything_up(account)
    costs = {
        key[2]: measures[0] // 10**9
        for key, measures in stored_rollups(account).items()
        if key[0] == 23
    }
    # The three most expensive of the first batch have rows of their own, and keep them.
    assert costs == {"c-4": 14, "c-3": 13, "c-2": 12, OTHER: 0 + 1 + 4 * 10}
    for number in (1, 3, 23, 45):
        total = sum(m[0] for key, m in stored_rollups(account).items() if key[0] == number)
        assert total == 80 * 10**9


def test_a_large_value_that_comes_late_takes_the_place_of_a_small_one(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tuple(each._replace(values_max=3) for each in SETS)
    monkeypatch.setattr(long_tail, "SETS", small)
    at = floor_seconds(datetime.now(UTC) - timedelta(hours=2), 3600) + timedelta(minutes=35)

    def spend(**usd: str) -> None:
        send(
            account,
            [
                make_event(
                    time=at.isoformat(), customer=name, agent=name, cost_usd=cost, latency_ms=5
                )
                for name, cost in usd.items()
            ],
        )
        roll_everything_up(account)
        assert audit_tenant(account.tenant.id) == []

    def shown(**question: Any) -> dict[str, int]:
        with account.scope():
            page = usage(
                UsageQuestion(
                    tenant_id=account.tenant.id,
                    starts_at=floor_seconds(at, DAY_SECONDS),
                    ends_at=datetime.now(UTC) + timedelta(minutes=1),
                    group_by=("customer",),
                    **question,
                )
            )
        return {row.group["customer"]: row.measures.cost_nanos // 10**9 for row in page.rows}

    spend(a="1", b="2", c="3", d="4", e="5")
    spend(late="500")
    wanted = {"late": 500, "e": 5, "d": 4, "(other)": 6}
    for question in (
        {"interval": "hour"},
        {"interval": "15min"},
        {"interval": "day"},
        {"interval": "hour", "timezone": "Asia/Kolkata"},
        {"interval": "none"},
    ):
        assert shown(**question) == wanted, question
    assert shown(interval="hour", filters={"customer": ("a",)}) == {"a": 1}
    # One that lost its row and grows has one again, with what came since; sums stay exact.
    spend(c="50")
    assert shown(interval="hour") == {"late": 500, "c": 50, "e": 5, "(other)": 10}
    assert sum_of_histograms(account) == expected_histograms(account)


def test_a_rollup_that_was_changed_by_hand_is_found(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tuple(each._replace(values_max=2 if each.number == 24 else 1_000) for each in SETS)
    monkeypatch.setattr(long_tail, "SETS", small)
    now = floor_seconds(datetime.now(UTC) - timedelta(hours=1), 900).isoformat()
    send(account, [make_event(time=now, agent=f"a-{n}", latency_ms=n) for n in range(5)])
    roll_everything_up(account)
    # What waits is no drift.
    send(account, [make_event(time=now, agent="waits")])
    assert audit_tenant(account.tenant.id) == []
    changes = {
        "cost_nanos = cost_nanos + 1": "dimension_set = 1",
        "input_tokens = input_tokens - 1": "dimension_set = 4 AND value_1 = 'a-2'",
        "requests = requests + 1": f"dimension_set = 24 AND value_1 = '{OTHER}'",
        "tool_calls = 7": "dimension_set = 24 AND value_1 = 'a-0'",
        "errors = 1": "dimension_set = 49 AND value_1 = 'a-3'",
        "unpriced = 1": "dimension_set = 21",
        "value_1 = 'moved'": "dimension_set = 4 AND value_1 = 'a-4'",
        "starts_at = starts_at - interval '3 days'": "dimension_set = 7",
    }
    for change, row in changes.items():
        with account.scope(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE usage_rollup SET {change} WHERE {row}")
            assert cursor.rowcount == 1, row
            assert [drift for drift in audit_tenant(account.tenant.id) if "roll-up" in str(drift)]
            transaction.set_rollback(True)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_histogram SET count = count + 1 WHERE bin = 0")
        assert cursor.rowcount
        assert audit_tenant(account.tenant.id)
        transaction.set_rollback(True)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM usage_rollup")
        (drift, *_) = audit_tenant(account.tenant.id)
        assert str(drift).startswith("roll-up of the ")
        assert "against its events" in str(drift)
        transaction.set_rollback(True)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_rollup SET requests = 0 WHERE dimension_set = 1")
    with pytest.raises(CommandError, match="1 sums drift") as caught:
        call_command("audit_ledger", verbosity=0)
    assert caught.value.returncode == 1
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_rollup SET requests = 5 WHERE dimension_set = 1")


def test_a_folded_event_is_taken_away_from_the_long_tail(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tuple(each._replace(values_max=1) for each in SETS)
    monkeypatch.setattr(long_tail, "SETS", small)
    events = [make_event(agent=f"a-{n}", cost_usd=f"{n}") for n in range(3)]
    send(account, events)
    roll_everything_up(account)
    void(account, events[1])
    by_agent = {
        key[2]: measures[0] for key, measures in stored_rollups(account).items() if key[0] == 24
    }
    assert by_agent == {"a-2": 2 * 10**9, OTHER: 0}


def test_bins_hold_their_values_within_five_percent() -> None:
    values = np.array([1, 2, 7, 99, 812, 10_000, 123_456_789, 2**50], np.int64)
    for value, bin_number in zip(values.tolist(), bins.bins_of(values).tolist(), strict=True):
        assert abs(bins.middle(bin_number) - value) <= max(1, value * 0.05)
    assert bins.bins_of(np.array([0], np.int64)).tolist() == [bins.ZERO_BIN]
    assert bins.middle(bins.ZERO_BIN) == 0


def test_percentiles_are_nearest_ranks() -> None:
    counts = {bins.ZERO_BIN: 50, 10: 45, 20: 4, 30: 1}
    assert bins.percentile(counts, 50) == 0
    assert bins.percentile(counts, 95) == bins.middle(10)
    assert bins.percentile(counts, 99) == bins.middle(20)
    assert bins.percentile(counts, 100) == bins.middle(30)
    assert bins.percentile({}, 50) is None
