"""Coupons, credit notes and prepaid credit on statements, in this order, and back after a void."""

from datetime import timedelta

import pytest

from billing.statements import void
from common.errors import Conflict
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.factories import Account
from tests.metering.api.caller import caller

FIRST, SECOND = month_start(1), month_start(0)
HOUR = timedelta(hours=1)


def test_coupon_then_tax_then_credit_notes_then_prepaid_credit(account: Account) -> None:
    api = caller(account)
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    tax = {"tax_rates": [{"name": "VAT", "percent": "19"}]}
    assert api.patch("/v1/customers/acme", tax).status == 200
    billed.use(100, at=FIRST + HOUR)
    first = billed.finalize(FIRST)
    assert first.totals.total == 11_900
    note = {"statement": first.statement.id, "amount": "10.00", "reason": "outage"}
    answer = api.post("/v1/credit-notes", note)
    assert answer.status == 201, answer.body
    coupon = {"customer": "acme", "name": "Tenth off", "percent": "10"}
    assert api.post("/v1/coupons", coupon).status == 201
    credit = {"customer": "acme", "amount": "20", "priority": 1, "kind": "paid"}
    assert api.post("/v1/credits", credit).status == 201
    billed.use(50, at=SECOND)
    draft = billed.view(SECOND).totals
    final = billed.finalize(SECOND).totals
    assert draft._replace(taxes=()) == final._replace(taxes=())
    assert final.subtotal == 5_000
    assert final.coupon_amount == 500
    assert final.taxable == 4_500
    assert [tax.amount for tax in final.taxes] == [855]
    assert final.total == 5_355
    assert final.credit_notes_applied == 1_190
    assert final.credit_applied == 2_000
    assert final.amount_due == 2_165


def test_what_a_void_statement_used_pays_the_next(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    credit = {"customer": "acme", "amount": "3", "priority": 1, "kind": "paid"}
    assert caller(account).post("/v1/credits", credit).status == 201
    billed.use(5, at=FIRST + HOUR)
    final = billed.finalize(FIRST)
    assert final.totals.credit_applied == 300
    void(account.tenant.id, final.statement.id, actor="tests")
    assert billed.finalize(FIRST).totals.credit_applied == 300


def test_a_statement_with_a_credit_note_is_not_voided(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(5, at=FIRST + HOUR)
    statement = billed.finalize(FIRST).statement
    note = {"statement": statement.id, "amount": "1.00", "reason": "goodwill"}
    assert caller(account).post("/v1/credit-notes", note).status == 201
    with pytest.raises(Conflict, match="credit notes"):
        void(account.tenant.id, statement.id, actor="tests")
