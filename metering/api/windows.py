"""`/v1/budgets/{id}/windows`: what was spent in each group and period of a budget."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import UNSET, UnsetType

from common.api.structs import AmountUsd, Answer, GroupValues, UtcTimestamp, about, usd_or_none
from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from metering.budgets.levels import PARTS, use_of
from metering.budgets.rules import BudgetRule
from metering.core.dimensions import REQUEST
from metering.ledger.windows import balance_of, state_of
from metering.models import BudgetWindow
from metering.reporting.unknown_holds import unknown_by_window, window_from


class WindowAnswer(Answer):
    """One group and period of a budget: what was spent, what is held, and what is left."""

    group: GroupValues
    window_start: UtcTimestamp
    window_end: UtcTimestamp | None
    limit_usd: Annotated[
        AmountUsd | None,
        about(
            "With what the period before left, where that is added, and what raises in force"
            " add now."
        ),
    ]
    spent_usd: AmountUsd
    reserved_usd: AmountUsd
    remaining_usd: Annotated[AmountUsd | None, about("Below zero when overspent.")]
    overrun_usd: AmountUsd
    carried_usd: AmountUsd
    limit_tokens: int | None
    spent_tokens: int
    reserved_tokens: int
    remaining_tokens: int | None
    limit_requests: int | None
    spent_requests: int
    reserved_requests: int
    remaining_requests: int | None
    limit_tool_calls: int | None
    spent_tool_calls: int
    reserved_tool_calls: int
    remaining_tool_calls: int | None
    limit_seconds: int | None
    spent_seconds: Annotated[int, about("Since the window's first use.")]
    first_used_at: UtcTimestamp | None
    used_percent: Annotated[float, about("Of the fullest part of the limit.")]
    level: Annotated[int | None, about("The highest level that was reached, in percent.")]
    unknown_usd: Annotated[
        AmountUsd | UnsetType,
        about(
            "Where above zero: what was held for calls that may have run, until their time"
            " was over. It is neither spent nor reserved."
        ),
    ] = UNSET


def window_answers(
    rule: BudgetRule, windows: Sequence[BudgetWindow], *, now: datetime
) -> list[WindowAnswer]:
    """Return windows of one budget as they are answered."""
    unknown = unknown_by_window(
        windows[0].tenant_id if windows else 0,
        [window_from(rule, row.id, row.starts_at, now) for row in windows],
        now=now,
    )
    return [_window_answer(rule, row, unknown.get(row.id), now=now) for row in windows]


def _window_answer(
    rule: BudgetRule, window: BudgetWindow, unknown_nanos: int | None, *, now: datetime
) -> WindowAnswer:
    balance = balance_of(rule, state_of(window), now=now)
    limits = [balance.limit(rule, index) for index in range(len(PARTS))]
    remaining = [
        None if limit is None else limit - spent - reserved
        for limit, spent, reserved in zip(limits, balance.spent, balance.reserved, strict=True)
    ]
    figures: dict[str, Sequence[int | None]] = {
        "limit": limits,
        "spent": balance.spent,
        "reserved": balance.reserved,
        "remaining": remaining,
    }
    counts: JsonObject = {
        f"{name}_{part}": values[index]
        for name, values in figures.items()
        for index, part in enumerate(PARTS)
        if index > 0
    }
    return WindowAnswer.of(
        window,
        group=_group_of(rule, window.group_key),
        window_start=window.starts_at,
        window_end=window.ends_at,
        limit_usd=usd_or_none(limits[0]),
        spent_usd=usd_from_nanos(balance.spent[0]),
        reserved_usd=usd_from_nanos(balance.reserved[0]),
        remaining_usd=usd_or_none(remaining[0]),
        unknown_usd=usd_from_nanos(unknown_nanos) if unknown_nanos else UNSET,
        limit_seconds=balance.limit_seconds(rule),
        spent_seconds=balance.used_seconds(now),
        used_percent=float(use_of(rule, balance, now=now).percent),
        level=window.level_percent or None,
        **counts,
    )


def _group_of(rule: BudgetRule, group_key: str) -> dict[str, str]:
    """The group as dimension to value; a single call's own mark comes last."""
    names = [name for name in rule.per if name != REQUEST]
    if rule.is_per_request:
        names.append(REQUEST)
    return dict(zip(names, json.loads(group_key), strict=True))
