"""`/plans/new`, `/plans/{id}/versions/new`: what would this plan have billed?"""

from typing import Any, Final

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from billing.models import Customer, Plan, PlanVersion
from billing.plan_preview import (
    CUSTOMERS_MAX,
    customers_on,
    examples_of,
    last_period,
    present_period,
    replay,
)
from billing.plans import add_version, create_plan, terms_of
from billing.terms import Terms
from common.errors import MeteringError
from dashboard.access import PageRequest, may_bill
from dashboard.billing.example_words import example_words
from dashboard.billing.plan_form import ACT, NewPlanForm, TermsForm, VersionForm
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from tenants.admin_site import actor_of

WHOSE: Final = "whose"
ON_PLAN: Final = "plan"
EVERYONE: Final = "all"
CUSTOMERS_OFFERED: Final = 200


def find_plan(request: PageRequest, plan_id: int) -> Plan:
    """Return a plan of the person's tenant, or 404."""
    return get_object_or_404(
        Plan.objects.select_related("tenant"), tenant=request.tenant, id=plan_id
    )


@form_page("plans", may=may_bill)
def add(request: PageRequest) -> HttpResponse:
    """A new plan and its first version."""
    form = NewPlanForm(sent_data(request), request.tenant)
    plan = _save(request, form, None)
    if plan is not None:
        messages.success(request, f"“{plan.name}” is ready. Put customers on it.")
        return HttpResponseRedirect(reverse("dashboard:plan", args=[plan.id]))
    return _shown(request, form, None)


@form_page("plans", may=may_bill)
def new_version(request: PageRequest, plan_id: int) -> HttpResponse:
    """A further version of a plan."""
    plan = _changeable(request, plan_id)
    form = _version_form(request, plan)
    if _save(request, form, plan) is not None:
        messages.success(request, f"The new version of “{plan.name}” is saved.")
        return HttpResponseRedirect(reverse("dashboard:plan", args=[plan.id]))
    return _shown(request, form, plan)


def _changeable(request: PageRequest, plan_id: int) -> Plan:
    plan = find_plan(request, plan_id)
    if plan.archived_at is not None:
        raise Http404
    return plan


def _version_form(request: PageRequest, plan: Plan) -> VersionForm:
    last: PlanVersion | None = plan.versions.order_by("-number").first()
    assert last is not None, "a plan has a version"
    begins = present_period(plan, timezone.now()).scheduled_end
    return VersionForm(sent_data(request), plan, terms_of(last), begins)


def _save(request: PageRequest, form: TermsForm, plan: Plan | None) -> Plan | None:
    """Write a form that was sent to be saved; None if it is shown again."""
    if request.method != "POST" or ACT in request.POST:
        return None
    terms = form.terms()
    if terms is None:
        return None

    def save() -> Plan:
        actor = actor_of(request)
        if plan is None:
            assert isinstance(form, NewPlanForm), "only a new plan has no plan yet"
            return create_plan(tenant=request.tenant, actor=actor, terms=terms, **form.columns)
        add_version(plan, actor=actor, starts_at=form.cleaned_data["starts_at"], terms=terms)
        return plan

    return save_once(request, form, save)


def _shown(request: PageRequest, form: TermsForm, plan: Plan | None) -> HttpResponse:
    action = (
        reverse("dashboard:new_version", args=[plan.id]) if plan else reverse("dashboard:add_plan")
    )
    context = frame(request, filter_bar_of(request), page="plans") | {
        "headline": f"New version of {plan.name}" if plan else "Create a plan",
        "plan": plan,
        "form": form,
        "is_refused": request.method == "POST" and ACT not in request.POST,
        "action": action,
        "preview_address": (
            reverse("dashboard:preview_version", args=[plan.id])
            if plan
            else reverse("dashboard:preview_plan")
        ),
        "whose_choices": _whose_choices(request, plan),
        "act": ACT,
        **form_token(request),
    }
    return render(request, "dashboard/billing/plan_form.html", context)


def _whose_choices(request: PageRequest, plan: Plan | None) -> list[tuple[str, str]]:
    """For whom the last period is rated: who is on the plan, everyone, or one customer."""
    customers = Customer.objects.filter(tenant=request.tenant, archived_at=None)
    if plan is not None:
        customers = customers.filter(currency=plan.currency)
    named = customers.order_by("name", "id").values_list("id", "name")[:CUSTOMERS_OFFERED]
    first = [(ON_PLAN, "Customers on this plan")] if plan else []
    return [*first, (EVERYONE, "All customers"), *((str(id_), name) for id_, name in named)]


@form_page("plans", may=may_bill)
def preview(request: PageRequest, plan_id: int | None = None) -> HttpResponseBase:
    """What the form as it stands would charge. Who was signed out comes back to the form."""
    if request.method != "POST":
        return add(request) if plan_id is None else new_version(request, plan_id)
    plan = None if plan_id is None else _changeable(request, plan_id)
    sent = request.POST.copy()
    # The name comes last to many, and changes no amount.
    sent["name"] = sent.get("name") or "New plan"
    form: TermsForm = (
        NewPlanForm(sent, request.tenant) if plan is None else _version_form(request, plan)
    )
    terms = form.terms()
    if terms is None:
        context: dict[str, Any] = {"problems": form.faults()}
    else:
        whose = request.POST.get(WHOSE, "")
        context = previewed(form.plan, terms, _customers(request, form.plan, whose))
    return render(request, "dashboard/billing/plan_preview.html", context)


def _customers(request: PageRequest, plan: Plan, whose: str) -> QuerySet[Customer]:
    customers = Customer.objects.filter(tenant=request.tenant, archived_at=None)
    if whose == ON_PLAN and plan.pk is not None:
        return customers_on(plan, timezone.now())
    chosen = number_of(whose)
    return customers if chosen is None else customers.filter(id=chosen)


def previewed(plan: Plan, terms: Terms, customers: QuerySet[Customer]) -> dict[str, object]:
    """What a plan's preview shows: an example for each charge, and the last period."""
    now = timezone.now()
    period = last_period(plan, now)
    context: dict[str, Any] = {
        "currency": plan.currency,
        "examples": [example_words(each, plan) for each in examples_of(terms, period)],
        "customers_max": CUSTOMERS_MAX,
    }
    try:
        return context | {"replay": replay(plan, terms, customers, now), "zone": plan.timezone}
    except MeteringError as error:
        return context | {"refusal": error.detail}
