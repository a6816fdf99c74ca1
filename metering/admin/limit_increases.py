"""Admin pages of temporary raises: decided here, or made here by who may change budgets."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.decorators import display as labelled
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from common.errors import MeteringError
from metering.admin.budget_questions import raise_slips
from metering.core.dimensions import REQUEST
from metering.core.match import group_key
from metering.fields.forms import MONEY_ROLES, UsdField, count_field, usd_words
from metering.limits.limit_increases import (
    Added,
    RaiseAsk,
    approve_raise,
    ask_for_raise,
    end_raise,
    refuse_raise,
    unlimited_parts,
)
from metering.models import Budget, BudgetRaise, RaiseStatus
from tenants.admin_questions import Question, question_about
from tenants.admin_site import RowForm, TenantModelAdmin, actor_of, site, tenant_of

PART_WORDS: Final = {
    "add_tokens": "tokens",
    "add_requests": "requests",
    "add_tool_calls": "tool calls",
    "add_seconds": "seconds",
}
NOTE_CHARACTERS_MAX: Final = 1000


class RaiseForm(RowForm):
    """A raise that is in force as soon as it is saved."""

    add_cost_nanos = UsdField(label="Cost, USD", required=False)
    add_tokens = count_field("Tokens", required=False)
    add_requests = count_field("Requests", required=False)
    add_tool_calls = count_field("Tool calls", required=False)
    add_seconds = count_field("Seconds", required=False)
    group = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="For one group: a value a line, in the order of the budget's “A window for each”."
        " Empty: every group.",
    )

    class Meta:
        model = BudgetRaise
        fields = ("budget", "ends_at", "reason")
        help_texts = {"ends_at": "UTC."}

    def clean_ends_at(self) -> Any:
        ends_at = self.cleaned_data["ends_at"]
        if ends_at <= timezone.now():
            raise ValidationError("This moment is over. Choose a later one.")
        return ends_at

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        added = Added(*(data.get(f"add_{part}") or 0 for part in Added._fields))
        if not any(added):
            self.add_error("add_cost_nanos", "Raise at least one part.")
        budget = data.get("budget")
        if budget is not None:
            for part in unlimited_parts(budget, added):
                self.add_error(f"add_{part}", "The budget has no such limit.")
            data["group_key"] = self._group_key(budget, data.get("group", ""))
        data["added"] = added
        return data

    def _group_key(self, budget: Budget, text: str) -> str:
        if not text.strip():
            return ""
        values = text.splitlines()
        if REQUEST in budget.per:
            self.add_error("group", "Each call is a group of its own; raise all of them.")
        elif len(values) != len(budget.per):
            names = ", ".join(budget.per)
            needed = f"Give a value a line for: {names}." if names else "The budget has no groups."
            self.add_error("group", needed)
        return group_key(values)


class NoteForm(forms.Form):
    """What whoever decides wants to say about it."""

    note = forms.CharField(
        required=False,
        max_length=NOTE_CHARACTERS_MAX,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Whoever asked can read it.",
    )


@register(BudgetRaise, site=site)
class RaiseAdmin(TenantModelAdmin):
    """Limits that are higher for a while."""

    form = RaiseForm
    writers = MONEY_ROLES
    list_display = ("budget", "group_words", "by_words", "state", "ends_at", "reason", "asked_by")
    list_filter = ("status",)
    search_fields = ("budget__name", "reason", "asked_by")
    ordering = ("-id",)
    list_select_related = ("budget",)
    actions_detail = ("approve", "refuse")
    end_verb = "End raise"
    end_consequence = (
        "From the next call on the limits are as before. What was spent and what is held stays; "
        "windows beyond their limit let nothing through."
    )
    end_done = "ended."
    shown_fields = (
        "budget",
        "group_words",
        "by_words",
        "state",
        "reason",
        "asked_by",
        "asked_at",
        "starts_at",
        "ends_at",
        "decided_by",
        "decided_at",
        "note",
    )

    @display(description="Group")
    def group_words(self, obj: BudgetRaise) -> str:
        if not obj.group_key:
            return "every group"
        return ", ".join(one or "(none)" for one in json.loads(obj.group_key)) or "—"

    @display(description="By")
    def by_words(self, obj: BudgetRaise) -> str:
        parts = [usd_words(obj.add_cost_nanos)] if obj.add_cost_nanos else []
        parts += [
            f"{getattr(obj, name):,} {words}"
            for name, words in PART_WORDS.items()
            if getattr(obj, name)
        ]
        return ", ".join(parts)

    @labelled(  # type: ignore[untyped-decorator]
        description="State",
        ordering="status",
        label={"asked": "warning", "in force": "success", "refused": "danger", "over": "info"},
    )
    def state(self, obj: BudgetRaise) -> str:
        if obj.status == RaiseStatus.REFUSED:
            return "refused"
        if obj.ends_at <= timezone.now():
            return "over"
        return "in force" if obj.status == RaiseStatus.APPROVED else "asked"

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        field.queryset = field.queryset.filter(archived_at=None).order_by("name")
        return field

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "budget":
            # A budget is chosen here, not made.
            for option in ("can_add_related", "can_change_related", "can_view_related"):
                setattr(field.widget, option, False)
        return field

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return ((None, {"fields": self.shown_fields}),)
        return (
            (None, {"fields": ("budget", "group")}),
            (
                "Raise by",
                {
                    "fields": (
                        "add_cost_nanos",
                        ("add_tokens", "add_requests"),
                        ("add_tool_calls", "add_seconds"),
                    )
                },
            ),
            (None, {"fields": ("ends_at", "reason")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if obj is None else self.shown_fields

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_in_force = obj is None or self.state(obj) == "in force"
        return self.may_write(request) and is_in_force

    def has_decide_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Who may change budgets may decide, once."""
        waiting = BudgetRaise.objects.filter(
            tenant=tenant_of(request), id=object_id, status=RaiseStatus.ASKED
        )
        return self.may_write(request) and waiting.exists()

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """A raise that may have a digit too many."""
        budget, added = form.cleaned_data["budget"], form.cleaned_data["added"]
        warnings = list(raise_slips(budget, added._asdict()))
        return question_about(f"Raise the limit of “{budget.name}”?", warnings)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> BudgetRaise:
        data = form.cleaned_data
        ask = RaiseAsk(
            add=data["added"],
            reason=data["reason"],
            ends_at=data["ends_at"],
            group_key=data["group_key"],
        )
        try:
            asked = ask_for_raise(budget=data["budget"], actor=actor_of(request), ask=ask)
            return approve_raise(budget_raise=asked, actor=actor_of(request))
        except MeteringError as error:
            raise ValidationError(error.detail) from error

    def end(self, request: HttpRequest, obj: BudgetRaise) -> None:
        end_raise(budget_raise=obj, actor=actor_of(request))

    @action(  # type: ignore[untyped-decorator]
        description="Approve", permissions=["decide"], icon="check", variant=ActionVariant.PRIMARY
    )
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask once more, then put it in force."""
        return self._decide(
            request,
            self._waiting(request, object_id),
            decide=approve_raise,
            verb="Approve raise",
            consequence="From the next call on the limits are higher, until the raise ends.",
        )

    @action(  # type: ignore[untyped-decorator]
        description="Refuse", permissions=["decide"], icon="close", variant=ActionVariant.DANGER
    )
    def refuse(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask once more, then say no."""
        return self._decide(
            request,
            self._waiting(request, object_id),
            decide=refuse_raise,
            verb="Refuse raise",
            consequence="The limits stay as they are. This cannot be taken back; it can be asked "
            "for again.",
        )

    def _waiting(self, request: HttpRequest, object_id: str) -> BudgetRaise:
        rows: QuerySet[BudgetRaise] = self.get_queryset(request)
        found = rows.filter(id=object_id).first()
        if found is None:
            raise Http404
        return found

    def _decide(
        self,
        request: HttpRequest,
        found: BudgetRaise,
        *,
        decide: Callable[..., BudgetRaise],
        verb: str,
        consequence: str,
    ) -> HttpResponse:
        form = NoteForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                decided = decide(
                    budget_raise=found, actor=actor_of(request), note=form.cleaned_data["note"]
                )
                messages.success(request, f"The raise of {found.budget} is {decided.status}.")
            except MeteringError as error:
                messages.error(request, error.detail)
            return HttpResponseRedirect(reverse("admin:metering_budgetraise_changelist"))
        return TemplateResponse(
            request,
            "admin/metering/budgetraise/decide.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": f"{verb}?",
                "verb": verb,
                "consequence": consequence,
                "facts": [
                    ("Budget", found.budget.name),
                    ("Group", self.group_words(found)),
                    ("By", self.by_words(found)),
                    ("Until", f"{found.ends_at:%Y-%m-%d %H:%M} UTC"),
                    ("Reason", found.reason),
                    ("Asked by", found.asked_by),
                ],
                "form": form,
                "back": reverse("admin:metering_budgetraise_change", args=[found.id]),
            },
        )
