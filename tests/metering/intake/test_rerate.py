"""Rating again: the difference is posted, nothing is rewritten but the rating."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command

from metering.intake.job_steps import run_job
from metering.intake.rerate import rerate, start_pricing
from metering.models import CostSource, EntryKind, LedgerEntry, TenantPrice, UsageEvent
from metering.rollups import roll_up
from tenants.scope import change_configuration
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import caller

pytestmark = pytest.mark.django_db(transaction=True)

RATES = {
    "input_tokens": {"nanos": str(2_000 * NANOS), "per": 1_000_000},
    "output_tokens": {"nanos": str(10_000 * NANOS), "per": 1_000_000},
}


def set_price(account: Account, model: str) -> None:
    with account.scope():
        change_configuration(account.tenant.id)
        TenantPrice.objects.create(
            tenant=account.tenant,
            model=model,
            effective_from=datetime.now(UTC) - timedelta(days=1),
            rates=RATES,
        )


def price_unpriced(account: Account) -> int:
    """How many events got a price."""
    with account.scope():
        job = start_pricing(tenant_id=account.tenant.id, actor="tests")
    assert job is not None
    result = run_job(job).result
    assert result is not None
    return int(result["newly_priced"])


def run(account: Account, *, is_dry_run: bool = False) -> tuple[int, ...]:
    now = datetime.now(UTC)
    return tuple(
        rerate(
            tenant_id=account.tenant.id,
            from_=now - timedelta(hours=1),
            to=now + timedelta(hours=1),
            is_dry_run=is_dry_run,
        )
    )


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_period_is_rated_again_by_a_correcting_entry(
    account: Account, is_rolled_up: bool
) -> None:
    budget = make_budget(account)
    send(account, [make_event(), make_event(cost_usd="7"), make_event(model="unknown-model")])
    if is_rolled_up:
        roll_up(tenant_id=account.tenant.id)
    before = windows_of(account, budget)[0].spent_nanos
    set_price(account, "claude-sonnet-4-5")
    difference = 3 * NANOS - 4_500_000
    # The given cost is not examined; the model without a price stays without.
    assert run(account, is_dry_run=True) == (2, 1, 0, 1, difference)
    assert windows_of(account, budget)[0].spent_nanos == before
    assert run(account) == (2, 1, 0, 1, difference)
    assert windows_of(account, budget)[0].spent_nanos == before + difference
    assert run(account) == (2, 0, 0, 1, 0)
    with account.scope():
        entries = LedgerEntry.objects.order_by("id").values_list("kind", "cost_nanos")
        assert list(entries)[1:] == [(EntryKind.RERATE, difference)]


def test_a_new_price_prices_what_had_none(account: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(model="in-house"), make_event(model="in-house")])
    roll_up(tenant_id=account.tenant.id)
    send(account, [make_event(model="in-house")])
    assert windows_of(account, budget)[0].spent_nanos == 0
    set_price(account, "in-house")
    assert price_unpriced(account) == 3
    assert windows_of(account, budget)[0].spent_nanos == 9 * NANOS
    with account.scope():
        sources = set(UsageEvent.objects.values_list("cost_source", flat=True))
        assert sources == {CostSource.OVERRIDE}


def test_what_has_a_rate_is_booked_and_the_rest_priced_when_it_gets_one(account: Account) -> None:
    budget = make_budget(account)
    usage = {
        "input_tokens": 1000,
        "output_tokens": 100,
        "total_tokens": 1100,
        "web_searches": 2,
        "dream_tokens": 7,
    }
    event = make_event(
        provider="openai", model="o1", usage=usage, input_tokens=..., output_tokens=...
    )
    api = caller(account)
    assert api.post("/v1/events", event).body["unpriced"] == 1
    assert windows_of(account, budget)[0].spent_nanos == 1000 * 15_000 + 100 * 60_000
    (stored,) = api.get("/v1/events").body["data"]
    assert (stored["cost_usd"], stored["cost_source"]) == ("0.021", "unpriced")
    assert stored["unpriced_reason"] == "no_rate"
    assert stored["extra_usage"] == {"unknown_parts": {"dream_tokens": 7}}
    (source,) = api.get("/v1/sources").body["data"]
    reasons = {reason["code"]: reason["sample"] for reason in source["reasons"]}
    assert reasons == {"no_rate": None, "unknown_usage_part": '{"dream_tokens":7}'}
    rates = {**RATES, "web_searches": {"nanos": str(10 * NANOS), "per": 1000}}
    with account.scope():
        change_configuration(account.tenant.id)
        since = datetime.now(UTC) - timedelta(days=1)
        TenantPrice.objects.create(
            tenant=account.tenant, model="o1", effective_from=since, rates=rates
        )
    assert price_unpriced(account) == 1
    assert windows_of(account, budget)[0].spent_nanos == 3 * NANOS + 2 * NANOS // 100


def test_a_dearer_call_gets_its_window_when_it_is_rated_again(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, per=["request"])
    send(account, [make_event(model="in-house")])
    assert windows_of(account, budget) == []
    set_price(account, "in-house")
    price_unpriced(account)
    assert [window.spent_nanos for window in windows_of(account, budget)] == [3 * NANOS]


def test_the_command_says_what_it_did(account: Account) -> None:
    send(account, [make_event()])
    set_price(account, "claude-sonnet-4-5")
    out = StringIO()
    today = datetime.now(UTC).date()
    call_command(
        "rerate",
        f"--tenant={account.tenant.name}",
        f"--from={today - timedelta(days=1)}",
        f"--to={today + timedelta(days=1)}",
        stdout=out,
    )
    assert "Examined 1 events; changed 1 by 2.9955 USD in all" in out.getvalue()
