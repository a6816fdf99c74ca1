"""Which calls a group of reports tells of, and what each call is. Pure: reports in, calls out.

Everything here is a function of the set of reports. The result does not depend on the order in
which they arrived, on how they were split, or on how often each was sent, because all of them are
sorted by one total order first: the report that is believed most, first.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from metering.calls.report import Report
from metering.decoders.native import TAGS_MAX, EventBody, TagValue
from metering.model_names import find_model
from metering.models import Completeness
from metering.usage_shapes import Tokens, check_tokens

# Reports of one response that are further apart are of two calls of a server that counts anew.
APART_MAX: Final = timedelta(hours=6)
# How much earlier a report with less usage must be to be a preliminary figure of the other.
TOGETHER: Final = timedelta(seconds=1)
# Instrumentations that count a stream themselves are off by one.
MISCOUNT_MAX: Final = 1
_CLASSES: Final = (
    *("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens"),
    *("input_audio_tokens", "output_audio_tokens", "web_searches"),
)


class Call(NamedTuple):
    """Reports of one call, the most believed first. `is_conflict`: it shares an identity with a
    call that it contradicts.
    """

    reports: tuple[Report, ...]
    is_conflict: bool


class Merged(NamedTuple):
    """What a call is by all its reports."""

    body: EventBody
    at: datetime
    tokens: Tokens
    completeness: int
    # The report that is believed most.
    first: Report
    # Names of the model that other reports gave.
    other_models: tuple[tuple[str | None, str], ...]


def order_of(report: Report) -> tuple[int, int, datetime, str]:
    """The total order: the source, how many classes of usage it knows, time, key."""
    return (report.authority, -_known_classes(report.tokens), report.at, report.key)


def calls_of(reports: Iterable[Report]) -> list[Call]:
    """The calls that a group of reports tells of.

    A report belongs to a call if it shares an identity with one of the call's reports and
    contradicts none of them.
    """
    clusters: list[list[Report]] = []
    for report in sorted(reports, key=order_of):
        linked = [cluster for cluster in clusters if _is_linked(report, cluster)]
        home: list[Report] | None = None
        for cluster in linked:
            if home is None and _fits(report, cluster):
                cluster.append(report)
                home = cluster
            elif home is not None and all(_fits(other, home) for other in cluster):
                home += cluster
                cluster.clear()
        if home is None:
            clusters.append([report])
        clusters = [cluster for cluster in clusters if cluster]
    clusters = sorted(
        (sorted(cluster, key=order_of) for cluster in clusters),
        key=lambda cluster: order_of(cluster[0]),
    )
    return [
        Call(
            tuple(cluster),
            any(_are_linked(cluster, earlier) for earlier in clusters[:place]),
        )
        for place, cluster in enumerate(clusters)
    ]


def _is_linked(report: Report, cluster: Iterable[Report]) -> bool:
    mine = report.identities
    return any(identity in other.identities for other in cluster for identity in mine)


def _are_linked(cluster: Iterable[Report], other: Sequence[Report]) -> bool:
    return any(_is_linked(report, other) for report in cluster)


def _fits(report: Report, cluster: Iterable[Report]) -> bool:
    return all(contradiction(report, other) is None for other in cluster)


def contradiction(one: Report, two: Report) -> str | None:
    """Why two reports cannot tell of the same call; None if they can."""
    return next((reason for reason, holds in _CONTRADICTIONS if holds(one, two)), None)


def _are_two_kinds(one: Report, two: Report) -> bool:
    return one.is_tool != two.is_tool


def _are_two_reservations(one: Report, two: Report) -> bool:
    return _differ(one.told.reservation, two.told.reservation)


def _are_two_responses(one: Report, two: Report) -> bool:
    """Different responses. Their providers may be spelled differently, so the ids are compared."""
    have_ids = one.response_key is not None and two.response_key is not None
    return have_ids and _differ(one.told.response_id, two.told.response_id)


def _are_two_events(one: Report, two: Report) -> bool:
    """Events that one client sent under one reservation, with nothing else in common: a client has
    no reason to send one call twice under two ids.
    """
    if one.told.reservation is None or two.told.reservation is None:
        return False
    is_one_sender = (one.route, one.told.source) == (two.route, two.told.source)
    shared = set(one.identities) & set(two.identities)
    return is_one_sender and all(identity.startswith("reservation ") for identity in shared)


def _are_far_apart(one: Report, two: Report) -> bool:
    return abs(one.at - two.at) > APART_MAX


def _are_two_tools(one: Report, two: Report) -> bool:
    return one.is_tool and _are_other_names(one.told.tool, two.told.tool)


def _are_two_models(one: Report, two: Report) -> bool:
    return not one.is_tool and _are_other_models(one.told, two.told)


def _differ(one: str | None, two: str | None) -> bool:
    return one is not None and two is not None and one.lower() != two.lower()


def _are_other_names(one: str | None, two: str | None) -> bool:
    if not one or not two:
        return False
    one, two = one.lower(), two.lower()
    return one not in two and two not in one


def _are_other_models(one: EventBody, two: EventBody) -> bool:
    """Whether two reports name models that are known and have nothing to do with each other.

    A name that the catalogue does not know may be an alias of the other.
    """
    names = [_model_names(body) for body in (one, two)]
    if not names[0] or not names[1]:
        return False
    if any(not _are_other_names(a, b) for a in names[0] for b in names[1]):
        return False
    families = [{_family(name) for name in each if find_model(None, name)} for each in names]
    return bool(families[0] and families[1]) and families[0].isdisjoint(families[1])


def _model_names(body: EventBody) -> list[str]:
    return [name for name in (body.model, body.requested_model) if name]


def _family(name: str) -> str:
    """A model's name without path, date and version: `claude-sonnet`, `gpt-mini`, `gemini-pro`."""
    bare = re.sub(r"^.*[/.:](?=[a-z])", "", name.lower())
    words = re.split(r"[-_@:. ]+", bare)
    return "-".join(
        word for word in words if word and not re.fullmatch(r"v?[\d]+[\da-z]*|latest", word)
    )


