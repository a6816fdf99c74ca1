"""Whose usage a wallet can be held to, and which changes it could not follow."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.models import (
    Customer,
)
from billing.terms import ChargeModel, FlatCharge, Metric, Terms, UsageCharge
from billing.wallet_opening import NotProportional, percent_of_terms
from common.errors import Conflict
from tests.billing.credit_scene import (
    make_wallet,
)
from tests.billing.scene import make_customer
from tests.factories import Account

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
