"""Admin page of the audit log."""

from django.contrib.admin import display, register
from django.utils.html import format_html, format_html_join

from tenants.admin_kinds import ReadOnlyAdmin
from tenants.admin_site import shown_moment, site
from tenants.models import AuditEntry


@register(AuditEntry, site=site)
class AuditAdmin(ReadOnlyAdmin):
    """Every change of configuration, newest first."""

    list_display = ("when", "actor", "action", "object_type", "object_id", "changed")
    list_filter = ("action", "object_type")
    linked_lookups = ("object_id",)
    search_fields = ("actor", "object_type", "object_id")
    ordering = ("-id",)
    fields = ("when", "actor", "action", "object_type", "object_id", "all_changes")

    @display(description="When", ordering="at")
    def when(self, obj: AuditEntry) -> str:
        return shown_moment(obj.at)

    @display(description="Changed")
    def changed(self, obj: AuditEntry) -> str:
        names = ", ".join(sorted(obj.changes)) if isinstance(obj.changes, dict) else ""
        return names if len(names) <= 80 else names[:79] + "…"

    @display(description="Changes")
    def all_changes(self, obj: AuditEntry) -> str:
        lines = [
            (name, str(before), str(after)) for name, (before, after) in sorted(obj.changes.items())
        ]
        return format_html(
            "<table>{}</table>",
            format_html_join(
                "", "<tr><td><b>{}</b></td><td>{}</td><td>→</td><td>{}</td></tr>", lines
            ),
        )
