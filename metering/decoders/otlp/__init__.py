"""OpenTelemetry traces as usage events: the spans of model calls and tools, in every dialect.

Spans of other things are passed over. A call's identity is its trace and span; its response id,
when the span names it, lets the same call be recognised from any other report.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from metering.decoders.assembly import assemble, tags
from metering.decoders.native import Decoded
from metering.decoders.otlp.calls import Call, Tree, ancestors, distinct_calls
from metering.decoders.otlp.facts import (
    call_facts,
    dimensions_of,
    dimensions_of_resource,
    given_cost,
    pairs_of,
    span_facts,
    tool_facts,
)
from metering.decoders.otlp.json_mapping import read_json
from metering.decoders.otlp.kinds import Kind, kind_of
from metering.decoders.otlp.protobuf import read_protobuf
from metering.decoders.otlp.spans import SPAN_LENGTH, TRACE_LENGTH, Span, is_id
from metering.decoders.otlp.token_counts import count_tokens
from metering.errors import EventRejected

__all__ = ["decode_otlp_json", "decode_otlp_protobuf", "encode_otlp_response"]

_MODEL_KINDS: Final = frozenset({"llm", "embedding"})


def decode_otlp_protobuf(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """The events in an export request (`application/x-protobuf`)."""
    return _decode(read_protobuf(body), trusts_given_costs)


def decode_otlp_json(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """The events in an export request (`application/json`)."""
    return _decode(read_json(body), trusts_given_costs)


def encode_otlp_response(content_type: str, rejected_spans: int, message: str) -> bytes:
    """The answer to an export, in the encoding of the request; full success has no message."""
    if "protobuf" in content_type.lower():
        response = ExportTraceServiceResponse()
        if rejected_spans or message:
            response.partial_success.rejected_spans = rejected_spans
            response.partial_success.error_message = message
        return bytes(response.SerializeToString())
    if not rejected_spans and not message:
        return b"{}"
    # 64-bit integers are strings in protobuf's JSON.
    partial = {"rejectedSpans": str(rejected_spans), "errorMessage": message}
    return msgspec.json.encode({"partialSuccess": partial})


def _decode(items: Iterable[Span | EventRejected], trusts_given_costs: bool) -> list[Decoded]:
    results: list[Decoded] = []
    tree: dict[tuple[str, str], tuple[Span, Kind]] = {}
    for item in items:
        if isinstance(item, EventRejected):
            results.append(item)
            continue
        kind = kind_of(item.attributes)
        if kind not in ("around", "agent") and (refusal := _refusal(item, kind)):
            results.append(refusal)
        else:
            tree.setdefault(item.key, (item, kind))
    calls: list[Call] = []
    for span, kind in tree.values():
        if kind in _MODEL_KINDS:
            try:
                calls.append(_call(span, kind, trusts_given_costs))
            except ValueError as error:
                results.append(_rejected("invalid_value", f"{error}.", span))
    results += [
        _tool(span, tree) for span, kind in tree.values() if _is_outer_tool(span, kind, tree)
    ]
    results += [_event(call, tree) for call in distinct_calls(calls, tree)]
    return results


def _refusal(span: Span, kind: Kind) -> EventRejected | None:
    if not is_id(span.trace, TRACE_LENGTH) or not is_id(span.span, SPAN_LENGTH):
        detail = "A span's ids are not 16 and 8 bytes that are not all zero."
        return EventRejected("invalid_value", detail)
    if kind == "unknown":
        word = str(span.attributes.get("gen_ai.operation.name"))[:100]
        detail = f"The operation {word!r} uses tokens, and nobody knows whether it is one call."
        return _rejected("unknown_operation", detail, span)
    return None


def _call(span: Span, kind: Kind, trusts_given_costs: bool) -> Call:
    facts = call_facts(span)
    facts["operation"] = kind
    if trusts_given_costs:
        facts["cost_usd"] = given_cost(span.attributes)
    facts |= dimensions_of(span, kind)
    provider = facts["provider"]
    assert provider is None or isinstance(provider, str)
    return Call(span, kind, facts, pairs_of(span), count_tokens(span.attributes, provider))


def _event(call: Call, tree: Tree) -> Decoded:
    facts = call.facts | span_facts(call.span) | _inherited(call.span, call.facts, tree)
    facts["tags"] = tags(call.pairs)
    if call.used is not None:
        return assemble(facts | call.used.facts())
    if facts.get("status") in ("error", "cancelled"):
        return assemble(facts | {"input_tokens": 0, "output_tokens": 0})
    detail = "The span is a model call that names no tokens; have its instrumentation report usage."
    return _rejected("missing_usage", detail, call.span)


def _tool(span: Span, tree: Tree) -> Decoded:
    facts = tool_facts(span) | span_facts(span)
    facts |= dimensions_of(span, "tool")
    facts |= _inherited(span, facts, tree)
    facts["tags"] = tags(pairs_of(span))
    return assemble(facts)


def _is_outer_tool(span: Span, kind: Kind, tree: Tree) -> bool:
    """Whether this is a tool call and not a second span about the one around it."""
    if kind != "tool":
        return False
    around = next(iter(ancestors(span, tree)), None)
    if around is None or around[1] != "tool":
        return True
    return tool_facts(around[0])["tool"] != tool_facts(span)["tool"]


def _inherited(span: Span, own: dict[str, object], tree: Tree) -> dict[str, object]:
    """Dimensions of the spans around this one, and of the process, where it names none itself.

    Only what came in the same export is known, which is all that is safe to rely on.
    """
    found: dict[str, object] = {}
    for around, kind in ancestors(span, tree):
        for dimension, value in dimensions_of(around, kind).items():
            found.setdefault(dimension, value)
    for dimension, value in dimensions_of_resource(span.resource).items():
        found.setdefault(dimension, value)
    return {key: value for key, value in found.items() if own.get(key) is None}


def _rejected(code: str, detail: str, span: Span) -> EventRejected:
    return EventRejected(code, detail, event_id=span.event_id)
