"""Where the month will end, and against which budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dashboard.filter_bar import FilterBar
from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule
from metering.core.match import group_key, wanted_values
from metering.core.periods import Span
from metering.models import Mode
from metering.reporting.budget_windows import GroupOfBudget, windows_of_groups
from metering.reporting.forecast import Forecast, forecast
from metering.reporting.question import InvalidQuestion


class Covering(NamedTuple):
    """A budget that counts exactly the usage that is shown, and what it allows in a period."""

    rule: BudgetRule
    limit_nanos: int


@dataclass(frozen=True)
class Month:
    """The month that is running: what is spent, what it will come to, and what is allowed. No
    forecast: there are too many calls to read for these filters.
    """

    span: Span
    forecast: Forecast | None
    budgets: Sequence[Covering]

    @property
    def is_known(self) -> bool:
        """Whether there is anything to tell a forecast from."""
        return self.forecast is not None and self.forecast.method != "none"

    @property
    def tightest(self) -> Covering | None:
        """The budget that is exceeded first; one that only monitors comes after all others."""
        return min(
            self.budgets,
            key=lambda covering: (covering.rule.mode == Mode.SHADOW, covering.limit_nanos),
            default=None,
        )

    @property
    def over_nanos(self) -> int | None:
        """How far beyond the tightest limit the month will end; negative: how much will be left."""
        tightest = self.tightest
        if tightest is None or self.forecast is None:
            return None
        return self.forecast.forecast_nanos - tightest.limit_nanos

    @property
    def left_nanos(self) -> int | None:
        """How much of the tightest limit the month will leave."""
        return None if self.over_nanos is None else -self.over_nanos


def read_month(tenant_id: int, bar: FilterBar, book: BudgetIndex) -> Month:
    """The running month of what the bar's filters let pass."""
    month = bar.with_period("month").range
    span = Span(month.starts_at, month.ends_at)
    rules = [rule for rule in book.rules.values() if rule.clock.span(month.starts_at) == span]
    expected = read_forecast(tenant_id, bar, "month")
    return Month(span, expected, covering_budgets(tenant_id, bar, book, rules))


def read_forecast(tenant_id: int, bar: FilterBar, period: str) -> Forecast | None:
    """What the running day or month of the shown usage will come to; None where too many calls
    would have to be read one by one.
    """
    try:
        return forecast(
            tenant_id=tenant_id,
            period=period,
            timezone=str(bar.zone),
            filters={name: tuple(values) for name, values in bar.filters.items()},
            now=bar.now,
        )
    except InvalidQuestion:
        return None


def covering_budgets(
    tenant_id: int, bar: FilterBar, book: BudgetIndex, rules: Sequence[BudgetRule]
) -> list[Covering]:
    """Those of the budgets that count exactly what is shown, with what their limits are now."""
    keys = {rule: key for rule in rules if (key := covering_group(rule, bar.filters)) is not None}
    if not keys:
        return []
    windows = windows_of_groups(
        tenant_id=tenant_id,
        book=book,
        groups=[GroupOfBudget(rule.id, key) for rule, key in keys.items()],
        now=bar.now,
    )
    covering = []
    for rule, key in keys.items():
        limit = rule.limits["cost_nanos"]
        assert limit is not None, "a budget without a limit of cost covers no cost"
        window = windows.get(GroupOfBudget(rule.id, key))
        carried = window.state.carried_nanos if window else 0
        covering.append(Covering(rule, limit + rule.raised(key, bar.now)[0] + carried))
    return covering


def covering_group(rule: BudgetRule, filters: Mapping[str, Sequence[str]]) -> str | None:
    """The key of the budget's group that counts what these filters let pass and nothing else; None
    where there is none. Pure.
    """
    if rule.limits["cost_nanos"] is None or rule.is_per_request or rule.is_rolling:
        return None
    counted = {name: wanted_values(wanted) for name, wanted in rule.match.items()}
    group = []
    for name in rule.dimensions:
        values = filters.get(name, ())
        if len(values) != 1 or not counted.get(name, frozenset(values)) >= frozenset(values):
            return None
        counted[name] = frozenset(values)
        group.append(values[0])
    asked = {name: frozenset(values) for name, values in filters.items()}
    return group_key(group) if counted == asked else None


def budgets_per(interval: str, at: datetime, book: BudgetIndex) -> list[BudgetRule]:
    """Budgets whose period is the bucket of a chart that begins at that moment."""
    return [
        rule
        for rule in book.rules.values()
        if rule.period == interval and rule.clock.span(at).starts_at == at
    ]
