"""Which calls the spans of traces tell of. Pure, and a function of the set of spans.

A framework's span and the provider SDK's span inside it tell of one call, as parent and child,
side by side, or in two traces of one process. Spans are one call if they name the same response;
if one is around the other and used exactly the same; or if one lies within the other's time, they
come from two instrumentations of one process and agree in model and counts, and one of them names
no response. A span around several that used exactly their sum has added them up. Calls below a
tool or another agent are calls of their own.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from common.errors import EventRejected
from common.json_bodies import JsonObject
from metering.core.disjoint_sets import DisjointSets
from metering.usage.decoders.assembly import assemble
from metering.usage.decoders.native import EventBody
from metering.usage.decoders.otlp.span_records import (
    SpanKey,
    SpanRecord,
    Tree,
    ancestors,
    identity_fields,
)
from metering.usage.decoders.otlp.token_counts import Counted
from metering.usage.shapes import Tokens
from metering.usage.shapes.completion import (
    Usage,
    do_outputs_agree,
    inputs_of,
    known_classes,
    most_complete,
)

_UNDER_MAX: Final = 64
# Later calls that look alike which a call is compared with.
_OVERLAPPING_MAX: Final = 256
_BOUNDARIES: Final = frozenset({"tool", "agent"})
# `Completeness` in words of this pure module.
_COMPLETE: Final = 1
_ESTIMATE: Final = 2
_MISSING: Final = 3


class SpanCall(NamedTuple):
    """A call, the span that stands for it, and what it used; or why it is no event."""

    span: SpanRecord
    body: EventBody | EventRejected
    tokens: Tokens | None


def calls_of_spans(spans: Iterable[SpanRecord]) -> list[SpanCall]:
    """Return the calls that really happened, of models and of tools, by time."""
    ordered = sorted(spans, key=lambda span: (span.started_us, -span.ended_us, span.key))
    tree = {span.key: span for span in ordered}
    calls = [span for span in ordered if span.is_call]
    groups = _Groups(calls)
    dropped = _join_nested(calls, tree, groups)
    kept = [call for call in calls if call.key not in dropped]
    _join_by_response(kept, groups)
    _join_across(kept, groups, tree)
    model_and_tool_calls = [_model_call(group, tree) for group in groups.of(kept)]
    model_and_tool_calls += [
        _tool_call(span, tree) for span in ordered if _is_outer_tool(span, tree)
    ]
    return sorted(model_and_tool_calls, key=lambda call: (call.span.started_us, call.span.key))


class _Groups:
    """Spans of one call."""

    def __init__(self, calls: Iterable[SpanRecord]) -> None:
        self._sets = DisjointSets(call.key for call in calls)

    def root(self, call: SpanRecord) -> SpanKey:
        return self._sets.root(call.key)

    def join(self, first: SpanRecord, second: SpanRecord) -> None:
        self._sets.join(first.key, second.key)

    def of(self, calls: Iterable[SpanRecord]) -> list[list[SpanRecord]]:
        """Return the groups, each in the order of its spans."""
        by_key = {call.key: call for call in calls}
        return [[by_key[key] for key in keys] for keys in self._sets.groups(by_key)]


# Around one another


def _join_nested(calls: Sequence[SpanRecord], tree: Tree, groups: _Groups) -> set[SpanKey]:
    """Join wrappers with the call inside them; return the spans that are no call of their own."""
    by_key = {call.key: call for call in calls}
    outer = {call.key: _call_around(call, by_key, tree) for call in calls}
    waiting = dict.fromkeys(by_key, 0)
    for around in outer.values():
        if around is not None:
            waiting[around] += 1
    under: dict[SpanKey, list[SpanRecord]] = {key: [] for key in by_key}
    dropped: set[SpanKey] = set()
    # Innermost first; spans that are each other's parents never come up, and stay.
    ready = [key for key, count in waiting.items() if count == 0]
    while ready:
        key = ready.pop()
        inner = sorted(under.pop(key), key=lambda call: (call.started_us, call.key))
        stand_in = _judge(by_key[key], inner, dropped, groups)
        around = outer[key]
        if around is not None:
            under[around] = (under[around] + stand_in)[:_UNDER_MAX]
            waiting[around] -= 1
            if waiting[around] == 0:
                ready.append(around)
    return dropped


def _call_around(call: SpanRecord, by_key: dict[SpanKey, SpanRecord], tree: Tree) -> SpanKey | None:
    for span in ancestors(call, tree):
        if span.kind in _BOUNDARIES:
            return None
        if span.key in by_key:
            return span.key
    return None


def _judge(
    call: SpanRecord, under: list[SpanRecord], dropped: set[SpanKey], groups: _Groups
) -> list[SpanRecord]:
    """Decide about a call whose inner ones are decided; return what stands for it from now on."""
    if not under:
        return [call]
    telling = [inner for inner in under if inner.used is not None]
    if call.used is None or not telling:
        # One of them says what was used, or none does: a call and what wraps it.
        if len(under) == 1:
            groups.join(call, under[0])
            return [under[0] if call.used is None else call]
        silent = [call] if call.used is None else under
        dropped.update(span.key for span in silent)
        return under if call.used is None else [call]
    dropped.update(inner.key for inner in under if inner.used is None)
    same = next((inner for inner in telling if _is_same(call, inner)), None)
    if same is not None:
        groups.join(call, same)
        return telling
    if _is_sum(call, telling) or _is_last_of(call, telling):
        dropped.add(call.key)
        return telling
    return [call, *telling]


def _is_same(outer: SpanRecord, inner: SpanRecord) -> bool:
    if outer.used is None or inner.used is None:
        return False
    mine, other = outer.used.tokens, inner.used.tokens
    if not mine.input_tokens + mine.output_tokens or not _may_be_one_model(outer, inner):
        return False
    return bool(_inputs(outer.used) & _inputs(inner.used)) and do_outputs_agree(mine, other)


def _inputs(used: Counted) -> set[int]:
    beside = used.beside[0]
    return {count - less for count in inputs_of(used.tokens) for less in (0, beside)}


def _may_be_one_model(first: SpanRecord, second: SpanRecord) -> bool:
    """Names agree when one is the other with a date or a provider's prefix."""
    mine, others = _names(first), _names(second)
    return not mine or not others or any(a in b or b in a for a in mine for b in others)


