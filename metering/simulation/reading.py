"""Stored calls as a replay needs them, in order, a piece at a time: only the columns that it looks
at.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Final, NamedTuple

from common.queries import Row, Rows
from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE
from metering.core.event_stretches import Position, read_stretches
from metering.core.match import POSITION, Values, wanted_values
from metering.core.periods import EPOCH, GRAIN_SECONDS, QUANTUM_SECONDS
from metering.limits.breakers.rules import BreakerRule
from metering.models import Operation, Status
from metering.reporting.conditions import Condition, event_value, on_events
from metering.simulation.calls import Call, Cheaper, Earlier
from metering.snapshot import Configuration
from metering.usage.columns import TOKEN_COUNTS, tokens_of
from metering.usage.shapes import Tokens

# What one transaction reads.
CHUNK_EVENTS: Final = 10_000
# What a breaker must have seen before it judges: its minute, and for a day what is usual.
MINUTE: Final = timedelta(seconds=61)
USUAL: Final = timedelta(days=1)
# How a call ended is not known when it is asked for.
STATUS: Final = "status"
ASKED_STATUS: Final = Status.SUCCESS.label
# A time as a number is read twice as fast.
MICROSECONDS: Final = "(extract(epoch FROM time) * 1000000)::bigint"
TOOL: Final = Operation.TOOL.value
ERROR: Final = Status.ERROR.value
# What a cheaper model's route is chosen by, beside the tokens that it is priced by.
ROUTE_COLUMNS: Final = ("service_tier", "task_type", "complexity")
ROUTED_DIMENSIONS: Final = frozenset({"model", "provider", "operation", "tool"})


class Stretch(NamedTuple):
    """A tenant's calls of a stretch of time, its end excluded, that match."""

    tenant_id: int
    starts_at: datetime
    ends_at: datetime
    match: Mapping[str, object]
    dimensions: Collection[str]
    # Whether a cheaper model may be asked for.
    is_routed: bool = False

    def where(self) -> Condition:
        """Return the stretch as SQL. A match on how calls ended is left to the replay."""
        match = on_events(
            {
                name: tuple(sorted(wanted_values(value)))
                for name, value in self.match.items()
                if name != STATUS
            }
        )
        return Condition(
            "tenant_id = %s AND time >= %s AND time < %s AND NOT is_void AND " + match.sql,
            [self.tenant_id, self.starts_at, self.ends_at, *match.parameters],
        )

    def names(self) -> list[str]:
        """Return the dimensions to read; of the others no one looks at the values."""
        wanted = {*self.match, *self.dimensions, *(ROUTED_DIMENSIONS if self.is_routed else ())}
        return [name for name in MATCHABLE if name in wanted and name != STATUS]


def _values_getter(names: list[str]) -> Callable[[Row], Values]:
    """Return what makes the values in the order of MATCHABLE of those of these dimensions."""
    positions = {name: index for index, name in enumerate([*names, "", STATUS])}
    get = itemgetter(*[positions.get(name, positions[""]) for name in MATCHABLE])
    return lambda read: get((*read, "", ASKED_STATUS))


def read_calls(
    stretch: Stretch, *, assumed_nanos: Callable[[Tokens], int | None], check: Callable[[], None]
) -> Iterator[Call]:
    """Read the calls in order of time and id. `check` is called between chunks, and may raise."""
    priced_by = (*TOKEN_COUNTS, *ROUTE_COLUMNS) if stretch.is_routed else ()
    names = stretch.names()
    columns = "".join([f", {column}" for column in (*map(event_value, names), *priced_by)])
    values_of, end = _values_getter(names), len(names)

    def call_of(row: Row) -> Call:
        microseconds, cost_nanos, input_tokens, output_tokens, operation, status, *rest = row
        tools = 1 if operation == TOOL else 0
        amounts = Amounts(cost_nanos or 0, input_tokens + output_tokens, 1 - tools, tools)
        checked = amounts
        if cost_nanos is None:
            # An unknown cost never counts as nothing.
            tokens = Tokens(input_tokens=input_tokens, output_tokens=output_tokens)
            checked = amounts._replace(cost_nanos=assumed_nanos(tokens) or 1)
        at = EPOCH + timedelta(microseconds=microseconds)
        values, priced_by = values_of(tuple(rest[:end])), tuple(rest[end:])
        return Call(at, values, amounts, checked, cost_nanos is None, status == ERROR, priced_by)

    select = (
        f"SELECT {MICROSECONDS}, cost_nanos, input_tokens, output_tokens, operation, status"
        f"{columns} FROM usage_event e WHERE {{where}} ORDER BY time, id"
    )
    for _, rows in _read_pieces(stretch, select, []):
        check()
        yield from map(call_of, rows)


