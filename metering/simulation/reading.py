"""Stored calls as a replay needs them, in order, a piece at a time: only the columns that it looks
at.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import starmap
from typing import Any, Final, NamedTuple

from django.db import connection

from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE, REQUEST
from metering.core.event_stretches import Position, next_stretch, within_stretch
from metering.core.match import PLACE, Values, wanted_values
from metering.core.periods import EPOCH, GRAIN_SECONDS, QUANTUM_SECONDS
from metering.limits.breakers.rules import BreakerRule
from metering.models import Operation, Status
from metering.reporting.conditions import Condition, event_value, on_events
from metering.simulation.calls import Call, Cheaper, Earlier
from metering.snapshot import Configuration
from metering.usage.columns import TOKEN_COUNTS, tokens_of
from metering.usage.shapes import Tokens
from tenants.scope import tenant_scope

# What one transaction reads.
CHUNK_EVENTS: Final = 10_000
# What a breaker must have seen before it judges: its minute, and for a day what is usual.
MINUTE: Final = timedelta(seconds=61)
USUAL: Final = timedelta(days=1)
# How a call ended is not known when it is asked for.
STATUS: Final = "status"
ASKED_STATUS: Final = f"'{Status.SUCCESS.label}'"
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
    match: Mapping[str, Any]
    dimensions: Collection[str]
    # Whether a cheaper model may be asked for.
    is_routed: bool = False

    def where(self) -> Condition:
        """The stretch as SQL. A match on how calls ended is left to the replay."""
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

    def values(self) -> list[str]:
        """The dimensions in the order of MATCHABLE, as SQL; those that nobody looks at as none."""
        wanted = {*self.match, *self.dimensions}
        wanted |= ROUTED_DIMENSIONS if self.is_routed else set()
        return [
            ASKED_STATUS if name == STATUS else event_value(name) if name in wanted else "''"
            for name in MATCHABLE
        ]


def read_calls(
    stretch: Stretch, *, assumed_nanos: Callable[[Tokens], int | None], check: Callable[[], None]
) -> Iterator[Call]:
    """The calls in order of time and id. `check` is called now and then, and may raise."""
    facts = (*TOKEN_COUNTS, *ROUTE_COLUMNS) if stretch.is_routed else ()
    columns = ", ".join([*stretch.values(), *facts])
    ends = len(MATCHABLE)

    def call_of(
        at: datetime,
        cost_nanos: int | None,
        input_tokens: int,
        output_tokens: int,
        operation: int,
        status: int,
        *rest: Any,
    ) -> Call:
        tools = 1 if operation == TOOL else 0
        amounts = Amounts(cost_nanos or 0, input_tokens + output_tokens, 1 - tools, tools)
        checked = amounts
        if cost_nanos is None:
            # What nobody knows is never nothing.
            tokens = Tokens(input_tokens=input_tokens, output_tokens=output_tokens)
            checked = amounts._replace(cost_nanos=assumed_nanos(tokens) or 1)
        return Call(
            at, rest[:ends], amounts, checked, cost_nanos is None, status == ERROR, rest[ends:]
        )

    select = (
        "SELECT time, cost_nanos, input_tokens, output_tokens, operation, status,"  # noqa: S608
        f" {columns} FROM usage_event e WHERE {{where}} ORDER BY time, id"
    )
    for rows in _read_pieces(stretch, select, []):
        check()
        yield from starmap(call_of, rows)


def _read_pieces(
    stretch: Stretch, select: str, parameters: Sequence[Any]
) -> Iterator[list[tuple[Any, ...]]]:
    """What a statement gives for a piece of the stretch after the other.

    Each is read in a transaction of its own, unless the caller has one, so that a long replay keeps
    no old rows alive; and takes no more memory.
    """
    where = stretch.where()
    after = Position(stretch.starts_at)
    while True:
        with tenant_scope(stretch.tenant_id), connection.cursor() as cursor:
            piece = next_stretch(
                tenant_id=stretch.tenant_id, after=after, to=stretch.ends_at, limit=CHUNK_EVENTS
            )
            if piece is None:
                return
            within = within_stretch(after, piece.end).as_string(cursor.cursor)
            cursor.execute(
                select.format(where=f"{where.sql} AND {within}"), [*parameters, *where.parameters]
            )
            rows = cursor.fetchall()
        yield rows
        after = piece.end


def read_earlier(stretch: Stretch, rule: BudgetRule) -> Iterator[Earlier]:
    """What a budget's groups spent before a replay begins, in order of time, added up: rows for
    each group and grain of a rolling window, or portion of the periods that are carried over.
    """
    columns = ", ".join(stretch.values())
    portion, parameters = _portion(rule, stretch.starts_at)
    select = (
        f"SELECT {portion}, min(time), coalesce(sum(cost_nanos), 0),"  # noqa: S608
        " sum(input_tokens + output_tokens),"
        f" count(*) FILTER (WHERE operation <> {TOOL}),"
        f" count(*) FILTER (WHERE operation = {TOOL}), {columns}"
        " FROM usage_event e WHERE {where}"
        f" GROUP BY {_ordinals(1)}, {_ordinals(7, len(MATCHABLE))} ORDER BY 1"
    )
    for rows in _read_pieces(stretch, select, parameters):
        for at, first_at, cost_nanos, tokens, requests, tool_calls, *values in rows:
            amounts = Amounts(cost_nanos, tokens, requests, tool_calls)
            yield Earlier(at, first_at, tuple(values), amounts)


def _ordinals(first: int, count: int = 1) -> str:
    return ", ".join(str(place) for place in range(first, first + count))


def _portion(rule: BudgetRule, starts_at: datetime) -> tuple[str, list[Any]]:
    """By which portions of time what was spent is told apart: one, unless some of it leaves before
    the rest or belongs to a period of its own.
    """
    if rule.is_rolling:
        seconds = GRAIN_SECONDS[rule.period]
    elif rule.has_rollover:
        seconds = QUANTUM_SECONDS if rule.clock.is_aligned else 60
    else:
        return "%s::timestamptz", [starts_at]
    return f"date_bin('{seconds} seconds', time, %s)", [EPOCH]


def dimensions_of_rule(rule: BudgetRule) -> list[str]:
    """The dimensions that tell a budget's groups apart."""
    return [name for name in rule.per if name != REQUEST]


def first_watched(rule: BreakerRule, starts_at: datetime) -> datetime:
    """From when on a breaker that judges at a moment reads."""
    return starts_at - (USUAL if rule.tokens_times is not None else MINUTE)


def cheaper_by_routes(configuration: Configuration) -> Cheaper:
    """What a route makes of a call: as an ask is judged, at the price of the same tokens."""
    prices, routes = configuration.prices, configuration.routes

    def cheaper(call: Call) -> Call | None:
        *counts, service_tier, task_type, complexity = call.facts
        route = routes.choose(task_type)
        model, operation = call.values[PLACE["model"]], call.values[PLACE["operation"]]
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
        amounts = call.amounts._replace(cost_nanos=rating.cost_nanos)
        return call._replace(
            values=_with_model(call.values, tier.provider, tier.model),
            amounts=amounts,
            checked=amounts,
        )

    return cheaper


def _with_model(values: Values, provider: str, model: str) -> Values:
    changed = list(values)
    changed[PLACE["provider"]], changed[PLACE["model"]] = provider, model
    return tuple(changed)