def _names(call: SpanRecord) -> list[str]:
    names = (call.fields.get("model"), call.fields.get("requested_model"))
    return [given.lower() for given in names if given]


def _is_sum(outer: SpanRecord, under: list[SpanRecord]) -> bool:
    if outer.used is None or len(under) < 2 or len(under) == _UNDER_MAX:
        return False
    used = [inner.used.tokens for inner in under if inner.used is not None]
    mine = outer.used.tokens
    return mine.input_tokens == sum(
        tokens.input_tokens for tokens in used
    ) and mine.output_tokens == sum(tokens.output_tokens for tokens in used)


def _is_last_of(outer: SpanRecord, under: list[SpanRecord]) -> bool:
    """Frameworks name a sum of calls by the response of the last."""
    response_id = outer.fields.get("response_id")
    used = [inner.used.tokens for inner in under if inner.used is not None]
    return (
        len(under) > 1
        and response_id is not None
        and outer.used is not None
        and (
            outer.used.tokens.input_tokens <= sum(tokens.input_tokens for tokens in used)
            or outer.used.tokens.output_tokens <= sum(tokens.output_tokens for tokens in used)
        )
        and any(inner.fields.get("response_id") == response_id for inner in under)
    )


# By what they name


def _join_by_response(calls: Sequence[SpanRecord], groups: _Groups) -> None:
    """The provider may be spelled as that of a gateway, so equal counts stand for it."""
    first: dict[tuple[object, ...], SpanRecord] = {}
    for call in calls:
        for mark in _marks(call):
            groups.join(call, first.setdefault(mark, call))


def _marks(call: SpanRecord) -> list[tuple[object, ...]]:
    response_id = call.fields.get("response_id")
    if response_id is None:
        return []
    marks: list[tuple[object, ...]] = [(response_id, call.fields.get("provider"))]
    if call.used is not None:
        tokens = call.used.tokens
        marks.append((response_id, tokens.input_tokens, tokens.output_tokens))
    return marks