def _is_other_usage(one: Report, two: Report) -> bool:
    """Whether neither input nor output agree and the later report does not go beyond the earlier.

    Counts of an answer in the making grow, and a source that is blind to the cache, the reasoning
    or a part of the input agrees in the other figure.
    """
    if not _has_usage(one) or not _has_usage(two):
        return False
    if _inputs(one.tokens) & _inputs(two.tokens) or _do_outputs_agree(one.tokens, two.tokens):
        return False
    less, more = sorted((one, two), key=lambda report: report.tokens.output_tokens)
    if less.tokens.input_tokens > more.tokens.input_tokens:
        return True
    return less.at > more.at + TOGETHER


def _has_usage(report: Report) -> bool:
    return bool(report.tokens.input_tokens or report.tokens.output_tokens)


def _inputs(tokens: Tokens) -> set[int]:
    """All input, and what a source tells that leaves out the cache, or the reads alone."""
    read, write = tokens.cache_read_tokens, tokens.cache_write_tokens
    whole = tokens.input_tokens
    return {whole, whole - read - write, whole - read, whole - write}


def _do_outputs_agree(one: Tokens, two: Tokens) -> bool:
    outputs = [
        (tokens.output_tokens, tokens.output_tokens - tokens.reasoning_tokens)
        for tokens in (one, two)
    ]
    return any(abs(a - b) <= MISCOUNT_MAX for a in outputs[0] for b in outputs[1])


_CONTRADICTIONS: Final[tuple[tuple[str, Callable[[Report, Report], bool]], ...]] = (
    ("one is a tool call", _are_two_kinds),
    ("two reservations", _are_two_reservations),
    ("two responses", _are_two_responses),
    ("two events of a reservation", _are_two_events),
    ("far apart", _are_far_apart),
    ("two tools", _are_two_tools),
    ("two models", _are_two_models),
    ("other usage", _is_other_usage),
)


