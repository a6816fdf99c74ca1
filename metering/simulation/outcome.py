"""What became of the calls of a replay, as it is answered and stored."""

from datetime import date
from typing import Annotated

from msgspec import UNSET, UnsetType

from common.api.structs import AmountUsd, Answer, GroupValues, UtcTimestamp, about


class RefusedAnswer(Answer):
    """What would not have been made."""

    calls: int
    cost_usd: AmountUsd
    tokens: int


class GroupOutcome(Answer):
    """What one group of the proposal would have met."""

    group: GroupValues
    calls: Annotated[int, about("That were made, refused ones included.")]
    refused: int
    saved_usd: AmountUsd
    first_refused_at: UtcTimestamp | None
    lockout_at: Annotated[UtcTimestamp | None, about("When a level first locked it out.")]


class DayOutcome(Answer):
    """A day with calls, in the budget's time zone."""

    date: date
    cost_usd: AmountUsd
    would_have_cost_usd: AmountUsd
    refused: int


class LevelOutcome(Answer):
    """A level of the budget."""

    percent: int
    action: str
    crossed: Annotated[int, about("How often the level was reached; each would have notified.")]


class OpeningAnswer(Answer):
    """A breaker that opens for a group."""

    at: UtcTimestamp
    group: GroupValues
    why: str


class Outcome(Answer):
    """What became of the calls that the proposal matches."""

    calls: Annotated[int, about("That match, tool calls included.")]
    cost_usd: Annotated[AmountUsd, about("What they cost.")]
    would_have_cost_usd: AmountUsd
    saved_usd: Annotated[AmountUsd, about("By refusals and by cheaper models.")]
    refused: Annotated[RefusedAnswer, about("Throttled ones included.")]
    throttled: Annotated[int, about("Of the refused ones.")]
    downgraded: Annotated[int, about("For which a cheaper model is asked for.")]
    unpriced: Annotated[int, about("Calls without a known cost; they count as free.")]
    first_refusal_at: UtcTimestamp | None
    groups: Annotated[
        list[GroupOutcome],
        about("The 50 that save most, of those for which anything changes."),
    ]
    days: list[DayOutcome]
    levels: list[LevelOutcome]
    opened: Annotated[int, about("How often a breaker opens.")]
    openings: Annotated[list[OpeningAnswer], about("The first 50 of them.")]
    assumptions: Annotated[list[str], about("What the figures take for granted.")]


class PresentOutcome(Outcome):
    """What the budget in force would have done, in its own mode."""

    budget_id: int
    name: str
    mode: str


class SimulationOutcome(Outcome):
    """What the proposal would have done, in mode enforce whatever mode it names."""

    compared_with: Annotated[PresentOutcome | UnsetType, about("With `budget_id` alone.")] = UNSET
