"""Which spans of one export are the same model call, so that it counts once.

A framework's span and the provider SDK's span inside it tell of one call, as parent and child or in
two traces. With a response id both are recognised wherever they arrive. Without one, only what is
safe is decided: a span around another that used exactly the same is its wrapper, and a span around
several that used exactly their sum has added them up. Calls below a tool or another agent are
calls of their own.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from metering.decoders.otlp.kinds import Kind
from metering.decoders.otlp.spans import Span
from metering.decoders.otlp.token_counts import Counted
from metering.usage_shapes import Tokens

ANCESTORS_MAX: Final = 64
_UNDER_MAX: Final = 64
_BOUNDARIES: Final = frozenset({"tool", "agent"})


class Call(msgspec.Struct, eq=False):
    """A span that says it is one model call. `used` is None when it names no tokens."""

    span: Span
    kind: Kind
    facts: dict[str, Any]
    pairs: dict[str, object]
    used: Counted | None

    @property
    def response_id(self) -> str | None:
        return self.facts.get("response_id")

    @property
    def provider(self) -> str | None:
        return self.facts.get("provider")


Tree = Mapping[tuple[str, str], tuple[Span, Kind]]


def ancestors(span: Span, tree: Tree) -> Iterable[tuple[Span, Kind]]:
    """The spans around this one that came in the same export, nearest first."""
    seen = {span.key}
    current = span
    while current.parent is not None and len(seen) <= ANCESTORS_MAX:
        found = tree.get((current.trace, current.parent))
        if found is None or found[0].key in seen:
            return
        current = found[0]
        seen.add(current.key)
        yield found


def distinct_calls(calls: list[Call], tree: Tree) -> list[Call]:
    """The calls that really happened, in their order: without wrappers and second reports."""
    kept = _without_wrappers(calls, tree)
    return _once_a_response([call for call in calls if call.span.key in kept])


def _without_wrappers(calls: list[Call], tree: Tree) -> set[tuple[str, str]]:
    by_key = {call.span.key: call for call in calls}
    outer = {key: _call_around(call, by_key, tree) for key, call in by_key.items()}
    waiting = dict.fromkeys(by_key, 0)
    for around in outer.values():
        if around is not None:
            waiting[around] += 1
    under: dict[tuple[str, str], list[Call]] = {key: [] for key in by_key}
    dropped: set[tuple[str, str]] = set()
    # Innermost first; spans that are each other's parents never come up, and stay.
    ready = [key for key, count in waiting.items() if count == 0]
    while ready:
        key = ready.pop()
        kept = _judge(by_key[key], under.pop(key), dropped)
        around = outer[key]
        if around is not None:
            under[around] = (under[around] + kept)[:_UNDER_MAX]
            waiting[around] -= 1
            if waiting[around] == 0:
                ready.append(around)
    return set(by_key) - dropped


def _call_around(
    call: Call, by_key: Mapping[tuple[str, str], Call], tree: Tree
) -> tuple[str, str] | None:
    for span, kind in ancestors(call.span, tree):
        if kind in _BOUNDARIES:
            return None
        if span.key in by_key:
            return span.key
    return None


def _judge(call: Call, under: list[Call], dropped: set[tuple[str, str]]) -> list[Call]:
    """Decide about a call whose inner ones are decided; answers what stands for it from now on."""
    if not under:
        return [call]
    if call.used is None:
        dropped.add(call.span.key)
        return under
    silent = [inner for inner in under if inner.used is None]
    dropped.update(inner.span.key for inner in silent)
    under = [inner for inner in under if inner.used is not None]
    same = next((inner for inner in under if _is_same(call, inner)), None)
    if same is not None and call.response_id and not same.response_id:
        dropped.add(same.span.key)
        return [call, *(inner for inner in under if inner is not same)]
    if same is not None and _tells_more(call, same):
        return [call, *under]  # both name the response: the one that tells more is kept later
    if same is not None or _is_sum(call, under) or _is_last_of(call, under):
        dropped.add(call.span.key)
        return under
    return [call, *under]


def _tells_more(outer: Call, inner: Call) -> bool:
    return outer.response_id is not None and outer.response_id == inner.response_id


def _is_same(outer: Call, inner: Call) -> bool:
    if outer.used is None or inner.used is None:
        return False
    mine, other = outer.used.tokens, inner.used.tokens
    if not mine.input_tokens + mine.output_tokens or not _may_be_one_model(outer, inner):
        return False
    return bool(_inputs(mine) & _inputs(other)) and bool(_outputs(mine) & _outputs(other))


def _inputs(tokens: Tokens) -> set[int]:
    """All input, and what one gets who leaves out the cache."""
    cached = tokens.cache_read_tokens + tokens.cache_write_tokens
    return {tokens.input_tokens, tokens.input_tokens - cached}


def _outputs(tokens: Tokens) -> set[int]:
    return {tokens.output_tokens, tokens.output_tokens - tokens.reasoning_tokens}


def _may_be_one_model(outer: Call, inner: Call) -> bool:
    """Names agree when one is the other with a date or a provider's prefix."""
    one, two = _names(outer), _names(inner)
    return not one or not two or any(a in b or b in a for a in one for b in two)


def _names(call: Call) -> list[str]:
    names = (call.facts.get("model"), call.facts.get("requested_model"))
    return [given for given in names if given]


def _is_sum(outer: Call, under: list[Call]) -> bool:
    if outer.used is None or len(under) < 2 or len(under) == _UNDER_MAX:
        return False
    used = [inner.used.tokens for inner in under if inner.used is not None]
    mine = outer.used.tokens
    return mine.input_tokens == sum(
        tokens.input_tokens for tokens in used
    ) and mine.output_tokens == sum(tokens.output_tokens for tokens in used)


def _is_last_of(outer: Call, under: list[Call]) -> bool:
    """Frameworks name a sum of calls by the response of the last."""
    return outer.response_id is not None and any(
        inner.response_id == outer.response_id for inner in under
    )


def _once_a_response(calls: list[Call]) -> list[Call]:
    """One call for each response, told by the span with most detail and completed by the others."""
    kept: dict[int, Call] = {}
    place: dict[tuple[object, ...], int] = {}
    for index, call in enumerate(calls):
        known = [place[key] for key in _marks(call) if key in place]
        at = known[0] if known else index
        for key in _marks(call):
            place.setdefault(key, at)
        kept[at] = _merged(kept[at], call) if at in kept else call
    return list(kept.values())


def _marks(call: Call) -> list[tuple[object, ...]]:
    """By which a second report is known: the provider may be spelt as that of a gateway."""
    if call.response_id is None:
        return []
    marks: list[tuple[object, ...]] = [(call.response_id, call.provider)]
    if call.used is not None:
        tokens = call.used.tokens
        marks.append((call.response_id, tokens.input_tokens, tokens.output_tokens))
    return marks


def _merged(one: Call, two: Call) -> Call:
    first, second = (two, one) if _detail(two) > _detail(one) else (one, two)
    for key, value in second.facts.items():
        if first.facts.get(key) is None:
            first.facts[key] = value
    first.pairs = second.pairs | first.pairs
    return first


def _detail(call: Call) -> int:
    return -1 if call.used is None else call.used.details