# By time and counts


def may_be_one(first: SpanRecord, second: SpanRecord) -> bool:
    """Return whether two spans may be of one call although neither is around the other."""
    is_named = [call.fields.get("response_id") is not None for call in (first, second)]
    return (
        first.process == second.process
        and first.scope != second.scope
        and first.kind == second.kind
        and not all(is_named)
        and not any(
            first.dims[name] != second.dims[name] for name in first.dims.keys() & second.dims.keys()
        )
        and _may_be_one_model(first, second)
        and (_contains(first, second) or _contains(second, first))
        and (
            _is_same(first, second)
            or all(call.has_failed and not call.used for call in (first, second))
        )
    )


def _contains(outer: SpanRecord, inner: SpanRecord) -> bool:
    return outer.started_us <= inner.started_us and inner.ended_us <= outer.ended_us


def _join_across(calls: Sequence[SpanRecord], groups: _Groups, tree: Tree) -> None:
    """Join calls that two instrumentations report, the closest in time first, each once."""
    pairs = [
        (_slack(first, second), first.key, second.key, first, second)
        for alike in _alike(calls)
        for index, first in enumerate(alike)
        for second in _overlapping(alike, index)
        if may_be_one(first, second)
        and groups.root(first) != groups.root(second)
        and not _is_around(first, second, tree)
    ]
    _join_pairs(sorted(pairs, key=lambda pair: pair[:3]), groups)


def _alike(calls: Sequence[SpanRecord]) -> list[list[SpanRecord]]:
    """Calls of one process that can agree in their output, in order of their begin.

    Outputs agree with or without reasoning and but for a miscount, so a call stands in several.
    """
    alike: dict[tuple[object, ...], list[SpanRecord]] = {}
    for call in calls:
        outputs: set[int] = {-1} if call.used is None else set()
        if call.used is not None:
            tokens = call.used.tokens
            outputs = {tokens.output_tokens, tokens.output_tokens - tokens.reasoning_tokens}
            outputs |= {output + 1 for output in outputs}
        for output in outputs:
            alike.setdefault((call.process, call.kind, output), []).append(call)
    return list(alike.values())


def _overlapping(calls: Sequence[SpanRecord], index: int) -> Iterable[SpanRecord]:
    """Yield the next calls, in order of their begin, that begin before this one ends."""
    ended_us = calls[index].ended_us
    for later in range(index + 1, min(len(calls), index + 1 + _OVERLAPPING_MAX)):
        if calls[later].started_us > ended_us:
            return
        yield calls[later]


def _is_around(first: SpanRecord, second: SpanRecord, tree: Tree) -> bool:
    """Return whether one is an ancestor of the other, which is judged elsewhere."""
    return any(
        span.key == other.key
        for call, other in ((first, second), (second, first))
        for span in ancestors(call, tree)
    )


def _slack(first: SpanRecord, second: SpanRecord) -> int:
    return abs(first.started_us - second.started_us) + abs(first.ended_us - second.ended_us)


_Pair = tuple[int, SpanKey, SpanKey, SpanRecord, SpanRecord]


def _join_pairs(pairs: Iterable[_Pair], groups: _Groups) -> None:
    """Join pairs, but never two spans of one instrumentation: it reports each call once."""
    scopes: dict[SpanKey, set[str]] = {}
    for *_, first, second in pairs:
        roots = [groups.root(call) for call in (first, second)]
        mine = [
            scopes.get(root, {call.scope})
            for root, call in zip(roots, (first, second), strict=True)
        ]
        if roots[0] == roots[1] or mine[0] & mine[1]:
            continue
        groups.join(first, second)
        scopes[groups.root(second)] = mine[0] | mine[1]


# What a call is


