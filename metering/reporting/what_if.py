"""What usage would have cost on another model: every call rated by itself, to the nano-dollar."""

from typing import Final, NamedTuple

from common.queries import Row
from metering.models import Operation
from metering.pricing.book import UNPRICED, PriceBook, load_price_book
from metering.reporting.bounded import TooMuchToRead, fetch_in_time
from metering.reporting.conditions import on_events
from metering.reporting.kept import require_events
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.usage.columns import TOKEN_COUNTS, tokens_of

# Rating as many takes about a second.
CALLS_MAX: Final = 200_000
WHAT: Final = "What another model would cost"
_COLUMNS: Final = ", ".join(TOKEN_COUNTS)


class WhatIf(NamedTuple):
    """Calls of a question, what they cost, and what the same tokens cost on the other model."""

    calls: int
    cost_nanos: int
    other_nanos: int

    @property
    def saved_nanos(self) -> int:
        """What the other model would save; below zero where it costs more."""
        return self.cost_nanos - self.other_nanos

    @property
    def extra_nanos(self) -> int:
        """What the other model would cost more; below zero where it costs less."""
        return -self.saved_nanos


def what_if(question: UsageQuestion, *, provider: str | None, model: str) -> WhatIf:
    """Rate the model calls of a question as if `model` had served them with the same tokens, each
    at the price of its time.

    Raises InvalidQuestion: `no_price` where the model has none, or none for what some call used,
    and where there is too much to rate.
    """
    book = load_price_book(question.tenant_id)
    if book.price_at(provider=provider, model=model, at=question.ends_at) is None:
        raise InvalidQuestion("no_price", f"There is no price for the model {model[:60]!r}.")
    require_events(tenant_id=question.tenant_id, starts_at=question.starts_at)
    wanted = on_events(question.filters)
    rows = fetch_in_time(
        f"SELECT time, service_tier, coalesce(cost_nanos, 0), operation, extra_usage, {_COLUMNS}"
        " FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void"
        f" AND operation IN ({Operation.LLM.value}, {Operation.EMBEDDING.value})"
        f" AND {wanted.sql} LIMIT %s",
        [
            *(question.tenant_id, question.starts_at, question.ends_at),
            *(*wanted.parameters, CALLS_MAX + 1),
        ],
        what=WHAT,
    )
    if len(rows) > CALLS_MAX:
        raise TooMuchToRead(WHAT)
    other_nanos = sum(_rated(book, provider, model, row) for row in rows)
    return WhatIf(len(rows), sum(row[2] for row in rows), other_nanos)


def _rated(book: PriceBook, provider: str | None, model: str, row: Row) -> int:
    at, service_tier, _, operation, extra, *counts = row
    rating = book.rate(
        provider=provider,
        model=model,
        at=at,
        tokens=tokens_of(counts, extra),
        service_tier=service_tier,
        tool=None,
        operation=Operation(operation).label,
    )
    if rating.source == UNPRICED:
        units = ", ".join(rating.unrated) or "a call of that time"
        raise InvalidQuestion("no_price", f"{model[:60]!r} has no price for {units}.")
    return rating.cost_nanos
