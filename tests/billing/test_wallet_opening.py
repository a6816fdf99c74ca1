"""Whose usage a wallet can be held to, and which changes it could not follow."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from billing.customers import update_customer
from billing.models import (
    Customer,
    Plan,
    Subscription,
    Wallet,
)
from billing.plans import add_version
from billing.subscriptions import update_subscription
from billing.terms import ChargeModel, FlatCharge, Metric, Terms, UsageCharge
from billing.wallet_opening import NotProportional, end_wallet, percent_of_terms
from common.errors import Conflict
from common.json_bodies import JsonObject
from tests.billing.credit_scene import (
    make_wallet,
)
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, put_on
from tests.billing.wallet_scene import COST_PLUS_20
from tests.factories import Account
from tests.metering.api.caller import caller

NOW = datetime.now(UTC)


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def usage(**fields: Any) -> UsageCharge:
    fields = {"metric": Metric.COST, "model": ChargeModel.COST_PLUS, **fields}
    return UsageCharge(name="Usage", **fields)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (Terms(charges=[]), "no charges for usage"),
        (Terms(charges=[usage(), usage()]), "2 charges for usage"),
        (Terms(charges=[usage(model=ChargeModel.PER_UNIT)]), "not charged as cost-plus"),
        (Terms(charges=[usage(included_units=Decimal(5))]), "allowance"),
        (Terms(charges=[usage(filter={"model": "m"})]), "a part of the usage"),
        (Terms(charges=[usage()], minimum_amount=Decimal(5)), "a minimum or a cap"),
    ],
)
def test_a_plan_that_does_not_follow_cost_is_refused_with_the_reason(
    terms: Terms, reason: str
) -> None:
    with pytest.raises(NotProportional, match=reason):
        percent_of_terms(terms)


def test_fees_beside_the_usage_do_not_matter_to_a_wallet() -> None:
    fee = FlatCharge(name="Platform", amount=Decimal(100))
    assert percent_of_terms(Terms(charges=[fee, usage(percent=Decimal("17.5"))])) == Decimal("17.5")


def test_customers_that_a_budget_cannot_follow_are_refused(account: Account) -> None:
    euro = make_customer(account, key="euro", currency="EUR")
    with pytest.raises(NotProportional, match="pays in EUR"):
        make_wallet(account, euro)
    linked = make_customer(account, key="linked")
    with account.scope():
        linked.links.create(tenant=account.tenant, dimension="customer", value="linked-2")
    wallet = make_wallet(account, linked)
    assert wallet.budget.match == {"customer": ["linked", "linked-2"]}
    teams = make_customer(account, key="teams")
    with account.scope():
        teams.links.create(tenant=account.tenant, dimension="team", value="growth")
    with pytest.raises(Conflict, match="team 'growth'"):
        make_wallet(account, teams)


def _cost_plus(percent: str) -> JsonObject:
    return {**COST_PLUS_20["charges"][0], "percent": percent}


@pytest.fixture
def wallet(account: Account, acme: Customer) -> Wallet:
    """Of a customer on a plan at cost and 20%."""
    put_on(account, acme, make_plan(account, _cost_plus("20")), NOW - timedelta(days=1))
    return make_wallet(account, acme)


def _version(account: Account, plan: Plan, *charges: JsonObject, starts_at: datetime) -> None:
    terms = msgspec.convert({"charges": list(charges)}, Terms)
    with account.scope():
        add_version(plan, actor="tests", starts_at=starts_at, terms=terms)


def test_a_version_that_a_wallet_could_not_follow_is_refused(
    account: Account, wallet: Wallet
) -> None:
    with account.scope():
        plan = Plan.objects.get()
    soon = NOW + timedelta(days=3)
    expected = r"Acme's wallet could not follow this change: It counts cost and 20%, and usage from"
    with pytest.raises(NotProportional, match=expected) as refusal:
        _version(account, plan, _cost_plus("25"), starts_at=soon)
    assert "would be charged at cost and 25%. End the wallet first" in str(refusal.value)
    with pytest.raises(NotProportional, match="not charged as cost-plus"):
        _version(account, plan, PER_REQUEST, starts_at=soon)
    with account.scope():
        assert plan.versions.count() == 1
    # Further fees do not matter to it.
    fee: JsonObject = {"name": "Fee", "kind": "flat", "amount": "5"}
    _version(account, plan, _cost_plus("20.0"), fee, starts_at=soon)
    with account.scope():
        end_wallet(wallet, actor="tests")
    _version(account, plan, PER_REQUEST, starts_at=soon + timedelta(days=1))


def test_a_subscription_that_a_wallet_could_not_follow_is_refused(
    account: Account, acme: Customer, wallet: Wallet
) -> None:
    soon = NOW + timedelta(days=3)
    with pytest.raises(NotProportional, match="Acme's wallet could not follow"):
        put_on(account, acme, make_plan(account, PER_REQUEST), soon)
    with account.scope():
        running = Subscription.objects.get()
        assert running.ends_at is None
        # Without a plan nothing is charged, so nothing is counted wrongly.
        update_subscription(running, actor="tests", changes={"ends_at": soon})
    put_on(account, acme, make_plan(account, _cost_plus("20")), soon)


def test_links_that_a_wallet_could_not_follow_are_refused(
    account: Account, acme: Customer, wallet: Wallet
) -> None:
    for dimension, reason in (("team", "further links"), ("customer", "not of 'blue'")):
        links = [{"dimension": dimension, "value": "blue"}]
        with account.scope(), pytest.raises(NotProportional, match=reason):
            update_customer(acme, actor="tests", changes={"links": links})
    with account.scope():
        assert [link.value for link in acme.links.all()] == ["acme"]
        update_customer(acme, actor="tests", changes={"links": [], "name": "Acme Inc"})


def test_the_api_refuses_with_the_reason(account: Account, acme: Customer, wallet: Wallet) -> None:
    links = [{"dimension": "team", "value": "blue"}]
    refused = caller(account).patch("/v1/customers/acme", {"links": links})
    assert (refused.status, refused.code) == (409, "not_proportional")
    assert "Acme's wallet could not follow this change" in refused.body["detail"]
