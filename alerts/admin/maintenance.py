"""Admin pages of maintenance windows: announce them, and end them early."""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib.admin import SimpleListFilter, display, register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display as labelled

from alerts.models import MaintenanceWindow
from alerts.settings import create_maintenance_window, end_maintenance_window, validate_period
from metering.fields.forms import MONEY_ROLES, match_words
from metering.fields.match_widget import MatchField
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import TenantModelAdmin, actor_of, site, tenant_of


class MaintenanceWindowForm(RowForm):
    """From when to when, about what, and why."""

    match = MatchField(
        label="Holds back only",
        required=False,
        help_text="Leave empty for all incidents. Several values of a dimension match any of them.",
    )

    class Meta:
        model = MaintenanceWindow
        fields = ("starts_at", "ends_at", "match", "reason")
        widgets = {"reason": forms.Textarea(attrs={"rows": 2})}
        help_texts = {
            "starts_at": "In the workspace's zone.",
            "ends_at": "In the workspace's zone. At most 31 days later.",
            "reason": "For people who wonder why they were not notified.",
        }

    class Media:
        css = {"all": ["dashboard/admin.css"]}

    def judge(self) -> None:
        validate_period(self.cleaned_data["starts_at"], self.cleaned_data["ends_at"])


class OverFilter(SimpleListFilter):
    """Present and planned windows, or those that are over."""

    title = "state"
    parameter_name = "over"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("yes", "Over")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Name the first choice, which is the default."""
        first, *others = super().choices(changelist)
        return iter([{**first, "display": "Now and planned"}, *others])

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[MaintenanceWindow]
    ) -> QuerySet[MaintenanceWindow]:
        now = timezone.now()
        if self.value() == "yes":
            return queryset.filter(ends_at__lte=now)
        return queryset.filter(ends_at__gt=now)


@register(MaintenanceWindow, site=site)
class MaintenanceWindowAdmin(TenantModelAdmin):
    """Times in which unusual spend is expected."""

    form = MaintenanceWindowForm
    writers = MONEY_ROLES
    list_display = ("reason", "about", "starts_at", "ends_at", "state", "created_by")
    list_filter = (OverFilter,)
    search_fields = ("reason", "created_by")
    ordering = ("-id",)
    end_verb = "End window"
    end_consequence = (
        "Notifications are sent immediately again, waiting ones included. A window that has not "
        "begun is removed."
    )
    end_done = "ended."

    @display(description="Holds back")
    def about(self, obj: MaintenanceWindow) -> str:
        return match_words(obj.match) if obj.match else "all incidents"

    @labelled(description="State", label={"now": "warning", "planned": "info", "over": "success"})
    def state(self, obj: MaintenanceWindow) -> str:
        now = timezone.now()
        if obj.ends_at <= now:
            return "over"
        return "now" if obj.starts_at <= now else "planned"

    def has_change_permission(
        self, request: HttpRequest, obj: MaintenanceWindow | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: MaintenanceWindow | None = None
    ) -> bool:
        return self.may_write(request) and (obj is None or obj.ends_at > timezone.now())

    def get_fieldsets(self, request: HttpRequest, obj: MaintenanceWindow | None = None) -> Any:
        if obj is None:
            description = (
                "Incidents that are not critical wait until it is over, and are sent then."
            )
            return (
                (
                    None,
                    {
                        "description": description,
                        "fields": ("starts_at", "ends_at", "match", "reason"),
                    },
                ),
            )
        shown = ("reason", "about", "starts_at", "ends_at", "state", "created_by", "created_at")
        return ((None, {"fields": shown}),)

    def get_readonly_fields(
        self, request: HttpRequest, obj: MaintenanceWindow | None = None
    ) -> tuple[str, ...]:
        return () if obj is None else ("about", "state", "created_by", "created_at")

    def write(self, request: HttpRequest, filled: FilledForm) -> MaintenanceWindow:
        fields = {name: filled.data[name] for name in MaintenanceWindowForm.Meta.fields}
        return create_maintenance_window(
            tenant=tenant_of(request), actor=actor_of(request), **fields
        )

    def end(self, request: HttpRequest, obj: MaintenanceWindow) -> None:
        end_maintenance_window(window=obj, actor=actor_of(request))
