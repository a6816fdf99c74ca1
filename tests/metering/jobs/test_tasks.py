"""What time alone changes."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from metering.jobs.tasks import make_partitions, price_unpriced, remove_old_rows
from metering.models import BackgroundJob, EventKey
from tenants.scope import platform_scope
from tests.factories import NANOS, Account, finish_jobs, make_budget, make_event, send, windows_of
from tests.metering.intake.test_rerate import set_price

pytestmark = pytest.mark.django_db(transaction=True)


def partitions() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relispartition AND relname LIKE 'usage_event_2%%'"
            " AND relkind = 'r'"
        )
        return {row[0] for row in cursor.fetchall()}


def test_partitions_are_made_ahead_and_twice_changes_nothing(account: Account) -> None:
    before = partitions()
    with time_machine.travel(datetime.now(UTC) + timedelta(days=200), tick=False):
        make_partitions()
        make_partitions()
    assert len(partitions() - before) >= 3


def test_an_event_whose_partition_is_missing_is_taken_all_the_same(account: Account) -> None:
    """The scheduler may have been down for months."""
    with time_machine.travel(datetime.now(UTC) + timedelta(days=900), tick=False):
        assert send(account, [make_event(time=...)])["accepted"] == 1


def test_keys_go_when_their_events_are_too_old_to_be_sent_again(account: Account) -> None:
    send(account, [make_event(response_id="r")])
    remove_old_rows()
    with platform_scope("tests"):
        assert EventKey.objects.count() == 1
    with time_machine.travel(datetime.now(UTC) + timedelta(days=37), tick=False):
        remove_old_rows()
    with platform_scope("tests"):
        assert EventKey.objects.count() == 0


def test_usage_is_tried_again_when_prices_changed_and_not_before(account: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(model="in-house")])
    price_unpriced()
    finish_jobs()
    price_unpriced()
    assert pricing_jobs(account) == ["done"]
    # As when the process that added a price died before it said so.
    set_price(account, "in-house")
    price_unpriced()
    assert pricing_jobs(account) == ["done", "waiting"]
    finish_jobs()
    assert windows_of(account, budget)[0].spent_nanos == 3 * NANOS
    price_unpriced()
    assert pricing_jobs(account) == ["done", "done"]


def pricing_jobs(account: Account) -> list[str]:
    with account.scope():
        return list(BackgroundJob.objects.order_by("id").values_list("state", flat=True))


def test_jobs_that_ended_go_but_the_latest_of_each_kind(account: Account) -> None:
    for _ in range(2):
        send(account, [make_event(model="in-house")])
        set_price(account, "other")
        price_unpriced()
        finish_jobs()
    remove_old_rows()
    assert len(pricing_jobs(account)) == 2
    with time_machine.travel(datetime.now(UTC) + timedelta(days=36), tick=False):
        remove_old_rows()
    assert len(pricing_jobs(account)) == 1