def merge(reports: Sequence[Report]) -> Merged:
    """What a call is by all its reports, which stand in the order of `order_of`."""
    first = reports[0]
    fields: dict[str, Any] = {}
    for name in _FIRST_TOLD:
        fields[name] = next(
            (value for one in reports if (value := getattr(one.told, name)) not in (None, "")), None
        )
    fields |= _place_in_trace(reports)
    fields["tags"] = _tags(reports)
    tokens, completeness = _usage(reports)
    told = [one for one in reports if one.told.time is not None]
    at = told[0].at if told else min(one.at for one in reports)
    fields["time"] = at if told else None
    fields["source"] = first.told.source
    if tokens.input_tokens or tokens.output_tokens:
        # So that the call is known to be a model's; what counts is `tokens`.
        fields |= {"input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens}
    return Merged(
        body=EventBody(id=first.told.id, **fields),
        at=at,
        tokens=tokens,
        completeness=completeness,
        first=first,
        other_models=tuple(
            dict.fromkeys(
                (one.told.provider, one.told.model)
                for one in reports
                if one.told.model and one.told.model != fields["model"]
            )
        ),
    )


_FIRST_TOLD: Final = (
    *("provider", "model", "requested_model", "team", "customer", "agent", "user", "feature"),
    *("session", "task", "step", "operation", "tool", "tool_arguments_hash", "response_id"),
    *("request_id", "service_tier", "status", "error_type", "latency_ms"),
    *("time_to_first_token_ms", "max_output_tokens", "cost_usd", "saved_usd", "task_type"),
    *("complexity", "output_hash", "prefix_hash", "reservation"),
)


def _place_in_trace(reports: Sequence[Report]) -> dict[str, str | None]:
    """Trace, span and parent of one report: mixed from two they would lead nowhere."""
    told = [one.told for one in reports if one.told.trace]
    placed = next((body for body in told if body.span), told[0] if told else None)
    if placed is None:
        return {"trace": None, "span": None, "parent_span": None}
    return {"trace": placed.trace, "span": placed.span, "parent_span": placed.parent_span}


def _tags(reports: Sequence[Report]) -> dict[str, TagValue] | None:
    tags: dict[str, TagValue] = {}
    for report in reports:
        for key, value in sorted((report.told.tags or {}).items()):
            if key not in tags and len(tags) < TAGS_MAX:
                tags[key] = value
    return tags or None


def _known_classes(tokens: Tokens) -> int:
    return sum(1 for name in _CLASSES if getattr(tokens, name)) + (1 if tokens.extra else 0)


def _usage(reports: Sequence[Report]) -> tuple[Tokens, int]:
    """The most complete usage that is consistent, and how complete it is.

    Input is the most that any report knows; output is the final figure, which is the largest (a
    difference of one is a miscount: the report believed more is right). Each class of tokens is
    taken from the first report that saw it, as long as it fits into its whole.
    """
    telling = [one for one in reports if _has_usage(one)]
    if not telling:
        used = next((one for one in reports if one.tokens != Tokens()), None)
        levels = [one.completeness for one in reports]
        # A call that failed, or came out of a cache, used nothing: that is known.
        return (used.tokens if used else Tokens()), min(levels)
    whole = max(one.tokens.input_tokens for one in telling)
    base = next(one for one in telling if one.tokens.input_tokens == whole)
    output = max(one.tokens.output_tokens for one in telling)
    if output - base.tokens.output_tokens <= MISCOUNT_MAX:
        output = base.tokens.output_tokens
    final = [one for one in telling if one.tokens.output_tokens == output]
    tokens = msgspec.structs.replace(
        base.tokens, output_tokens=output, web_searches=_most(telling, "web_searches")
    )
    for names in (
        ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
        ("reasoning_tokens",),
        ("input_audio_tokens",),
        ("output_audio_tokens",),
        ("extra",),
    ):
        tokens = _completed(tokens, telling, names)
    return tokens, min(one.completeness for one in final)


def _completed(tokens: Tokens, reports: Sequence[Report], names: tuple[str, ...]) -> Tokens:
    """These classes as told by the report that knows most of them, if they fit."""
    best = max(
        reports,
        key=lambda one: sum(1 for name in names if getattr(one.tokens, name)),
    )
    for one in (best, *reports):
        known = {name: getattr(one.tokens, name) for name in names}
        if any(known.values()):
            completed = msgspec.structs.replace(tokens, **known)
            if check_tokens(completed) is None:
                return completed
    return tokens


def _most(reports: Sequence[Report], name: str) -> int:
    return max(int(getattr(one.tokens, name)) for one in reports)


assert Completeness.COMPLETE < Completeness.ESTIMATE < Completeness.MISSING
