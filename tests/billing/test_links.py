"""Whose usage it is where customers have links on many dimensions."""

from datetime import UTC, datetime, timedelta

from billing.customers import LINK_DIMENSIONS
from billing.unclaimed import unclaimed_by
from tenants.scope import tenant_scope
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    amounts,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.factories import Account, make_event, send

COST = {
    "name": "Cost",
    "kind": "usage",
    "metric": "cost",
    "model": "cost_plus",
    "percent": "0",
    "markups": [{"percent": "1", "model": "gpt-5"}, {"percent": "1", "provider": "openai"}],
}


def test_a_link_on_every_dimension_leaves_each_call_to_one_customer(account: Account) -> None:
    now = datetime.now(UTC)
    plan = make_plan(account, PER_REQUEST, COST, timezone="UTC")
    customers = {}
    for name in LINK_DIMENSIONS:
        customer = make_customer(account, f"by-{name}", links=[{"dimension": name, "value": "x"}])
        put_on(account, customer, plan, month_start())
        customers[name] = Billed(account, customer)
    # With each call one dimension less decides: six have a user and all below it, and so on.
    events = [
        make_event(time=now.isoformat(), **dict.fromkeys(LINK_DIMENSIONS[index:], "x"))
        for index in range(len(LINK_DIMENSIONS))
    ]
    send(account, events)
    for billed in customers.values():
        assert amounts(billed.view(month_start()))[0] == ("usage", "Requests", 100)
    with tenant_scope(account.tenant.id, is_snapshot=True):
        hour = timedelta(hours=1)
        for by in ("model", "tool"):
            assert unclaimed_by(account.tenant.id, by, now - hour, now + hour) == []
