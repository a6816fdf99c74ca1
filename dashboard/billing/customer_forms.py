"""Forms of a customer: who it is, which usage is its, and on which plan it is."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from billing.collection.credentials import set_collection_method
from billing.currencies import is_currency
from billing.customers import (
    LINK_DIMENSIONS,
    PAYMENT_DAYS_MAX,
    create_customer,
    further_links,
    update_customer,
)
from billing.form_fields import TaxRatesField, stripe_help
from billing.models import CollectionMethod, Customer, Plan, StripeAccount, StripeSettings
from billing.plan_preview import terms_in_force
from billing.subscriptions import subscribe
from dashboard.access import PageRequest, may_bill
from dashboard.billing.collection_words import is_live_now
from dashboard.billing.customer import as_body, find_customer
from dashboard.billing.plan_edit import previewed
from dashboard.forms import form_page, moment_field, save_once, sent_data, show_form
from metering.fields.forms import count_field
from tenants.admin_site import actor_of
from tenants.forms import ZoneField, offer_zones

PLANS_MAX: Final = 500
METHOD: Final = "collection_method"
FIELDS: Final = (
    "name",
    "timezone",
    "email",
    "address",
    "country",
    "vat_id",
    "payment_terms_days",
    "tax_rates",
    "stripe_customer",
)


class CustomerForm(forms.Form):
    """Who is billed, where statements go, and what is printed on them."""

    name = forms.CharField(label="Name", max_length=200)
    timezone = ZoneField(label="Time zone")
    email = forms.EmailField(label="Email address for statements", required=False)
    address = forms.CharField(
        label="Address",
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="As it is printed on statements, one line below the other.",
    )
    country = forms.CharField(
        label="Country", required=False, max_length=2, help_text="Two letters, as in DE."
    )
    vat_id = forms.CharField(label="VAT number", required=False, max_length=50)
    payment_terms_days = count_field(
        "Days to pay",
        minimum=0,
        maximum=PAYMENT_DAYS_MAX,
    )
    tax_rates = TaxRatesField()
    stripe_customer = forms.CharField(
        label="Customer in Stripe",
        required=False,
        max_length=100,
        help_text="Its id there, cus_…, if Stripe collects the money.",
    )

    def __init__(self, request: PageRequest, customer: Customer | None) -> None:
        row = customer or Customer(timezone=request.tenant.timezone)
        initial = {name: getattr(row, name) for name in FIELDS}
        if customer is None:
            initial |= {"key": request.GET.get("key", "")[:200], "currency": "USD"}
        super().__init__(sent_data(request), initial=initial)
        offer_zones(self, row.timezone)
        field = self.fields["stripe_customer"]
        field.help_text = stripe_help(request.tenant.id, str(field.help_text))
        self.is_live = is_live_now(StripeSettings.objects.filter(tenant=request.tenant).first())
        if customer is not None and self.is_live is not None:
            self._add_method(customer, self.is_live)
        if customer is None:
            self.fields["key"] = forms.CharField(
                label="Key",
                max_length=200,
                help_text="What usage names the customer by, in “customer”. It never changes.",
            )
            self.fields["currency"] = forms.CharField(
                label="Currency",
                max_length=3,
                min_length=3,
                help_text="Of its plans and statements, as in USD. It never changes.",
            )
            self.order_fields(["name", "key", "currency"])

    def _add_method(self, customer: Customer, is_live: bool) -> None:
        accounts = StripeAccount.objects.filter(customer=customer, is_live=is_live)
        self.fields[METHOD] = forms.ChoiceField(
            label="How its statements are collected",
            required=False,
            choices=[("", "As all customers'"), *CollectionMethod.choices],
            initial=accounts.values_list(METHOD, flat=True).first() or "",
            help_text="Of statements whose invoice is not made yet.",
        )

    def clean_currency(self) -> str:
        currency = str(self.cleaned_data["currency"]).upper()
        if not is_currency(currency):
            raise ValidationError("Give a currency's code, as in USD or EUR.")
        return currency

    def clean_country(self) -> str:
        return str(self.cleaned_data["country"]).upper()


@form_page("customers", may=may_bill)
def add(request: PageRequest) -> HttpResponse:
    """A new customer."""
    form = CustomerForm(request, None)

    def save() -> Customer:
        return create_customer(tenant=request.tenant, actor=actor_of(request), **form.cleaned_data)

    saved = save_once(request, form, save)
    if saved is not None:
        messages.success(request, f"{saved.name} was added. Put it on a plan to bill it.")
        return HttpResponseRedirect(reverse("dashboard:customer", args=[saved.id]))
    return show_form(
        request,
        form,
        page="customers",
        headline="Add a customer",
        verb="Add customer",
    )


@form_page("customers", may=may_bill)
def change(request: PageRequest, customer_id: int) -> HttpResponse:
    """The data of a customer."""
    customer = find_customer(request, customer_id)
    form = CustomerForm(request, customer)

    def save() -> Customer:
        changes, actor = dict(form.cleaned_data), actor_of(request)
        method = changes.pop(METHOD, None)
        changed = update_customer(customer, actor=actor, changes=changes)
        if method is not None:
            set_collection_method(
                customer=changed, actor=actor, method=method, is_live=bool(form.is_live)
            )
        return changed

    if save_once(request, form, save) is not None:
        messages.success(request, "The changes are saved. Final statements stay as they are.")
        return _back_to(customer)
    return show_form(
        request,
        form,
        page="customers",
        headline=f"Edit {customer.name}",
        verb="Save changes",
        back=_crumb(customer),
    )


class LinkForm(forms.Form):
    """Usage that is a customer's from a moment on."""

    dimension = forms.ChoiceField(
        label="Dimension", choices=[(name, name.capitalize()) for name in LINK_DIMENSIONS]
    )
    value = forms.CharField(label="Value", max_length=200, help_text="As events have it.")
    starts_at = moment_field(
        "From", required=False, help_text="Leave empty for all usage that there is."
    )
    ends_at = moment_field("Until", required=False, help_text="Leave empty until you end it.")


