"""Admin pages of breakers: what opens them. Where they are open is on the page of halts."""

from typing import Any

from django.contrib.admin import display, register

from common.money import usd_words
from metering.admin.limits import GroupedForm, LimitAdmin, per_field
from metering.configuration.breakers import (
    BREAKERS,
    CALLS_MAX,
    COOL_DOWN_SECONDS_MAX,
    LIMIT_PERCENT_MAX,
    PER_DEFAULT,
    validate_breaker,
)
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX
from metering.fields.forms import UsdField, count_field
from metering.models import Breaker, BreakerClose, Mode
from tenants.admin_site import site


class BreakerForm(GroupedForm):
    """What opens it, and what happens then."""

    per = per_field(
        "For each",
        KNOWN_BEFORE_CALL,
        "Each is watched and stopped separately. Leave empty for all calls together. At most "
        f"{PER_MAX}.",
    )
    cost_nanos_per_minute = UsdField(
        label="Spend within 60 seconds, USD",
        required=False,
        help_text="The breaker opens above this.",
    )
    error_percent = count_field("Failed calls, %", maximum=100, required=False)
    error_min_calls = count_field("Minimum calls", maximum=CALLS_MAX)
    tokens_times = count_field(
        "Token spike, times the usual", minimum=2, maximum=CALLS_MAX, required=False
    )
    usual_min_calls = count_field("Calls needed for a baseline", maximum=CALLS_MAX)
    limit_percent = count_field(
        "Reduce limits to, %",
        maximum=LIMIT_PERCENT_MAX,
        required=False,
        help_text="Leave empty to stop the calls. Otherwise they continue, and the limits of "
        "their budgets are reduced to this percentage.",
    )
    cool_down_seconds = count_field("Cool-down, seconds", maximum=COOL_DOWN_SECONDS_MAX)

    class Meta:
        labels = {"close": "Closes"}
        help_texts = {
            "close": "Manually, or by a probe: one call is let through after a cool-down."
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            self.initial["per"] = list(PER_DEFAULT)
            for name in ("error_min_calls", "usual_min_calls", "cool_down_seconds"):
                self.initial[name] = getattr(self.instance, name)

    def judge(self) -> None:
        validate_breaker(self.instance)


@register(Breaker, site=site)
class BreakerAdmin(LimitAdmin):
    """Stops calls that spend too fast, fail too often, or use far more tokens than usual."""

    kind = BREAKERS
    form = BreakerForm
    list_display = ("name", "opens_when", "counts", "for_each", "does")
    shown_fields = ("name", "mode", "opens_when", "counts", "for_each", "does")
    end_verb = "Remove breaker"
    end_consequence = (
        "It no longer opens, and what it has open closes: the calls it stopped are allowed again "
        "within a second."
    )
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Opens for",
            {
                "description": "Any of them, whichever happens first.",
                "fields": (
                    "cost_nanos_per_minute",
                    ("error_percent", "error_min_calls"),
                    ("tokens_times", "usual_min_calls"),
                ),
            },
        ),
        ("Which calls", {"fields": ("match", "per")}),
        ("Then", {"fields": ("limit_percent", ("close", "cool_down_seconds"))}),
    )

    @display(description="Opens for")
    def opens_when(self, obj: Breaker) -> str:
        parts = []
        if obj.cost_nanos_per_minute is not None:
            parts.append(f"more than {usd_words(obj.cost_nanos_per_minute)} a minute")
        if obj.error_percent is not None:
            parts.append(f"{obj.error_percent}% failed calls")
        if obj.tokens_times is not None:
            parts.append(f"{obj.tokens_times:,} times the usual tokens")
        return ", ".join(parts)

    @display(description="Then")
    def does(self, obj: Breaker) -> str:
        if obj.mode != Mode.ENFORCE:
            return f"nothing ({obj.mode})"
        act = f"budgets at {obj.limit_percent}%" if obj.limit_percent else "stops calls"
        how = "by a probe" if obj.close == BreakerClose.PROBE else "manually"
        return f"{act} until closed {how}"
