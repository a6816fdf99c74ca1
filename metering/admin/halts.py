"""Admin pages of halts: what is stopped, stopping more, and letting it go on."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget

from metering.fields.forms import MONEY_ROLES, match_words
from metering.fields.match_widget import MatchField
from metering.limits.halts import halt, is_wide, lift_halt
from metering.models import Halt, HaltKind
from tenants.admin_questions import Question
from tenants.admin_site import (
    RowForm,
    TenantModelAdmin,
    actor_of,
    role_of,
    site,
    tenant_of,
)
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may stop something in a hurry: more people than may let it go on.
HALTING_ROLES: Final = frozenset(
    role for role in Role if {Scope.ENFORCE, Scope.MANAGE} & SCOPES_BY_ROLE[role]
)
CONSEQUENCE: Final = (
    "New calls that match are refused within a second. Calls in flight finish, and are counted at "
    "what they cost."
)
WHO_WORDS: Final = {
    HaltKind.MANUAL: "by hand",
    HaltKind.BREAKER: "a breaker",
    HaltKind.LOCKOUT: "a budget's level",
}


class HaltForm(RowForm):
    """What to stop, and why."""

    match = MatchField(
        label="Stops only",
        required=False,
        help_text="Nothing chosen: every call. Several values of a dimension: any of them.",
    )

    class Meta:
        model = Halt
        fields = ("match", "reason")
        widgets = {"reason": UnfoldAdminTextareaWidget(attrs={"rows": 2})}
        help_texts = {"reason": "Whoever is refused reads it."}

    class Media:
        css = {"all": ["dashboard/admin.css"]}

    def clean_match(self) -> dict[str, Any]:
        match: dict[str, Any] = self.cleaned_data["match"]
        if "status" in match:
            raise ValidationError("How a call ends is not known before it has run.")
        return match


class LiftedFilter(SimpleListFilter):
    """Halts in force, or those that were lifted."""

    title = "state"
    parameter_name = "lifted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Lifted")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The first choice is what the list shows by itself."""
        for place, choice in enumerate(super().choices(changelist)):
            yield {**choice, "display": "In force"} if place == 0 else choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """In force, unless the lifted ones are asked for; a halt's own page shows either."""
        return queryset.filter(lifted_at__isnull=self.value() != "yes")


@register(Halt, site=site)
class HaltAdmin(TenantModelAdmin):
    """What is stopped, by whom and why."""

    form = HaltForm
    writers = HALTING_ROLES
    list_display = ("stops", "reason", "halted_by", "since", "lifted")
    list_filter = (LiftedFilter, "kind")
    search_fields = ("reason", "actor")
    ordering = ("-id",)
    end_verb = "Lift halt"
    end_consequence = (
        "New calls that match are let through again within a second, unless something else stops "
        "them. A level that locked out does so again only after its window has fallen below it."
    )
    end_done = "lifted."

    @display(description="Stops")
    def stops(self, obj: Halt) -> str:
        return match_words(obj.match)

    @display(description="Halted by", ordering="kind")
    def halted_by(self, obj: Halt) -> str:
        return obj.actor if obj.kind == HaltKind.MANUAL else WHO_WORDS[HaltKind(obj.kind)]

    @display(description="Lifted", ordering="lifted_at")
    def lifted(self, obj: Halt) -> str:
        if obj.lifted_at is None:
            return "—"
        return f"{obj.lifted_at:%Y-%m-%d %H:%M} by {obj.lifted_by}"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return role_of(request) in MONEY_ROLES and (obj is None or obj.lifted_at is None)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return ((None, {"fields": ("stops", "reason", "halted_by", "since", "lifted")}),)
        return ((None, {"description": CONSEQUENCE, "fields": ("match", "reason")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if obj is None else ("stops", "halted_by", "lifted")

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """A halt of every call. Who may not make one is refused it by `write`."""
        match = form.cleaned_data["match"]
        if not is_wide(match) or role_of(request) not in MONEY_ROLES:
            return None
        words = "every call of the tenant" if not match else match_words(match)
        return Question(
            title=f"Halt {words}?",
            verb="Halt",
            consequence=f"{CONSEQUENCE} Nothing is halted yet.",
            warnings=[f"This stops {words} until an owner, an admin or finance lifts it."],
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Lifting a halt of the whole tenant says so."""
        found = self.get_object(request, object_id)
        context = dict(extra_context or {})
        if found is not None and not found.match:
            context["end_consequence"] = f"This halt stops the whole tenant. {self.end_consequence}"
        return super().delete_view(request, object_id, context)

    def write(self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool) -> Halt:
        match = form.cleaned_data["match"]
        if is_wide(match) and role_of(request) not in MONEY_ROLES:
            raise ValidationError(
                "This may stop every call. Choose a value, or ask an owner, an admin or finance."
            )
        return halt(
            tenant=tenant_of(request),
            match=match,
            reason=form.cleaned_data["reason"],
            actor=actor_of(request),
        )

    def response_add(
        self, request: HttpRequest, obj: Halt, post_url_continue: str | None = None
    ) -> HttpResponse:
        words = match_words(obj.match)
        messages.success(request, f"Halted: {words}. New calls are refused within a second.")
        return HttpResponseRedirect(reverse("admin:metering_halt_changelist"))

    def end(self, request: HttpRequest, obj: Halt) -> None:
        lift_halt(halt=obj, actor=actor_of(request))
