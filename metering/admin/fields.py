"""What the forms and lists of the admin share: amounts in USD, matches, and who may write."""

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextInputWidget

from metering.match_field import MatchField
from metering.money import nanos_from_usd, usd_from_nanos
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may change budgets and prices: owners, admins and finance.
MONEY_ROLES: Final = frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])


def usd_words(nanos: int) -> str:
    """The exact amount, with cents at least."""
    whole, _, decimals = usd_from_nanos(nanos).partition(".")
    return f"${int(whole):,}.{decimals:0<2}"


class UsdField(forms.CharField):
    """An amount in USD; its value is whole nano-dollars."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}))
        super().__init__(max_length=40, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return usd_from_nanos(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int | None:
        """Raises ValidationError with a sentence for what is no amount."""
        text = super().clean(value).replace(",", "").removeprefix("$").strip()
        if not text:
            return None
        try:
            return nanos_from_usd(text)
        except ValueError as error:
            raise ValidationError(f"The amount {error}.") from error


def match_field(*, rows: int) -> MatchField:
    """The field for what a budget counts."""
    return MatchField(
        rows=rows,
        label="Counts only",
        required=False,
        help_text="Nothing chosen: all usage. Several values of a dimension: any of them.",
    )
