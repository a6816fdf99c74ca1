"""Forms of credit: grant it, take it back, hold a customer to it, discount, and give back."""

from decimal import Decimal
from typing import Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse

from billing.coupons import create_coupon
from billing.credit_notes import create_credit_note
from billing.credits import grant_credit, held_of, void_credit
from billing.currencies import money_of
from billing.forms import AmountsForm, CouponFields, GrantFields, OfCustomerForm
from billing.models import Coupon, CreditGrant, CreditKind, CreditNote, Customer, Statement
from dashboard.access import PageRequest, may_bill
from dashboard.billing.collection_words import left_of
from dashboard.forms import form_page, moment_field, save_once, sent_data, show_form
from tenants.admin_site import actor_of
from tenants.number_fields import AmountField

CUSTOMERS_OFFERED: Final = 1_000
REASON_CHARACTERS_MAX: Final = 1000


class PageForm(OfCustomerForm):
    """A form about one customer, whom the address may name by its key."""

    def __init__(self, request: PageRequest) -> None:
        asked = {"customer": request.GET.get("customer", "")[:200]}
        super().__init__(sent_data(request), initial=asked)
        self.fields["customer"].widget.attrs |= {"list": "customers", "autocomplete": "off"}


class GrantForm(GrantFields, PageForm):
    """Credit for a customer."""

    kind = forms.ChoiceField(
        label="Kind",
        choices=CreditKind.choices,
        help_text="Promotional credit is used before paid credit of the same priority.",
    )
    effective_at = moment_field("From", required=False, help_text="Now, if left empty.")
    expires_at = moment_field("Expires", required=False, help_text="Never, if left empty.")
    reference = forms.CharField(
        label="Reference",
        max_length=200,
        required=False,
        help_text="Such as the number of a payment.",
    )
    field_order = ("customer", "amount", "kind", "effective_at", "expires_at")


@form_page("credits", may=may_bill)
def grant(request: PageRequest) -> HttpResponse:
    """Give a customer credit."""
    form = GrantForm(request)

    def save() -> CreditGrant:
        return grant_credit(tenant=request.tenant, actor=actor_of(request), **form.cleaned_data)

    made = save_once(request, form, save)
    if made is not None:
        amount = money_of(made.amount, made.customer.currency)
        messages.success(request, f"{made.customer.name} has {amount} more credit.")
        return to_customer(made.customer)
    return form_of_customer(request, form, "Grant credit", "Grant credit")


class CouponForm(CouponFields, PageForm):
    """A discount on a customer's statements."""

    name = forms.CharField(
        label="Name", max_length=200, help_text="As it is printed on statements."
    )
    starts_at = moment_field("From", required=False, help_text="Now, if left empty.")
    ends_at = moment_field(
        "Until", required=False, help_text="It is for statements whose period ends by then."
    )
    field_order = ("customer", "name", "percent", "amount", "starts_at", "ends_at")


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

    amount = AmountField(
        label="Amount", required=False, help_text="All that is left, if left empty."
    )
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
    grant = get_object_or_404(
        CreditGrant.objects.select_related("customer"), tenant=request.tenant, id=grant_id
    )
    customer, currency = grant.customer, grant.customer.currency
    form = BackForm(request, currency)

    def save() -> CreditGrant:
        return void_credit(grant, actor=actor_of(request), **form.cleaned_data)

    changed = save_once(request, form, save)
    if changed is not None:
        left = money_of(changed.balance, currency)
        messages.success(request, f"The credit was taken back; {left} of the grant are left.")
        return to_customer(customer)
    held = held_of([grant]).get(grant.id, 0)
    kept = f" {money_of(held, currency)} of it are held for calls in flight." if held else ""
    return show_form(
        request,
        form,
        page="credits",
        headline=f"Take credit back from {customer.name}",
        verb="Take credit back",
        back=(reverse("dashboard:customer", args=[customer.id]), customer.name),
        intro=f"The grant has {money_of(grant.balance, currency)} left.{kept} A wallet keeps what "
        "it needs for usage that no statement has charged yet.",
    )


@form_page("statements", may=may_bill)
def add_credit_note(request: PageRequest, statement_id: int) -> HttpResponse:
    """Give back an amount of a final statement, or all that is left of it."""
    statement = get_object_or_404(
        Statement.objects.select_related("customer"), tenant=request.tenant, id=statement_id
    )
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
    return show_form(
        request,
        form,
        page="credits",
        headline=f"Write a credit note on {statement.number or 'a draft'}",
        verb="Write credit note",
        back=(address, f"Statement {statement.number or ''}".strip()),
        intro=f"{left} before tax are left of the statement. The tax on the amount is given back "
        "as well. A statement with credit notes cannot be voided.",
    )


def to_customer(customer: Customer) -> HttpResponse:
    """Lead back to the customer's page."""
    return HttpResponseRedirect(reverse("dashboard:customer", args=[customer.id]))


def form_of_customer(
    request: PageRequest, form: PageForm, headline: str, verb: str, *, intro: str = ""
) -> HttpResponse:
    """The page of a form about a customer."""
    keys = Customer.objects.filter(tenant=request.tenant, archived_at=None).order_by("name", "id")
    return show_form(
        request,
        form,
        page="credits",
        headline=headline,
        template="dashboard/billing/credit_form.html",
        verb=verb,
        intro=intro,
        customers=keys.values_list("key", "name")[:CUSTOMERS_OFFERED],
    )
