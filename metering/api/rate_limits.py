"""`/v1/rate-limits`: how much may be asked for within any minute."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Choice, Count, Items, Moment, StrictSerializer, Text, Usd
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import NotFound
from metering.configuration.rate_limits import (
    PER_NAMES,
    create_rate_limit,
    delete_rate_limit,
    update_rate_limit,
    validate_rate_limit,
)
from metering.core.match import PER_MAX
from metering.fields.body import Match, RowBody
from metering.models import Mode, RateLimit
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of


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
    created_at = Moment(read_only=True)

    model = RateLimit

    def judge(self, row: Any) -> None:
        validate_rate_limit(row)


class RateLimitsView(ApiView):
    """All rate limits of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List rate limits, oldest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(RateLimitBody),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        limits = RateLimit.objects.filter(
            tenant=tenant_of(request), id__gt=page.after[0] if page.after else 0
        )
        rows = list(limits.order_by("id")[: page.limit + 1])
        return Response(
            page_answer(
                rows,
                page=page,
                answer=lambda row: RateLimitBody(row).data,
                key=lambda row: [row.id],
            )
        )

    @extend_schema(
        summary="Add a rate limit, in force for the next reservation that begins",
        description="A reservation that does not fit into the minute is refused with 429 and"
        " `Retry-After`.",
        request=RateLimitBody,
        responses={201: RateLimitBody},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = RateLimitBody(data=request.data)
        body.is_valid(raise_exception=True)
        limit = create_rate_limit(
            tenant=tenant_of(request), actor=actor_of(request), **body.validated_data
        )
        return Response(RateLimitBody(limit).data, status=201)


class RateLimitView(ApiView):
    """One rate limit."""

    @extend_schema(summary="Show a rate limit", responses=RateLimitBody)
    def get(self, request: Request, rate_limit_id: int) -> Response:
        return Response(RateLimitBody(_find(request, rate_limit_id)).data)

    @extend_schema(
        summary="Change a rate limit",
        description="Of `limit`, the rates that are named change, and null removes one. What was"
        " asked for within the last minute still counts.",
        request=RateLimitBody,
        responses=RateLimitBody,
    )
    def patch(self, request: Request, rate_limit_id: int) -> Response:
        limit = _find(request, rate_limit_id)
        body = RateLimitBody(limit, data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        changed = update_rate_limit(
            limit=limit, actor=actor_of(request), changes=body.validated_data
        )
        return Response(RateLimitBody(changed).data)

    @extend_schema(summary="Remove a rate limit", request=None, responses={204: None})
    def delete(self, request: Request, rate_limit_id: int) -> Response:
        delete_rate_limit(limit=_find(request, rate_limit_id), actor=actor_of(request))
        return Response(status=204)


def _find(request: Request, rate_limit_id: int) -> RateLimit:
    limit = RateLimit.objects.filter(tenant=tenant_of(request), id=rate_limit_id).first()
    if limit is None:
        raise NotFound(f"There is no rate limit {rate_limit_id}.")
    return limit
