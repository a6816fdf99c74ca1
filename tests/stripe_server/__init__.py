"""A stand-in for Stripe over real HTTP on loopback, for tests and the demo. No money moves here.

`specification` is Stripe's own OpenAPI document, `world` what exists, `operations` what requests
do, `faults` what goes wrong, `server` the HTTP around them.
"""

from tests.stripe_server.server import StripeServer, stripe_server

__all__ = ["StripeServer", "stripe_server"]
