"""Pages of statements, and the page that a customer opens by a signed link."""

import re
from datetime import timedelta

import time_machine
from django.test import Client
from django.utils import timezone

from billing.models import Statement
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.factories import Account, make_event, send

FIRST = month_start(1)
HOUR = timedelta(hours=1)
AT_COST = {
    "name": "Cost",
    "kind": "usage",
    "metric": "cost",
    "model": "cost_plus",
    "percent": "20",
}


def _signed_in(account: Account, client: Client) -> Client:
    client.post("/login", {"username": account.email, "password": account.password})
    return client


def test_a_person_finalizes_and_voids_a_statement(account: Account, client: Client) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(3, at=FIRST + HOUR)
    _signed_in(account, client)
    address = f"/statements/{billed.view(FIRST).statement.id}"
    assert "Acme owes $3.00 so far" in client.get(address).content.decode()
    done = client.post(f"{address}/finalize", {"back": address}, follow=True).content.decode()
    assert "Statement 000001 is final: $3.00 due." in done
    done = client.post(f"{address}/void", {"back": address}, follow=True).content.decode()
    assert "Statement 000001 is void" in done
    listed = client.get("/statements?state=void").content.decode()
    assert "000001" in listed


def test_a_link_shows_a_customer_its_own_statements_until_it_expires(
    account: Account, client: Client
) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(3, at=FIRST + HOUR)
    statement = billed.finalize(FIRST).statement
    page = _signed_in(account, client).get(f"/statements/{statement.id}").content.decode()
    link = re.search(r"http://testserver(/bill/[^<\s]+)", page)
    assert link is not None
    visitor = Client()
    own = visitor.get(link[1])
    assert own.status_code == 200
    assert "000001" in own.content.decode()
    printed = visitor.get(f"{link[1]}/{statement.id}.html")
    assert printed.status_code == 200
    assert visitor.get(f"{link[1]}/{statement.id + 1}.html").status_code == 404
    assert visitor.get(f"{link[1]}x").status_code == 410
    with time_machine.travel(timezone.now() + timedelta(days=31)):
        assert visitor.get(link[1]).status_code == 410
    assert (
        "ended"
        in client.post(f"/customers/{billed.customer.id}/end-links", follow=True).content.decode()
    )
    assert visitor.get(link[1]).status_code == 410


def test_who_statements_are_from_is_set_on_a_page(account: Account, client: Client) -> None:
    _signed_in(account, client)
    page = client.get("/settings/billing").content.decode()
    token = re.search(r'name="form_token" value="([^"]+)"', page)
    assert token is not None
    fields = {"form_token": token[1], "legal_name": "Brightloop, Inc.", "finalize_after_days": "3"}
    fields["credit_note_prefix"] = "CN-"
    done = client.post("/settings/billing", fields, follow=True).content.decode()
    assert "Statements are from Brightloop, Inc.; final 3 days after the period" in done


def test_all_drafts_of_a_past_month_become_final_by_one_button(
    account: Account, client: Client
) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(3, at=FIRST + HOUR)
    other = make_customer(account, key="unpriced")
    put_on(account, other, make_plan(account, AT_COST), FIRST)
    with time_machine.travel(FIRST + timedelta(days=1), tick=False):
        unknown = make_event(
            time=(FIRST + HOUR).isoformat(), customer="unpriced", model="unheard-of", provider="no"
        )
        send(account, [unknown])
    _signed_in(account, client)
    page = client.get("/statements").content.decode()
    assert f'value="{FIRST:%Y-%m}"' in page
    sent = {"back": "/statements", "month": f"{FIRST:%Y-%m}"}
    done = client.post("/statements/finalize", sent, follow=True).content.decode()
    assert "1 statement is final. 1 stays a draft. Unpriced: 1 calls have no price yet" in done
    with account.scope():
        states = Statement.objects.filter(period_start=FIRST).order_by("customer__key")
        assert [each.state for each in states] == ["final", "draft"]
    rows = re.compile(r'class="name" href="/statements/\d+"')
    listed = {
        query: len(rows.findall(client.get(f"/statements?{query}").content.decode()))
        for query in ("", "state=final", "state=draft", "q=unpriced")
    }
    assert listed == {"": 4, "state=final": 1, "state=draft": 3, "q=unpriced": 2}
    wrong = {**sent, "month": f"{month_start(0):%Y-%m}"}
    done = client.post("/statements/finalize", wrong, follow=True).content.decode()
    assert "No period that ended in this month is a draft." in done
