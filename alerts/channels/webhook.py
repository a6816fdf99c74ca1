"""Webhooks, signed as in Standard Webhooks, so that receivers verify them with its libraries."""

import base64
import secrets as random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from standardwebhooks import Webhook

from alerts.channels.addresses import read_url, shown_url
from alerts.channels.http import post
from alerts.channels.kind import Field, Fields, Kind, Sent, Settings
from alerts.messages import Message
from alerts.models import Severity
from common.json_bodies import JsonObject

SECRET_BYTES: Final = 32
# An old secret signs too for this time, so that the receiver can switch without losing anything.
ROTATION: Final = timedelta(hours=24)


def body_of(message: Message) -> bytes:
    """Return the message for programs; money in `figures` is decimal USD."""
    is_incident = message.incident is not None
    data: JsonObject = {
        "incident": message.incident,
        "cause": message.cause,
        "kind": message.kind,
        "severity": message.severity,
        "title": message.title,
        "summary": message.summary,
        "tenant": message.tenant,
        "match": message.match,
        "figures": message.data,
        "opened_at": message.opened_at or None,
        "link": message.link or None,
    }
    if message.lines:
        data["incidents"] = message.lines
    event = f"incident.{message.event}" if is_incident else message.event
    return msgspec.json.encode({"type": event, "timestamp": message.at, "data": data})


def headers_of(secrets: Fields, body: bytes, reference: str, now: datetime) -> dict[str, str]:
    """Return the headers that prove who sent this body, and which delivery it is."""
    signatures = [
        Webhook(secret).sign(reference, now, body.decode()) for secret in _signing(secrets, now)
    ]
    return {
        "webhook-id": reference,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def new_secret() -> str:
    """Return a secret in the form of receivers' libraries."""
    return f"whsec_{base64.b64encode(random.token_bytes(SECRET_BYTES)).decode()}"


def rotated(secrets: Fields, now: datetime) -> JsonObject:
    """Return secrets with a new signing secret; the previous one signs too for a while."""
    return {
        **secrets,
        "secret": new_secret(),
        "old_secret": secrets["secret"],
        "old_until": (now + ROTATION).isoformat(),
    }


def _signing(secrets: Fields, now: datetime) -> Iterator[str]:
    yield secrets["secret"]
    if "old_secret" in secrets and now < datetime.fromisoformat(secrets["old_until"]):
        yield secrets["old_secret"]


def _send(config: Fields, secrets: Fields, message: Message, reference: str) -> Sent:
    body = body_of(message)
    headers = headers_of(secrets, body, reference, datetime.now(UTC))
    return post(secrets["url"], body, headers=headers)


def _read(given: Fields) -> Settings:
    url = read_url(given)
    return Settings(
        {"url": shown_url(url, with_path=True)},
        {"url": url, "secret": given.get("secret") or new_secret()},
    )


WEBHOOK = Kind(
    label="Webhook",
    fields=(Field("url", "Address", "Gets every message as a signed POST (Standard Webhooks)."),),
    severities=(Severity.INFO, Severity.WARNING, Severity.CRITICAL),
    read=_read,
    send=_send,
)
