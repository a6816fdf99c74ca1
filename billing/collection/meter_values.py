"""Placeholder."""

from billing.stripe_gateway import StripeGateway


def send_value(*, tenant_id: int, gateway: StripeGateway) -> bool:
    return False
