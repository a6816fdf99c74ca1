"""Raises that a level asks for: a budget whose level holds calls until a person says so."""

from datetime import datetime, timedelta
from typing import Final

from metering.enforcement.raises import Added, RaiseAsk, ask_for_raise
from metering.enforcement.verdicts import RaiseWish
from metering.ledger import BY_LEVEL
from metering.models import Budget

# How much of the limit is asked for, where the call itself does not need more.
SHARE_PERCENT: Final = 20
# For how long, where the window does not end before.
LENGTH: Final = timedelta(days=1)


def ask_at_level(*, tenant_id: int, wish: RaiseWish, now: datetime) -> None:
    """Ask people to raise the limit for the window's group; once a window and level.

    In the transaction that refuses the call, which holds the window's lock.
    """
    rule, window = wish.rule, wish.window
    if rule.is_per_request:
        return  # the next call is another group
    ends_at = now + LENGTH
    if window.ends_at is not None and now < window.ends_at < ends_at:
        ends_at = window.ends_at
    wanted = [
        0 if limit is None else max(limit * SHARE_PERCENT // 100, asked)
        for limit, asked in zip(rule.limit_parts, wish.asked, strict=True)
    ]
    cost_nanos, tokens, requests, tool_calls = wanted
    seconds = 0 if rule.limit_seconds is None else rule.limit_seconds * SHARE_PERCENT // 100
    added = Added(cost_nanos, tokens, requests, tool_calls, seconds)
    if not any(added):
        return
    ask_for_raise(
        budget=Budget.objects.get(tenant_id=tenant_id, id=rule.id),
        actor=BY_LEVEL,
        ask=RaiseAsk(
            add=added,
            reason=wish.reason[:1000],
            ends_at=ends_at,
            group_key=window.group_key,
            window_id=window.id,
            level_percent=wish.percent,
        ),
    )
