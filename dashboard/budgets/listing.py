"""The list of budgets: one row each, by consequence, with its fullest window."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from dashboard.budgets.bars import Bar, bar_of
from dashboard.budgets.visible import is_visible, values_shown
from dashboard.budgets.words import MODE_BADGES, MODE_GROUPS, refuses, refusing_percent, scope_words
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import shortened
from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule
from metering.core.dimensions import REQUEST
from metering.core.match import wanted_values
from metering.models import Mode
from metering.reporting.budget_windows import Spread, Watch, WatchedWindow, watched_windows
from metering.reporting.fullest_windows import RANKED_MAX, WindowFilter

WINDOWS_PER_PAGE: Final = 25
NEEDLE_CHARACTERS_MAX: Final = 200
MODES: Final = (Mode.ENFORCE.value, Mode.WARN.value, Mode.SHADOW.value)
LATEST: Final = datetime.max.replace(tzinfo=UTC)
PLURALS: Final = {"request": "calls", "status": "statuses"}


@dataclass(frozen=True)
class ListFilter:
    """What the list was asked to show: `needle` is a part of a name or of a value, `opened` the
    budget whose windows are listed, from page `page` on.
    """

    bar: FilterBar
    needle: str = ""
    mode: str = ""
    dimension: str = ""
    opened: int | None = None
    page: int = 1

    @property
    def further(self) -> dict[str, str]:
        """What is asked for besides the filter bar, as an address has it."""
        pairs = {
            "q": self.needle,
            "mode": self.mode,
            "dimension": self.dimension,
            "open": str(self.opened or ""),
            "page": str(self.page) if self.page > 1 else "",
        }
        return {name: value for name, value in pairs.items() if value}

    @property
    def is_narrow(self) -> bool:
        return bool(self.needle or self.mode or self.dimension or self.bar.chips)

    def query(self, **changes: Any) -> str:
        """This filter, changed, as a query string."""
        changed = replace(self, **changes)
        return changed.bar.with_further(changed.further).query()

    def takes(self, rule: BudgetRule) -> bool:
        """Whether a budget has the mode and dimension, and may count calls of the chips."""
        looked_at = {*rule.match, *rule.per}
        return (
            self.mode in {"", rule.mode}
            and (not self.dimension or self.dimension in looked_at)
            and all(
                name not in rule.match or not wanted_values(rule.match[name]).isdisjoint(values)
                for name, values in self.bar.filters.items()
            )
        )

    def names(self, rule: BudgetRule) -> bool:
        """Whether the text that is looked for is in the budget itself."""
        texts = [rule.name, *(v for wanted in rule.match.values() for v in wanted_values(wanted))]
        return any(self.needle.casefold() in text.casefold() for text in texts)


@dataclass(frozen=True)
class BudgetLine:
    """A budget as the list shows it; without a window where nothing was spent in the period."""

    rule: BudgetRule
    window: WatchedWindow | None
    spread: Spread

    @property
    def drawn(self) -> Bar | None:
        return bar_of(self.window) if self.window else None

    @property
    def scope(self) -> str:
        if self.rule.is_rolling:
            return scope_words(self.rule.match, self.rule.per, f"rolling {self.rule.period}")
        return scope_words(self.rule.match, self.rule.per, self.rule.period)

    @property
    def badge(self) -> str:
        """What the budget does, in a word."""
        if self.rule.mode == Mode.ENFORCE and not self.refuses:
            return "Notifies"
        return MODE_BADGES[self.rule.mode]

    @property
    def refuses(self) -> bool:
        """Whether it may refuse calls at all."""
        return refuses(self.rule)

    @property
    def refuses_now(self) -> bool:
        """Whether its fullest window has reached a level that refuses."""
        percent = refusing_percent(self.rule.levels)
        is_reached = percent is not None and self.percent >= percent
        return self.refuses and is_reached

    @property
    def percent(self) -> Decimal:
        return self.window.percent if self.window else Decimal(-1)

    @property
    def runs_out_at(self) -> datetime | None:
        return self.window.outlook.runs_out_at if self.window else None

    @property
    def is_over(self) -> bool:
        return self.window is not None and self.window.outlook.is_over

    @property
    def consequence(self) -> tuple[object, ...]:
        """What matters most comes first: what acts, what is used up, what runs out soonest."""
        return (
            MODES.index(self.rule.mode),
            not self.refuses,
            not self.is_over,
            self.runs_out_at or LATEST,
            -self.percent,
            self.rule.name,
        )

    @property
    def windows_words(self) -> str:
        """How many windows there are, and how many are over: "12 of 222 sessions over"."""
        number = self.spread.windows
        if self.rule.is_per_request:
            return "each call"
        if not self.rule.per or number < 2:
            return f"{number:,} window{'' if number == 1 else 's'}"
        name = self.rule.per[0] if len(self.rule.per) == 1 else "group"
        names = PLURALS.get(name, f"{name}s")
        most = " or more" if number >= RANKED_MAX else ""
        if self.spread.over:
            return f"{self.spread.over:,} of {number:,}{most} {names} over"
        return f"{number:,}{most} {names}, none over"


def read_lines(
    *,
    tenant_id: int,
    book: BudgetIndex,
    chosen: ListFilter,
    teams: Collection[str] | None,
) -> list[BudgetLine]:
    """The budgets that the person sees and has asked for, by consequence."""
    rules = visible_rules(book, chosen, teams)
    values = values_shown(chosen.bar.filters, teams)
    named = [rule for rule in rules if chosen.names(rule)]
    watches = [_watch(tenant_id, book, chosen, WindowFilter(_ids(named), "", values))]
    if chosen.needle:
        others = [rule for rule in rules if rule not in named]
        only = WindowFilter(_ids(others), chosen.needle, values)
        watches.append(_watch(tenant_id, book, chosen, only))
    windows = {window.rule.id: window for watch in watches for window in watch.windows}
    spreads = {key: spread for watch in watches for key, spread in watch.spreads.items()}
    empty = Spread(0, [0])
    lines = [
        BudgetLine(rule, windows.get(rule.id), spreads.get(rule.id, empty))
        for rule in rules
        if rule in named or rule.id in windows
    ]
    return sorted(lines, key=lambda line: line.consequence)


def visible_rules(
    book: BudgetIndex, chosen: ListFilter, teams: Collection[str] | None
) -> list[BudgetRule]:
    """The rules of the budgets in force that the person sees and that the filters take."""
    return [
        rule
        for rule in book.rules.values()
        if is_visible(rule.match, rule.per, teams) and chosen.takes(rule)
    ]


def _ids(rules: Sequence[BudgetRule]) -> list[int]:
    return [rule.id for rule in rules]


def _watch(tenant_id: int, book: BudgetIndex, chosen: ListFilter, only: WindowFilter) -> Watch:
    return watched_windows(
        tenant_id=tenant_id, book=book, now=chosen.bar.now, per_budget=1, only=only
    )


def windows_page(
    *,
    tenant_id: int,
    book: BudgetIndex,
    chosen: ListFilter,
    teams: Collection[str] | None,
) -> list[WatchedWindow]:
    """The windows of the budget that is unfolded, the fullest first, a page of them."""
    rule = book.rules.get(chosen.opened or 0)
    if rule is None:
        return []
    needle = "" if chosen.names(rule) else chosen.needle
    watch = watched_windows(
        tenant_id=tenant_id,
        book=book,
        now=chosen.bar.now,
        per_budget=WINDOWS_PER_PAGE,
        only=WindowFilter([rule.id], needle, values_shown(chosen.bar.filters, teams)),
        skipped=(chosen.page - 1) * WINDOWS_PER_PAGE,
    )
    return watch.windows


def groups_of(lines: Sequence[BudgetLine]) -> list[tuple[str, list[BudgetLine]]]:
    """The lines under what their mode means."""
    return [
        (MODE_GROUPS[mode], of_mode)
        for mode in MODES
        if (of_mode := [line for line in lines if line.rule.mode == mode])
    ]


def headline_of(lines: Sequence[BudgetLine], *, now: datetime, zone: ZoneInfo) -> str:
    """The finding: what refuses calls, or will, and when."""
    refusing = [line for line in lines if line.refuses_now]
    if refusing:
        more = f" and {len(refusing) - 1:,} more" if len(refusing) > 1 else ""
        verb = "refuse" if len(refusing) > 1 else "refuses"
        name = shortened(refusing[0].rule.name)
        return f"{_budgets(len(refusing))} {verb} calls now: {name}{more}"
    running = [line for line in lines if line.refuses and line.runs_out_at]
    if running:
        first = min(running, key=lambda line: line.runs_out_at or LATEST)
        more = f" and {len(running) - 1:,} more" if len(running) > 1 else ""
        verb = "run" if len(running) > 1 else "runs"
        assert first.runs_out_at is not None, "it runs out"
        when = day_words(first.runs_out_at, now=now, zone=zone)
        name = f"{shortened(first.rule.name)}, {when}"
        return f"{_budgets(len(running))} {verb} out and will refuse calls: {name}{more}"
    over = sum(line.is_over for line in lines)
    if over:
        verb = "are" if over > 1 else "is"
        return f"No budget refuses calls; {_budgets(over)} {verb} over the limit"
    return "No budget is about to run out" if lines else "No budget is in use"


def _budgets(number: int) -> str:
    return f"{number:,} budget{'' if number == 1 else 's'}"


def day_words(at: datetime, *, now: datetime, zone: ZoneInfo) -> str:
    """A day of the tenant's, as a sentence has it: "today", "on Thu, Dec 3"."""
    day = at.astimezone(zone).date()
    days = (day - now.astimezone(zone).date()).days
    if days in {0, 1}:
        return "today" if days == 0 else "tomorrow"
    return f"on {day:%a, %b %-d}" if days < 180 else f"on {day:%b %-d, %Y}"


def mode_choices(chosen: ListFilter, counts: Mapping[str, int]) -> list[Choice]:
    """Every mode, or one."""
    folded = replace(chosen, opened=None, page=1)
    choices = [Choice(folded.query(mode=""), "All", 0, not chosen.mode)]
    return choices + [
        Choice(folded.query(mode=mode), MODE_BADGES[mode], counts[mode], mode == chosen.mode)
        for mode in MODES
        if counts.get(mode) or mode == chosen.mode
    ]


def dimension_choices(chosen: ListFilter, rules: Sequence[BudgetRule]) -> list[Choice]:
    """The dimensions that budgets look at."""
    folded = replace(chosen, opened=None, page=1)
    names = sorted({name for rule in rules for name in (*rule.match, *rule.per)} - {REQUEST})
    choices = [Choice(folded.query(dimension=""), "Any dimension", 0, not chosen.dimension)]
    return choices + [
        Choice(folded.query(dimension=name), name, 0, name == chosen.dimension) for name in names
    ]
