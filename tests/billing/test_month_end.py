"""Month end: many statements at the same time, each final once, numbered without a gap, whatever
fails, arrives or is killed meanwhile.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import month_end
from billing.drafts import drafts_of
from billing.finalization import write_final
from billing.models import BillingSettings, Customer, Statement, StatementLine, StatementState
from billing.month_end import Due, MonthEnd
from billing.plans import add_version
from billing.statement_periods import remove_drafts
from billing.statements import finalize, void
from billing.subscriptions import update_subscription
from billing.tasks import finalize_statements, open_drafts
from billing.terms import Terms
from common.errors import Conflict
from metering.core.periods import EPOCH
from metering.models import UsageSeal
from tenants.models import AuditEntry
from tenants.scope import tenant_scope
from tests.billing.scene import PER_REQUEST, Billed, make_customer, make_plan, month_start, put_on
from tests.factories import Account, make_event, send

FIRST, SECOND = month_start(1), month_start(0)
# Late enough in the month for ingest, which refuses what is more than 35 days old.
LATE = SECOND - timedelta(hours=1)
THREADS = 200
CUSTOMERS = 40
# Enough statements for several transactions.
FEW, TOGETHER = 20, 5

# Every fifth transaction that made a statement final fails at the very end: its number was taken.
FAIL_AT_COMMIT = """
    CREATE SEQUENCE finalization;
    CREATE FUNCTION fail_sometimes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('finalization') % 5 = 0 THEN RAISE EXCEPTION 'a fault was injected'; END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fail_at_commit AFTER UPDATE ON statement
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (OLD.state = 'draft' AND NEW.state = 'final') EXECUTE FUNCTION fail_sometimes();
"""
WORK_AT_COMMIT = FAIL_AT_COMMIT.replace(
    "IF nextval('finalization') % 5 = 0 THEN RAISE EXCEPTION 'a fault was injected'; END IF;",
    "PERFORM pg_sleep(0.02);",
)
NOTHING_AT_COMMIT = """
    DROP TRIGGER fail_at_commit ON statement;
    DROP FUNCTION fail_sometimes();
    DROP SEQUENCE finalization;
