"""Forms of breakers and rate limits, in the frame of the pages."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from django import forms
from django.contrib import messages
from django.db import models
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from dashboard.access import PageRequest, may_manage
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from dashboard.match_rows import match_rows
from metering.configuration import breakers, rate_limits
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX
from metering.fields.forms import UsdField, count_field
from metering.models import Breaker, BreakerClose, Mode, RateLimit
from tenants.admin_site import actor_of
from tenants.models import Tenant

MODES: Final = (
    (Mode.ENFORCE.value, "Enforce: it acts"),
    (Mode.WARN.value, "Warn: it notifies, and stops nothing"),
    (Mode.SHADOW.value, "Shadow: it only records"),
)


def _number() -> forms.TextInput:
    return forms.TextInput(attrs={"inputmode": "numeric"})


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


class BreakerForm(RuleForm):
    """What opens a breaker, and what happens then."""

    cost_nanos_per_minute = UsdField(
        label="Opens above this spend within a minute, USD", required=False, widget=_number()
    )
    error_percent = count_field(
        "Opens at this share of failed calls, %", maximum=100, required=False, widget=_number()
    )
    error_min_calls = count_field(
        "Calls needed before failures count", maximum=breakers.CALLS_MAX, widget=_number()
    )
    tokens_times = count_field(
        "Opens at this many times the usual tokens",
        minimum=2,
        maximum=breakers.CALLS_MAX,
        required=False,
        widget=_number(),
    )
    usual_min_calls = count_field(
        "Calls needed to know what is usual", maximum=breakers.CALLS_MAX, widget=_number()
    )
    limit_percent = count_field(
        "Reduce limits to, %",
        maximum=breakers.LIMIT_PERCENT_MAX,
        required=False,
        help_text="Leave empty to stop the calls. Otherwise they continue, and the limits of their"
        " budgets are reduced to this percentage.",
        widget=_number(),
    )
    close = forms.ChoiceField(
        label="Closes",
        choices=[
            (BreakerClose.HAND.value, "manually"),
            (BreakerClose.PROBE.value, "by a probe: one call is let through after the cool-down"),
        ],
    )
    cool_down_seconds = count_field(
        "Cool-down, seconds", maximum=breakers.COOL_DOWN_SECONDS_MAX, widget=_number()
    )

    per_names = KNOWN_BEFORE_CALL
    per_hint = f"Each is watched and stopped by itself. None: all together. At most {PER_MAX}."


class RateLimitForm(RuleForm):
    """What may be asked for within any minute."""

    cost_nanos_per_minute = UsdField(
        label="Cost within any minute, USD", required=False, widget=_number()
    )
    tokens_per_minute = count_field(
        "Tokens within any minute", required=False, help_text="Input and output.", widget=_number()
    )
    requests_per_minute = count_field(
        "Requests within any minute",
        required=False,
        help_text="Model and tool calls.",
        widget=_number(),
    )

    per_names = rate_limits.PER_NAMES
    per_hint = f"Each has the whole rate. Key: the API key that asks. At most {PER_MAX}."


class Kind(NamedTuple):
    """A kind of rule: how it is called, and the functions of its configuration."""

    words: str
    model: type[models.Model]
    form: type[RuleForm]
    create: Callable[..., models.Model]
    update: Callable[[Any, str, dict[str, Any]], models.Model]
    remove: Callable[[Any, str], None]
    # What removing it means.
    consequence: str


BREAKERS: Final = Kind(
    words="breaker",
    model=Breaker,
    form=BreakerForm,
    create=breakers.create_breaker,
    update=lambda row, actor, changes: breakers.update_breaker(
        breaker=row, actor=actor, changes=changes
    ),
    remove=lambda row, actor: breakers.delete_breaker(breaker=row, actor=actor),
    consequence="It no longer opens, and what it has open closes: the calls it stopped are allowed"
    " again within a second.",
)
RATE_LIMITS: Final = Kind(
    words="rate limit",
    model=RateLimit,
    form=RateLimitForm,
    create=rate_limits.create_rate_limit,
    update=lambda row, actor, changes: rate_limits.update_rate_limit(
        limit=row, actor=actor, changes=changes
    ),
    remove=lambda row, actor: rate_limits.delete_rate_limit(limit=row, actor=actor),
    consequence="From the next call on, it limits nothing.",
)
KINDS: Final = {"breakers": BREAKERS, "rate-limits": RATE_LIMITS}


@form_page("breakers", may=may_manage)
def page(request: PageRequest, kind: str, rule_id: int | None = None) -> HttpResponse:
    """The form of a new rule, or of one in force."""
    of = KINDS[kind]
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


def _find(of: Kind, tenant: Tenant, rule_id: int) -> Any:
    row = of.model._default_manager.filter(tenant=tenant, id=rule_id).first()
    if row is None:
        raise Http404
    return row


def _save(request: PageRequest, of: Kind, form: RuleForm, rule_id: int | None) -> models.Model:
    actor = actor_of(request)
    if rule_id is None:
        return of.create(tenant=request.tenant, actor=actor, **form.values())
    return of.update(_find(of, request.tenant, rule_id), actor, form.values())


@button_of("breakers", may=may_manage)
def remove(request: PageRequest, kind: str, rule_id: int) -> str:
    """Remove a rule."""
    of = KINDS[kind]
    row = _find(of, request.tenant, rule_id)
    of.remove(row, actor_of(request))
    return f"The {of.words} “{row}” is removed."
