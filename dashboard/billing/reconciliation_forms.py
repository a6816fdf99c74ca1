"""Forms of reconciliation: import a provider's bill, and when a difference is an incident."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse

from billing.form_fields import stripe_help
from billing.models import ReconciliationSettings
from billing.provider_bills.focus import read_focus
from billing.provider_bills.importing import Imported, import_bill
from billing.provider_bills.lines import TEXT_CHARACTERS_MAX, InvalidBill
from billing.provider_bills.reports import read_report
from billing.reconciliation.runs import change_settings, settings_of
from common.api.parsing import BODY_BYTES_MAX
from dashboard.access import PageRequest, may_bill
from dashboard.forms import form_page, save_once, sent_data, show_form
from tenants.admin_site import actor_of
from tenants.number_fields import AmountField, UsdField

FAULTS_SHOWN: Final = 10
PERCENT_MAX: Final = 9_999
MEBIBYTE: Final = 1024 * 1024
# What a report in JSON begins with.
JSON_STARTS: Final = (b"{", b"[")
ENCODING_MARK: Final = b"\xef\xbb\xbf"


class BillForm(forms.Form):
    """A provider's bill as a file."""

    bill = forms.FileField(
        label="File",
        help_text="JSON of OpenAI's costs API or Anthropic's cost report, or CSV in FOCUS 1.x, as "
        f"clouds export it. At most {BODY_BYTES_MAX // MEBIBYTE} MiB.",
    )
    account = forms.CharField(
        label="Account",
        required=False,
        max_length=TEXT_CHARACTERS_MAX,
        help_text="Which of your accounts with the provider, where you have several.",
    )

    def clean_bill(self) -> "UploadedFile[Any]":
        file: UploadedFile[Any] = self.cleaned_data["bill"]
        if file.size is None or file.size > BODY_BYTES_MAX:
            raise ValidationError(
                f"A bill has at most {BODY_BYTES_MAX // MEBIBYTE} MiB; import it in parts."
            )
        return file


@form_page("reconciliation", may=may_bill)
def import_a_bill(request: PageRequest) -> HttpResponse:
    """Take a provider's bill; the same again changes nothing."""
    form = BillForm(sent_data(request), request.FILES or None)

    def save() -> Imported:
        body = form.cleaned_data["bill"].read().removeprefix(ENCODING_MARK)
        is_json = body.lstrip()[:1] in JSON_STARTS
        try:
            return import_bill(
                tenant=request.tenant,
                actor=actor_of(request),
                account=form.cleaned_data["account"],
                bill=read_report(body) if is_json else read_focus(body),
            )
        except InvalidBill as error:
            raise ValidationError({"bill": _faults(error)}) from None

    imported = save_once(request, form, save)
    if imported is not None:
        messages.success(request, _words(imported))
        return HttpResponseRedirect(reverse("dashboard:reconciliation"))
    return show_form(
        request,
        form,
        page="reconciliation",
        headline="Import a provider's bill",
        verb="Import bill",
        intro="A newer report of a day replaces that day. One faulty line refuses the file. Days "
        "are compared by themselves in the course of the day, or by “Compare now”.",
    )


def _faults(error: InvalidBill) -> list[str]:
    """Return the first faults of a bill, each with its place."""
    errors = error.members.get("errors", [])
    if not errors:
        return [error.detail]
    shown = [f"{each['pointer']}: {each['detail']}." for each in errors[:FAULTS_SHOWN]]
    more = error.members.get("error_count", len(errors)) - len(shown)
    return [*shown, f"{more:,} more lines cannot be taken."] if more > 0 else shown


def _words(imported: Imported) -> str:
    changed = (
        f"{imported.changed_days:,} of them new or changed"
        if imported.changed_days
        else "all known already"
    )
    skipped = imported.skipped
    verb = "is" if skipped == 1 else "are"
    others = f" {_counted(skipped, 'line')} {verb} no AI usage." if skipped else ""
    lines, days = _counted(imported.lines, "line"), _counted(imported.days, "day")
    return f"The bill has {lines} of {days}, {changed}.{others}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


class ThresholdForm(forms.Form):
    """When what differs is an incident."""

    threshold_percent = AmountField(
        label="Threshold, percent",
        maximum=PERCENT_MAX,
        help_text="Of what was expected, with two decimals at most.",
    )
    threshold_nanos = UsdField(
        label="Threshold, USD",
        help_text="Both must be passed for an incident. Stripe's invoices must agree to the cent.",
    )
    is_daily = forms.BooleanField(
        label="Compare every day",
        required=False,
        help_text="Days whose bills were imported are compared by themselves.",
    )

    def __init__(self, request: PageRequest, stored: ReconciliationSettings) -> None:
        initial: dict[str, object] = {name: getattr(stored, name) for name in self.base_fields}
        initial["threshold_percent"] = f"{stored.threshold_percent.normalize():f}"
        super().__init__(sent_data(request), initial=initial)
        field = self.fields["threshold_nanos"]
        field.help_text = stripe_help(request.tenant.id, str(field.help_text))


@form_page("reconciliation", may=may_bill)
def change_threshold(request: PageRequest) -> HttpResponse:
    """When is a difference an incident?"""
    form = ThresholdForm(request, settings_of(request.tenant.id))

    def save() -> ReconciliationSettings:
        return change_settings(
            tenant=request.tenant, actor=actor_of(request), changes=form.cleaned_data
        )

    if save_once(request, form, save) is not None:
        messages.success(request, "The threshold is for comparisons that begin from now on.")
        return HttpResponseRedirect(reverse("dashboard:reconciliation"))
    return show_form(
        request,
        form,
        page="reconciliation",
        headline="When is a difference an incident?",
        verb="Save",
    )