def _model_call(group: list[SpanRecord], tree: Tree) -> SpanCall:
    """One call out of all its spans: what the most telling one says first."""
    spans = sorted(group, key=lambda span: _telling(span, group, tree))
    first = spans[0]
    fields: JsonObject = {}
    for span in spans:
        for name, value in span.fields.items():
            fields.setdefault(name, value)
    fields |= _answering_model(fields.get("model"), spans)
    fields |= _whose(spans, tree)
    fields |= identity_fields(first)
    fields |= _model_around(fields, spans, tree)
    fields["tags"] = next((span.tags for span in spans if span.tags), None)
    tokens, completeness = most_complete([_usage_of(span) for span in spans])
    if completeness != _MISSING:
        fields |= _counted(spans, tokens)
    fields["is_usage_missing"] = True if completeness == _MISSING else None
    fields["is_estimate"] = True if completeness == _ESTIMATE else None
    return SpanCall(first, assemble(fields), tokens)


def _answering_model(model: str | None, spans: Sequence[SpanRecord]) -> dict[str, str]:
    """Return the model that answered, if the first span names the one that was asked for."""
    for span in spans:
        answering = span.fields.get("model")
        if model and answering and span.fields.get("requested_model") == model:
            return {"model": answering, "requested_model": model}
    return {}


def _counted(spans: Sequence[SpanRecord], tokens: Tokens) -> JsonObject:
    """Return the fields of an event that tell these tokens, with the provider's object if there is
    one.
    """
    objects = [span.used for span in spans if span.used is not None and span.used.usage is not None]
    if not objects:
        return Counted(tokens, None).fields()
    searches = {"web_searches": tokens.web_searches} if tokens.web_searches else {}
    return objects[0].fields() | searches


def _telling(span: SpanRecord, group: Sequence[SpanRecord], tree: Tree) -> tuple[object, ...]:
    """Return the order of a call's spans: the provider's usage object, innermost, most classes,
    time.
    """
    inside = {other.key for other in group}
    depth = sum(1 for around in ancestors(span, tree) if around.key in inside)
    used = span.used
    return (
        used is None,
        used is None or used.usage is None,
        -depth,
        -known_classes(used.tokens) if used else 0,
        span.started_us,
        span.key,
    )


def _usage_of(span: SpanRecord) -> Usage:
    if span.used is None or (span.used.tokens == Tokens() and not span.has_failed):
        return Usage(Tokens(), _COMPLETE if span.has_failed else _MISSING)
    is_estimate = bool(span.fields.get("is_estimate"))
    return Usage(span.used.tokens, _ESTIMATE if is_estimate else _COMPLETE)


def _whose(spans: Sequence[SpanRecord], tree: Tree) -> dict[str, str]:
    """Return dimensions of the call's spans, then of those around them, then of their processes."""
    dims: dict[str, str] = {}
    for values in (
        *(span.dims for span in spans),
        *(around.dims for span in spans for around in ancestors(span, tree)),
        *(span.process_dims for span in spans),
    ):
        for name, value in values.items():
            dims.setdefault(name, value)
    return dims


def _model_around(fields: JsonObject, spans: Sequence[SpanRecord], tree: Tree) -> JsonObject:
    """Return the model of the span around, for usage that stands apart from it."""
    if fields.get("model"):
        return {}
    for span in spans:
        for around in ancestors(span, tree):
            if model := around.fields.get("model"):
                provider = fields.get("provider") or around.fields.get("provider")
                return {"model": model, "provider": provider}
    return {}


def _is_outer_tool(span: SpanRecord, tree: Tree) -> bool:
    """Return whether this is a tool call and not a second span about the one around it."""
    if span.kind != "tool":
        return False
    for around in ancestors(span, tree):
        if around.kind == "tool":
            return not _is_one_tool(around, span)
        if around.kind != "around":
            return True
    return True


def _is_one_tool(outer: SpanRecord, inner: SpanRecord) -> bool:
    """Return whether names are of one tool: an agent may put the server's name before it."""
    names = [str(span.fields.get("tool", "")).lower() for span in (outer, inner)]
    return names[0] == names[1] or names[0].endswith(
        (f"__{names[1]}", f".{names[1]}", f"/{names[1]}")
    )


def _tool_call(span: SpanRecord, tree: Tree) -> SpanCall:
    fields = span.fields | _whose([span], tree) | identity_fields(span)
    return SpanCall(span, assemble(fields | {"tags": span.tags}), None)
