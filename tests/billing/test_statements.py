"""Statements: drafts are current, final ones never change, late usage moves the next by exactly the
difference.
"""

from collections.abc import Sequence
from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import statement_lines
from billing.models import StatementState
from billing.rating import RatedLine, UsedPart, rate
from billing.statements import void
from common.json_bodies import JsonObject
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    amounts,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.factories import Account

FIRST = month_start(1)
HOUR = timedelta(hours=1)
VOLUME = {
    "name": "Calls",
    "kind": "usage",
    "metric": "requests",
    "model": "volume",
    "tiers": [{"up_to": "15", "unit_amount": "10"}, {"up_to": None, "unit_amount": "5"}],
}


def test_a_draft_is_current(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    assert billed.view(FIRST).totals.total == 0
    billed.use(3, at=FIRST + HOUR)
    assert billed.view(FIRST).totals.total == 300
    billed.use(2, at=FIRST + HOUR)
    view = billed.view(FIRST)
    assert view.totals.total == 500
    assert view.lines[0].quantity == "5"


def test_usage_is_read_once_for_charges_of_which_one_names_all_dimensions(
    account: Account,
) -> None:
    def charge(name: str, amount: str, **wanted: str) -> JsonObject:
        return {**PER_REQUEST, "name": name, "unit_amount": amount, "filter": wanted}

    finest = charge("Both", "100", model="gpt-5", feature="chat")
    coarse = (charge("Model", "1", model="gpt-5"), charge("Feature", "10", feature="chat"))

    def read(*charges: JsonObject) -> tuple[int, Sequence[tuple[str, str, int]]]:
        billed = Billed(account, make_customer(account, f"customer-{len(charges)}"))
        put_on(account, billed.customer, make_plan(account, *charges), FIRST)
        for feature, count in (("chat", 2), ("search", 3)):
            billed.use(count, at=FIRST + HOUR, feature=feature, model="gpt-5")
        billed.use(4, at=FIRST + HOUR, feature="chat", model="gpt-5-mini")
        with CaptureQueriesContext(connection) as captured:
            view = billed.view(FIRST)
        return len(captured), amounts(view)

    alone, _ = read(finest)
    together, lines = read(*coarse, PER_REQUEST, finest)
    assert together == alone
    assert [(name, amount) for _, name, amount in lines] == [
        ("Model", 500),
        ("Feature", 6_000),
        ("Requests", 900),
        ("Both", 20_000),
    ]


def test_late_usage_that_reaches_a_cheaper_tier_lowers_the_next_statement(
    account: Account,
) -> None:
    first, second, third = month_start(2), month_start(1), month_start(0)
    billed = Billed.on(account, VOLUME, since=first)
    billed.use(15, at=first + HOUR)
    assert billed.finalize(first).totals.total == 15_000
    billed.use(1, at=first + HOUR)
    view = billed.finalize(second)
    assert view.totals.total == -7_000
    assert ("adjustment", "Calls", -7_000) in amounts(view)
    assert [line.adjusts for line in view.lines] == [None, "000001"]
    assert billed.view(third).totals.total == 0
    assert billed.view(first).totals.total == 15_000


def test_finalizing_twice_makes_one(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(1, at=FIRST + HOUR)
    number = billed.finalize(FIRST).statement.number
    assert billed.finalize(FIRST).statement.number == number == "000001"


def test_a_void_keeps_its_number_and_its_period_is_charged_again(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(2, at=FIRST + HOUR)
    final = billed.finalize(FIRST).statement
    void(account.tenant.id, final.id, actor="tests")
    again = billed.view(FIRST)
    assert again.statement.state == StatementState.DRAFT
    assert again.totals.total == 200
    assert billed.finalize(FIRST).statement.number == "000002"


def test_what_an_adjustment_charged_is_taken_back_with_the_statement_that_it_adjusted(
    account: Account,
) -> None:
    first, second, third = month_start(2), month_start(1), month_start(0)
    billed = Billed.on(account, PER_REQUEST, since=first)
    billed.use(2, at=first + HOUR)
    final = billed.finalize(first).statement
    billed.use(1, at=first + HOUR)
    assert billed.finalize(second).totals.total == 100
    void(account.tenant.id, final.id, actor="tests")
    assert billed.finalize(first).totals.total == 300
    assert billed.view(third).totals.total == -100


def test_what_is_final_is_rated_again_only_if_something_changed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = month_start(1), month_start(0)
    billed = Billed.on(account, PER_REQUEST, since=first)
    billed.use(2, at=first + HOUR)
    billed.finalize(first)
    rated: list[Sequence[UsedPart]] = []

    def counted(parts: Sequence[UsedPart]) -> list[RatedLine]:
        rated.append(parts)
        return rate(parts)

    monkeypatch.setattr(statement_lines, "rate", counted)
    assert billed.view(second).totals.total == 0
    assert len(rated) == 1
    billed.use(1, at=first + HOUR)
    assert billed.view(second).totals.total == 100
    assert len(rated) == 3


def test_a_statement_that_is_final_early_is_adjusted_by_what_is_used_later(
    account: Account,
) -> None:
    this_month = month_start(0)
    next_month = (this_month + timedelta(days=32)).replace(day=1)
    fee = {"name": "Support", "kind": "flat", "amount": "10", "when": "arrears"}
    bounds = {"minimum_amount": "50"}
    billed = Billed.on(account, fee, PER_REQUEST, since=this_month, bounds=bounds)
    billed.use(2, at=this_month)
    assert billed.finalize(this_month).totals.total == 5_000
    billed.use(41, at=this_month)
    with time_machine.travel(next_month + HOUR, tick=False):
        lines = [line for line in billed.view(next_month).lines if line.adjusts]
    assert [(line.name, line.quantity, line.amount) for line in lines] == [
        ("Requests", "41", 4_100),
        ("Minimum", "-1", -3_800),
    ]


@pytest.mark.parametrize("links", [(), ({"dimension": "team", "value": "blue"},)])
def test_usage_of_links_is_the_customers(
    account: Account, links: tuple[dict[str, str], ...]
) -> None:
    acme = make_customer(account, links=links)
    other = make_customer(account, "other")
    plan = make_plan(account, PER_REQUEST)
    for customer in (acme, other):
        put_on(account, customer, plan, FIRST)
    billed, rival = Billed(account, acme), Billed(account, other)
    billed.use(1, at=FIRST + HOUR, customer=..., team="blue")
    billed.use(1, at=FIRST + HOUR)
    # The link on the customer comes before that on the team.
    rival.use(1, at=FIRST + HOUR, team="blue")
    assert billed.view(FIRST).totals.total == 100 + 100 * len(links)
    assert rival.view(FIRST).totals.total == 100
