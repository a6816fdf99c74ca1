"""Admin pages of breakers: what opens them. Where they are open is on the page of halts."""

from typing import Any

from django.contrib.admin import display, register

from metering.admin.limits import GroupedForm, LimitAdmin, per_field
from metering.configuration.breakers import BREAKERS, PER_DEFAULT, validate_breaker
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX
from metering.fields.limit_forms import BreakerFields
from metering.fields.limit_words import effect_of, triggers_of
from metering.models import Breaker
from tenants.admin_site import site


class BreakerForm(BreakerFields, GroupedForm):
    """What opens it, and what happens then."""

    per = per_field(
        "For each",
        KNOWN_BEFORE_CALL,
        "Each is watched and stopped separately. Leave empty for all calls together. At most "
        f"{PER_MAX}.",
    )

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
        return ", ".join(triggers_of(obj))

    @display(description="Then")
    def does(self, obj: Breaker) -> str:
        return effect_of(obj)
