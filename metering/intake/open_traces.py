"""Traces that may still grow: their spans, and the calls that all of them together tell of.

Spans come in the order of their ends, often one export each, from several processes, repeated.
Each is kept until an hour after it was received, and whenever a trace grows its calls are found
again among all its spans (`decoders.otlp.calls_of_spans`), so that what a parent knows reaches its
children whichever came first. What changed becomes reports like any other: new, changed, or
withdrawn where a span turned out to be the wrapper of another.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
from django.db import connection
from django.db.backends.utils import CursorWrapper

from common.errors import EventRejected
from common.queries import Row
from metering.usage.decoders.otlp import SpanCall, SpanRecord, calls_of_spans, may_be_one
from metering.usage.event_keys import key_of_id
from metering.usage.shapes import Tokens

TRACES_LOCK: Final = 7305
# A trace beyond that many spans grows no more: further spans are judged with those of their export.
TRACE_SPANS_MAX: Final = 2_000
# Traces that may tell of the same calls as the ones in an export.
PARTNERS_MAX: Final = 512
# Spans of a tenant that are kept; beyond that, the oldest are dropped.
TENANT_SPANS_MAX: Final = 1_000_000

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(SpanRecord).decode
SpanKey = tuple[str, str]


class Traced(NamedTuple):
    """What spans changed: calls that are new or told otherwise, and reports that are none."""

    calls: list[SpanCall]
    withdrawn: list[str]


class _Kept(NamedTuple):
    """A span as it is stored."""

    span: SpanRecord
    text: str | None
    call_fingerprint: str | None


def take_spans(tenant_id: int, spans: Iterable[SpanRecord], *, now: datetime) -> Traced:
    """Add spans to their traces; return what that changes. Holds the tenant's lock on traces."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [TRACES_LOCK, tenant_id])
    arrived = {span.key: span for span in sorted(spans, key=_finality)}
    kept = _load_traces(tenant_id, {trace for trace, _ in arrived})
    fresh = [span for key, span in arrived.items() if _is_news(span, kept.get(key))]
    if not fresh:
        return Traced([], [])
    grown = _full(kept)
    stored = [span for span in fresh if span.trace not in grown]
    known = kept | {span.key: _Kept(span, _text(span), _fingerprint(kept, span)) for span in fresh}
    touched = {trace for trace, _ in known}
    partners = _partners(tenant_id, known)
    known |= partners
    calls = calls_of_spans(each.span for each in known.values())
    # Of partners that are not all known nothing is decided again.
    is_cut = len({trace for trace, _ in partners}) >= PARTNERS_MAX
    judged = touched if is_cut else {trace for trace, _ in known}
    changed = [
        (call, print_) for call, print_ in _changed(calls, known) if call.span.trace in judged
    ]
    standing = {call.span.key for call in calls}
    gone = [
        each
        for key, each in known.items()
        if each.call_fingerprint is not None and key not in standing and key[0] in judged
    ]
    _write(tenant_id, stored, known, changed, gone, now)
    return Traced(
        [call for call, _ in changed],
        [key_of_id(each.span.source, f"{each.span.trace}-{each.span.span}") for each in gone],
    )


def _finality(span: SpanRecord) -> tuple[int, int, bytes]:
    """Of two reports of one span the one with more usage is final, else the later one; equal ones
    are told apart by content.
    """
    used = span.used.tokens if span.used is not None else Tokens()
    return used.input_tokens + used.output_tokens, span.ended_us, _encode(span)


def _is_news(span: SpanRecord, known: _Kept | None) -> bool:
    return known is None or _finality(known.span) < _finality(span)


def _full(kept: Mapping[SpanKey, _Kept]) -> set[str]:
    sizes: dict[str, int] = {}
    for trace, _ in kept:
        sizes[trace] = sizes.get(trace, 0) + 1
    return {trace for trace, size in sizes.items() if size >= TRACE_SPANS_MAX}


def _text(span: SpanRecord) -> str | None:
    return _encode(span).decode() if span.is_worth_keeping else None


