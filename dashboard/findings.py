"""Titles that state what the numbers say. Pure."""

from collections.abc import Mapping, Sequence

from dashboard.amounts import change, money, percent, percent_text
from dashboard.filter_bar import FilterBar
from dashboard.spend import Spender
from metering.models import SourceOutcome
from metering.reporting.budget_windows import Watch
from metering.reporting.unpriced_models import UnpricedModel

# Within this many percent spending counts as steady.
STEADY_PERCENT = 3


def headline(
    bar: FilterBar,
    *,
    spent_nanos: int,
    unpriced: int,
    before_nanos: int | None,
    spenders: Sequence[Spender],
) -> str:
    """One sentence: how much, against before, and who made most of it. `unpriced` is the number of
    calls without a price.
    """
    if spent_nanos == 0 and unpriced:
        calls = "1 call has" if unpriced == 1 else f"{unpriced:,} calls have"
        return f"{calls} no price yet, so spend is unknown"
    if spent_nanos == 0:
        return "Nothing was spent in this period"
    parts = [trend(bar, spent_nanos=spent_nanos, before_nanos=before_nanos)]
    greatest = greatest_share(spent_nanos, spenders)
    if greatest is not None:
        parts.append(greatest)
    return "; ".join(parts)


def trend(bar: FilterBar, *, spent_nanos: int, before_nanos: int | None) -> str:
    """How spending moved."""
    spent = f"{money(spent_nanos)} spent"
    if before_nanos is None:
        return spent
    grown = change(spent_nanos, before_nanos)
    if grown is None:
        return f"{spent}; nothing in the previous period"
    if abs(grown) < STEADY_PERCENT:
        return f"Spend is steady compared to {bar.previous_words}"
    way = "up" if grown > 0 else "down"
    return f"Spend is {way} {percent_text(abs(grown))} from {bar.previous_words}"


def greatest_share(spent_nanos: int, spenders: Sequence[Spender]) -> str | None:
    """Who made the largest part; None where no single value stands out by name."""
    named = [one for one in spenders if not one.is_other and one.value]
    if not named or len(spenders) < 2:
        return None
    top = named[0]
    if top.measures.cost_nanos * 10 < spent_nanos:
        return None
    return f"“{shortened(top.value)}” accounts for {percent(top.measures.cost_nanos, spent_nanos)}"


def shortened(value: str, length: int = 40) -> str:
    """A value that fits into a sentence."""
    return value if len(value) <= length else value[: length - 1] + "…"


def budgets_headline(watch: Watch) -> str:
    """How many budget windows are in trouble, the worst news first."""
    if watch.over:
        verb = "is" if watch.over == 1 else "are"
        more = (
            f", {watch.running_out:,} more will run out at this rate" if watch.running_out else ""
        )
        return f"{_windows(watch.over)} {verb} over the limit{more}"
    if watch.running_out:
        return f"{_windows(watch.running_out)} will run out at this rate"
    return "No budget is about to run out" if watch.windows else "No budget is in use"


def _windows(number: int) -> str:
    return f"{number:,} budget window{'' if number == 1 else 's'}"


def unpriced_headline(models: Sequence[UnpricedModel]) -> str:
    """How much usage has no price, and how much was never told."""
    if not models:
        return "All models in use are priced"
    unpriced = [one for one in models if not one.is_usage_missing]
    calls = sum(one.event_count for one in unpriced)
    missing = sum(one.event_count for one in models if one.is_usage_missing)
    sentences = []
    if unpriced:
        sentences.append(
            f"{calls:,} call{'' if calls == 1 else 's'} to {len(unpriced):,}"
            f" model{'' if len(unpriced) == 1 else 's'} without a price"
        )
    if missing:
        sentences.append(f"{missing:,} call{'' if missing == 1 else 's'} without usage")
    return " · ".join(sentences)


def requests_headline(waiting: int) -> str:
    """How many requests to raise a limit wait for a person."""
    if not waiting:
        return "No pending requests"
    return f"{waiting:,} pending request{'s' if waiting > 1 else ''}"


def halts_headline(halts: int) -> str:
    """How much is stopped."""
    if not halts:
        return "Nothing is halted"
    return f"{halts:,} halt{'s are' if halts > 1 else ' is'} in force"


