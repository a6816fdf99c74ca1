"""Raises that a level asks for: a budget whose level holds calls until a person says so."""

import threading
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from django.db import transaction

from metering.limits.limit_increases import Added, RaiseAsk, ask_for_raise
from metering.models import BY_LEVEL, Budget
from metering.reservations.judge import RaiseWish

# How much of the limit is asked for, where the call itself does not need more.
SHARE_PERCENT: Final = 20
# For how long, where the window does not end before.
LENGTH: Final = timedelta(days=1)
# How many requests a process remembers, which the next refused calls need not ask for again.
ASKED_MAX: Final = 10_000


class _Asked(NamedTuple):
    """What was asked for under one version of the configuration, which an approval changes."""

    tenant_id: int
    version: int
    window_id: int
    percent: int


# Until when each request is open, or stands refused.
_asked: dict[_Asked, datetime] = {}
_lock: Final = threading.Lock()


def ask_at_level(*, tenant_id: int, version: int, wish: RaiseWish, now: datetime) -> None:
    """Ask people to raise the limit for the window's group; once a window and level.

    In the transaction that refuses the call, which holds the window's lock: calls that are refused
    after it ask the database nothing while the request stands.
    """
    rule, window = wish.rule, wish.window
    if rule.is_per_request:
        return  # the next call is another group
    asked = _Asked(tenant_id, version, window.id, wish.percent)
    if (reservation := _asked.get(asked)) is not None and reservation > now:
        return
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
    budget_raise = ask_for_raise(
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
    transaction.on_commit(partial(_remember, asked, budget_raise.ends_at))


def _remember(asked: _Asked, until: datetime) -> None:
    with _lock:
        if len(_asked) >= ASKED_MAX:
            for key in list(_asked)[: ASKED_MAX // 4]:
                del _asked[key]
        _asked[asked] = until


def forget_wishes() -> None:
    """Empty this process's memory (tests make tenants anew under the same ids)."""
    with _lock:
        _asked.clear()
