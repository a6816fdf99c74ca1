"""Change alert settings and rules; of rules, only what differs from the defaults is stored."""

from collections.abc import Mapping
from typing import Any, Final

from django.db import transaction

from alerts.models import AlertSettings
from alerts.rules import RULES
from alerts.settings import change_alert_settings
from tenants.models import Tenant

COOL_DOWN_SECONDS_MAX: Final = 86_400
THRESHOLD_MAX: Final = 1_000_000
RuleChanges = Mapping[str, Mapping[str, Any] | None]


def default_rule(name: str) -> dict[str, Any]:
    """Return what a rule is judged by unless the tenant overrides it."""
    rule = RULES[name]
    return {"threshold": rule.threshold, "severity": rule.severity, "on": rule.is_on}


def rule_values(name: str, stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a rule is judged by; `stored` says how it differs from its default."""
    return {**default_rule(name), **stored.get(name, {})}


@transaction.atomic
def change_settings_and_rules(
    *, tenant: Tenant, actor: str, changes: Mapping[str, Any], rules: RuleChanges
) -> AlertSettings:
    """Change settings, and of rules the members that are named; None resets a rule to its default.

    Invariant: two simultaneous changes both count, since the row is locked before it is read.
    """
    if not rules:
        return change_alert_settings(tenant=tenant, actor=actor, changes=changes)
    AlertSettings.objects.get_or_create(tenant=tenant)
    stored = AlertSettings.objects.select_for_update().get(tenant=tenant)
    return change_alert_settings(
        tenant=tenant,
        actor=actor,
        changes={**changes, "rules": differing_rules(stored.rules, rules)},
    )


def differing_rules(
    stored: Mapping[str, Mapping[str, Any]], changes: RuleChanges
) -> dict[str, dict[str, Any]]:
    """Return the rules as they differ from their defaults after the changes."""
    differing = {}
    for name in RULES:
        change = changes.get(name, {})
        wanted = {} if change is None else {**stored.get(name, {}), **change}
        default = default_rule(name)
        if kept := {part: value for part, value in wanted.items() if value != default[part]}:
            differing[name] = kept
    return differing
