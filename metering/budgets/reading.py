"""A tenant's budgets in force, as they are stored."""

from datetime import timedelta

from django.utils import timezone

from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule, LevelRule, LimitIncreaseRule
from metering.models import Budget, BudgetLevel, LimitIncrease, LimitIncreaseStatus
from tenants.models import Tenant


def read_budget_index(
    tenant_id: int,
    *,
    version: int | None = None,
    budget_id: int | None = None,
    has_raises: bool = True,
) -> BudgetIndex:
    """The tenant's budgets in force, or one of them, as of now; `version` where the caller holds
    the configuration lock. `has_raises` is False where no limit is known to have been raised.
    """
    only = {} if budget_id is None else {"budget_id": budget_id}
    if version is None:
        version = Tenant.objects.values_list("configuration_version", flat=True).get(id=tenant_id)
    levels: dict[int, list[LevelRule]] = {}
    for level in BudgetLevel.objects.filter(tenant_id=tenant_id, **only).order_by("percent"):
        levels.setdefault(level.budget_id, []).append(LevelRule.of(level))
    raises = _read_raises(tenant_id) if has_raises else {}
    budgets = Budget.objects.filter(tenant_id=tenant_id, archived_at=None).order_by("id")
    if budget_id is not None:
        budgets = budgets.filter(id=budget_id)
    return BudgetIndex(
        tenant_id=tenant_id,
        version=version,
        rules=[
            BudgetRule(budget, levels.get(budget.id, []), raises.get(budget.id, []))
            for budget in budgets
        ],
    )


def _read_raises(tenant_id: int) -> dict[int, list[LimitIncreaseRule]]:
    """Approved raises that are not over, or only just: clocks of processes differ a little."""
    rules: dict[int, list[LimitIncreaseRule]] = {}
    for row in LimitIncrease.objects.filter(
        tenant_id=tenant_id,
        status=LimitIncreaseStatus.APPROVED,
        ends_at__gt=timezone.now() - timedelta(hours=1),
    ).order_by("id"):
        rules.setdefault(row.budget_id, []).append(LimitIncreaseRule.of(row))
    return rules
