"""Spans as they are kept: enough to find their calls again when the rest of a trace arrives."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from common.errors import EventRejected
from common.json_bodies import JsonObject
from metering.usage.decoders.assembly import digest, tags
from metering.usage.decoders.native import PassedOver, TagValue
from metering.usage.decoders.otlp.dialects import Kind
from metering.usage.decoders.otlp.dimension_keys import USUAL, DimensionKeys, named_by
from metering.usage.decoders.otlp.span_fields import (
    call_fields,
    dimensions_of,
    given_cost,
    models_of,
    outcome_fields,
    pairs_of,
    provider_of,
    sample_of,
    source_of,
    tool_fields,
)
from metering.usage.decoders.otlp.span_kinds import kind_of
from metering.usage.decoders.otlp.spans import SPAN_LENGTH, TRACE_LENGTH, Span, is_id
from metering.usage.decoders.otlp.token_counts import Counted, count_tokens

MODEL_KINDS: Final = frozenset({"llm", "embedding"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

SpanKey = tuple[str, str]


class SpanRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """A span as it is kept. Times are microseconds since 1970.

    `fields` are fields of the event that the span would be, `dims` and `process_dims` the
    dimensions that it and its process name. `process` is a hash of the process.
    """

    trace: str
    span: str
    parent: str | None = None
    kind: Kind = "around"
    scope: str = ""
    source: str = ""
    process: str = ""
    started_us: int = 0
    ended_us: int = 0
    fields: JsonObject = {}
    dims: dict[str, str] = {}
    process_dims: dict[str, str] = {}
    tags: dict[str, TagValue] | None = None
    used: Counted | None = None

    @property
    def key(self) -> SpanKey:
        return self.trace, self.span

    @property
    def is_call(self) -> bool:
        """Whether it is of a model call."""
        return self.kind in MODEL_KINDS

    @property
    def has_failed(self) -> bool:
        return self.fields.get("status") in ("error", "cancelled")

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it tells anything but who its parent is."""
        return self.kind != "around" or bool(self.dims or self.fields.get("model"))


class Export(msgspec.Struct):
    """What an export request holds: spans, those that cannot be read, and what is none of ours."""

    spans: list[SpanRecord]
    rejected: list[EventRejected]
    passed_over: list[PassedOver]


def read_export(
    items: Sequence[Span | EventRejected], *, trusts_given_costs: bool, keys: DimensionKeys = USUAL
) -> Export:
    """Return what each span of an export tells by itself."""
    export = Export([], [], [])
    passed: dict[str, int] = {}
    for item in items:
        record = item if isinstance(item, EventRejected) else _read(item, trusts_given_costs, keys)
        if isinstance(record, EventRejected):
            export.rejected.append(record)
            continue
        export.spans.append(record)
        if not record.is_worth_keeping:
            passed[record.source] = passed.get(record.source, 0) + 1
    export.passed_over = [
        PassedOver(source, "not_a_call", count) for source, count in sorted(passed.items())
    ]
    return export


def _read(span: Span, trusts_given_costs: bool, keys: DimensionKeys) -> SpanRecord | EventRejected:
    if not is_id(span.trace, TRACE_LENGTH) or not is_id(span.span, SPAN_LENGTH):
        detail = "A span's ids are not 16 and 8 bytes that are not all zero."
        return EventRejected(
            "invalid_value", detail, source=source_of(span.resource), sample=sample_of(span)
        )
    kind = kind_of(span.attributes, span.name)
    if kind == "unknown":
        word = str(span.attributes.get("gen_ai.operation.name"))[:100]
        detail = f"The operation {word!r} uses tokens, and it is unknown whether it is one call."
        return _rejected("unknown_operation", detail, span)
    record = SpanRecord(
        trace=span.trace,
        span=span.span,
        parent=span.parent,
        kind=kind,
        scope=span.scope,
        source=source_of(span.resource),
        process=digest(repr(sorted(span.resource.items(), key=str)))[:32],
        started_us=(span.started_nanos or span.ended_nanos) // 1000,
        ended_us=max(span.ended_nanos, span.started_nanos) // 1000,
        dims=_dimensions(span, kind, keys),
        process_dims=_storable(named_by(span.resource, keys.of_processes)),
    )
    try:
        _add_fields(record, span, trusts_given_costs)
    except ValueError as error:
        return _rejected("invalid_value", f"{error}.", span)
    return record


def _dimensions(span: Span, kind: Kind, keys: DimensionKeys) -> dict[str, str]:
    """Return what the span itself names. A call with a name that cannot be stored is rejected
    alone; that of a span around calls loses nothing but itself.
    """
    dims = dimensions_of(span.attributes, kind, keys) if span.attributes else {}
    return dims if kind in MODEL_KINDS or kind == "tool" else _storable(dims)


def _storable(dims: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in dims.items() if "\x00" not in value}


def _add_fields(record: SpanRecord, span: Span, trusts_given_costs: bool) -> None:
    if record.is_call:
        fields = call_fields(span) | {"operation": record.kind}
        if trusts_given_costs:
            fields["cost_usd"] = given_cost(span.attributes)
        provider = fields["provider"]
        assert provider is None or isinstance(provider, str)
        record.used = count_tokens(span.attributes, provider)
    elif record.kind == "tool":
        fields = tool_fields(span)
    else:
        if span.attributes and (model := models_of(span.attributes)[0]):
            record.fields = _given({"model": model, "provider": provider_of(span.attributes)})
        return
    record.fields = _given(fields | outcome_fields(span))
    record.tags = tags(pairs_of(span))


def _given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def identity_fields(record: SpanRecord) -> dict[str, object]:
    """Return the fields of an event that say which span it is."""
    return {
        "id": f"{record.trace}-{record.span}",
        "source": record.source,
        "time": _EPOCH + timedelta(microseconds=record.started_us),
        "trace": record.trace,
        "span": record.span,
        "parent_span": record.parent,
    }


def _rejected(code: str, detail: str, span: Span) -> EventRejected:
    return EventRejected(
        code,
        detail,
        event_id=span.event_id,
        source=source_of(span.resource),
        sample=sample_of(span),
    )


ANCESTORS_MAX: Final = 64
Tree = Mapping[SpanKey, SpanRecord]


def ancestors(span: SpanRecord, tree: Tree) -> Iterator[SpanRecord]:
    """Yield the spans around this one, nearest first."""
    seen = {span.key}
    current = span
    while current.parent is not None and len(seen) <= ANCESTORS_MAX:
        around = tree.get((current.trace, current.parent))
        if around is None or around.key in seen:
            return
        current = around
        seen.add(current.key)
        yield current
