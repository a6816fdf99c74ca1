"""Admin pages of jobs."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from metering.models import BackgroundJob, Budget
from tenants.admin_kinds import ReadOnlyAdmin
from tenants.admin_site import site


@register(BackgroundJob, site=site)
class JobAdmin(ReadOnlyAdmin):
    """Work that was too long for a request, newest first."""

    list_display = ("created_at", "kind", "state", "progress", "budget", "actor", "error")
    list_filter = ("kind", "state")
    ordering = ("-id",)
    fields = ("created_at", "kind", "state", "progress", "budget", "actor", "finished_at", "error")

    @display(description="Progress")
    def progress(self, obj: BackgroundJob) -> str:
        return f"{obj.progress_percent}%"

    @display(description="Budget")
    def budget(self, obj: Any) -> str:
        return obj.budget_name or "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[BackgroundJob]:
        named = Budget.objects.filter(id=OuterRef("budget_id")).values("name")
        rows: QuerySet[BackgroundJob] = (
            super().get_queryset(request).annotate(budget_name=Subquery(named))
        )
        return rows
