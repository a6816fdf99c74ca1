"""Limit increases that a level asks for: a budget whose level holds calls until a person agrees."""

from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from django.db import transaction

from common.bounded_memory import BoundedMemory
from metering.limits.limit_increases import Added, IncreaseAsk, ask_for_increase
from metering.models import BY_LEVEL, Budget
from metering.reservations.verdicts import IncreaseRequest

# How much of the limit is asked for, unless the call itself needs more.
SHARE_PERCENT: Final = 20
# For how long, unless the window ends before.
LENGTH: Final = timedelta(days=1)
# Requests that a process remembers, which the next refused calls need not ask for again.
KNOWN_MAX: Final = 10_000


class _Key(NamedTuple):
    """What was asked for under one version of the configuration, which an approval changes."""

    tenant_id: int
    version: int
    window_id: int
    percent: int


# Until when each request is open, or stands refused.
_KNOWN: Final = BoundedMemory[_Key, datetime](KNOWN_MAX)


def request_increase(
    *, tenant_id: int, version: int, request: IncreaseRequest, now: datetime
) -> None:
    """Ask people to raise the limit for the window's group; once per window and level.

    In the transaction that refuses the call, which holds the window's lock: calls that are refused
    after it do not query the database while the request is open.
    """
    rule, window = request.rule, request.window
    if rule.is_per_request:
        return  # the next call is another group
    key = _Key(tenant_id, version, window.id, request.percent)
    if (until := _KNOWN.get(key)) is not None and until > now:
        return
    ends_at = now + LENGTH
    if window.ends_at is not None and now < window.ends_at < ends_at:
        ends_at = window.ends_at
    wanted = [
        0 if limit is None else max(limit * SHARE_PERCENT // 100, asked)
        for limit, asked in zip(rule.limit_parts, request.asked, strict=True)
    ]
    cost_nanos, tokens, requests, tool_calls = wanted
    seconds = 0 if rule.limit_seconds is None else rule.limit_seconds * SHARE_PERCENT // 100
    added = Added(cost_nanos, tokens, requests, tool_calls, seconds)
    if not any(added):
        return
    increase = ask_for_increase(
        budget=Budget.objects.get(tenant_id=tenant_id, id=rule.id),
        actor=BY_LEVEL,
        ask=IncreaseAsk(
            add=added,
            reason=request.reason[:1000],
            ends_at=ends_at,
            group_key=window.group_key,
            window_id=window.id,
            level_percent=request.percent,
        ),
    )
    transaction.on_commit(partial(_KNOWN.keep, key, increase.ends_at))


def forget_increase_requests() -> None:
    """Empty this process's memory (tests make tenants again under the same ids)."""
    _KNOWN.forget_all()
