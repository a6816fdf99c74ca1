"""Pages of statements, and the page that a customer opens by a signed link."""

import re
from datetime import timedelta

import time_machine
from django.test import Client
from django.utils import timezone

from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.factories import Account

FIRST = month_start(1)
HOUR = timedelta(hours=1)


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
    with account.scope():
        billed.customer.link_generation += 1
        billed.customer.save()
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
