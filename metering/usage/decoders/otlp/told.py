"""What a span tells, kept small: enough to find its call again when the rest of its trace comes."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from common.errors import EventRejected
from metering.usage.decoders.assembly import digest, tags
from metering.usage.decoders.native import PassedOver, TagValue
from metering.usage.decoders.otlp.facts import (
    call_facts,
    dimensions_of,
    dimensions_of_resource,
    given_cost,
    models_of,
    pairs_of,
    provider_of,
    sample_of,
    source_of,
    span_facts,
    tool_facts,
)
from metering.usage.decoders.otlp.kinds import Kind, kind_of
from metering.usage.decoders.otlp.spans import SPAN_LENGTH, TRACE_LENGTH, Span, is_id
from metering.usage.decoders.otlp.token_counts import Counted, count_tokens

MODEL_KINDS: Final = frozenset({"llm", "embedding"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

SpanKey = tuple[str, str]


class ToldSpan(msgspec.Struct, omit_defaults=True, gc=False):
    """A span as it is kept. Times are microseconds since 1970.

    `facts` are fields of the event that the span would be, `dims` and `process_dims` what it and
    its process say of whose call it is. `process` is a hash of the process that made the span.
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
    facts: dict[str, Any] = {}
    dims: dict[str, str] = {}
    process_dims: dict[str, str] = {}
    tags: dict[str, TagValue] | None = None
    used: Counted | None = None

    @property
    def key(self) -> SpanKey:
        return self.trace, self.span

    @property
    def is_call(self) -> bool:
        """Whether it tells of a model call."""
        return self.kind in MODEL_KINDS

    @property
    def has_failed(self) -> bool:
        return self.facts.get("status") in ("error", "cancelled")

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it tells anything but who its parent is."""
        return self.kind != "around" or bool(self.dims or self.facts.get("model"))


class Export(msgspec.Struct):
    """What an export request holds: spans, those that cannot be read, and what is none of ours."""

    spans: list[ToldSpan]
    rejected: list[EventRejected]
    passed_over: list[PassedOver]


def read_export(items: Sequence[Span | EventRejected], *, trusts_given_costs: bool) -> Export:
    """What each span of an export tells by itself."""
    export = Export([], [], [])
    passed: dict[str, int] = {}
    for item in items:
        told = item if isinstance(item, EventRejected) else _tell(item, trusts_given_costs)
        if isinstance(told, EventRejected):
            export.rejected.append(told)
            continue
        export.spans.append(told)
        if not told.is_worth_keeping:
            passed[told.source] = passed.get(told.source, 0) + 1
    export.passed_over = [
        PassedOver(source, "not_a_call", count) for source, count in sorted(passed.items())
    ]
    return export


def _tell(span: Span, trusts_given_costs: bool) -> ToldSpan | EventRejected:
    if not is_id(span.trace, TRACE_LENGTH) or not is_id(span.span, SPAN_LENGTH):
        detail = "A span's ids are not 16 and 8 bytes that are not all zero."
        return EventRejected(
            "invalid_value", detail, source=source_of(span.resource), sample=sample_of(span)
        )
    kind = kind_of(span.attributes, span.name)
    if kind == "unknown":
        word = str(span.attributes.get("gen_ai.operation.name"))[:100]
        detail = f"The operation {word!r} uses tokens, and nobody knows whether it is one call."
        return _rejected("unknown_operation", detail, span)
    told = ToldSpan(
        trace=span.trace,
        span=span.span,
        parent=span.parent,
        kind=kind,
        scope=span.scope,
        source=source_of(span.resource),
        process=digest(repr(sorted(span.resource.items(), key=str)))[:32],
        started_us=(span.started_nanos or span.ended_nanos) // 1000,
        ended_us=max(span.ended_nanos, span.started_nanos) // 1000,
        dims=_dimensions(span, kind),
        process_dims=_storable(dimensions_of_resource(span.resource)),
    )
    try:
        _add_facts(told, span, trusts_given_costs)
    except ValueError as error:
        return _rejected("invalid_value", f"{error}.", span)
    return told


def _dimensions(span: Span, kind: Kind) -> dict[str, str]:
    """What the span itself names. A call with a name that cannot be stored is rejected alone; that
    of a span around calls loses nothing but itself.
    """
    dims = dimensions_of(span, kind) if span.attributes else {}
    return dims if kind in MODEL_KINDS or kind == "tool" else _storable(dims)


def _storable(dims: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in dims.items() if "\x00" not in value}


def _add_facts(told: ToldSpan, span: Span, trusts_given_costs: bool) -> None:
    if told.is_call:
        facts = call_facts(span) | {"operation": told.kind}
        if trusts_given_costs:
            facts["cost_usd"] = given_cost(span.attributes)
        provider = facts["provider"]
        assert provider is None or isinstance(provider, str)
        told.used = count_tokens(span.attributes, provider)
    elif told.kind == "tool":
        facts = tool_facts(span)
    else:
        if span.attributes and (model := models_of(span.attributes)[0]):
            told.facts = _given({"model": model, "provider": provider_of(span.attributes)})
        return
    told.facts = _given(facts | _how_it_went(span))
    told.tags = tags(pairs_of(span))


def _how_it_went(span: Span) -> dict[str, object]:
    facts = span_facts(span)
    return {name: facts.get(name) for name in ("latency_ms", "status", "error_type")}


def _given(facts: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if value is not None}


def place_facts(told: ToldSpan) -> dict[str, object]:
    """The fields of an event that say which span it is."""
    return {
        "id": f"{told.trace}-{told.span}",
        "source": told.source,
        "time": _EPOCH + timedelta(microseconds=told.started_us),
        "trace": told.trace,
        "span": told.span,
        "parent_span": told.parent,
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
Tree = Mapping[SpanKey, ToldSpan]


def ancestors(span: ToldSpan, tree: Tree) -> Iterator[ToldSpan]:
    """The spans around this one, nearest first."""
    seen = {span.key}
    current = span
    while current.parent is not None and len(seen) <= ANCESTORS_MAX:
        found = tree.get((current.trace, current.parent))
        if found is None or found.key in seen:
            return
        current = found
        seen.add(current.key)
        yield current
