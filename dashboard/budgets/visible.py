"""Which budgets a person sees: a member of teams sees no other team's money."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.http import Http404

from dashboard.access import PageRequest
from metering.core.match import wanted_values
from metering.models import Budget, HaltKind
from tenants.members import visible_teams

TEAM = "team"


def teams_of(request: PageRequest) -> tuple[str, ...] | None:
    """The teams whose money the person may see; None: all of the tenant's."""
    return visible_teams(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)


def is_visible(
    match: Mapping[str, object], per: Sequence[str], teams: Collection[str] | None
) -> bool:
    """Whether a budget counts these teams' calls alone, or each team's in windows of its own."""
    if teams is None:
        return True
    if TEAM in match:
        return wanted_values(match[TEAM]) <= set(teams)
    return TEAM in per


def budgets_of_reasons(
    tenant_id: int, reasons: Iterable[Mapping[str, object]]
) -> dict[int, Budget]:
    """The budgets that reasons of decisions name, by id."""
    named = {reason["budget"] for reason in reasons if "budget" in reason}
    return Budget.objects.filter(tenant_id=tenant_id).in_bulk(named)


def withheld(
    reason: Mapping[str, Any], budgets: Mapping[int, Budget], teams: Collection[str] | None
) -> str:
    """The sentence for a reason that speaks of other teams' calls as well; empty where the person
    may read the reason itself.
    """
    if teams is None:
        return ""
    budget = budgets.get(reason.get("budget", 0))
    if "budget" in reason and not (budget and is_visible(budget.match, budget.per, teams)):
        return "A budget that counts more than your teams' calls decided."
    is_rule = "breaker" in reason or reason.get("kind", HaltKind.MANUAL) != HaltKind.MANUAL
    if is_rule and not is_visible(reason.get("match") or {}, (), teams):
        return "A rule that counts more than your teams' calls decided."
    return ""


def budgets_of_teams(tenant_id: int, teams: Collection[str]) -> list[int]:
    """The budgets that count these teams' calls alone. One with a window for each team is not among
    them, whose other groups are no one else's business.
    """
    budgets = Budget.objects.filter(tenant_id=tenant_id)
    return [row.id for row in budgets if is_visible(row.match, [], teams)]


def values_shown(
    chips: Mapping[str, Collection[str]], teams: Collection[str] | None
) -> dict[str, Collection[str]]:
    """The values to which windows are narrowed: what was asked for, and no other team."""
    values = dict(chips)
    if teams is not None:
        asked = set(chips.get(TEAM, teams))
        values[TEAM] = [team for team in teams if team in asked]
    return values


def find_budget(request: PageRequest, budget_id: int) -> Budget:
    """A budget of the tenant that the person may see, archived or not. Raises Http404."""
    budget = Budget.objects.filter(tenant=request.tenant, id=budget_id).first()
    if budget is None or not is_visible(budget.match, budget.per, teams_of(request)):
        raise Http404
    return budget
