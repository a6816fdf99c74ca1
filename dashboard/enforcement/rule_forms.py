"""Forms of breakers and rate limits, in the frame of the pages."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from django import forms
from django.contrib import messages
from django.db import models
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from dashboard.access import PageRequest, may_manage
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from dashboard.match_rows import match_rows
from metering.configuration import breakers, rate_limits
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX
from metering.fields.limit_forms import BreakerFields, RateLimitFields
from metering.models import Breaker, BreakerClose, Mode, RateLimit
from tenants.admin_site import actor_of
from tenants.kinds import Kind
from tenants.models import Tenant

MODES: Final = (
    (Mode.ENFORCE.value, "Enforce: it acts"),
    (Mode.WARN.value, "Warn: it notifies, and stops nothing"),
    (Mode.SHADOW.value, "Shadow: it only records"),
)


class RuleForm(forms.Form):
    """What breakers and rate limits have in common: a name, a mode, which calls, told apart by
    what.
    """

    name = forms.CharField(label="Name", max_length=200)
    mode = forms.ChoiceField(label="Mode", choices=MODES)
    per = forms.MultipleChoiceField(
        label="For each", required=False, widget=forms.CheckboxSelectMultiple
    )
    per_names: Sequence[str] = ()
    per_hint = ""

    def __init__(self, row: models.Model, data: Any = None) -> None:
        names = ["match", *self.base_fields]
        super().__init__(data, initial={name: getattr(row, name) for name in names})
        self.row = row
        self.fields["per"].choices = [(name, name) for name in self.per_names]  # type: ignore[attr-defined]
        self.fields["per"].help_text = self.per_hint
        self.fields["match"] = match_rows(self.initial["match"])
        self.order_fields(["name", "mode", "match", "per"])

    def values(self) -> dict[str, Any]:
        """The columns that the form says."""
        return {name: self.cleaned_data[name] for name in self.fields}


class BreakerForm(BreakerFields, RuleForm):
    """What opens a breaker, and what happens then."""

    close = forms.ChoiceField(
        label="Closes",
        choices=[
            (BreakerClose.HAND.value, "manually"),
            (BreakerClose.PROBE.value, "by a probe: one call is let through after the cool-down"),
        ],
    )
    per_names = KNOWN_BEFORE_CALL
    per_hint = f"Each is watched and stopped by itself. None: all together. At most {PER_MAX}."


class RateLimitForm(RateLimitFields, RuleForm):
    """What may be asked for within any minute."""

    per_names = rate_limits.PER_NAMES
    per_hint = f"Each has the whole rate. Key: the API key that asks. At most {PER_MAX}."


class Rule(NamedTuple):
    """A kind of rule: how it is called, and how it is filled in, made and removed."""

    words: str
    model: type[models.Model]
    form: type[RuleForm]
    kind: Kind
    # What removing it means.
    consequence: str


RULES: Final = {
    "breakers": Rule(
        "breaker",
        Breaker,
        BreakerForm,
        breakers.BREAKERS,
        "It no longer opens, and what it has open closes: the calls it stopped are allowed again"
        " within a second.",
    ),
    "rate-limits": Rule(
        "rate limit",
        RateLimit,
        RateLimitForm,
        rate_limits.RATE_LIMITS,
        "From the next call on, it limits nothing.",
    ),
}


@form_page("breakers", may=may_manage)
def page(request: PageRequest, kind: str, rule_id: int | None = None) -> HttpResponse:
    """The form of a new rule, or of one in force."""
    of = RULES[kind]
    row = of.model(tenant=request.tenant) if rule_id is None else _find(of, request.tenant, rule_id)
    if rule_id is None and isinstance(row, Breaker):
        row.per = list(breakers.PER_DEFAULT)
    form = of.form(row, sent_data(request))
    saved = save_once(request, form, lambda: _save(request, of, form, rule_id))
    if saved is not None:
        messages.success(request, f"The {of.words} “{saved}” is saved.")
        return HttpResponseRedirect(reverse("dashboard:breakers"))
    context = frame(request, filter_bar_of(request), page="breakers") | {
        "headline": f"Edit {row}" if rule_id else f"Create a {of.words}",
        "form": form,
        "of": of,
        "kind": kind,
        "rule": row if rule_id else None,
        **form_token(request),
    }
    return render(request, "dashboard/enforcement/rule_form.html", context)


def _find(of: Rule, tenant: Tenant, rule_id: int) -> Any:
    return get_object_or_404(of.model._default_manager, tenant=tenant, id=rule_id)


def _save(request: PageRequest, of: Rule, form: RuleForm, rule_id: int | None) -> Any:
    actor = actor_of(request)
    if rule_id is None:
        return of.kind.create(tenant=request.tenant, actor=actor, **form.values())
    return of.kind.update(_find(of, request.tenant, rule_id), actor=actor, changes=form.values())


@button_of("breakers", may=may_manage)
def remove(request: PageRequest, kind: str, rule_id: int) -> str:
    """Remove a rule."""
    of = RULES[kind]
    row = _find(of, request.tenant, rule_id)
    of.kind.delete(row, actor=actor_of(request))
    return f"The {of.words} “{row}” is removed."
