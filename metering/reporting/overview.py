"""What an overview shows: who spent most, what has no price, and how full budgets are."""

from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection

from metering.budgets.reading import read_book
from metering.budgets.rules import BudgetRule
from metering.ledger.windows import state_of, used_percent
from metering.models import BudgetWindow, Completeness, CostSource
from metering.pricing.model_names import nearest_model
from metering.reporting.question import Filters, UsageQuestion
from metering.reporting.usage import UsageRow, usage


class UnpricedModel(NamedTuple):
    """Events of one model that no price covers, or whose usage nobody told."""

    provider: str
    model: str
    is_usage_missing: bool
    event_count: int
    last_at: datetime

    @property
    def nearest(self) -> str | None:
        """The model with a price that this one is a misspelling of, as far as one can tell."""
        return None if self.is_usage_missing else nearest_model(self.provider or None, self.model)


class WindowFill(NamedTuple):
    """A window of a budget, how full it is by its fullest part, and which part that is."""

    rule: BudgetRule
    window: BudgetWindow
    used_percent: Decimal
    part: str


# The windows of the present revisions that hold a moment. Sorted by about how full they are, raises
# aside, which is judged exactly for the few that are left.
CURRENT_WINDOWS: Final = """
    SELECT w.id FROM budget_window w JOIN budget b
        ON b.tenant_id = w.tenant_id AND b.id = w.budget_id AND b.revision = w.revision
    WHERE w.tenant_id = %s AND b.archived_at IS NULL
    AND w.starts_at <= %s AND (w.ends_at IS NULL OR w.ends_at > %s)
    ORDER BY greatest(
        w.spent_nanos / nullif(b.limit_cost_nanos + w.carried_nanos, 0)::float8,
        w.spent_tokens / nullif(b.limit_tokens, 0)::float8,
        w.spent_requests / nullif(b.limit_requests, 0)::float8,
        w.spent_tool_calls / nullif(b.limit_tool_calls, 0)::float8,
        extract(epoch FROM %s - w.first_used_at) / nullif(b.limit_seconds, 0)::float8
    ) DESC NULLS LAST, w.id
    LIMIT %s
"""


def top_values(
    *,
    tenant_id: int,
    dimension: str,
    starts_at: datetime,
    ends_at: datetime,
    limit: int = 10,
    filters: Filters | None = None,
) -> list[UsageRow]:
    """The values of a dimension that cost most, the highest first."""
    question = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=starts_at,
        ends_at=ends_at,
        group_by=(dimension,),
        interval="none",
        filters=filters or {},
    )
    return usage(question, limit=limit).rows


def unpriced(
    *, tenant_id: int, starts_at: datetime, ends_at: datetime, limit: int = 100
) -> list[UnpricedModel]:
    """Models without a price that were used, those with most events first."""
    with connection.cursor() as database:
        # The number is written out, so that the partial index of unpriced events fits.
        database.execute(
            f"SELECT provider, model, completeness = {Completeness.MISSING.value}, count(*),"  # noqa: S608
            " max(time) FROM usage_event"
            f" WHERE tenant_id = %s AND cost_source = {CostSource.UNPRICED.value} AND NOT is_void"
            " AND time >= %s AND time < %s"
            " GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2, 3 LIMIT %s",
            [tenant_id, starts_at, ends_at, limit],
        )
        return [UnpricedModel(*row) for row in database.fetchall()]


def budget_windows(*, tenant_id: int, now: datetime, limit: int = 100) -> list[WindowFill]:
    """The windows that hold `now`, of budgets in force, the fullest first."""
    rules = read_book(tenant_id).rules
    with connection.cursor() as database:
        database.execute(CURRENT_WINDOWS, [tenant_id, now, now, now, limit])
        window_ids = [row[0] for row in database.fetchall()]
    windows = BudgetWindow.objects.filter(tenant_id=tenant_id, id__in=window_ids)
    fills = [_fill(rules[one.budget_id], one, now) for one in windows if one.budget_id in rules]
    fills.sort(key=lambda fill: (-fill.used_percent, fill.rule.name, fill.window.group_key))
    return fills


def _fill(rule: BudgetRule, window: BudgetWindow, now: datetime) -> WindowFill:
    use = used_percent(rule, state_of(window), now=now)
    return WindowFill(rule, window, use.percent, use.part)
