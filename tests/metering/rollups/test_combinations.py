"""Distinct counts from combinations of days equal a plain count of the events, whatever changed."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction

from metering import rollups
from metering.audit.ledger import audit_tenant
from metering.models import UsageCombination, UsageEvent
from metering.reporting import bounded, distinct
from metering.reporting.distinct import distinct_in
from metering.reporting.question import UsageQuestion
from metering.rollups import batches
from metering.rollups.combinations import combinations_of
from tests.factories import Account, make_event, send
from tests.metering.reporting.test_usage import snapshot
from tests.metering.rollups.test_batches import void
from tests.seed import dice

pytestmark = pytest.mark.django_db(transaction=True)
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
# Of team, customer and provider.
NEW_HISTOGRAM_SETS = [22, 23, 27]
ENTITIES = ("user", "session", "customer", "feature")


def make_events(count: int, *, seed: int) -> list[dict[str, object]]:
    """Calls of four days, many of them at or beside midnight, of few values that meet again."""
    chance = dice("combinations", seed)
    edges = [timedelta(), timedelta(microseconds=-1), timedelta(hours=5, minutes=30)]
    return [
        make_event(
            id=f"{seed}-{number}",
            source="api",
            response_id=f"r-{seed}-{number}",
            time=(
                MIDNIGHT
                - timedelta(days=chance.randrange(4))
                - chance.choice([*edges, timedelta(seconds=chance.randrange(86_400))])
            ).isoformat(),
            team=chance.choice(["growth", "platform", ...]),
            customer=chance.choice(["acme", "tab\there", "back\\slash,\n{}", "Größe", ...]),
            agent=f"agent-{chance.randrange(2)}",
            user=chance.choice([..., f"user-{chance.randrange(9)}"]),
            feature=chance.choice(["search", ...]),
            session=chance.choice([..., f"s-{chance.randrange(12)}"]),
            model=chance.choice(["claude-sonnet-4-5", "gpt-4o"]),
            cost_usd="0.01",
        )
        for number in range(count)
    ]


def roll_up(account: Account) -> None:
    with account.scope():
        while rollups.roll_up(tenant_id=account.tenant.id):
            pass


def plain_count(
    account: Account, question: UsageQuestion, group_by: tuple[str, ...], dimension: str
) -> dict[object, int]:
    seen: dict[Any, set[str]] = defaultdict(set)
    with account.scope():
        events = list(UsageEvent.objects.filter(tenant=account.tenant, is_void=False))
    for number, bucket in enumerate(question.buckets(), 1):
        for event in events:
            fits = all(getattr(event, name) in values for name, values in question.filters.items())
            if fits and bucket.reads_from <= event.time < bucket.reads_to:
                key = tuple(getattr(event, name) for name in group_by)
                seen[number, key].add(getattr(event, dimension))
    return {cell: len(values - {""}) for cell, values in seen.items() if values - {""}}


def combined_count(
    account: Account, question: UsageQuestion, group_by: tuple[str, ...], dimension: str
) -> dict[Any, int]:
    with account.scope():
        rows = UsageEvent.objects.filter(tenant=account.tenant).values_list(*group_by or ["id"])
        keys = set(rows) if group_by else {()}
    with snapshot(account):
        return distinct_in(question, list(question.buckets()), group_by, keys, dimension=dimension)


def require_equal(account: Account, *, seed: int, questions: int = 25) -> None:
    chance = dice("combination questions", seed)
    for _ in range(questions):
        starts_at = MIDNIGHT - timedelta(minutes=15 * chance.randrange(6 * 96))
        zone = chance.choice(["UTC", "Asia/Kolkata", "America/New_York"])
        if chance.random() < 0.5:
            starts_at = starts_at.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0)
        names = chance.sample(["team", "customer", "agent", "feature", "model"], 3)
        filters = {names[0]: ("growth", "acme", "agent-1", "search", "gpt-4o", "")}
        question = UsageQuestion(
            tenant_id=account.tenant.id,
            starts_at=starts_at,
            ends_at=starts_at + timedelta(minutes=15 * chance.randrange(1, 5 * 96)),
            interval=chance.choice(["none", "day", "day", "hour"]),
            timezone=zone,
            filters=chance.choice([{}, filters]),
        )
        group_by = tuple(names[1 : chance.randrange(1, 4)])
        dimension = chance.choice([name for name in ENTITIES if name not in group_by])
        wanted = plain_count(account, question, group_by, dimension)
        result = combined_count(account, question, group_by, dimension)
        assert result == wanted, (question, group_by, dimension)


@pytest.fixture
def counted_from_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where so much was used that no question is answered from events."""
    monkeypatch.setattr(distinct, "EVENTS_BESIDE_SUMS_MAX", timedelta())


