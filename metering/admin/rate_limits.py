"""Admin pages of rate limits."""

from django.contrib.admin import display, register

from metering.admin.limits import GroupedForm, LimitAdmin, per_field
from metering.configuration.rate_limits import PER_NAMES, RATE_LIMITS, validate_rate_limit
from metering.core.match import PER_MAX
from metering.fields.limit_forms import RateLimitFields
from metering.fields.limit_words import rates_of
from metering.models import RateLimit
from tenants.admin_site import site


class RateLimitForm(RateLimitFields, GroupedForm):
    """Rates, any of which may be left out but not all."""

    per = per_field(
        "For each",
        PER_NAMES,
        "Each has the whole rate; key is the API key that asks. Nothing chosen: all calls together."
        f" At most {PER_MAX}.",
    )
    shown_at = {"limit": "cost_nanos_per_minute"}

    def judge(self) -> None:
        validate_rate_limit(self.instance)


@register(RateLimit, site=site)
class RateLimitAdmin(LimitAdmin):
    """How much may be asked for within any minute."""

    kind = RATE_LIMITS
    form = RateLimitForm
    list_display = ("name", "rates", "counts", "for_each", "mode")
    shown_fields = ("name", "mode", "rates", "counts", "for_each")
    end_verb = "Remove rate limit"
    end_consequence = "From the next call on, it limits nothing. Running calls continue."
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Within any minute",
            {
                "description": "A call that does not fit is refused and told when to retry.",
                "fields": ("cost_nanos_per_minute", ("tokens_per_minute", "requests_per_minute")),
            },
        ),
        ("Which calls", {"fields": ("match", "per")}),
    )

    @display(description="A minute")
    def rates(self, obj: RateLimit) -> str:
        return ", ".join(rates_of(obj))
