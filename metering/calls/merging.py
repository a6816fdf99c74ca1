"""Which calls a group of reports is about, and what each call is. Pure: reports in, calls out.

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
from metering.usage.columns import TOKEN_COUNTS
from metering.usage.decoders.native import EVENT_FIELDS, TAGS_MAX, EventBody, TagValue
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
    """Return the total order: authority, number of known classes of usage, time, key.

    A client's report that names a reservation comes first: what it counts as is what it holds.
    """
    settles = report.body.reservation is not None and report.authority <= Authority.CLIENT
    authority = -1 if settles else report.authority
    return (authority, -known_classes(report.tokens), report.at, report.key)


def calls_of(reports: Iterable[Report]) -> list[Call]:
    """Return the calls that a group of reports is about.

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
            any(_is_linked(report, other) for other in clusters[:position] for report in cluster),
        )
        for position, cluster in enumerate(clusters)
    ]


def _is_linked(report: Report, cluster: Iterable[Report]) -> bool:
    mine = report.identities
    return any(identity in other.identities for other in cluster for identity in mine)


def _fits(report: Report, cluster: Iterable[Report]) -> bool:
    return all(contradiction(report, other) is None for other in cluster)


def contradiction(left: Report, right: Report) -> str | None:
    """Return why two reports cannot be about the same call; None if they can."""
    return next((reason for reason, holds in _CONTRADICTIONS.items() if holds(left, right)), None)


def _are_two_events(left: Report, right: Report) -> bool:
    """Events that one client sent under one reservation, with nothing else in common: a client has
    no reason to send one call twice under two ids.
    """
    if left.body.reservation is None or right.body.reservation is None:
        return False
    is_one_sender = (left.route, left.body.source) == (right.route, right.body.source)
    shared = set(left.identities) & set(right.identities)
    return is_one_sender and all(identity.startswith("reservation ") for identity in shared)


def _are_two_providers(left: Report, right: Report) -> bool:
    """Return whether two providers gave the same id for different models (not a reseller's)."""
    shared = set(left.identities) & set(right.identities)
    providers = [canonical_provider(each.body.provider, each.body.model) for each in (left, right)]
    models = [[each.body.model] if each.body.model else [] for each in (left, right)]
    return (
        all(providers)
        and providers[0] != providers[1]
        and not _share_a_name(*models)
        and all(identity.startswith(("response ", "request ")) for identity in shared)
    )


def _differ(left: str | None, right: str | None) -> bool:
    return left is not None and right is not None and left.lower() != right.lower()


def _are_other_names(left: str | None, right: str | None) -> bool:
    if not left or not right:
        return False
    left, right = left.lower(), right.lower()
    return left not in right and right not in left


def _are_other_models(left: EventBody, right: EventBody) -> bool:
    """Return whether two reports name models that are known to be different.

    A name that the catalogue does not know may be an alias of the other.
    """
    names = [
        [name for name in (body.model, body.requested_model) if name] for body in (left, right)
    ]
    known = [{model for name in each if (model := find_model(None, name))} for each in names]
    return all(known) and known[0].isdisjoint(known[1]) and not _share_a_name(*names)


def _share_a_name(left: Iterable[str], right: Iterable[str]) -> bool:
    return not {_bare(name) for name in left}.isdisjoint(_bare(name) for name in right)


# What stands around a model's name: a path or a reseller's prefix, a date, a version, a variant.
_AROUND: Final = re.compile(
    r"^.*/|^(?:[a-z][a-z-]*\.)+(?=[a-z])|:.*$|-v\d+$|[-@]20\d\d-?\d\d-?\d\d.*$|-latest$"
)


def _bare(name: str) -> str:
    """Return a model's name without what clients write around it."""
    bare, before = name.lower().strip(), ""
    while bare != before:
        bare, before = _AROUND.sub("", bare), bare
    return bare


def _is_other_usage(left: Report, right: Report) -> bool:
    """Return whether one sender later reports less usage, in input and in output, than before.

    Counts of an unfinished answer grow. Two senders may see different parts of one call.
    """
    if _sender(left) != _sender(right) or not _has_usage(left) or not _has_usage(right):
        return False
    if inputs_of(left.tokens) & inputs_of(right.tokens) or do_outputs_agree(
        left.tokens, right.tokens
    ):
        return False
    less, more = sorted((left, right), key=lambda report: report.tokens.output_tokens)
    if less.tokens.input_tokens > more.tokens.input_tokens:
        return True
    return less.at > more.at + TOGETHER


def _sender(report: Report) -> tuple[str | None, bool, int]:
    """Return who sent a report; a client sends both events and settles."""
    is_client = report.authority <= Authority.CLIENT
    return report.body.source, is_client, 0 if is_client else report.route


def _has_usage(report: Report) -> bool:
    return bool(report.tokens.input_tokens or report.tokens.output_tokens)