"""


# A month end in a process of its own, whose settings come with its environment.
RUN_ALONE = f"""
import django
django.setup()
from django.core.management import call_command
from billing import month_end
month_end.WRITTEN_AT_ONCE = {TOGETHER}
call_command("finalise_statements", processes=1)
"""


@pytest.fixture
def few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month_end, "WRITTEN_AT_ONCE", TOGETHER)


@contextmanager
def trigger(statements: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(statements)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(NOTHING_AT_COMMIT)


def many(account: Account, count: int = CUSTOMERS) -> list[Customer]:
    """Customers on one plan since last month."""
    plan = make_plan(account, PER_REQUEST)
    customers = [make_customer(account, f"customer-{number}") for number in range(count)]
    for customer in customers:
        put_on(account, customer, plan, FIRST)
    return customers


def use(account: Account, customers: list[Customer], counts: Counter[int]) -> None:
    """One call of each customer, late in the month."""
    events = [make_event(time=LATE.isoformat(), customer=each.key) for each in customers]
    assert send(account, events)["accepted"] == len(events)
    counts.update(each.id for each in customers)


def due(account: Account) -> Due:
    return Due(account.tenant.id, timezone.now())


def drafts_at(account: Account, period_start: datetime) -> list[Statement]:
    with account.scope():
        return list(
            Statement.objects.filter(period_start=period_start, state=StatementState.DRAFT)
            .select_related("customer")
            .order_by("id")
        )


def numbers(account: Account) -> list[int]:
    with account.scope():
        sequences = Statement.objects.exclude(sequence=None).values_list("sequence", flat=True)
        return sorted(number for number in sequences if number is not None)


def billed_quantities(account: Account) -> dict[int, Fraction]:
    """What the lines of all final statements count, by customer."""
    sums: Counter[int] = Counter()
    with account.scope():
        for line in StatementLine.objects.select_related("statement"):
            assert Fraction(line.quantity) * 100 == line.amount
            sums[line.statement.customer_id] += int(Fraction(line.quantity))
    return {customer_id: Fraction(count) for customer_id, count in sums.items()}


def insist(account: Account, statement_id: int) -> int:
    """Finalize a statement as a client does who tries again; return how often that failed."""
    failures = 0
    try:
        while True:
            try:
                finalize(account.tenant.id, statement_id, actor="tests")
            except DatabaseError:
                failures += 1
            else:
                return failures
    finally:
        connection.close()


def test_every_event_is_on_one_statement_whatever_fails_meanwhile(account: Account) -> None:
    customers = many(account)
    counts: Counter[int] = Counter()
    use(account, customers, counts)
    statements = drafts_at(account, FIRST)
    assert len(statements) == CUSTOMERS
    is_over = Event()

    def keep_using() -> None:
        while not is_over.is_set():
            use(account, customers, counts)
        connection.close()

    ingest = Thread(target=keep_using)
    ingest.start()
    try:
        with trigger(FAIL_AT_COMMIT), ThreadPoolExecutor(THREADS) as pool:
            tries = [
                pool.submit(insist, account, statements[number % CUSTOMERS].id)
                for number in range(THREADS)
            ]
            failures = sum(each.result() for each in tries)
    finally:
        is_over.set()
        ingest.join()

    assert failures > 0
    assert numbers(account) == list(range(1, CUSTOMERS + 1))
    # What came after each snapshot is an adjustment of the next.
    for statement in drafts_at(account, SECOND):
        finalize(account.tenant.id, statement.id, actor="tests")
    assert billed_quantities(account) == counts
    assert numbers(account) == list(range(1, 2 * CUSTOMERS + 1))


@pytest.mark.usefixtures("few_together")
def test_two_runs_at_the_same_time_make_each_statement_final_once(account: Account) -> None:
    customers = many(account, FEW)
    counts: Counter[int] = Counter()
    use(account, customers, counts)

    def run() -> int:
        try:
            own = MonthEnd(due(account))
            own.run()
            assert own.held == []
            return own.final
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run) for _ in range(2)]
        for each in runs:
            each.result()
    assert numbers(account) == list(range(1, FEW + 1))
    assert billed_quantities(account) == counts
    again = MonthEnd(due(account))
    again.run()
    assert again.final == 0


@pytest.mark.usefixtures("few_together")
def test_a_run_that_fails_now_and_then_leaves_no_statement_behind(account: Account) -> None:
    customers = many(account, FEW)
    counts: Counter[int] = Counter()
    use(account, customers, counts)
    with trigger(FAIL_AT_COMMIT):
        while drafts_at(account, FIRST):
            MonthEnd(due(account)).run()
    assert numbers(account) == list(range(1, FEW + 1))
    assert billed_quantities(account) == counts


def test_a_killed_run_is_started_again(account: Account) -> None:
    customers = many(account, FEW)
    counts: Counter[int] = Counter()
    use(account, customers, counts)
    url = urlsplit(os.environ["DATABASE_URL"])
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": urlunsplit(url._replace(path=f"/{connection.settings_dict['NAME']}")),
    }
    with trigger(WORK_AT_COMMIT):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_ALONE],
            env=environ,
            cwd=Path(__file__).parent.parent.parent,
        )
        while process.poll() is None and not numbers(account):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        # What was in flight ends on the server by itself.
        time.sleep(1)
    done = len(numbers(account))
    assert 0 < done < len(customers)
    assert numbers(account) == list(range(1, done + 1))
    call_command("finalise_statements", tenant=account.tenant.name, processes=1, verbosity=0)
    assert numbers(account) == list(range(1, len(customers) + 1))
    assert billed_quantities(account) == counts


def test_what_has_no_price_stays_a_draft_and_delays_no_other(account: Account) -> None:
    cost_plus = {
        "name": "Calls",
        "kind": "usage",
        "metric": "cost",
        "model": "cost_plus",
        "percent": "20",
    }
    plan = make_plan(account, cost_plus)
    for key in ("known", "unknown"):
        put_on(account, make_customer(account, key), plan, FIRST)
    events = [
        make_event(time=LATE.isoformat(), customer="known"),
        make_event(time=LATE.isoformat(), customer="unknown", model="of-nobody"),
    ]
    assert send(account, events)["accepted"] == 2
    with pytest.raises(CommandError, match=r"unknown.*no price"):
        call_command("finalise_statements", tenant=account.tenant.name, processes=1)
    assert [each.customer.key for each in drafts_at(account, FIRST)] == ["unknown"]
    assert numbers(account) == [1]


def test_one_that_cannot_be_rated_delays_no_other(account: Account) -> None:
    customers = many(account, 3)
    use(account, customers, Counter())
    broken = make_customer(account, "broken")
    plan = make_plan(account, PER_REQUEST)
    put_on(account, broken, plan, FIRST)
    with account.scope(), connection.cursor() as cursor:
        # What no one can write: a version without a price.
        cursor.execute("ALTER TABLE plan_version DISABLE TRIGGER plan_version_append_only")
        cursor.execute(
            "UPDATE plan_version SET terms = '{\"charges\": [{}]}' WHERE plan_id = %s", [plan.id]
        )
        cursor.execute("ALTER TABLE plan_version ENABLE TRIGGER plan_version_append_only")
    run = MonthEnd(due(account))
    run.run()
    assert run.final == 3
    assert [held.statement.customer.key for held in run.held] == ["broken"]
    assert [each.customer.key for each in drafts_at(account, FIRST)] == ["broken"]


def test_only_periods_that_ended_in_the_month_become_final(account: Account) -> None:
    plan = make_plan(account, PER_REQUEST, timezone="Asia/Kathmandu")
    before = month_start(2)
    put_on(account, make_customer(account), plan, before)
    call_command(
        "finalise_statements",
        tenant=account.tenant.name,
        processes=1,
        period=f"{before:%Y-%m}",
        verbosity=0,
    )
    with account.scope():
        (final,) = Statement.objects.filter(state=StatementState.FINAL)
    kathmandu = timedelta(hours=5, minutes=45)
    assert final.period_end == FIRST - kathmandu
    with pytest.raises(CommandError, match="future"):
        call_command(
            "finalise_statements", until=(timezone.now() + timedelta(days=400)).isoformat()
        )
    with pytest.raises(CommandError, match="month"):
        call_command("finalise_statements", period="2026-13")


def test_a_month_end_takes_as_many_queries_for_one_as_for_many(account: Account) -> None:
    customers = many(account, 8)
    use(account, customers, Counter())
    statements = drafts_at(account, FIRST)

    def queries(some: list[Statement]) -> tuple[int, int]:
        with (
            tenant_scope(account.tenant.id, is_snapshot=True),
            CaptureQueriesContext(connection) as reading,
        ):
            drafts = drafts_of(some)
        with CaptureQueriesContext(connection) as writing:
            assert write_final(list(drafts.values()), actor="tests") == some
        return len(reading), len(writing)

    assert queries(statements[1:]) == queries(statements[:1])
    with account.scope():
        entries = AuditEntry.objects.filter(action="finalize").order_by("id")
        changes = [(entry.object_id, entry.changes) for entry in entries]
    assert changes[0] == (str(statements[1].id), {"number": [None, "000001"], "total": [None, 100]})
    assert len(changes) == len(statements)


def test_the_worker_opens_drafts_when_a_period_begins(account: Account) -> None:
    (customer,) = many(account, 1)
    with account.scope():
        stored = Customer.objects.get(id=customer.id)
        assert stored.next_draft_at == (SECOND + timedelta(days=32)).replace(day=1)
        # As it was before the period began.
        remove_drafts([each.id for each in drafts_at(account, SECOND)])
    open_drafts()
    assert drafts_at(account, SECOND) == []
    with account.scope():
        Customer.objects.filter(id=customer.id).update(next_draft_at=SECOND)
    open_drafts()
    assert len(drafts_at(account, SECOND)) == 1
    with account.scope():
        assert Customer.objects.get(id=customer.id).next_draft_at == stored.next_draft_at


def test_a_subscription_that_ended_has_no_drafts_of_later_periods(account: Account) -> None:
    (customer,) = many(account, 1)
    assert len(drafts_at(account, SECOND)) == 1
    with account.scope():
        subscription = customer.subscriptions.get()
        update_subscription(subscription, actor="tests", changes={"ends_at": SECOND})
    assert drafts_at(account, SECOND) == []
    assert len(drafts_at(account, FIRST)) == 1
    with account.scope():
        assert Customer.objects.get(id=customer.id).next_draft_at is None


def test_the_worker_finalizes_what_ended_as_long_ago_as_the_tenant_says(account: Account) -> None:
    many(account, 3)
    finalize_statements()
    assert numbers(account) == []
    days_since = (timezone.now() - SECOND).days
    with account.scope():
        settings = BillingSettings.objects.create(
            tenant=account.tenant, finalize_after_days=days_since + 1
        )
    finalize_statements()
    assert numbers(account) == []
    with account.scope():
        settings.finalize_after_days = days_since
        settings.save()
    finalize_statements()
    assert numbers(account) == [1, 2, 3]


def test_a_period_whose_usage_is_not_kept_stays_as_it_was_charged(account: Account) -> None:
    plan = make_plan(account, PER_REQUEST)
    customer = make_customer(account)
    put_on(account, customer, plan, FIRST)
    billed = Billed(account, customer)
    billed.use(2, at=FIRST + timedelta(hours=1))
    final = billed.finalize(FIRST).statement
    with account.scope():
        dearer = {**PER_REQUEST, "unit_amount": "7"}
        terms = msgspec.convert({"charges": [dearer]}, Terms)
        add_version(plan, actor="tests", starts_at=FIRST + timedelta(minutes=1), terms=terms)
    assert billed.view(SECOND).totals.total == 2 * 700 - 2 * 100
    with account.scope():
        UsageSeal.objects.create(tenant=account.tenant, frozen_until=SECOND, sealed_until=EPOCH)
    assert billed.view(SECOND).totals.total == 0
    with pytest.raises(Conflict, match="no longer kept"):
        void(account.tenant.id, final.id, actor="tests")
