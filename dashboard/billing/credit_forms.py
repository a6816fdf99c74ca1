"""Forms of credit: grant it, take it back, hold a customer to it, discount, and give back."""

from decimal import Decimal
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from billing.coupons import STATEMENTS_MAX, create_coupon
from billing.credit_notes import create_credit_note
from billing.credits import (
    PRIORITY_MAX,
    ROLLOVER_MONTHS_MAX,
    grant_credit,
    held_of,
    void_credit,
)
from billing.currencies import minor_units, money_of
from billing.models import Coupon, CreditGrant, CreditKind, CreditNote, Customer, Statement
from common.expectations import as_sentence
from dashboard.access import PageRequest, may_bill
from dashboard.billing.collection_words import left_of
from dashboard.forms import form_page, form_token, moment_field, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from metering.fields.forms import count_field
from tenants.admin_site import actor_of
from tenants.number_fields import AmountField

CUSTOMERS_OFFERED: Final = 1_000
REASON_CHARACTERS_MAX: Final = 1000
PERCENT_MAX: Final = 100
PRIORITY: Final = 50


def _amount_field(label: str, **options: Any) -> AmountField:
    widget = forms.TextInput(attrs={"inputmode": "decimal"})
    return AmountField(label=label, widget=widget, **options)


def _count_field(label: str, maximum: int, **options: Any) -> forms.IntegerField:
    widget = forms.TextInput(attrs={"inputmode": "numeric"})
    return count_field(label, maximum=maximum, widget=widget, **options)


class AmountsForm(forms.Form):
    """A form with amounts in a customer's currency, which become minor units."""

    amounts: tuple[str, ...] = ("amount",)

    def currency(self) -> str | None:
        """Return the currency that the amounts are in; None while no customer is known."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        data, currency = self.cleaned_data, self.currency()
        for name in self.amounts if currency else ():
            amount: Decimal | None = data.get(name)
            if amount is None:
                continue
            try:
                data[name] = minor_units(amount, str(currency))
            except ValueError as error:
                self.add_error(name, as_sentence(str(error)))
        return data


class OfCustomerForm(AmountsForm):
    """A form about one customer, whom the address may name by its key."""

    customer = forms.CharField(
        label="Customer's key",
        max_length=200,
        widget=forms.TextInput(attrs={"list": "customers", "autocomplete": "off"}),
    )

    def __init__(self, request: PageRequest, **initial: Any) -> None:
        asked = {"customer": request.GET.get("customer", "")[:200]}
        super().__init__(sent_data(request), initial={**asked, **initial})
        self.tenant = request.tenant

    def clean_customer(self) -> Customer:
        found = Customer.objects.filter(
            tenant=self.tenant, key=self.cleaned_data["customer"], archived_at=None
        ).first()
        if found is None:
            raise ValidationError("There is no customer with this key.")
        return found

    def currency(self) -> str | None:
        customer: Customer | None = self.cleaned_data.get("customer")
        return None if customer is None else customer.currency


class GrantForm(OfCustomerForm):
    """Credit for a customer."""

    amount = _amount_field("Amount", help_text="In the customer's currency, as in 500.00.")
    kind = forms.ChoiceField(
        label="Kind",
        choices=CreditKind.choices,
        help_text="Promotional credit is used before paid credit of the same priority.",
    )
    effective_at = moment_field("From", required=False, help_text="Now, if left empty.")
    expires_at = moment_field("Expires", required=False, help_text="Never, if left empty.")
    priority = count_field(
        "Priority",
        minimum=0,
        maximum=PRIORITY_MAX,
        widget=forms.TextInput(attrs={"inputmode": "numeric"}),
        help_text="Lower is drawn first.",
    )
    rollover_percent = _count_field(
        "Rolls over, percent",
        PERCENT_MAX,
        required=False,
        help_text="What of the unused credit becomes new credit when it expires. Empty: nothing.",
    )
    rollover_max = _amount_field("Rolls over, at most", required=False)
    rollover_months = _count_field(
        "Rolled-over credit lasts, months",
        ROLLOVER_MONTHS_MAX,
        required=False,
        help_text="Without an end, if left empty.",
    )
    reference = forms.CharField(
        label="Reference",
        max_length=200,
        required=False,
        help_text="Such as the number of a payment.",
    )
    amounts = ("amount", "rollover_max")


@form_page("credits", may=may_bill)
def grant(request: PageRequest) -> HttpResponse:
    """Give a customer credit."""
    form = GrantForm(request, priority=PRIORITY)

    def save() -> CreditGrant:
        return grant_credit(tenant=request.tenant, actor=actor_of(request), **form.cleaned_data)

    made = save_once(request, form, save)
    if made is not None:
        amount = money_of(made.amount, made.customer.currency)
        messages.success(request, f"{made.customer.name} has {amount} more credit.")
        return to_customer(made.customer)
    return form_of_customer(request, form, "Grant credit", "Grant credit")


class CouponForm(OfCustomerForm):
    """A discount on a customer's statements."""

    name = forms.CharField(
        label="Name", max_length=200, help_text="As it is printed on statements."
    )
    percent = _amount_field(
        "Percent off", required=False, maximum=PERCENT_MAX, help_text="Either this or an amount."
    )
    amount = _amount_field("Amount off", required=False, help_text="In the customer's currency.")
    starts_at = moment_field("From", required=False, help_text="Now, if left empty.")
    ends_at = moment_field(
        "Until", required=False, help_text="It is for statements whose period ends by then."
    )
    statements_max = _count_field(
        "Statements, at most", STATEMENTS_MAX, required=False, help_text="All, if left empty."
    )


