"""What callers of reservations read, as it is sent and as the OpenAPI document has it."""

from typing import Annotated
from uuid import UUID

from msgspec import UNSET, UnsetType

from common.api.structs import AmountUsd, Answer, GroupValues, UtcTimestamp, about, one_of


class BudgetRoom(Answer):
    """A window and what is left of it. Tokens, requests, tool calls and seconds where limited."""

    budget: int
    name: str
    mode: str
    group: GroupValues
    window_start: UtcTimestamp | None
    window_end: UtcTimestamp | None
    limit_usd: AmountUsd | None
    spent_usd: AmountUsd
    reserved_usd: AmountUsd
    remaining_usd: Annotated[AmountUsd | None, about("Below zero when overspent.")]
    used_percent: Annotated[float, about("Of the fullest part of the limit.")]
    level: int | None
    limit_tokens: int | UnsetType = UNSET
    spent_tokens: int | UnsetType = UNSET
    reserved_tokens: int | UnsetType = UNSET
    remaining_tokens: int | UnsetType = UNSET
    limit_requests: int | UnsetType = UNSET
    spent_requests: int | UnsetType = UNSET
    reserved_requests: int | UnsetType = UNSET
    remaining_requests: int | UnsetType = UNSET
    limit_tool_calls: int | UnsetType = UNSET
    spent_tool_calls: int | UnsetType = UNSET
    reserved_tool_calls: int | UnsetType = UNSET
    remaining_tool_calls: int | UnsetType = UNSET
    limit_seconds: int | UnsetType = UNSET
    first_used_at: UtcTimestamp | UnsetType | None = UNSET
    refused: Annotated[bool | UnsetType, about("In a refusal: this one did.")] = UNSET
    unknown_usd: Annotated[
        AmountUsd | UnsetType,
        about(
            "In balances, where above zero: what was held for calls that may have run, until"
            " their time was over. It is neither spent nor reserved."
        ),
    ] = UNSET


class WarningAnswer(Answer):
    """Something that did not stop the call."""

    code: str
    detail: str
    budget: int | UnsetType = UNSET
    mode: str | UnsetType = UNSET


class GrantAnswer(Answer):
    """What is held. `downgrade` names a cheaper model to use instead."""

    id: UUID
    status: str
    decision: Annotated[str, one_of(["allow", "downgrade"])]
    model: str | None
    provider: str | None
    reserved_usd: AmountUsd
    reserved_tokens: int
    estimate: Annotated[str, one_of(["max", "expected", "amount"])]
    expires_at: UtcTimestamp
    budgets: list[BudgetRoom]
    warnings: list[WarningAnswer]
    requested_model: str | UnsetType = UNSET


class SettleAnswer(Answer):
    """What the call cost, and what became of the hold."""

    id: UUID
    status: str
    cost_usd: AmountUsd
    released_usd: AmountUsd
    overrun_usd: Annotated[AmountUsd, about("What the call cost above what was reserved for it.")]
    late: Annotated[bool, about("The hold had ended before.")]


class ReleaseAnswer(Answer):
    """What was given back."""

    id: UUID
    status: Annotated[str, about("released, or expired where it had expired before.")]
    released_usd: AmountUsd


class ExtendAnswer(Answer):
    """Until when it holds now."""

    id: UUID
    status: str
    expires_at: UtcTimestamp