def _fingerprint(kept: Mapping[SpanKey, _Kept], span: SpanRecord) -> str | None:
    known = kept.get(span.key)
    return known.call_fingerprint if known is not None else None


_COLUMNS: Final = (
    "trace, span, parent, started_us, ended_us, told, replace(call_fingerprint::text, '-', '')"
)


def _load_traces(tenant_id: int, traces: Collection[str]) -> dict[SpanKey, _Kept]:
    if not traces:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM trace_span WHERE tenant_id = %s AND trace = ANY(%s)",
            [tenant_id, list(traces)],
        )
        return {(row[0], row[1]): _kept(row) for row in cursor.fetchall()}


def _kept(row: Row) -> _Kept:
    trace, span, parent, started_us, ended_us, text, call_fingerprint = row
    told = (
        SpanRecord(trace, span, parent, started_us=started_us, ended_us=ended_us)
        if text is None
        else _decode(text)
    )
    return _Kept(told, text, call_fingerprint)


def _partners(tenant_id: int, known: Mapping[SpanKey, _Kept]) -> dict[SpanKey, _Kept]:
    """Return the traces of the same processes with calls that may be the same as calls of these
    traces.
    """
    partners: dict[SpanKey, _Kept] = {}
    asking = [kept.span for kept in known.values() if kept.span.is_call]
    seen = {trace for trace, _ in known}
    while asking and len(seen) < PARTNERS_MAX:
        traces = _traces_beside(tenant_id, asking, seen)
        if not traces:
            break
        seen |= traces
        loaded = _load_traces(tenant_id, traces)
        partners |= loaded
        asking = [kept.span for kept in loaded.values() if kept.span.is_call]
    return partners


def _traces_beside(
    tenant_id: int, calls: Collection[SpanRecord], seen: Collection[str]
) -> set[str]:
    by_process: dict[str, list[SpanRecord]] = {}
    for call in calls:
        for key in _partner_keys(call):
            by_process.setdefault(key, []).append(call)
    traces: set[str] = set()
    with connection.cursor() as cursor:
        for key, mine in sorted(by_process.items()):
            cursor.execute(
                # "+ 0": by the index of the process, not by that of all the tenant's spans.
                "SELECT told FROM trace_span WHERE tenant_id + 0 = %s AND match_key = %s"
                " AND ended_us >= %s AND started_us <= %s AND trace <> ALL(%s)",
                [
                    tenant_id,
                    key,
                    min(call.started_us for call in mine),
                    max(call.ended_us for call in mine),
                    list(seen),
                ],
            )
            others = [_decode(text) for (text,) in cursor.fetchall()]
            traces |= {
                other.trace for other in others if any(may_be_one(other, call) for call in mine)
            }
    return set(sorted(traces)[: PARTNERS_MAX - len(seen)])


def _match_key(call: SpanRecord) -> str:
    """Return where a call's partners look for it: by its process, and whether it names its
    response.
    """
    return call.process if call.fields.get("response_id") else _nameless(call)


def _partner_keys(call: SpanRecord) -> list[str]:
    """Return where a call looks for partners, of which at most one names the response."""
    is_named = call.fields.get("response_id") is not None
    return [_nameless(call)] if is_named else [call.process, _nameless(call)]


def _nameless(call: SpanRecord) -> str:
    return blake2b(f"nameless {call.process}".encode(), digest_size=16).hexdigest()


def _changed(
    calls: Iterable[SpanCall], known: Mapping[SpanKey, _Kept]
) -> list[tuple[SpanCall, str]]:
    """Return the calls that are not yet reported as they are now, with their fingerprints."""
    told = [(call, fingerprint_of_call(call)) for call in calls]
    return [
        (call, fingerprint)
        for call, fingerprint in told
        if known[call.span.key].call_fingerprint != fingerprint
    ]


def fingerprint_of_call(call: SpanCall) -> str:
    """Return a hash of what a call is reported to be."""
    body = call.body
    told: list[object] = (
        [body.code, body.detail] if isinstance(body, EventRejected) else [body, call.tokens]
    )
    return blake2b(_encode(told), digest_size=16).hexdigest()


