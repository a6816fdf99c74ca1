"""What the explore page is asked, read from its address, and the questions that this makes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from django.http import QueryDict
from django.urls import reverse

from dashboard.explore.metrics import METRICS, Metric
from dashboard.filter_bar import COST, FilterBar, TimeRange
from metering.reporting.question import Filters, UsageQuestion
from metering.reporting.sources import has_quarters, sets_for

CUMULATIVE: Final = "cumulative"
SHAPE: Final = "shape"
FLOW: Final = "flow"
SEARCH: Final = "search"
PAGE: Final = "page"
SEARCH_CHARACTERS_MAX: Final = 200
PAGE_MAX: Final = 1_000
# More bars than that are no picture: a month of hours is 744.
HOURLY_MAX: Final = timedelta(days=32)
# From the whole to the single call: a click on a value leads to the next of these.
LEVELS: Final = ("team", "agent", "feature", "session", "trace")


@dataclass(frozen=True)
class Exploration:
    """A view of usage. Its bar's filters are those that the reader may use."""

    tenant_id: int
    bar: FilterBar
    metric: Metric
    is_cumulative: bool = False
    is_flow: bool = False
    search: str = ""
    page: int = 1

    @property
    def group_by(self) -> tuple[str, ...]:
        return self.bar.group_by

    @property
    def own(self) -> dict[str, str]:
        """The page's own parameters that every link of it keeps."""
        return own_parameters(is_cumulative=self.is_cumulative, is_flow=self.is_flow)

    @property
    def can_flow(self) -> bool:
        """Whether two dimensions share an amount, which may be drawn as streams."""
        return self.metric.is_additive and len(self.group_by) > 1

    def question(
        self,
        span: TimeRange,
        *,
        group_by: tuple[str, ...] = (),
        interval: str = "none",
        only: Mapping[str, tuple[str, ...]] | None = None,
    ) -> UsageQuestion | None:
        """The question for a stretch of time, of these values alone; None: it has not begun."""
        if span.starts_at >= span.until:
            return None
        return UsageQuestion(
            tenant_id=self.tenant_id,
            starts_at=span.starts_at,
            ends_at=span.until,
            group_by=group_by,
            interval=interval,
            timezone=str(self.bar.zone),
            filters={**self.filters, **(only or {})},
        )

    @property
    def is_quick(self) -> bool:
        """Whether sums by quarter of an hour answer it."""
        sets = sets_for(frozenset(self.group_by) | frozenset(self.filters))
        return not self.metric.is_counted and has_quarters(sets)

    @property
    def filters(self) -> Filters:
        return {name: tuple(values) for name, values in self.bar.filters.items()}

    def link(self, *, path: str = "", **further: str) -> str:
        """The address of this view with other parameters of the page; an empty one is left out."""
        page = {SEARCH: self.search, PAGE: str(self.page) if self.page > 1 else ""}
        pairs = {name: value for name, value in {**self.own, **page, **further}.items() if value}
        return self.bar.with_further(pairs).query(path=path)

    def within(self, value: str) -> "Exploration":
        """The same of one value of the first dimension."""
        return replace(self, bar=self.bar.with_chip(self.group_by[0], value))

    def deeper(self, dimension: str, value: str) -> FilterBar:
        """The view of one value: grouped by what comes after it, where it was grouped by it."""
        chosen = {dimension, *(name for name, _ in self.bar.chips)}
        groups = [name for name in self.group_by if name not in chosen]
        after = LEVELS.index(dimension) + 1 if dimension in LEVELS else 0
        taken = {*chosen, *groups}
        following = [name for name in LEVELS[after:] if name not in taken]
        groups = [*groups, *following][: max(1, len(self.group_by))] or [LEVELS[-1]]
        bar = replace(self.bar.with_chip(dimension, value), group_by=tuple(groups))
        return bar.with_further(self.own)


def own_parameters(*, is_cumulative: bool, is_flow: bool) -> dict[str, str]:
    """The parameters of a view that are not its filter bar's."""
    own = {CUMULATIVE: "true" if is_cumulative else "", SHAPE: FLOW if is_flow else ""}
    return {name: value for name, value in own.items() if value}


def explore_value(bar: FilterBar, dimension: str, value: str) -> str:
    """The address of the view of one value, grouped by what comes after it."""
    view = Exploration(0, bar.with_further({}).with_split(dimension), METRICS[COST])
    return view.deeper(dimension, value).query(path=reverse("dashboard:explore"))


def read_exploration(query: QueryDict, bar: FilterBar, *, tenant_id: int) -> Exploration:
    """The view that an address asks for. What is not understood is left out and said."""
    notices = list(bar.notices)
    metric = METRICS.get(bar.metric)
    if metric is None:
        notices.append("This metric is not known, so spend is shown.")
        metric = METRICS[COST]
    interval = bar.chosen_interval
    if interval == "hour" and bar.range.ends_at - bar.range.starts_at > HOURLY_MAX:
        notices.append(f"The chart shows hours for at most {HOURLY_MAX.days} days.")
        interval = None
    is_cumulative, is_flow = query.get(CUMULATIVE) == "true", query.get(SHAPE) == FLOW
    search = query.get(SEARCH, "").strip()[:SEARCH_CHARACTERS_MAX]
    text = query.get(PAGE, "")
    page = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 1
    bar = replace(
        bar, metric=metric.name, chosen_interval=interval, notices=tuple(notices)
    ).with_further(own_parameters(is_cumulative=is_cumulative, is_flow=is_flow))
    page = max(1, min(page, PAGE_MAX))
    return Exploration(tenant_id, bar, metric, is_cumulative, is_flow, search, page)
