"""Reconciliations: statements and invoices against usage, and how they are done step by step."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest

from billing.collection.totals import InvoiceTotal
from billing.models import Drift, ProviderBillLine, Reconciliation, ReconciliationState, Statement
from billing.reconciliation import runs
from billing.reconciliation.results import EXACT, KindResult, Sums, Threshold
from billing.tasks_reconciliation import reconcile, start_daily_reconciliations
from common.errors import Conflict
from metering.intake.corrections import correct_event
from metering.models import UsageEvent
from tenants.models import Tenant
from tenants.runs import forget_pauses
from tests.billing.bills import anthropic_bucket, anthropic_page, import_for
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.factories import Account, make_event, send

LAST_MONTH = month_start(1)
COST_PLUS = {
    "name": "Models",
    "kind": "usage",
    "metric": "cost",
    "model": "cost_plus",
    "percent": "20",
}


def reconciled(account: Account, *kinds: str, begin: datetime = LAST_MONTH) -> Reconciliation:
    """Start a reconciliation of that month and the next, and let workers do it."""
    with account.scope():
        row = runs.start_reconciliation(
            tenant=account.tenant,
            actor="tests",
            first_day=begin.date(),
            last_day=(begin + timedelta(days=61)).date(),
            kinds=kinds or ("statements",),
        )
    reconcile()
    return fresh(account, row)


def fresh(account: Account, row: Reconciliation) -> Reconciliation:
    with account.scope():
        return Reconciliation.objects.get(id=row.id)


def drifts(account: Account, row: Reconciliation) -> list[tuple[str, str, Decimal]]:
    with account.scope():
        result = Drift.objects.filter(reconciliation=row).order_by("id")
        return [(each.line or each.model, each.unit, each.difference) for each in result]


@pytest.fixture
def billed(account: Account) -> Billed:
    """A statement of last month: 3 calls, each a dollar, and their cost with a fifth on top."""
    scene = Billed.on(account, PER_REQUEST, COST_PLUS, since=LAST_MONTH)
    scene.use(3, at=LAST_MONTH + timedelta(days=3), cost_usd="0.5")
    scene.finalize(LAST_MONTH)
    return scene


def test_final_statements_that_agree_differ_by_nothing(billed: Billed) -> None:
    row = reconciled(billed.account)
    result = KindResult.read(row.results["statements"])
    assert row.state == ReconciliationState.DONE
    assert (result.compared, result.drifts) == (2, 0)
    assert result.sums == {"USD": Sums(Decimal("4.8"), Decimal("4.8"), Decimal(0))}
    assert drifts(billed.account, row) == []


def test_late_usage_is_exactly_what_was_billed_too_little(billed: Billed) -> None:
    billed.use(2, at=LAST_MONTH + timedelta(days=4), cost_usd="0.25")
    row = reconciled(billed.account)
    assert drifts(billed.account, row) == [
        ("Requests", "requests", Decimal(-2)),
        ("Models", "USD", Decimal("-0.5")),
    ]
    sums = KindResult.read(row.results["statements"]).sums["USD"]
    assert (sums.expected, sums.found, sums.absolute) == (
        Decimal("7.4"),
        Decimal("4.8"),
        Decimal("2.6"),
    )
    assert sums.exceeds(Threshold(Decimal(1), Decimal(1)))


def test_an_adjustment_on_the_next_final_statement_settles_it(billed: Billed) -> None:
    billed.use(2, at=LAST_MONTH + timedelta(days=4), cost_usd="0.25")
    billed.finalize(month_start())
    row = reconciled(billed.account)
    assert drifts(billed.account, row) == []
    assert KindResult.read(row.results["statements"]).compared == 4


def test_what_was_taken_back_is_exactly_what_was_billed_too_much(billed: Billed) -> None:
    with billed.account.scope():
        call = UsageEvent.objects.filter(tenant=billed.account.tenant)[0]
        correct_event(
            tenant_id=billed.account.tenant.id,
            source=call.source,
            sent_id=call.sent_id,
            replacement=None,
            reason="tests",
            actor="tests",
        )
    assert drifts(billed.account, reconciled(billed.account)) == [
        ("Requests", "requests", Decimal(1)),
        ("Models", "USD", Decimal("0.5")),
    ]


def test_without_stripe_it_says_that_none_is_connected(billed: Billed) -> None:
    row = reconciled(billed.account, "stripe", "statements")
    assert row.state == ReconciliationState.DONE
    assert KindResult.read(row.results["stripe"]) == KindResult(is_connected=False)
    assert KindResult.read(row.results["statements"]).compared == 2


def connect(monkeypatch: pytest.MonkeyPatch, **totals: InvoiceTotal) -> None:
    """Let Stripe have these invoices, by the number of the statement."""

    def ask(tenant: Tenant, statements: Sequence[Statement], /) -> Mapping[int, InvoiceTotal]:
        by_number = {each.number.lstrip("0"): each.id for each in statements}
        return {by_number[name[1:]]: total for name, total in totals.items()}

    monkeypatch.setattr(runs, "invoice_totals_of", lambda tenant: ask)


def test_an_invoice_must_agree_to_the_cent(billed: Billed, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, _1=InvoiceTotal("in_1", "usd", 480))
    assert drifts(billed.account, reconciled(billed.account, "stripe")) == []
    connect(monkeypatch, _1=InvoiceTotal("in_1", "usd", 481))
    row = reconciled(billed.account, "stripe")
    assert drifts(billed.account, row) == [("in_1", "USD", Decimal("0.01"))]
    result = KindResult.read(row.results["stripe"])
    assert runs.threshold_of(row, "stripe") == EXACT
    assert result.exceeds(EXACT)
    connect(monkeypatch, _1=InvoiceTotal("in_1", "eur", 480))
    assert drifts(billed.account, reconciled(billed.account, "stripe")) == [
        ("in_1", "USD", Decimal("-4.8"))
    ]
    connect(monkeypatch)
    assert drifts(billed.account, reconciled(billed.account, "stripe")) == [
        ("", "USD", Decimal("-4.8"))
    ]


YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def bill_yesterday(account: Account, cents: str = "0.45") -> None:
    at = f"{YESTERDAY}T12:00:00+00:00"
    send(account, [make_event(id="call", time=at, input_tokens=1000, output_tokens=100)])
    import_for(account, anthropic_page(anthropic_bucket(YESTERDAY, [("claude-sonnet-4-5", cents)])))


def test_a_day_that_was_billed_is_compared_by_itself_once(account: Account) -> None:
    bill_yesterday(account, cents="1.45")
    assert start_daily_reconciliations() == 1
    reconcile()
    with account.scope():
        row = Reconciliation.objects.get()
        assert (row.actor, row.state) == (runs.SERVICE, ReconciliationState.DONE)
        assert (row.first_day, row.last_day) == (YESTERDAY, YESTERDAY)
    assert drifts(account, row) == [("claude-sonnet-4-5", "USD", Decimal("0.01"))]
    with account.scope():
        ProviderBillLine.objects.update(imported_at=row.created_at - timedelta(hours=2))
    assert start_daily_reconciliations() == 0


def test_it_can_be_switched_off(account: Account) -> None:
    bill_yesterday(account)
    with account.scope():
        runs.change_settings(tenant=account.tenant, actor="tests", changes={"is_daily": False})
    assert start_daily_reconciliations() == 0


def test_a_step_that_fails_is_tried_again_and_given_up_in_the_end(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill_yesterday(account)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(runs, "compare_day", fail)
    with account.scope():
        row = runs.start_reconciliation(
            tenant=account.tenant,
            actor="tests",
            first_day=YESTERDAY,
            last_day=YESTERDAY,
            kinds=["providers"],
        )
    with pytest.raises(ZeroDivisionError):
        reconcile()
    assert (fresh(account, row).state, fresh(account, row).failures) == ("waiting", 1)
    for _ in range(runs.FAILURES_MAX - 1):
        forget_pauses()
        with pytest.raises(ZeroDivisionError):
            reconcile()
    assert fresh(account, row).state == ReconciliationState.FAILED
    assert fresh(account, row).error == runs.OUR_FAULT
    assert reconcile() == 0


def test_of_very_many_differences_the_first_are_kept_and_all_counted(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "DRIFTS_MAX", 2)
    items = [(f"claude-{name}", "1") for name in "abc"]
    import_for(account, anthropic_page(anthropic_bucket(YESTERDAY, items)))
    row = reconciled(account, "providers")
    assert len(drifts(account, row)) == 2
    assert KindResult.read(row.results["providers"]).drifts == 3


def test_only_so_many_may_wait(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "UNFINISHED_MAX", 1)
    start = partial(
        runs.start_reconciliation,
        tenant=account.tenant,
        actor="tests",
        first_day=YESTERDAY,
        last_day=YESTERDAY,
        kinds=["stripe"],
    )
    with account.scope():
        start()
        with pytest.raises(Conflict):
            start()


@pytest.mark.parametrize(
    ("expected", "found", "exceeds"),
    [("100", "101", False), ("100", "101.01", True), ("1", "1.99", False), ("0", "1.01", True)],
)
def test_a_difference_counts_beyond_the_percentage_and_the_amount(
    expected: str, found: str, exceeds: bool
) -> None:
    result = KindResult()
    result.add("USD", expected=Decimal(expected), found=Decimal(found), provider="openai")
    assert result.exceeds(Threshold(Decimal(1), Decimal(1))) is exceeds
    assert KindResult.read(result.stored()) == result


def test_a_small_provider_is_not_lost_in_a_large_one() -> None:
    result = KindResult()
    result.add("USD", expected=Decimal(10_000), found=Decimal(10_000), provider="openai")
    result.add("USD", expected=Decimal(10), found=Decimal(20), provider="mistral")
    assert result.exceeds(Threshold(Decimal(1), Decimal(1)))