@pytest.mark.usefixtures("counted_from_combinations")
def test_counts_equal_the_events_rolled_up_or_not(account: Account) -> None:
    send(account, make_events(120, seed=1))
    require_equal(account, seed=1)
    roll_up(account)
    require_equal(account, seed=2)
    send(account, make_events(60, seed=2))
    require_equal(account, seed=3)
    roll_up(account)
    require_equal(account, seed=4)
    assert audit_tenant(account.tenant.id) == []


@pytest.mark.usefixtures("counted_from_combinations")
def test_counts_follow_corrections_and_later_reports(account: Account) -> None:
    events = make_events(120, seed=3)
    send(account, events)
    roll_up(account)
    chance = dice("combination corrections", 1)
    for event in chance.sample(events, 15):
        void(account, event)
    # A report that tells more of a call moves it to other values, without its time or with it.
    send(
        account,
        [
            make_event(
                id=f"more-{number}",
                source="span",
                response_id=event["response_id"],
                time=event["time"],
                task="t",
                customer="late",
                user="late",
            )
            for number, event in enumerate(chance.sample(events, 20))
        ],
    )
    require_equal(account, seed=5)
    assert audit_tenant(account.tenant.id) == []
    roll_up(account)
    require_equal(account, seed=6)
    assert audit_tenant(account.tenant.id) == []


@pytest.mark.usefixtures("counted_from_combinations")
def test_the_time_of_a_voided_call_is_not_believed_until_it_is_found_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [1, 5, 9, 22]
    events = [
        make_event(
            id=f"e-{hour}",
            source="api",
            time=(MIDNIGHT - timedelta(days=1) + timedelta(hours=hour)).isoformat(),
            user="u",
        )
        for hour in hours
    ]
    send(account, events)
    roll_up(account)
    void(account, events[0])
    void(account, events[3])
    with account.scope():
        row = UsageCombination.objects.get()
        assert (row.calls, row.is_first_known, row.is_last_known) == (2, False, False)
    for span in (timedelta(hours=3), timedelta(hours=6)):
        question = UsageQuestion(
            tenant_id=account.tenant.id,
            starts_at=MIDNIGHT - timedelta(days=2),
            ends_at=MIDNIGHT - timedelta(days=1) + span,
            interval="none",
        )
        wanted = plain_count(account, question, (), "user")
        assert combined_count(account, question, (), "user") == wanted
    roll_up(account)
    with account.scope():
        row = UsageCombination.objects.get()
        result = [
            (at - MIDNIGHT + timedelta(days=1)) // timedelta(hours=1)
            for at in (row.first_at, row.last_at)
        ]
        assert (result, row.is_first_known, row.is_last_known) == ([5, 9], True, True)
    void(account, events[1])
    void(account, events[2])
    with account.scope():
        assert UsageCombination.objects.count() == 0


@pytest.mark.usefixtures("counted_from_combinations")
def test_days_of_any_zone_read_no_events(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    send(account, make_events(80, seed=4))
    roll_up(account)
    monkeypatch.setattr(bounded, "EVENTS_MAX", -1)
    question = UsageQuestion(
        tenant_id=account.tenant.id,
        starts_at=MIDNIGHT - timedelta(days=4, hours=5, minutes=30),
        ends_at=MIDNIGHT - timedelta(hours=5, minutes=30),
        interval="day",
        timezone="Asia/Kolkata",
    )
    wanted = plain_count(account, question, ("team",), "session")
    assert combined_count(account, question, ("team",), "session") == wanted


def test_values_that_run_together_make_other_combinations(account: Account) -> None:
    send(account, [make_event(user=user, team=team) for user, team in (("ab", "c"), ("a", "bc"))])
    send(account, [make_event(user="ab", session=...), make_event(user=..., session="ab")])
    roll_up(account)
    with account.scope():
        assert UsageCombination.objects.count() == 4


def test_combinations_come_in_the_order_of_the_index(account: Account) -> None:
    send(account, make_events(60, seed=6))
    with account.scope():
        events = batches._read_events(account.tenant.id, "true", [])
        assert events is not None
        rows = combinations_of(events, sign=1)
    keys = list(zip(rows.starts, rows.numbers[0], strict=True))
    assert keys == sorted(set(keys))
    assert len({day for day, _ in keys}) > 1


def test_a_combination_that_was_changed_by_hand_is_found(account: Account) -> None:
    send(account, make_events(10, seed=5))
    roll_up(account)
    assert audit_tenant(account.tenant.id) == []
    for change in (
        "calls = calls + 1",
        "first_at = first_at + interval '1 microsecond'",
        "last_at = last_at - interval '1 microsecond'",
        "team = 'moved'",
    ):
        with account.scope(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE usage_combination SET {change}")
            assert any("combination" in str(drift) for drift in audit_tenant(account.tenant.id))
            transaction.set_rollback(True)
