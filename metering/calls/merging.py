"""Which calls a group of reports tells of, and what each call is. Pure: reports in, calls out.

Everything here is a function of the set of reports. The result does not depend on the order in
which they arrived, on how they were split, or on how often each was sent, because all of them are
sorted by one total order first: the report that is believed most, first.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from common.money import nanos_from_usd
from metering.calls.report import Report
from metering.models import Authority
from metering.pricing.model_names import canonical_provider, find_model
from metering.usage.decoders.native import TAGS_MAX, EventBody, TagValue
from metering.usage.shapes import Tokens
from metering.usage.shapes.completion import (
    Usage,
    do_outputs_agree,
    inputs_of,
    known_classes,
    most_complete,
)

# Servers that number their responses from zero again reuse an id later than this.
APART_MAX: Final = timedelta(hours=6)
# How much earlier a report with less usage must be to be a preliminary figure of the other.
TOGETHER: Final = timedelta(seconds=1)


Cost = str | int | float


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
    # Whether it costs at least what its usage does, whatever cost was given.
    has_floor: bool
    # Names of the model that other reports gave.
    other_models: tuple[tuple[str | None, str], ...]


def order_of(report: Report) -> tuple[int, int, datetime, str]:
    """The total order: the source, how many classes of usage it knows, time, key.

    A client's report that names a reservation comes first: what it counts as is what it holds.
    """
    settles = report.told.reservation is not None and report.authority <= Authority.CLIENT
    authority = -1 if settles else report.authority
    return (authority, -known_classes(report.tokens), report.at, report.key)


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


def _are_two_providers(one: Report, two: Report) -> bool:
    """The same id, given by two providers for what is not the same model of a reseller's."""
    shared = set(one.identities) & set(two.identities)
    providers = [canonical_provider(each.told.provider, each.told.model) for each in (one, two)]
    models = [[each.told.model] if each.told.model else [] for each in (one, two)]
    return (
        all(providers)
        and providers[0] != providers[1]
        and not _share_a_name(*models)
        and all(identity.startswith(("response ", "request ")) for identity in shared)
    )


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
    """Whether two reports name models that are known to be different ones.

    A name that the catalogue does not know may be an alias of the other.
    """
    names = [[name for name in (body.model, body.requested_model) if name] for body in (one, two)]
    known = [{model for name in each if (model := find_model(None, name))} for each in names]
    return all(known) and known[0].isdisjoint(known[1]) and not _share_a_name(*names)


def _share_a_name(one: Iterable[str], two: Iterable[str]) -> bool:
    return not {_bare(name) for name in one}.isdisjoint(_bare(name) for name in two)


# What stands around a model's name: a path or a reseller's prefix, a date, a version, a variant.
_AROUND: Final = re.compile(
    r"^.*/|^(?:[a-z][a-z-]*\.)+(?=[a-z])|:.*$|-v\d+$|[-@]20\d\d-?\d\d-?\d\d.*$|-latest$"
)


def _bare(name: str) -> str:
    """A model's name without what clients write around it."""
    bare, before = name.lower().strip(), ""
    while bare != before:
        bare, before = _AROUND.sub("", bare), bare
    return bare


def _is_other_usage(one: Report, two: Report) -> bool:
    """Whether one sender tells later of less usage, in input and in output, than it told before.

    Counts of an answer in the making grow. Two senders may see different parts of one call.
    """
    if _sender(one) != _sender(two) or not _has_usage(one) or not _has_usage(two):
        return False
    if inputs_of(one.tokens) & inputs_of(two.tokens) or do_outputs_agree(one.tokens, two.tokens):
        return False
    less, more = sorted((one, two), key=lambda report: report.tokens.output_tokens)
    if less.tokens.input_tokens > more.tokens.input_tokens:
        return True
    return less.at > more.at + TOGETHER


def _sender(report: Report) -> tuple[str | None, bool, int]:
    """Who sent a report; a client sends events and settles alike."""
    is_client = report.authority <= Authority.CLIENT
    return report.told.source, is_client, 0 if is_client else report.route


def _has_usage(report: Report) -> bool:
    return bool(report.tokens.input_tokens or report.tokens.output_tokens)


_CONTRADICTIONS: Final[tuple[tuple[str, Callable[[Report, Report], bool]], ...]] = (
    ("one is a tool call", _are_two_kinds),
    ("two reservations", _are_two_reservations),
    ("two responses", _are_two_responses),
    ("two events of a reservation", _are_two_events),
    ("far apart", _are_far_apart),
    ("two tools", _are_two_tools),
    ("two models", _are_two_models),
    ("two providers", _are_two_providers),
    ("other usage", _is_other_usage),
)


def merge(reports: Sequence[Report]) -> Merged:
    """What a call is by all its reports, which stand in the order of `order_of`."""
    first = reports[0]
    fields: dict[str, Any] = {name: getattr(first.told, name) for name in _FIRST_TOLD}
    for report in reports[1:]:
        for name in [name for name, value in fields.items() if value is None]:
            fields[name] = getattr(report.told, name)
    fields |= _place_in_trace(reports)
    fields["tags"] = _tags(reports)
    tokens, completeness = most_complete([Usage(one.tokens, one.completeness) for one in reports])
    fields["cost_usd"], has_floor = _given_cost(reports, tokens)
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
        has_floor=has_floor,
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
    *("time_to_first_token_ms", "max_output_tokens", "saved_usd", "task_type"),
    *("complexity", "output_hash", "prefix_hash", "reservation"),
)


def _given_cost(reports: Sequence[Report], tokens: Tokens) -> tuple[Cost | None, bool]:
    """The cost that was told, and whether the call costs at least what its usage does.

    Of those believed most the largest, which is the final one. A cost is of the usage beside it, so
    that of less usage than the call's does not count. A cost without any usage does, but no less
    is booked than a settle without a cost says that it used.
    """
    told = [one for one in reports if one.told.cost_usd is not None and _is_whole(one, tokens)]
    if not told:
        return None, False
    most = max(told[0].authority, Authority.CLIENT)
    believed = [one for one in told if one.authority <= most]
    best = max(believed, key=lambda one: nanos_from_usd(one.told.cost_usd or 0))
    settles = any(
        one.told.reservation is not None and one.told.cost_usd is None and _has_usage(one)
        for one in reports
    )
    is_its_own = best.told.reservation is not None or best.authority > Authority.CLIENT
    return best.told.cost_usd, settles and not (is_its_own and _has_usage(best))


def _is_whole(report: Report, tokens: Tokens) -> bool:
    """Whether a report tells as much usage as its call has, or leaves it to others."""
    mine = report.tokens
    agrees = bool(inputs_of(mine) & inputs_of(tokens)) and do_outputs_agree(mine, tokens)
    return agrees or not _has_usage(report)


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
