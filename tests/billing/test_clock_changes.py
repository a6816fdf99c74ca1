"""Days add up to months, and months to quarters and the year, on statements of plans in zones whose
clocks change, by half an hour too, or lie at half and quarter hours.
"""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Final
from zoneinfo import ZoneInfo

import pytest
import time_machine

from billing.drafts import drafts_of
from billing.models import Statement
from metering.jobs.tasks import roll_up
from metering.reporting import UsageQuestion, usage
from metering.usage.partitions import make_partitions
from tenants.scope import platform_scope, tenant_scope
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, put_on
from tests.factories import Account, make_event, send

YEAR: Final = 2026
LATER: Final = datetime(2027, 1, 15, tzinfo=UTC)
ZONES: Final = (
    *("UTC", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "America/New_York", "Europe/Berlin"),
)
MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
MINUTE: Final = timedelta(minutes=1)


def clock_changes(zone: ZoneInfo) -> list[datetime]:
    """The moments of the year at which the zone's clocks change."""
    moments = [datetime(YEAR, 1, 1, tzinfo=UTC) + timedelta(minutes=30) * n for n in range(17_520)]
    offsets = [at.astimezone(zone).utcoffset() for at in moments]
    return [at for at, now, before in zip(moments[1:], offsets[1:], offsets, strict=False)
            if now != before]  # fmt: skip


def times_of(zone: ZoneInfo) -> list[datetime]:
    """Calls just before and at each begin of a month and each clock change, and on their days."""
    borders = [datetime(YEAR, month, 1, tzinfo=zone).astimezone(UTC) for month in range(1, 13)]
    borders += clock_changes(zone)
    around = (-MINUTE, timedelta(0), timedelta(hours=1), timedelta(hours=3, minutes=7))
    times = {border + offset for border in borders for offset in around}
    return sorted(at for at in times if at.astimezone(zone).year == YEAR)


@pytest.mark.parametrize("name", ZONES)
def test_days_add_up_to_months_and_months_to_the_year(account: Account, name: str) -> None:
    zone = ZoneInfo(name)
    times = times_of(zone)
    with platform_scope("partitions of a past year"):
        make_partitions(first=date(YEAR - 1, 12, 1), last=LATER.date())
    begin = datetime(YEAR, 1, 1, tzinfo=zone)
    with time_machine.travel(LATER, tick=False):
        for interval in MONTHS:
            plan = make_plan(account, PER_REQUEST, timezone=name, interval=interval)
            put_on(account, make_customer(account, interval), plan, begin)
    by_month: dict[tuple[int, int], list[datetime]] = {}
    for at in times:
        by_month.setdefault((at.year, at.month), []).append(at)
    for of_month in by_month.values():
        events = [
            make_event(time=at.isoformat(), customer=key) for at in of_month for key in MONTHS
        ]
        with time_machine.travel(of_month[-1] + timedelta(days=1), tick=False):
            assert send(account, events)["accepted"] == len(events)
        # The rest is read from events.
        if of_month[-1] < datetime(YEAR, 12, 1, tzinfo=UTC):
            roll_up()

    local = [at.astimezone(zone) for at in times]
    months = Counter(at.month for at in local)
    with (
        time_machine.travel(LATER, tick=False),
        tenant_scope(account.tenant.id, is_snapshot=True),
    ):
        for interval, length in MONTHS.items():
            wanted: Counter[int] = Counter()
            for month, number in months.items():
                wanted[(month - 1) // length] += number
            assert billed(interval, zone, length) == wanted
        question = UsageQuestion(
            tenant_id=account.tenant.id,
            starts_at=begin,
            ends_at=datetime(YEAR + 1, 1, 1, tzinfo=zone),
            interval="day",
            timezone=name,
            filters={"customer": ("month",)},
        )
        page = usage(question, limit=1000)
    days = {row.start.astimezone(zone).date(): row.measures.requests for row in page.rows}
    assert days == Counter(at.date() for at in local)


def billed(interval: str, zone: ZoneInfo, length: int) -> dict[int, int]:
    """Calls on each statement of the year that has some, by the number of its period."""
    statements = Statement.objects.filter(customer__key=interval).select_related("customer")
    drafts = drafts_of(
        [each for each in statements if each.period_start.astimezone(zone).year == YEAR]
    )
    quantities: dict[int, int] = {}
    for draft in drafts.values():
        starts_at = draft.statement.period_start.astimezone(zone)
        assert (starts_at.day, starts_at.hour, starts_at.minute) == (1, 0, 0)
        quantity = sum((line.quantity for line in draft.lines), Fraction(0))
        if quantity:
            quantities[(starts_at.month - 1) // length] = int(quantity)
    return quantities
