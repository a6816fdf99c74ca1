"""Titles that state what the numbers say. Pure."""

from collections.abc import Mapping, Sequence

from dashboard.amounts import change, money, percent, percent_text
from dashboard.filter_bar import FilterBar
from dashboard.overview.month import Month
from metering.models import SourceOutcome
from metering.reporting.budget_windows import Watch
from metering.reporting.forecast import Forecast
from metering.reporting.metrics import Coverage
from metering.reporting.unpriced_models import UnpricedModel

# Within this many percent spending counts as steady.
STEADY_PERCENT = 3


def headline(
    bar: FilterBar,
    *,
    spent_nanos: int,
    unpriced: int,
    before_nanos: int | None,
    groups: Sequence[tuple[str, int, int]],
) -> str:
    """How much, against before, and who made the difference. `unpriced` is the number of calls
    without a price; `groups` has the values of the split, what each spent, and its change.
    """
    if spent_nanos == 0 and unpriced:
        calls = "1 call has" if unpriced == 1 else f"{unpriced:,} calls have"
        return f"{calls} no price yet, so spend is unknown"
    if spent_nanos == 0:
        return "Nothing was spent in this period"
    spent = trend(bar, spent_nanos=spent_nanos, before_nanos=before_nanos)
    cause = None
    if before_nanos and _is_moving(spent_nanos, before_nanos):
        cause = greatest_change(bar.split, spent_nanos - before_nanos, groups)
    cause = cause or greatest_share(bar.split, spent_nanos, groups)
    return f"{spent}. {cause}." if cause else spent


def trend(bar: FilterBar, *, spent_nanos: int, before_nanos: int | None) -> str:
    """How spending moved."""
    spent = f"{money(spent_nanos)} spent"
    if before_nanos is None:
        return spent
    grown = change(spent_nanos, before_nanos)
    if grown is None:
        return f"{spent}, nothing in the previous period"
    if not _is_moving(spent_nanos, before_nanos):
        return f"{spent}, about the same as {bar.previous_words}"
    way = "up" if grown > 0 else "down"
    return f"Spend is {way} {percent_text(abs(grown))} from {bar.previous_words}"


def _is_moving(spent_nanos: int, before_nanos: int) -> bool:
    return abs(spent_nanos - before_nanos) * 100 >= STEADY_PERCENT * before_nanos


def greatest_change(
    split: str, change_nanos: int, groups: Sequence[tuple[str, int, int]]
) -> str | None:
    """Whose change made most of the total's; None where no single value stands out by name."""
    sign = 1 if change_nanos > 0 else -1
    named = [(grown * sign, value) for value, _, grown in groups if value]
    most, value = max(named, default=(0, ""))
    if len(groups) < 2 or most * 10 < abs(change_nanos):
        return None
    name = f"{split.capitalize()} “{shortened(value)}”"
    if most > abs(change_nanos):
        return f"{name} spent {money(most)} {'more' if sign > 0 else 'less'}"
    way = "increase" if sign > 0 else "decrease"
    return f"{name} accounts for {percent(most, abs(change_nanos))} of the {way}"


def greatest_share(
    split: str, spent_nanos: int, groups: Sequence[tuple[str, int, int]]
) -> str | None:
    """Who made the largest part; None where no single value stands out by name."""
    most, value = max(((spent, value) for value, spent, _ in groups if value), default=(0, ""))
    if len(groups) < 2 or most * 10 < spent_nanos:
        return None
    return (
        f"{split.capitalize()} “{shortened(value)}” accounts for {percent(most, spent_nanos)} of it"
    )


def value_words(split: str, value: str) -> str:
    """What people read for a value of a dimension; calls of tools have no model."""
    if value:
        return value
    return "tool calls" if split == "model" else f"no {split}"


def shortened(value: str, length: int = 40) -> str:
    """A value that fits into a sentence."""
    return value if len(value) <= length else value[: length - 1] + "…"


def coverage_words(coverage: Coverage) -> str:
    """How much of the usage has a price. Never rounded up: only all of it is 100%."""
    if coverage.priced_share is None:
        return "No calls in this period"
    tenths = int(coverage.priced_share * 1000)
    words = f"{tenths // 10}.{tenths % 10}".removesuffix(".0")
    return f"{words}% priced"


def today_note(today: Forecast) -> str:
    """What the hatched bar of a running day, and the outline above it, are."""
    so_far = f"Today is hatched: {money(today.spent_nanos)} so far"
    if today.method == "none" or today.forecast_nanos <= today.spent_nanos:
        return f"{so_far}."
    return f"{so_far}, about {money(today.forecast_nanos)} by midnight (dashed)."


def month_headline(name: str, month: Month) -> str:
    """Where the month ends, and how that compares with what is allowed."""
    if month.forecast is None:
        return f"{name}: no forecast for these filters, too many calls to read"
    if not month.is_known:
        return f"{name}: {money(month.forecast.spent_nanos)} so far, not enough data to project"
    ends = f"{name} ends at about {money(month.forecast.forecast_nanos)}"
    over, tightest = month.over_nanos, month.tightest
    if over is None or tightest is None:
        return ends
    way = "over" if over > 0 else "under"
    return f"{ends}, {money(abs(over))} {way} the limit of “{shortened(tightest.rule.name)}”"


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
    """How much usage has no price, and how much was never reported."""
    unpriced = [model for model in models if not model.is_usage_missing]
    calls = sum(model.event_count for model in unpriced)
    missing = sum(model.event_count for model in models if model.is_usage_missing)
    sentences = []
    if unpriced:
        sentences.append(
            f"{calls:,} call{'' if calls == 1 else 's'} to {len(unpriced):,}"
            f" model{'' if len(unpriced) == 1 else 's'} {'has' if calls == 1 else 'have'} no price"
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
    singular, many = _DECISIONS_WORDS[decision]
    if not number:
        return f"No {singular}"
    headline = f"{'At least ' if is_capped else ''}{number:,} {singular if number == 1 else many}"
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
    verb = "needs" if losing == 1 else "need"
    return f"{losing:,} of {_sources(sources)} {verb} attention: {loss_words(*worst)}"


def loss_words(name: str, outcome: SourceOutcome, reports: int) -> str:
    """What was lost of a source: "1,204 reports of “codex” were rejected"."""
    return f"{reports:,} {_LOSS_WORDS[outcome][reports != 1].format(shortened(name))}"


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
