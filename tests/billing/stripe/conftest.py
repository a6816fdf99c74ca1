from collections.abc import Iterator

import pytest
from pytest_django import Settings

from fake_stripe.server import StripeServer
from tests.billing.stripe.scene import Scene, make_scene
from tests.factories import Account
from tests.stripe_server import stripe_server


@pytest.fixture
def server(settings: Settings) -> Iterator[StripeServer]:
    with stripe_server() as server:
        settings.STRIPE_API_BASE = server.url
        yield server


@pytest.fixture
def scene(account: Account, server: StripeServer) -> Scene:
    return make_scene(account, server)


@pytest.fixture
def _credit_is_proved() -> None:
    """Not asked here: statements are written directly, with credit that no grant has paid."""
