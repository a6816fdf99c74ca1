"""One report of a call: what a client, a callback or a span sent, and what identifies it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from common.money import usd_from_nanos
from metering.calls.inheritance import reservation_of
from metering.calls.prepared_event import BIT_OF, PreparedEvent
from metering.models import CostSource
from metering.usage.columns import OPERATIONS, STATUSES, TOKEN_COUNTS, StoredEvent
from metering.usage.decoders.native import EVENT_FIELDS, EventBody
from metering.usage.event_keys import key_of_id
from metering.usage.shapes import Tokens


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One report of a call. `body` has neither usage nor tokens: these are `tokens`.

    `at` is the time that it names, or else when it arrived. Keys are hashes as hexadecimal.
    """

    key: str
    fingerprint: str
    body: EventBody
    at: datetime
    tokens: Tokens
    authority: int
    completeness: int
    route: int
    response_key: str | None = None
    request_key: str | None = None
    span_key: str | None = None

    @property
    def identities(self) -> tuple[str, ...]:
        """What it can share with other reports of its call, as texts that differ by kind."""
        body = self.body
        named = (
            ("id", key_of_id(body.source or "", body.id)),
            ("response", self.response_key),
            ("request", self.request_key),
            ("span", self.span_key),
            ("reservation", body.reservation),
        )
        return tuple(f"{kind} {value}" for kind, value in named if value is not None)

    @property
    def is_tool(self) -> bool:
        """Whether it reports a tool call rather than a model call."""
        body = self.body
        if body.operation is not None:
            return body.operation == "tool"
        has_tokens = bool(self.tokens.input_tokens or self.tokens.output_tokens)
        return body.tool is not None and body.model is None and not has_tokens


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Report).decode
# What `Tokens` and `Completeness` hold instead.
_USAGE: Final = dict.fromkeys(("usage", *TOKEN_COUNTS, "is_estimate", "is_usage_missing"))


def report_as_text(report: Report) -> str:
    """Return the report as it is stored."""
    return _encode(report).decode()


def report_from_text(text: str) -> Report:
    """Read what `report_as_text` returned."""
    return _decode(text)


def report_of_event(event: PreparedEvent) -> Report:
    """Return the report that an incoming event is."""
    # A reservation that does not exist connects nothing.
    reservation_id = reservation_of(event.sent_body) if event.held is not None else None
    body = msgspec.structs.replace(
        event.sent_body,
        **_USAGE,
        service_tier=event.service_tier,
        reservation=None if reservation_id is None else str(reservation_id),
    )
    return Report(
        key=event.key,
        fingerprint=event.fingerprint,
        body=body,
        at=event.at,
        tokens=event.tokens,
        authority=event.authority,
        completeness=event.completeness,
        route=event.route.value,
        response_key=event.response_key,
        request_key=event.request_key,
        span_key=event.span_key,
    )


def report_of_row(row: StoredEvent, keys: Mapping[str, str | None]) -> Report:
    """Restore the only report of a stored call from the call's row.

    `keys` are the call's `event_key` columns: key, fingerprint and the identities.
    """
    fields: dict[str, Any] = {
        name: value
        for name in _COPIED
        if (value := getattr(row, name)) not in (None, "") and not row.filled & BIT_OF.get(name, 0)
    }
    if not row.filled & BIT_OF["operation"]:
        fields["operation"] = OPERATIONS[row.operation]
    if not row.filled & BIT_OF["status"]:
        fields["status"] = STATUSES[row.status]
    if not row.filled & BIT_OF["time"]:
        fields["time"] = row.time
    if row.saved_nanos is not None and not row.filled & BIT_OF["saved_usd"]:
        fields["saved_usd"] = usd_from_nanos(row.saved_nanos)
    if row.cost_source == CostSource.GIVEN and row.cost_nanos is not None:
        fields["cost_usd"] = usd_from_nanos(row.cost_nanos)
    if row.reservation_id is not None:
        fields["reservation"] = str(row.reservation_id)
    if row.tags:
        fields["tags"] = row.tags
    return Report(
        key=keys["key"] or "",
        fingerprint=keys["fingerprint"] or "",
        body=EventBody(id=row.sent_id, **fields),
        at=row.time,
        tokens=row.tokens,
        authority=row.authority,
        completeness=row.completeness,
        route=row.route,
        response_key=keys["response_key"],
        request_key=keys["request_key"],
        span_key=keys["span_key"],
    )


# Fields of an event that its row has as they are, under the same name.
_COPIED: Final = frozenset(StoredEvent._fields).intersection(EVENT_FIELDS) - {
    *("id", "time", "operation", "status", "tags"),
    *TOKEN_COUNTS,
}
