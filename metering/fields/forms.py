"""What the forms and lists of the admin share: amounts in USD, matches, and who may write."""

from typing import Any, Final

from common.json_bodies import JsonObject
from common.values import COUNT_MAX
from metering.core.match import wanted_values
from metering.fields.match_widget import MatchField
from tenants.number_fields import WholeNumberField
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may change budgets and prices: owners, admins and finance.
MONEY_ROLES: Final = frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])


def count_field(
    label: str, *, minimum: int = 1, maximum: int = COUNT_MAX, **options: Any
) -> WholeNumberField:
    """A whole number within bounds."""
    return WholeNumberField(label=label, min_value=minimum, max_value=maximum, **options)


def match_field(*, rows: int) -> MatchField:
    """The field for what a budget counts."""
    return MatchField(
        rows=rows,
        label="Counts only",
        required=False,
        help_text="Leave empty for all usage. Several values of a dimension match any of them.",
    )


def match_words(match: JsonObject) -> str:
    """What a match picks, for people."""
    parts = []
    for name, wanted in match.items():
        values = [value or "(none)" for value in sorted(wanted_values(wanted))]
        words = " or ".join(values) if len(values) <= 3 else f"any of {len(values)}"
        parts.append(f"{name} {words}")
    return ", ".join(parts) or "all calls"
