"""What a channel is sent about an incident. Pure: each kind of channel gives it its own form.

A message is stored with its delivery and never changes, so that every attempt says the same.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from common.json_bodies import JsonObject
from common.money import usd_from_nanos

NANOS_SUFFIX: Final = "_nanos"
USD_SUFFIX: Final = "_usd"


class Line(msgspec.Struct, frozen=True):
    """One incident in a digest."""

    severity: str
    title: str
    status: str
    link: str


class Attachment(msgspec.Struct, frozen=True):
    """A file that goes with a mail; other channels have the link."""

    name: str
    text: str


class Message(msgspec.Struct, frozen=True):
    """One message. Times are RFC 3339 in UTC, or empty; money in `data` is decimal USD."""

    # A `DeliveryEvent`.
    event: str
    severity: str
    # An `IncidentKind`, "digest", "report" or "test".
    kind: str
    title: str
    summary: str
    tenant: str
    incident: int | None
    # The same for all messages of one incident: what receivers recognize it by.
    cause: str
    link: str
    opened_at: str
    at: str
    # (label, text) for people.
    facts: list[tuple[str, str]] = []
    # Dimensions and values that it is about.
    match: JsonObject = {}
    # Figures for machines.
    data: JsonObject = {}
    # Of a digest.
    lines: list[Line] = []
    # Of a report: CSV.
    attachments: list[Attachment] = []


def encode(message: Message) -> JsonObject:
    """Return the message as JSON values."""
    encoded: JsonObject = msgspec.to_builtins(message)
    return encoded


def decode(stored: Mapping[str, object]) -> Message:
    """Return the message that `encode` made."""
    return msgspec.convert(stored, Message)


def format_timestamp(at: datetime) -> str:
    """Return RFC 3339 in UTC with whole seconds."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def outside(content: object) -> Any:
    """Return content as it leaves the service: what ends in `_nanos` is decimal USD in `_usd`."""
    if isinstance(content, Mapping):
        return dict(_outside_pair(name, value) for name, value in content.items())
    if isinstance(content, list | tuple):
        return [outside(item) for item in content]
    return content


def _outside_pair(name: str, value: Any) -> tuple[str, object]:
    if not name.endswith(NANOS_SUFFIX):
        return name, outside(value)
    renamed = name.removesuffix(NANOS_SUFFIX) + USD_SUFFIX
    return renamed, None if value is None else usd_from_nanos(int(value))
