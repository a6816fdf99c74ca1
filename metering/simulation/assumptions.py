"""What the figures of a replay take for granted, as sentences for people."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from metering.budgets.rules import BudgetRule
from metering.core.periods import EPOCH, ROLLING_SECONDS
from metering.limits.breakers.rules import BreakerRule
from metering.models import BreakerClose, Mode
from metering.simulation.budget_replay import BudgetReplay

COMMON: Final = (
    "Each call is asked for at its true cost, at the time it happened; in force, an estimate is"
    " held until the cost is known, so that a limit is reached a little earlier.",
    "A refused call is not made again, and what came after it is taken as it was.",
    "It is replayed alone: other budgets, halts, breakers, rate limits and limit reductions are"
    " left out.",
)


def budget_assumptions(
    replay: BudgetReplay, *, mode: str, keeps_carried: bool, kept_from: datetime
) -> list[str]:
    """Return what holds of the replay of a budget that is in this mode, or would be."""
    return [
        *COMMON,
        *_mode_sentences(mode, acts=replay.acts),
        *_of_calls(replay),
        *_of_windows(replay, keeps_carried=keeps_carried, kept_from=kept_from),
    ]


def breaker_assumptions(rule: BreakerRule, *, mode: str) -> list[str]:
    """Return what holds of the replay of a breaker that is in this mode."""
    if rule.tightens:
        closing = "It tightens budgets instead of stopping calls, so it refuses none here."
    elif rule.close == BreakerClose.HAND:
        closing = "No one closes it manually: what it stops stays stopped until the period ends."
    else:
        closing = "A trial call ends before the next call is asked for."
    return [
        *COMMON,
        *_mode_sentences(mode, acts=True),
        "A call counts when it happened; a breaker in force sees it when it is reported.",
        closing,
    ]


def _mode_sentences(mode: str, *, acts: bool) -> list[str]:
    if mode == Mode.ENFORCE:
        return []
    sentence = f"It is in mode {mode!r}, in which it refuses nothing"
    return [f"{sentence}; this is what it would do in 'enforce'." if acts else f"{sentence}."]


def _of_calls(replay: BudgetReplay) -> Iterator[str]:
    rule, tally = replay.rule, replay.tally
    actions = {level.action for level in rule.acting_levels} if replay.acts else set()
    if tally.unpriced:
        refused = "; by the present 'unpriced_policy' they are refused for it"
        policy = refused if replay.refuses_unpriced else ""
        yield f"{tally.unpriced:,} calls have no price and count as costing nothing{policy}."
    if "throttle" in actions:
        yield (
            "A throttled call counts as refused. A client that waits and asks again makes it"
            " later after all, so what throttling saves is the most that it could be."
        )
    if "downgrade" in actions:
        yield (
            "A downgraded call costs what its tokens cost with the cheaper model that the routes"
            f" name now; {tally.downgraded_in_vain:,} of {tally.downgraded:,} have no such model,"
            " and save nothing."
        )
    if "status" in rule.match or "status" in rule.per:
        yield "How a call ends is not known when it is asked for: all are asked for as successes."
    if rule.is_per_request and rule.limit_seconds is not None:
        yield "How long a single call lasts is not replayed."
    if "hold" in actions:
        yield "No one approves a limit increase where a level holds calls."
    if "lockout" in actions:
        yield _lockout_sentence(rule)


def _lockout_sentence(rule: BudgetRule) -> str:
    if rule.is_rolling:
        hours = ROLLING_SECONDS[rule.period] // 3600
        until = f"enough has left its window, {hours:,} h at most"
    elif rule.clock.period == "lifetime":
        until = "the period replayed ends"
    else:
        until = "its window ends"
    return f"A lockout stops its group until {until}: no one lifts it before."


def _of_windows(replay: BudgetReplay, *, keeps_carried: bool, kept_from: datetime) -> Iterator[str]:
    rule = replay.rule
    if not rule.is_per_request:
        yield "What a window had spent before the period counts, as for a budget made then."
    if rule.raises:
        yield "Limit increases that were approved count for as long as they did."
    if rule.has_rollover and not keeps_carried:
        yield "Nothing is carried over into the first window."
    if kept_from > EPOCH and (rule.counts_from == EPOCH or rule.has_rollover):
        yield (
            f"Calls before {kept_from:%Y-%m-%d} UTC are no longer kept: of them, windows in force"
            " count the sums, and nothing is carried over."
        )
