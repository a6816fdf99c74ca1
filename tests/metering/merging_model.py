"""What calls must become of whatever reports of them: a model that shares no code with the service.

A call is all reports that share an identity, directly or through others. It has the dimensions that
the most believed report names, and the most complete usage. It knows no database and no clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

# From the most believed on. `usage`: with the provider's own usage object; `flat`: without.
USAGE, FLAT, CALLBACK, SPAN_USAGE, SPAN = range(5)
CLIENTS: Final = (USAGE, FLAT)
DIMENSIONS: Final = ("team", "agent", "session", "customer", "feature", "user")
RESERVED: Final = ("team", "agent", "session", "customer")
MODEL: Final = "claude-sonnet-4-5"


class Usage(NamedTuple):
    """Input holds what was read from the cache and written to it."""

    input: int
    output: int
    cache_read: int
    cache_write: int


class Rates(NamedTuple):
    """Nano-dollars a token."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    def cost_nanos(self, usage: Usage) -> int:
        fresh = usage.input - usage.cache_read - usage.cache_write
        return (
            fresh * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
        )


@dataclass(frozen=True)
class Report:
    """What one report says of a call, and by which names it knows the call."""

    call: int
    number: int
    authority: int
    names: frozenset[str]
    dimensions: frozenset[str]
    is_settle: bool = False
    tells_cache: bool = False
    is_preliminary: bool = False
    is_dated: bool = False

    @property
    def has_response(self) -> bool:
        return "response" in self.names

    @property
    def has_reservation(self) -> bool:
        return "reservation" in self.names

    def identities(self) -> set[tuple[str, int]]:
        return {(name, self.call) for name in self.names} | {("own", self.call * 100 + self.number)}


@dataclass(frozen=True)
class CallFacts:
    """What is true of a call, whoever tells of it."""

    usage: Usage
    reserved: frozenset[str] | None
    reports: tuple[Report, ...]

    def value(self, name: str, report: Report) -> str:
        """What a report calls a dimension. Reports that are believed alike say the same."""
        who: object = report.authority
        if report.authority in CLIENTS and self.reserved is not None:
            who = "client"
        return f"{name}-{report.call}-{who}"

    def used(self, report: Report) -> Usage:
        """The usage as a report tells it."""
        usage = self.usage
        if report.is_preliminary:
            usage = usage._replace(output=1)
        return usage if report.tells_cache else usage._replace(cache_read=0, cache_write=0)


@dataclass
class Expected:
    """A call as it must be stored."""

    dimensions: dict[str, str]
    usage: Usage
    is_settled: bool

    def key(self, rates: Rates) -> tuple[Any, ...]:
        values = tuple(self.dimensions[name] for name in DIMENSIONS)
        return (*values, *self.usage, rates.cost_nanos(self.usage), self.is_settled)


def expected_calls(calls: Sequence[CallFacts]) -> list[Expected]:
    """All calls, and all parts of calls that nothing shows to be one."""
    return [_merged(call, part) for call in calls for part in parts_of(call.reports)]


def parts_of(reports: Iterable[Report]) -> list[list[Report]]:
    """The reports that hang together by shared identities."""
    parts: list[tuple[set[tuple[str, int]], list[Report]]] = []
    for report in reports:
        names, members = report.identities(), [report]
        apart = []
        for known, others in parts:
            if known & names:
                names, members = known | names, [*others, *members]
            else:
                apart.append((known, others))
        parts = [*apart, (names, members)]
    return [members for _, members in parts]


def _merged(fields: CallFacts, reports: Sequence[Report]) -> Expected:
    told = [fields.used(report) for report in reports]
    settling = [report for report in reports if report.has_reservation]
    values: dict[str, str] = dict.fromkeys(DIMENSIONS, "")
    # A reservation is told by the report that names it, where that report names nothing itself.
    for report in sorted(reports, key=lambda report: -report.authority):
        names = fields.reserved or () if report.has_reservation else ()
        values |= {name: fields.value(name, report) for name in names}
        values |= {name: fields.value(name, report) for name in report.dimensions}
    return Expected(
        values,
        Usage(*(max(usage[part] for usage in told) for part in range(len(Usage._fields)))),
        bool(settling),
    )


# Random calls.

_names = st.sets(st.sampled_from(["response", "request", "span"]))
_some_dimensions = st.frozensets(st.sampled_from(DIMENSIONS))


@st.composite
def calls(draw: st.DrawFn) -> list[CallFacts]:
    """One to three calls, each told by one to five reports."""
    return [_call(draw, number) for number in range(draw(st.integers(1, 3)))]


def _call(draw: st.DrawFn, number: int) -> CallFacts:
    reserved = draw(st.none() | st.frozensets(st.sampled_from(RESERVED)))
    read, written = draw(st.sampled_from([(0, 0), (500, 0), (0, 300), (500, 300)]))
    # No two calls use alike, so that nothing takes one for another.
    usage = Usage(1000 + 7 * number, draw(st.integers(20, 400)), read, written)
    ways = draw(st.lists(st.sampled_from(list(_WAYS)), min_size=1, max_size=5))
    reports: list[Report] = []
    for index, way in enumerate(ways):
        # One settle, one span and one callback of a call, at most.
        if way in {"settle", "span", "callback"} & set(ways[:index]):
            continue
        if way == "settle" and reserved is None:
            continue
        reports.append(_WAYS[way](draw, number, len(reports), reserved is not None))
    if not reports:
        reports.append(_event(draw, number, 0, False))
    return CallFacts(usage, reserved, tuple(reports))


def _settle(draw: st.DrawFn, call: int, number: int, _: bool) -> Report:
    authority = draw(st.sampled_from(CLIENTS))
    names = frozenset(draw(_names)) | {"reservation"}
    return Report(
        call,
        number,
        authority,
        names,
        draw(_some_dimensions),
        is_settle=True,
        tells_cache=authority == USAGE or draw(st.booleans()),
        is_dated=draw(st.booleans()),
    )


def _event(draw: st.DrawFn, call: int, number: int, may_settle: bool) -> Report:
    authority = draw(st.sampled_from(CLIENTS))
    names = frozenset(draw(_names))
    if may_settle and draw(st.booleans()):
        names |= {"reservation"}
    return Report(
        call,
        number,
        authority,
        names,
        draw(_some_dimensions),
        tells_cache=authority == USAGE or draw(st.booleans()),
        is_preliminary=draw(st.booleans()),
        is_dated=draw(st.booleans()),
    )


def _span(draw: st.DrawFn, call: int, number: int, _: bool) -> Report:
    return Report(
        call,
        number,
        SPAN,
        frozenset(draw(st.sets(st.just("response")))) | {"span"},
        draw(_some_dimensions),
        tells_cache=draw(st.booleans()),
        is_preliminary=draw(st.booleans()),
        is_dated=draw(st.booleans()),
    )


def _callback(draw: st.DrawFn, call: int, number: int, _: bool) -> Report:
    names = frozenset({"response"})
    return Report(call, number, CALLBACK, names, draw(_some_dimensions), tells_cache=True)


_WAYS: Final = {"settle": _settle, "event": _event, "span": _span, "callback": _callback}
