"""Forms of wallets: hold a customer's usage to its credit, and who is told when it runs low."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from billing.models import Wallet
from billing.wallet_opening import FULL_PERCENT, change_levels, open_wallet
from dashboard.access import PageRequest, may_bill
from dashboard.billing.credit_forms import PageForm, form_of_customer, to_customer
from dashboard.forms import form_page, save_once, sent_data, show_form
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import LEVELS_MAX, NOTIFY_CHARACTERS_MAX, NOTIFY_MAX
from metering.models import Action
from tenants.admin_site import actor_of

WALLET_RULES: Final = (
    "From now on calls are refused that the customer's credit does not cover. Usage from before is "
    "due in money. A wallet counts the provider's cost, so usage must be charged in proportion to "
    "it: without a plan, or by one cost-plus charge for all usage."
)
LEVEL_RULES: Final = (
    "An incident says when a share of the credit is used. At 100% calls are refused as well, "
    "whatever is listed here."
)


class OpenWalletForm(PageForm):
    """Whose usage is held to its credit."""

    amounts = ()


@form_page("credits", may=may_bill)
def open_a_wallet(request: PageRequest) -> HttpResponse:
    """Hold a customer's usage to its credit, or say why that cannot be."""
    form = OpenWalletForm(request)

    def save() -> Wallet:
        return open_wallet(tenant=request.tenant, actor=actor_of(request), **form.cleaned_data)

    made = save_once(request, form, save)
    if made is not None:
        messages.success(request, f"{made.customer.name}'s calls are held to its credit.")
        return to_customer(made.customer)
    return form_of_customer(request, form, "Open a wallet", "Open wallet", intro=WALLET_RULES)


class LevelsField(forms.CharField):
    """Levels, one a line: a percentage, and whom to notify, as in "80 finance, team_lead"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(widget=forms.Textarea(attrs={"rows": 4}), max_length=5000, **options)

    def prepare_value(self, value: Any) -> object:
        if isinstance(value, str) or value is None:
            return value
        return "\n".join(f"{each.percent} {', '.join(each.notify)}".rstrip() for each in value)

    def clean(self, value: object) -> object:
        """Raises ValidationError that names the line which cannot be read."""
        lines = [line.strip() for line in (super().clean(value) or "").splitlines()]
        levels = [_level_of(line) for line in lines if line]
        if len({level.percent for level in levels}) < len(levels):
            raise ValidationError("Write each percentage once.")
        # One of them blocks, whether it is listed or not.
        if len(levels) >= LEVELS_MAX:
            raise ValidationError(f"Write at most {LEVELS_MAX - 1} levels.")
        return levels


def _level_of(line: str) -> LevelRule:
    text, _, names = line.partition(" ")
    text = text.removesuffix("%")
    percent = int(text) if text.isascii() and text.isdecimal() and len(text) <= 3 else 0
    if not 1 <= percent <= FULL_PERCENT:
        raise ValidationError(f"Begin with a percentage from 1 to 100: “{line[:60]}”.")
    notify = tuple(dict.fromkeys(filter(None, (name.strip() for name in names.split(",")))))
    if len(notify) > NOTIFY_MAX or any(len(name) > NOTIFY_CHARACTERS_MAX for name in notify):
        raise ValidationError(
            f"Name at most {NOTIFY_MAX} contacts of {NOTIFY_CHARACTERS_MAX} characters: "
            f"“{line[:60]}”."
        )
    return LevelRule(percent, Action.NONE.value, notify)


class LevelsForm(forms.Form):
    """At which shares of its credit a wallet is reported."""

    levels = LevelsField(
        label="Levels",
        required=False,
        help_text="One a line: a percentage of the credit, and the contacts to notify, as in "
        "80 finance, team_lead. Without contacts the incident is on its page alone.",
    )

    def __init__(self, request: PageRequest, levels: Sequence[LevelRule]) -> None:
        super().__init__(sent_data(request), initial={"levels": levels})


@form_page("credits", may=may_bill)
def change_wallet_levels(request: PageRequest, wallet_id: int) -> HttpResponse:
    """When is a customer's credit low, and who is told?"""
    wallets = Wallet.objects.select_related("customer", "budget")
    wallet = get_object_or_404(wallets, tenant=request.tenant, id=wallet_id, ended_at=None)
    stored = [LevelRule.of(level) for level in wallet.budget.levels.order_by("percent")]
    form = LevelsForm(request, stored)

    def save() -> Wallet:
        return change_levels(wallet, actor=actor_of(request), **form.cleaned_data)

    if save_once(request, form, save) is not None:
        messages.success(request, f"The levels of {wallet.customer.name}'s wallet were changed.")
        return to_customer(wallet.customer)
    return show_form(
        request,
        form,
        page="credits",
        headline=f"When is {wallet.customer.name}'s credit low?",
        verb="Save levels",
        back=(reverse("dashboard:customer", args=[wallet.customer_id]), wallet.customer.name),
        intro=LEVEL_RULES,
    )
