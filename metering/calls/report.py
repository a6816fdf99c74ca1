"""One report of a call: what a client, a callback or a span told, and what it is known by."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from common.money import usd_from_nanos
from metering.calls.events import BIT_OF, FLAT_FIELDS, PreparedEvent, reservation_of
from metering.calls.stored import OPERATIONS, STATUSES, StoredEvent
from metering.models import CostSource
from metering.usage.decoders.native import EventBody
from metering.usage.event_keys import key_of_id
from metering.usage.shapes import Tokens


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one report told of a call. `told` has neither usage nor tokens: these are `tokens`.

    `at` is the time it told, or else when it arrived. Keys are hashes as hexadecimal.
    """

    key: str
    fingerprint: str
    told: EventBody
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
        """What the report shares with the other reports of its call, as texts that differ by
        kind.
        """
        told = self.told
        named = (
            ("id", key_of_id(told.source or "", told.id)),
            ("response", self.response_key),
            ("request", self.request_key),
            ("span", self.span_key),
            ("reservation", told.reservation),
        )
        return tuple(f"{kind} {value}" for kind, value in named if value is not None)

    @property
    def is_tool(self) -> bool:
        """Whether it tells of a tool call rather than of a model's."""
        told = self.told
        if told.operation is not None:
            return told.operation == "tool"
        has_tokens = bool(self.tokens.input_tokens or self.tokens.output_tokens)
        return told.tool is not None and told.model is None and not has_tokens


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Report).decode
# What `Tokens` and `Completeness` hold instead.
_USAGE: Final = dict.fromkeys(
    ("usage", *FLAT_FIELDS, "web_searches", "is_estimate", "is_usage_missing")
)


def report_as_text(report: Report) -> str:
    """The report as it is stored."""
    return _encode(report).decode()


def report_from_text(text: str) -> Report:
    """The reverse of `report_as_text`."""
    return _decode(text)


def report_of_event(event: PreparedEvent) -> Report:
    """The report that an incoming event is."""
    # One that does not exist connects nothing.
    reservation_id = reservation_of(event.told) if event.held is not None else None
    told = msgspec.structs.replace(
        event.told,
        **_USAGE,
        service_tier=event.service_tier,
        reservation=None if reservation_id is None else str(reservation_id),
    )
    return Report(
        key=event.key,
        fingerprint=event.fingerprint,
        told=told,
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
    """The only report of a stored call, out of the call's row.

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
        told=EventBody(id=row.sent_id, **fields),
        at=row.time,
        tokens=row.tokens,
        authority=row.authority,
        completeness=row.completeness,
        route=row.route,
        response_key=keys["response_key"],
        request_key=keys["request_key"],
        span_key=keys["span_key"],
    )


_COPIED: Final = (
    *("source", "provider", "model", "requested_model", "team", "customer", "agent", "user"),
    *("feature", "session", "task", "trace", "span", "parent_span", "step", "tool"),
    *("tool_arguments_hash", "response_id", "request_id", "service_tier", "error_type"),
    *("latency_ms", "time_to_first_token_ms", "max_output_tokens", "task_type", "complexity"),
    *("output_hash", "prefix_hash"),
)
