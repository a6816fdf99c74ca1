"""What forms of breakers and rate limits ask for, on pages and in the admin alike."""

from django import forms

from metering.configuration import breakers
from metering.fields.forms import count_field
from tenants.number_fields import UsdField


class BreakerFields(forms.Form):
    """What opens a breaker, and what it does then."""

    cost_nanos_per_minute = UsdField(
        label="Opens above this spend within a minute, USD", required=False
    )
    error_percent = count_field(
        "Opens at this share of failed calls, %", maximum=100, required=False
    )
    error_min_calls = count_field("Calls needed before failures count", maximum=breakers.CALLS_MAX)
    tokens_times = count_field(
        "Opens at this many times the usual tokens",
        minimum=2,
        maximum=breakers.CALLS_MAX,
        required=False,
    )
    usual_min_calls = count_field("Calls needed to know what is usual", maximum=breakers.CALLS_MAX)
    limit_percent = count_field(
        "Reduce limits to, %",
        maximum=breakers.LIMIT_PERCENT_MAX,
        required=False,
        help_text="Leave empty to stop the calls. Otherwise they continue, and the limits of their"
        " budgets are reduced to this percentage.",
    )
    cool_down_seconds = count_field("Cool-down, seconds", maximum=breakers.COOL_DOWN_SECONDS_MAX)


class RateLimitFields(forms.Form):
    """What may be asked for within any minute."""

    cost_nanos_per_minute = UsdField(label="Cost within any minute, USD", required=False)
    tokens_per_minute = count_field(
        "Tokens within any minute", required=False, help_text="Input and output."
    )
    requests_per_minute = count_field(
        "Requests within any minute", required=False, help_text="Model and tool calls."
    )