@form_page("customers", may=may_bill)
def add_link(request: PageRequest, customer_id: int) -> HttpResponse:
    """Give a customer the usage of a value."""
    customer = find_customer(request, customer_id)
    asked = {name: request.GET.get(name, "")[:200] for name in ("dimension", "value")}
    form = LinkForm(sent_data(request), initial=asked)

    def save() -> Customer:
        links = [*(as_body(link) for link in further_links(customer)), form.cleaned_data]
        try:
            return update_customer(customer, actor=actor_of(request), changes={"links": links})
        except ValidationError as error:
            raise _of_last_link(error) from None

    if save_once(request, form, save) is not None:
        messages.success(
            request,
            f"Usage of {form.cleaned_data['dimension']} “{form.cleaned_data['value']}” is "
            f"{customer.name}'s. What is final is adjusted by its next statement.",
        )
        return _back_to(customer)
    return show_form(
        request,
        form,
        page="customers",
        headline=f"Link usage to {customer.name}",
        verb="Add link",
        back=_crumb(customer),
        intro=f"A value belongs to one customer at a time. Times are in {request.tenant.timezone}.",
    )


def _of_last_link(error: ValidationError) -> ValidationError:
    """The errors of the link that was added, at the fields of its form."""
    names = {"to": "ends_at", "from": "starts_at"}
    by_name = getattr(error, "error_dict", {"": [error]})
    by_field = {names.get(name.rpartition(".")[2], ""): errors for name, errors in by_name.items()}
    return ValidationError({name or "value": errors for name, errors in by_field.items()})


class ChangePlanForm(forms.Form):
    """A plan, and from when on."""

    starts_at = moment_field("From")

    def __init__(self, request: PageRequest, customer: Customer) -> None:
        now = timezone.now().replace(second=0, microsecond=0)
        asked = {"plan": request.GET.get("plan", "")[:20], "starts_at": now}
        super().__init__(sent_data(request), initial=asked)
        self.plans = {
            str(plan.id): plan
            for plan in Plan.objects.filter(
                tenant=request.tenant, archived_at=None, currency=customer.currency
            ).order_by("name")[:PLANS_MAX]
        }
        self.fields["plan"] = forms.ChoiceField(
            label="Plan",
            choices=[(plan_id, plan.name) for plan_id, plan in self.plans.items()],
            help_text=f"Plans in {customer.currency}.",
        )
        self.fields["starts_at"].help_text = (
            "The plan before ends there; both parts of a period are on one statement if their "
            "periods are the same."
        )
        self.order_fields(["plan", "starts_at"])

    @property
    def plan(self) -> Plan:
        return self.plans[self.cleaned_data["plan"]]


@form_page("customers", may=may_bill)
def change_plan(request: PageRequest, customer_id: int) -> HttpResponse:
    """Put a customer on a plan from a moment on, beside what it would have billed."""
    customer = find_customer(request, customer_id)
    form = ChangePlanForm(request, customer)

    def save() -> bool:
        subscribe(
            tenant=request.tenant,
            actor=actor_of(request),
            customer=customer,
            plan=form.plan,
            starts_at=form.cleaned_data["starts_at"],
        )
        return True

    if save_once(request, form, save):
        messages.success(request, f"{customer.name} is on {form.plan}.")
        return _back_to(customer)
    return show_form(
        request,
        form,
        page="customers",
        headline=f"Change the plan of {customer.name}",
        back=_crumb(customer),
        template="dashboard/billing/change_plan.html",
        customer=customer,
    )


@form_page("customers", may=may_bill)
def preview(request: PageRequest, customer_id: int) -> HttpResponseBase:
    """What the chosen plan would have billed this customer for the last period."""
    if request.method != "POST":
        return change_plan(request, customer_id)
    customer = find_customer(request, customer_id)
    form = ChangePlanForm(request, customer)
    plan = form.plans.get(request.POST.get("plan", ""))
    if plan is None:
        context: dict[str, Any] = {"problems": ["Choose a plan."]}
    else:
        chosen = Customer.objects.filter(tenant=request.tenant, id=customer.id)
        context = previewed(plan, terms_in_force(plan, timezone.now()), chosen)
    return render(request, "dashboard/billing/plan_preview.html", context)


def _crumb(customer: Customer) -> tuple[str, str]:
    return reverse("dashboard:customer", args=[customer.id]), customer.name


def _back_to(customer: Customer) -> HttpResponse:
    return HttpResponseRedirect(reverse("dashboard:customer", args=[customer.id]))
