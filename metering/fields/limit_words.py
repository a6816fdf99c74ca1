"""Breakers and rates in words, for pages and the admin."""

from common.money import usd_words
from metering.models import Breaker, BreakerClose, BudgetLevel, Mode, RateLimit


def triggers_of(breaker: Breaker) -> list[str]:
    """Return what opens a breaker: any of these."""
    parts = []
    if breaker.cost_nanos_per_minute is not None:
        parts.append(f"more than {usd_words(breaker.cost_nanos_per_minute)} within a minute")
    if breaker.error_percent is not None:
        calls = f"{breaker.error_min_calls:,} or more"
        parts.append(f"{breaker.error_percent}% failed calls, of {calls}")
    if breaker.tokens_times is not None:
        parts.append(f"{breaker.tokens_times:,} times the usual tokens")
    return parts


def effect_of(breaker: Breaker) -> str:
    """Return what happens while a breaker is open."""
    if breaker.mode != Mode.ENFORCE:
        return "records it, stops nothing"
    does = f"reduces limits to {breaker.limit_percent}%" if breaker.limit_percent else "stops calls"
    how = "a probe succeeds" if breaker.close == BreakerClose.PROBE else "someone closes it"
    return f"{does} until {how}"


def rates_of(limit: RateLimit | BudgetLevel) -> list[str]:
    """Return what may be asked for within a minute: all of these hold."""
    parts = []
    if limit.cost_nanos_per_minute is not None:
        parts.append(usd_words(limit.cost_nanos_per_minute))
    if limit.tokens_per_minute is not None:
        parts.append(f"{limit.tokens_per_minute:,} tokens")
    if isinstance(limit, RateLimit) and limit.requests_per_minute is not None:
        parts.append(f"{limit.requests_per_minute:,} requests")
    return parts