_CONTRADICTIONS: Final[dict[str, Callable[[Report, Report], bool]]] = {
    "one is a tool call": lambda left, right: left.is_tool != right.is_tool,
    "two reservations": lambda left, right: _differ(left.body.reservation, right.body.reservation),
    # Their providers may be spelled differently, so the ids are compared.
    "two responses": lambda left, right: (
        None not in (left.response_key, right.response_key)
        and _differ(left.body.response_id, right.body.response_id)
    ),
    "two events of a reservation": _are_two_events,
    "far apart": lambda left, right: abs(left.at - right.at) > APART_MAX,
    "two tools": lambda left, right: (
        left.is_tool and _are_other_names(left.body.tool, right.body.tool)
    ),
    "two models": lambda left, right: not left.is_tool and _are_other_models(left.body, right.body),
    "two providers": _are_two_providers,
    "other usage": _is_other_usage,
}


def merge(reports: Sequence[Report]) -> Merged:
    """Return what a call is by all its reports, which stand in the order of `order_of`."""
    first = reports[0]
    fields: dict[str, Any] = {name: getattr(first.body, name) for name in _FIRST_KNOWN}
    for report in reports[1:]:
        for name in [name for name, value in fields.items() if value is None]:
            fields[name] = getattr(report.body, name)
    fields |= _place_in_trace(reports)
    fields["tags"] = _tags(reports)
    tokens, completeness = most_complete(
        [Usage(report.tokens, report.completeness) for report in reports]
    )
    fields["cost_usd"], has_floor = _given_cost(reports, tokens)
    timed = [report for report in reports if report.body.time is not None]
    at = timed[0].at if timed else min(report.at for report in reports)
    fields["time"] = at if timed else None
    fields["source"] = first.body.source
    if tokens.input_tokens or tokens.output_tokens:
        # So that the call is known to be a model's; what counts is `tokens`.
        fields |= {"input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens}
    return Merged(
        body=EventBody(id=first.body.id, **fields),
        at=at,
        tokens=tokens,
        completeness=completeness,
        first=first,
        has_floor=has_floor,
        other_models=tuple(
            dict.fromkeys(
                (report.body.provider, report.body.model)
                for report in reports
                if report.body.model and report.body.model != fields["model"]
            )
        ),
    )


# Fields taken from the first report that has them; the others are merged in ways of their own.
_FIRST_KNOWN: Final = frozenset(EVENT_FIELDS).difference(
    ("id", "source", "time", "trace", "span", "parent_span", "tags", "cost_usd", "usage"),
    TOKEN_COUNTS,
    ("is_estimate", "is_usage_missing"),
)


def _given_cost(reports: Sequence[Report], tokens: Tokens) -> tuple[Cost | None, bool]:
    """Return the given cost, and whether the call costs at least what its usage does.

    Of those believed most the largest, which is the final one. A cost is of the usage beside it, so
    that of less usage than the call's does not count. A cost without any usage does, but no less
    is booked than a settle without a cost says that it used.
    """
    priced = [
        report
        for report in reports
        if report.body.cost_usd is not None and _has_usage_of_call(report, tokens)
    ]
    if not priced:
        return None, False
    most = max(priced[0].authority, Authority.CLIENT)
    believed = [report for report in priced if report.authority <= most]
    best = max(believed, key=lambda report: nanos_from_usd(report.body.cost_usd or 0))
    settles = any(
        report.body.reservation is not None and report.body.cost_usd is None and _has_usage(report)
        for report in reports
    )
    is_its_own = best.body.reservation is not None or best.authority > Authority.CLIENT
    return best.body.cost_usd, settles and not (is_its_own and _has_usage(best))


def _has_usage_of_call(report: Report, tokens: Tokens) -> bool:
    """Return whether a report has as much usage as its call, or leaves it to other reports."""
    mine = report.tokens
    agrees = bool(inputs_of(mine) & inputs_of(tokens)) and do_outputs_agree(mine, tokens)
    return agrees or not _has_usage(report)


def _place_in_trace(reports: Sequence[Report]) -> dict[str, str | None]:
    """Return trace, span and parent of one report: a mixture of two would lead nowhere."""
    traced = [report.body for report in reports if report.body.trace]
    placed = next((body for body in traced if body.span), traced[0] if traced else None)
    if placed is None:
        return {"trace": None, "span": None, "parent_span": None}
    return {"trace": placed.trace, "span": placed.span, "parent_span": placed.parent_span}


def _tags(reports: Sequence[Report]) -> dict[str, TagValue] | None:
    tags: dict[str, TagValue] = {}
    for report in reports:
        for key, value in sorted((report.body.tags or {}).items()):
            if key not in tags and len(tags) < TAGS_MAX:
                tags[key] = value
    return tags or None
