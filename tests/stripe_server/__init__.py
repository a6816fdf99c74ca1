"""The fake Stripe of the tests: its requests and answers are held to Stripe's own OpenAPI document
(`specification`), and it has nothing to complain about when a test ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from fake_stripe.server import StripeServer
from tests.stripe_server.specification import Specification


def strict_server() -> StripeServer:
    """Return a stand-in whose `complaints` a test looks at itself."""
    return StripeServer(contract=Specification())


@contextmanager
def stripe_server() -> Iterator[StripeServer]:
    """A stand-in for the time of a test, which afterwards must have nothing to complain about."""
    server = strict_server()
    try:
        yield server
    finally:
        server.stop()
    assert list(server.complaints) == []
