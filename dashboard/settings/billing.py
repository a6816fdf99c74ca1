"""`/settings/billing`: who statements are from, and what happens by itself."""

from django import forms
from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from billing.collection.credentials import remove_credentials
from billing.models import BillingSettings
from billing.settings import FINALIZE_AFTER_DAYS_MAX, billing_settings, change_billing_settings
from dashboard.access import PageRequest, may_bill
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from dashboard.settings.stripe import SECRETS, StripeForm, stripe_context, stripe_settings
from tenants.admin_site import actor_of


class BillingForm(forms.Form):
    """How the tenant bills."""

    legal_name = forms.CharField(
        label="Legal name",
        max_length=200,
        required=False,
        help_text="Statements are from it. Empty: the workspace's name.",
    )
    address = forms.CharField(
        max_length=1000, required=False, widget=forms.Textarea(attrs={"rows": 4})
    )
    email = forms.EmailField(label="Email for questions", required=False)
    vat_id = forms.CharField(label="VAT number", max_length=50, required=False)
    statement_prefix = forms.CharField(
        label="Before the numbers of statements",
        max_length=20,
        required=False,
        help_text="As in “BL-”, which makes BL-000001. The series has no gaps.",
    )
    credit_note_prefix = forms.CharField(
        label="Before the numbers of credit notes", max_length=20, required=False
    )
    finalize_after_days = forms.IntegerField(
        label="Finalize automatically",
        required=False,
        min_value=0,
        max_value=FINALIZE_AFTER_DAYS_MAX,
        help_text="Days after a period's end. Late usage until then is on its own statement, later "
        "usage on the next. Empty: a person finalizes.",
    )

    def __init__(self, request: PageRequest, stored: BillingSettings, *, is_sent: bool) -> None:
        super().__init__(
            sent_data(request) if is_sent else None,
            initial={name: getattr(stored, name) for name in self.base_fields},
        )


@form_page("billing", may=may_bill, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """Who are statements from, who finalizes them, and who collects?"""
    stored = billing_settings(request.tenant.id)
    form = BillingForm(request, stored, is_sent=True)

    def save() -> BillingSettings:
        return change_billing_settings(
            request.tenant, actor=actor_of(request), changes=form.cleaned_data
        )

    if save_once(request, form, save) is not None:
        messages.success(request, "Billing was changed. Final statements stay as they are.")
        return HttpResponseRedirect(reverse("dashboard:billing"))
    own = stripe_settings(request.tenant.id)
    return _page(request, form, StripeForm(request, own, is_sent=False))


@form_page("billing", may=may_bill, secret_fields=SECRETS)
def stripe(request: PageRequest) -> HttpResponse:
    """With which key, and how, does Stripe collect?"""
    form = StripeForm(request, stripe_settings(request.tenant.id), is_sent=True)
    changed = save_once(request, form, lambda: form.save(request))
    if changed is not None:
        collects = "collects" if changed.collects else "does not collect"
        messages.success(request, f"Stripe {collects} statements that become final from now on.")
        return HttpResponseRedirect(reverse("dashboard:billing"))
    own = billing_settings(request.tenant.id)
    return _page(request, BillingForm(request, own, is_sent=False), form)


@button_of("billing", may=may_bill)
def remove_stripe_key(request: PageRequest) -> str:
    """Forget the key: nothing is collected any more, and nothing is read from Stripe."""
    remove_credentials(tenant=request.tenant, actor=actor_of(request))
    return "The key was removed. Stripe collects no further statements."


def _page(request: PageRequest, form: BillingForm, stripe_form: StripeForm) -> HttpResponse:
    is_locked = not may_bill(request)
    for field in (*form.fields.values(), *stripe_form.fields.values()):
        field.disabled = is_locked
    stored = billing_settings(request.tenant.id)
    context = frame(request, filter_bar_of(request), page="billing") | {
        "headline": headline_of(stored, request.tenant.name),
        "form": form,
        "stripe_form": stripe_form,
        "is_locked": is_locked,
        **stripe_context(request, is_locked=is_locked),
        **form_token(request),
    }
    return render(request, "dashboard/settings/billing.html", context)


def headline_of(settings: BillingSettings, tenant_name: str) -> str:
    """The finding: who statements are from, and when they become final. Pure."""
    days = settings.finalize_after_days
    when = (
        "a person finalizes them"
        if days is None
        else "final when the period ends"
        if days == 0
        else f"final {days} day{'s' * (days != 1)} after the period"
    )
    return f"Statements are from {settings.legal_name or tenant_name}; {when}"