_PUT: Final = """
    INSERT INTO trace_span (tenant_id, trace, span, parent, received_at, started_us, ended_us,
        match_key, told, call_fingerprint)
    SELECT %s, trace, span, parent, %s, started_us, ended_us, match_key, told, call_fingerprint
    FROM json_populate_recordset(NULL::trace_span, %s::json)
    ON CONFLICT (tenant_id, trace, span) DO UPDATE SET parent = excluded.parent,
        received_at = excluded.received_at, started_us = excluded.started_us,
        ended_us = excluded.ended_us, match_key = excluded.match_key, told = excluded.told,
        call_fingerprint = excluded.call_fingerprint
"""
_MARK: Final = """
    UPDATE trace_span s SET call_fingerprint = n.call_fingerprint
    FROM json_populate_recordset(NULL::trace_span, %s::json) n
    WHERE s.tenant_id = %s AND s.trace = n.trace AND s.span = n.span
"""


def _write(
    tenant_id: int,
    stored: Sequence[SpanRecord],
    known: Mapping[SpanKey, _Kept],
    changed: Iterable[tuple[SpanCall, str]],
    gone: Iterable[_Kept],
    now: datetime,
) -> None:
    marks: dict[SpanKey, str | None] = {kept.span.key: None for kept in gone}
    marks |= {call.span.key: fingerprint for call, fingerprint in changed}
    rows = [
        {
            "trace": span.trace,
            "span": span.span,
            "parent": span.parent,
            "started_us": span.started_us,
            "ended_us": span.ended_us,
            "match_key": _match_key(span) if span.is_call else None,
            "told": known[span.key].text,
            "call_fingerprint": marks.pop(span.key, known[span.key].call_fingerprint),
        }
        for span in sorted(stored, key=lambda span: span.key)
    ]
    marked = [
        {"trace": trace, "span": span, "call_fingerprint": fingerprint}
        for (trace, span), fingerprint in sorted(marks.items())
    ]
    with connection.cursor() as cursor:
        if rows:
            cursor.execute(_PUT, [tenant_id, now, _encode(rows).decode()])
        if marked:
            cursor.execute(_MARK, [_encode(marked).decode(), tenant_id])


_FORGET: Final = """
    DELETE FROM trace_span s USING (
        SELECT o.tenant_id, o.trace, o.span FROM trace_span o WHERE o.received_at < %s
        AND NOT EXISTS (SELECT FROM trace_span n WHERE n.tenant_id = o.tenant_id
            AND n.trace = o.trace AND n.received_at >= %s)
        ORDER BY o.received_at LIMIT %s
    ) o WHERE s.tenant_id = o.tenant_id AND s.trace = o.trace AND s.span = o.span
"""
_FORGET_BEYOND: Final = """
    DELETE FROM trace_span s USING (
        SELECT o.trace, o.span FROM trace_span o WHERE o.tenant_id = %s
        ORDER BY o.received_at LIMIT %s
    ) o WHERE s.tenant_id = %s AND s.trace = o.trace AND s.span = o.span
"""


def forget_spans(cursor: CursorWrapper, *, before: datetime, limit: int) -> int:
    """Drop up to `limit` spans of traces that have not grown since then; return their number."""
    cursor.execute(_FORGET, [before, before, limit])
    return int(cursor.rowcount)


def forget_spans_beyond(cursor: CursorWrapper, *, limit: int) -> int:
    """Drop up to `limit` of the oldest spans of tenants that have too many; return their number."""
    cursor.execute(
        "SELECT tenant_id, count(*) FROM trace_span GROUP BY tenant_id HAVING count(*) > %s",
        [TENANT_SPANS_MAX],
    )
    dropped = 0
    for tenant_id, count in cursor.fetchall():
        excess = min(limit, count - TENANT_SPANS_MAX)
        cursor.execute(_FORGET_BEYOND, [tenant_id, excess, tenant_id])
        dropped += int(cursor.rowcount)
    return dropped
