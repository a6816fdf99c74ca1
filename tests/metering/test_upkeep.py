"""What time alone changes."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from metering.models import EventKey
from metering.tasks import make_partitions, price_unpriced, remove_old_rows
from tenants.scope import platform_scope
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of
from tests.metering.test_rerate import set_price

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


def test_what_a_killed_process_left_unpriced_is_priced_by_the_next_run(account: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(model="in-house")])
    set_price(account, "in-house")
    price_unpriced()
    assert windows_of(account, budget)[0].spent_nanos == 3 * NANOS
