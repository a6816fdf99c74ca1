"""The demo's fake Stripe: who gets there, who pays, and how much it remembers."""

from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from billing.collection.credentials import configure_collection, credentials_of, set_credentials
from billing.models import StripeEvent, StripeInvoice, StripeSettings
from billing.stripe_gateway import API_VERSION, FAKE_KEYS
from config.demo import Access, collect
from fake_stripe import server as server_module
from fake_stripe.operations import create_customer, create_invoice, create_webhook_endpoint
from fake_stripe.server import StripeServer
from fake_stripe.store import read_world, write_world
from fake_stripe.webhooks import deliver
from fake_stripe.world import Refused, World
from tests.billing.stripe.scene import SECRET, Scene
from tests.factories import Account

HEADERS = {"Authorization": "Bearer sk_test_fake_1", "Stripe-Version": API_VERSION}
FAKE = "http://127.0.0.1:1"


def _base_of(account: Account, api_key: str) -> str | None:
    """Where a tenant's requests go with this key; None: nowhere."""
    own: dict[str, Any] = {"tenant": account.tenant, "actor": "tests"}
    with account.scope():
        set_credentials(api_key=api_key, webhook_secret=SECRET, **own)
        result = credentials_of(StripeSettings.objects.get(tenant=account.tenant))
    return None if result is None else result.api_base or "Stripe"


def test_fake_keys_go_to_the_fake_alone_and_no_other_key_does(
    account: Account, settings: Settings
) -> None:
    settings.STRIPE_FAKE_BASE = FAKE
    assert _base_of(account, f"{FAKE_KEYS}1") == FAKE
    assert _base_of(account, "sk_test_1") == "Stripe"
    assert _base_of(account, "sk_live_fake_1") == "Stripe"
    settings.STRIPE_FAKE_BASE = None
    assert _base_of(account, f"{FAKE_KEYS}1") is None


def test_its_customers_pay_what_they_are_sent_unless_their_address_says_otherwise(
    scene: Scene,
) -> None:
    scene.server.world.has_bank = True
    made = {
        tag: scene.statement(scene.customer(f"c{index}", email=f"billing{tag}@example.com"))
        for index, tag in enumerate(("", "+declined", "+later"))
    }
    scene.collect()
    rows: dict[str, StripeInvoice] = {tag: scene.row(each) for tag, each in made.items()}
    assert {tag: (row.status, row.has_payment_failed) for tag, row in rows.items()} == {
        "": ("paid", False),
        "+declined": ("open", True),
        "+later": ("open", False),
    }


def test_the_demo_collects_with_it_once(account: Account, settings: Settings) -> None:
    access = Access("http://x", "k", "e", "p", account.tenant.name)
    collect(access)
    with account.scope():
        assert not StripeSettings.objects.exists()
    settings.STRIPE_FAKE_BASE = FAKE
    collect(access)
    with account.scope():
        stored = StripeSettings.objects.get()
        assert stored.collects
        result = credentials_of(stored)
        assert result is not None
        assert result.is_fake
        configure_collection(tenant=account.tenant, actor="tests", collects=False)
    collect(access)
    with account.scope():
        assert not StripeSettings.objects.get().collects


def test_the_demo_hears_what_happens_by_signed_webhooks(
    account: Account, server: StripeServer, settings: Settings, live_server: LiveServer
) -> None:
    settings.STRIPE_FAKE_BASE = server.url
    collect(Access(live_server.url, "k", "e", "p", account.tenant.name))
    world = server.world
    customer = create_customer(world, {}, {})
    invoice = create_invoice(world, {}, {"customer": customer["id"]})
    world.note("invoice.paid", invoice)
    (endpoint,) = world.webhook_endpoints.values()
    away = {**endpoint, "url": FAKE}
    forged = {**endpoint, "secret": "whsec_other"}
    deliver(world.events, to=[away, forged], at=world.now)
    with account.scope():
        assert not StripeEvent.objects.exists()
    deliver(world.events, to=[endpoint], at=world.now)
    with account.scope():
        assert StripeEvent.objects.get().stripe_invoice == invoice["id"]


def test_webhooks_leave_this_machine_never(server: StripeServer) -> None:
    with pytest.raises(Refused, match="this machine alone"):
        create_webhook_endpoint(
            server.world, {}, {"url": "https://example.com/", "enabled_events": ["*"]}
        )
    assert not server.world.webhook_endpoints


def test_what_there_is_outlives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "world"
    assert read_world(file) == World()
    world = World()
    world.customers["cus_1"] = {"id": "cus_1", "email": None}
    world.meter_values["mtr_1", "cus_1", 3600] = 7
    world.meter_identifiers.add("a")
    world.take_number()
    write_world(world, file)
    assert read_world(file) == world
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(b"of another version")
    assert read_world(file) == World()


def test_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "KEYS_MAX", 2)
    server = StripeServer(kept_requests=0, objects_max=6)
    try:
        answers = [
            requests.post(
                f"{server.url}/v1/customers",
                data="name=A",
                headers={**HEADERS, "Idempotency-Key": str(number)},
                timeout=10,
            )
            for number in range(4)
        ]
        # Each is a customer and an event.
        assert [answer.status_code for answer in answers] == [200, 200, 200, 400]
        assert "is full" in answers[-1].text
        assert len(server.requests) == 0
        assert len(server._kept) == 2
    finally:
        server.stop()