_DECISIONS_WORDS = {
    "refuse": ("call was refused", "calls were refused"),
    "downgrade": ("call was sent to a cheaper model", "calls were sent to a cheaper model"),
    "allow": ("call was allowed with a warning", "calls were allowed with a warning"),
    "open": ("time a breaker opened", "times a breaker opened"),
    "close": ("time a breaker closed", "times a breaker closed"),
}


def decisions_headline(decision: str, agents: Mapping[str, int], *, is_capped: bool) -> str:
    """How often it was decided so in the period, and for whom most of all.

    `agents` has the number of each agent's; where the count was cut off there are more of them.
    """
    number = sum(agents.values())
    one, many = _DECISIONS_WORDS[decision]
    if not number:
        return f"No {one}"
    headline = f"{'At least ' if is_capped else ''}{number:,} {one if number == 1 else many}"
    greatest = max(agents, key=lambda name: (agents[name], name))
    if len(agents) < 2 or not greatest or agents[greatest] * 10 < number:
        return headline
    share = percent(agents[greatest], number)
    return f"{headline}; “{shortened(greatest)}” made {share} of them"


def estimates_headline(*, settled: int, reserved_nanos: int, cost_nanos: int) -> str:
    """What was reserved against what it cost."""
    if not settled:
        return "No reservation was settled in this period"
    if not reserved_nanos:
        return (
            f"{settled:,} reservation{'s' if settled > 1 else ''} settled, none of them held cost"
        )
    return f"Calls cost {percent(cost_nanos, reserved_nanos)} of what was reserved for them"


_LOSS_WORDS = {
    SourceOutcome.REJECTED: ("report of {} was rejected", "reports of {} were rejected"),
    SourceOutcome.UNPRICED: ("call of {} has no cost", "calls of {} have no cost"),
    SourceOutcome.CONFLICT: (
        "report of {} contradicts a known call",
        "reports of {} contradict known calls",
    ),
    SourceOutcome.PASSED_OVER: ("report of {} was skipped", "reports of {} were skipped"),
}


def sources_headline(
    *, sources: int, losing: int, worst: tuple[str, SourceOutcome, int] | None
) -> str:
    """How many sources need a setting; `worst` has the name, outcome and number of what matters
    most.
    """
    if not sources:
        return "No source has reported in this period"
    if worst is None:
        return f"Nothing is lost from {_sources(sources)}"
    name, outcome, reports = worst
    words = _LOSS_WORDS[outcome][reports != 1].format(shortened(name))
    verb = "needs" if losing == 1 else "need"
    return f"{losing:,} of {_sources(sources)} {verb} attention: {reports:,} {words}"


def _sources(number: int) -> str:
    return "1 source" if number == 1 else f"{number:,} sources"


def unknown_headline(*, holds: int, nanos: int, is_capped: bool) -> str:
    """Return how many calls may have run without being reported."""
    if not holds:
        return "Every call was settled or released in time"
    least = "At least " if is_capped else ""
    calls = "1 call" if holds == 1 else f"{holds:,} calls"
    return f"{least}{calls} may have run, for which {money(nanos)} was held"


def incidents_headline(*, open_count: int, worst: str, looked_at: int) -> str:
    """Return what needs attention now; `worst` is the title of the most severe incident."""
    if open_count == 1:
        return f"1 incident needs attention: {worst}"
    if open_count:
        return f"{open_count:,} incidents need attention. Most urgent: {worst}"
    if looked_at:
        return (
            f"Nothing needs attention; {looked_at:,} {_incidents(looked_at)} already being handled"
        )
    return "Nothing needs attention now"


def _incidents(number: int) -> str:
    return "incident is" if number == 1 else "incidents are"


def channels_headline(*, channels: int, failing: int) -> str:
    """Whether alerts reach people."""
    if not channels:
        return "No notification channels yet"
    if failing:
        return f"Delivery is failing on {failing:,} of {_channels(channels)}"
    return f"{_channels(channels).capitalize()} {'is' if channels == 1 else 'are'} working"


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number:,} channels"


def deliveries_headline(*, dead: int, waiting: int) -> str:
    """What did not arrive, and what is on its way."""
    if dead:
        return f"{dead:,} message{'s' if dead > 1 else ''} failed"
    if waiting:
        return f"{waiting:,} pending message{'s' if waiting > 1 else ''}"
    return "All messages delivered"
