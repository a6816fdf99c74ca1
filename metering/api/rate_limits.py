"""`/v1/rate-limits`: how much may be asked for within any minute."""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from common.api.fields import Choice, Count, Items, StrictSerializer, Text, Timestamp, Usd
from metering.configuration.rate_limits import PER_NAMES, RATE_LIMITS, validate_rate_limit
from metering.core.match import PER_MAX
from metering.fields.body import Match, RowBody
from metering.models import Mode, RateLimit
from tenants.api.resources import Resource


class RatesBody(StrictSerializer):
    """One or more rates, all of which hold."""

    requests_per_minute = Count(
        required=False, allow_null=True, help_text="Calls of models and of tools alike."
    )
    tokens_per_minute = Count(
        required=False, allow_null=True, help_text="Input and output, as asked for."
    )
    cost_usd_per_minute = Usd(source="cost_nanos_per_minute", required=False, allow_null=True)


class RateLimitBody(RowBody):
    """A rate limit. A PATCH changes the members it names, and of `limit` the rates.

    A call that is larger than a limit itself passes once nothing was asked for within the last
    minute; whatever comes after it waits until it has left the minute.
    """

    id = serializers.IntegerField(read_only=True)
    name = Text()
    match = Match(required=False)
    per = Items(
        child=Choice(choices=PER_NAMES),
        required=False,
        max_length=PER_MAX,
        help_text="Each value has the whole rate; `key` is the API key that asks. Empty: all"
        " together.",
    )
    limit = RatesBody(source="*")
    mode = Choice(choices=Mode.values, required=False)
    created_at = Timestamp(read_only=True)

    model = RateLimit
    judge = staticmethod(validate_rate_limit)


@extend_schema_view(
    list=extend_schema(summary="List rate limits, oldest first"),
    create=extend_schema(
        summary="Add a rate limit, in force for the next reservation that begins",
        description="A reservation that does not fit into the minute is refused with 429 and"
        " `Retry-After`.",
    ),
    retrieve=extend_schema(summary="Show a rate limit"),
    partial_update=extend_schema(
        summary="Change a rate limit",
        description="Of `limit`, the rates that are named change, and null removes one. What was"
        " asked for within the last minute still counts.",
    ),
    destroy=extend_schema(summary="Remove a rate limit"),
)
class RateLimits(Resource[RateLimit]):
    """The rate limits of the tenant."""

    model = RateLimit
    noun = "rate limit"
    kind = RATE_LIMITS
    body = RateLimitBody
