"""Admin pages of crossings."""

import json

from django.contrib.admin import display, register

from metering.fields.forms import usd_words
from metering.models import Crossing
from tenants.admin_site import ReadOnlyAdmin, site


@register(Crossing, site=site)
class CrossingAdmin(ReadOnlyAdmin):
    """Levels that windows reached, newest first."""

    list_display = ("crossed_at", "budget", "group", "percent_words", "action", "mode", "spent")
    list_filter = ("action", "mode")
    search_fields = ("budget__name", "group_key")
    ordering = ("-id",)
    list_select_related = ("budget",)
    fields = (
        "crossed_at",
        "budget",
        "group",
        "percent_words",
        "used_percent",
        "spent",
        "limit",
        "action",
        "mode",
        "notify",
    )

    @display(description="Group")
    def group(self, obj: Crossing) -> str:
        return ", ".join(one or "(none)" for one in json.loads(obj.group_key)) or "—"

    @display(description="Level", ordering="percent")
    def percent_words(self, obj: Crossing) -> str:
        return f"{obj.percent} %"

    @display(description="Spent", ordering="spent_nanos")
    def spent(self, obj: Crossing) -> str:
        return usd_words(obj.spent_nanos)

    @display(description="Limit")
    def limit(self, obj: Crossing) -> str:
        return "—" if obj.limit_nanos is None else usd_words(obj.limit_nanos)