def _read_pieces(
    stretch: Stretch, select: str, parameters: Sequence[object]
) -> Iterator[tuple[Position, Rows]]:
    where = stretch.where()
    return read_stretches(
        select.format(where=f"{where.sql} AND {{within}}"),
        [*parameters, *where.parameters],
        tenant_id=stretch.tenant_id,
        after=Position(stretch.starts_at),
        to=stretch.ends_at,
        limit=CHUNK_EVENTS,
    )


def read_earlier(stretch: Stretch, rule: BudgetRule) -> Iterator[Earlier]:
    """Read what a budget's groups spent before a replay begins, in order of time, added up by group
    and grain of a rolling window, or portion of the periods that are carried over.
    """
    names = stretch.names()
    columns = "".join([f", {event_value(name)}" for name in names])
    values_of = _values_getter(names)
    portion, parameters = _portion(rule, stretch.starts_at)
    select = (
        f"SELECT {portion}, min(time), coalesce(sum(cost_nanos), 0),"
        " sum(input_tokens + output_tokens),"
        f" count(*) FILTER (WHERE operation <> {TOOL}),"
        f" count(*) FILTER (WHERE operation = {TOOL}){columns}"
        f" FROM usage_event e WHERE {{where}} GROUP BY 1{columns} ORDER BY 1"
    )
    for _, rows in _read_pieces(stretch, select, parameters):
        for at, first_at, cost_nanos, tokens, requests, tool_calls, *read in rows:
            amounts = Amounts(cost_nanos, tokens, requests, tool_calls)
            yield Earlier(at, first_at, values_of(tuple(read)), amounts)


def _portion(rule: BudgetRule, starts_at: datetime) -> tuple[str, list[datetime]]:
    """Return the SQL of the portion of time that usage is added up by: all of it, unless some
    leaves before the rest or belongs to a period of its own.
    """
    if rule.is_rolling:
        seconds = GRAIN_SECONDS[rule.period]
    elif rule.has_rollover:
        seconds = QUANTUM_SECONDS if rule.clock.is_aligned else 60
    else:
        return "%s::timestamptz", [starts_at]
    return f"date_bin('{seconds} seconds', time, %s)", [EPOCH]


def first_watched(rule: BreakerRule, starts_at: datetime) -> datetime:
    """Return the time from which a breaker reads to judge from `starts_at` on."""
    return starts_at - (USUAL if rule.tokens_times is not None else MINUTE)


def cheaper_by_routes(configuration: Configuration) -> Cheaper:
    """Return what makes of a call the one that routes name: at the price of the same tokens."""
    prices, routes = configuration.prices, configuration.routes

    def cheaper(call: Call) -> Call | None:
        *counts, service_tier, task_type, complexity = call.priced_by
        route = routes.choose(task_type)
        model, operation = call.values[POSITION["model"]], call.values[POSITION["operation"]]
        if route is None or not model or operation == Operation.TOOL.label:
            return None
        tier = route.tier_for(complexity)
        if tier.model == model:
            return None
        rating = prices.rate(
            provider=tier.provider,
            model=tier.model,
            at=call.at,
            tokens=tokens_of(counts),
            service_tier=service_tier,
            tool=None,
            operation=operation,
        )
        if rating.source == "unpriced" or rating.cost_nanos >= call.amounts.cost_nanos:
            return None
        amounts = Amounts(rating.cost_nanos, *call.amounts[1:])
        values = list(call.values)
        values[POSITION["provider"]], values[POSITION["model"]] = tier.provider, tier.model
        return call._replace(
            values=tuple(values), amounts=amounts, checked=amounts, is_unpriced=False, priced_by=()
        )

    return cheaper
