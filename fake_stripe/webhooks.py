"""Sends events as signed webhooks."""

import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence

import requests

from fake_stripe.objects import Object

TIMEOUT_SECONDS = 10


def signature(body: bytes, *, secret: str, at: int) -> str:
    """Return the header `Stripe-Signature` of a body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def send(events: Iterable[Object], *, url: str, secret: str, at: int) -> list[int]:
    """Post events in the given order; return the status codes of the answers."""
    statuses = []
    for event in events:
        body = json.dumps(event).encode()
        headers = {
            "Content-Type": "application/json",
            "Stripe-Signature": signature(body, secret=secret, at=at),
            "X-Not-Real-Money": "true",
        }
        answer = requests.post(url, data=body, headers=headers, timeout=TIMEOUT_SECONDS)
        statuses.append(answer.status_code)
    return statuses


def deliver(events: Sequence[Object], *, to: Iterable[Object], at: int) -> None:
    """Send events to these endpoints, each what it listens to. What an endpoint that is away loses
    is still in the list of events.
    """
    for endpoint in to:
        enabled = endpoint["enabled_events"]
        wanted = [each for each in events if "*" in enabled or each["type"] in enabled]
        with contextlib.suppress(requests.RequestException):
            send(wanted, url=endpoint["url"], secret=endpoint["secret"], at=at)