@form_page("credits", may=may_bill)
def add_coupon(request: PageRequest) -> HttpResponse:
    """Give a customer a coupon."""
    form = CouponForm(request)

    def save() -> Coupon:
        return create_coupon(tenant=request.tenant, actor=actor_of(request), **form.cleaned_data)

    made = save_once(request, form, save)
    if made is not None:
        messages.success(request, f"{made.customer.name} has the coupon “{made.name}”.")
        return to_customer(made.customer)
    rule = "A statement has one coupon: the oldest that lasts and is not used up."
    return form_of_customer(request, form, "Give a coupon", "Give coupon", intro=rule)


class BackForm(AmountsForm):
    """How much is taken or given back, and why."""

    amount = _amount_field("Amount", required=False, help_text="All that is left, if left empty.")
    reason = forms.CharField(label="Reason", max_length=REASON_CHARACTERS_MAX)

    def __init__(self, request: PageRequest, currency: str) -> None:
        super().__init__(sent_data(request))
        self.fields["amount"].label = f"Amount, {currency}"
        self._currency = currency

    def currency(self) -> str:
        return self._currency

    def clean_amount(self) -> Decimal | None:
        amount: Decimal | None = self.cleaned_data["amount"]
        if amount == 0:
            raise ValidationError("Give more than 0, or leave it empty for all that is left.")
        return amount


@form_page("credits", may=may_bill)
def take_back(request: PageRequest, grant_id: int) -> HttpResponse:
    """Take back what a grant holds, or a part of it."""
    found = (
        CreditGrant.objects.filter(tenant=request.tenant, id=grant_id)
        .select_related("customer")
        .first()
    )
    if found is None:
        raise Http404
    customer, currency = found.customer, found.customer.currency
    form = BackForm(request, currency)

    def save() -> CreditGrant:
        return void_credit(found, actor=actor_of(request), **form.cleaned_data)

    changed = save_once(request, form, save)
    if changed is not None:
        left = money_of(changed.balance, currency)
        messages.success(request, f"The credit was taken back; {left} of the grant are left.")
        return to_customer(customer)
    held = held_of([found]).get(found.id, 0)
    kept = f" {money_of(held, currency)} of it are held for calls in flight." if held else ""
    return credit_form(
        request,
        form,
        headline=f"Take credit back from {customer.name}",
        verb="Take credit back",
        crumb=(reverse("dashboard:customer", args=[customer.id]), customer.name),
        intro=f"The grant has {money_of(found.balance, currency)} left.{kept} A wallet keeps what "
        "it needs for usage that no statement has charged yet.",
    )


@form_page("statements", may=may_bill)
def add_credit_note(request: PageRequest, statement_id: int) -> HttpResponse:
    """Give back an amount of a final statement, or all that is left of it."""
    statement = (
        Statement.objects.filter(tenant=request.tenant, id=statement_id)
        .select_related("customer")
        .first()
    )
    if statement is None:
        raise Http404
    address = reverse("dashboard:statement", args=[statement.id])
    form = BackForm(request, statement.currency)

    def save() -> CreditNote:
        return create_credit_note(statement, actor=actor_of(request), **form.cleaned_data)

    note = save_once(request, form, save)
    if note is not None:
        total = money_of(note.total, statement.currency)
        messages.success(
            request,
            f"Credit note {note.number} gives back {total} with tax. The next statement uses it.",
        )
        return HttpResponseRedirect(address)
    left = money_of(left_of(statement), statement.currency)
    return credit_form(
        request,
        form,
        headline=f"Write a credit note on {statement.number or 'a draft'}",
        verb="Write credit note",
        crumb=(address, f"Statement {statement.number or ''}".strip()),
        intro=f"{left} before tax are left of the statement. The tax on the amount is given back "
        "as well. A statement with credit notes cannot be voided.",
    )


def to_customer(customer: Customer) -> HttpResponse:
    """Lead back to the customer's page."""
    return HttpResponseRedirect(reverse("dashboard:customer", args=[customer.id]))


def form_of_customer(
    request: PageRequest, form: OfCustomerForm, headline: str, verb: str, *, intro: str = ""
) -> HttpResponse:
    """The page of a form about a customer."""
    crumb = (reverse("dashboard:credits"), "Credits")
    return credit_form(request, form, headline=headline, verb=verb, crumb=crumb, intro=intro)


def credit_form(
    request: PageRequest,
    form: forms.Form,
    *,
    headline: str,
    verb: str,
    crumb: tuple[str, str],
    intro: str,
) -> HttpResponse:
    """The page of a form about credit."""
    keys = Customer.objects.filter(tenant=request.tenant, archived_at=None).order_by("name", "id")
    context = frame(request, filter_bar_of(request), page="credits") | {
        "headline": headline,
        "form": form,
        "verb": verb,
        "intro": intro,
        "crumb": crumb[0],
        "crumb_words": crumb[1],
        "cancel": crumb[0],
        "customers": keys.values_list("key", "name")[:CUSTOMERS_OFFERED],
        **form_token(request),
    }
    return render(request, "dashboard/billing/credit_form.html", context)
