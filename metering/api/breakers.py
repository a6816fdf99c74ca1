"""`/v1/breakers`: what opens by itself for whoever spends too fast, fails, or asks for too much."""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Choice,
    Count,
    Items,
    Moment,
    StrictSerializer,
    Text,
    Usd,
    moment_text,
)
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import NotFound
from metering.api.limit_increases import Group
from metering.configuration.breakers import (
    CALLS_MAX,
    COOL_DOWN_SECONDS_MAX,
    LIMIT_PERCENT_MAX,
    close_breaker,
    create_breaker,
    delete_breaker,
    update_breaker,
    validate_breaker,
)
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.core.match import ASKABLE, PER_MAX, Grouping
from metering.core.validation import group_key_of
from metering.fields.body import Match, RowBody, errors_at_members
from metering.limits.breakers.rules import cool_down
from metering.limits.breakers.states import OpenGroup, group_values, open_groups
from metering.models import Breaker, BreakerClose, Mode
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of


class BreakerBody(RowBody):
    """A breaker: at least one of `cost_usd_per_minute`, `error_percent` and `tokens_times`.

    Open, it halts its group, or with `limit_percent` makes budgets' limits count less for it. A
    PATCH changes the members it names; one of `match`, `per`, `mode` or `limit_percent` closes
    what is open.
    """

    id = serializers.IntegerField(read_only=True)
    name = Text()
    match = Match(required=False)
    per = Items(
        child=Choice(choices=ASKABLE),
        required=False,
        max_length=PER_MAX,
        help_text="Each value is watched and stopped by itself. `agent` and `feature` if left out.",
    )
    cost_usd_per_minute = Usd(
        source="cost_nanos_per_minute",
        required=False,
        allow_null=True,
        help_text="Open when more is spent within any 60 seconds.",
    )
    error_percent = Count(
        required=False,
        allow_null=True,
        max_value=100,
        help_text="Open when so many of the last 60 seconds' calls failed.",
    )
    error_min_calls = Count(
        required=False, max_value=CALLS_MAX, help_text="Fewer calls say nothing about failures."
    )
    tokens_times = Count(
        required=False,
        allow_null=True,
        min_value=2,
        max_value=CALLS_MAX,
        help_text="Open for a call with so many times the usual tokens.",
    )
    usual_min_calls = Count(
        required=False, max_value=CALLS_MAX, help_text="Fewer calls do not tell what is usual."
    )
    mode = Choice(choices=Mode.values, required=False)
    limit_percent = Count(
        required=False,
        allow_null=True,
        max_value=LIMIT_PERCENT_MAX,
        help_text="Instead of stopping: what budgets' limits count while it is open.",
    )
    close = Choice(
        choices=BreakerClose.values,
        required=False,
        help_text="By hand, or by a probe: one call is let through after the cool-down.",
    )
    cool_down_seconds = Count(required=False, max_value=COOL_DOWN_SECONDS_MAX)
    created_at = Moment(read_only=True)

    model = Breaker

    def judge(self, row: Any) -> None:
        validate_breaker(row)


class OpenGroupAnswer(serializers.Serializer[Any]):
    """A group for which the breaker is open."""

    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    since = Moment()
    why = serializers.CharField()
    halt = serializers.IntegerField(allow_null=True, help_text="The halt that it made.")
    trial_from = Moment(
        allow_null=True, help_text="When one call is let through, or by time alone it closes."
    )
    trial_at = Moment(allow_null=True, help_text="When a probe began that has not ended.")


class BreakerAnswer(BreakerBody):
    """A breaker, and where it is open."""

    open = OpenGroupAnswer(many=True, read_only=True)


@extend_schema_field(
    {
        "type": "object",
        "description": "A value for each dimension of the breaker's `per`; null or empty where it"
        " has none. Left out: every group.",
        "additionalProperties": {"type": ["string", "null"], "maxLength": VALUE_CHARACTERS_MAX},
        "example": {"agent": "researcher", "feature": None},
    }
)
class GroupToClose(Group):
    """One group of a breaker, by dimension."""


class CloseBody(StrictSerializer):
    """What to close. Validated for the breaker in the context."""

    group = GroupToClose(required=False, allow_null=True)

    def run_validation(self, data: Any = empty) -> Any:
        """Null names no group."""
        return {} if data is None else super().run_validation(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("group") is not None:
            with errors_at_members(self):
                attrs["group"] = group_key_of(self.context["breaker"].per, attrs["group"])
        return attrs


class BreakersView(ApiView):
    """All breakers of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List breakers, oldest first, and where they are open",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(BreakerAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        breakers = Breaker.objects.filter(
            tenant=tenant_of(request), id__gt=page.after[0] if page.after else 0
        )
        rows = list(breakers.order_by("id")[: page.limit + 1])
        answers = {answer["id"]: answer for answer in breaker_answers(rows)}
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: answers[row.id], key=lambda row: [row.id]
            )
        )

    @extend_schema(
        summary="Add a breaker, which counts from now on",
        request=BreakerBody,
        responses={201: BreakerAnswer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = BreakerBody(data=request.data)
        body.is_valid(raise_exception=True)
        breaker = create_breaker(
            tenant=tenant_of(request), actor=actor_of(request), **body.validated_data
        )
        return Response(_answer(breaker), status=201)


class BreakerView(ApiView):
    """One breaker."""

    @extend_schema(summary="Show a breaker, and where it is open", responses=BreakerAnswer)
    def get(self, request: Request, breaker_id: int) -> Response:
        return Response(_answer(_find(request, breaker_id)))

    @extend_schema(
        summary="Change a breaker",
        description="What is open stays open, unless the breaker would watch or do something else.",
        request=BreakerBody,
        responses=BreakerAnswer,
    )
    def patch(self, request: Request, breaker_id: int) -> Response:
        breaker = _find(request, breaker_id)
        body = BreakerBody(breaker, data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        changed = update_breaker(
            breaker=breaker, actor=actor_of(request), changes=body.validated_data
        )
        return Response(_answer(changed))

    @extend_schema(
        summary="Remove a breaker, and lift what it has open", request=None, responses={204: None}
    )
    def delete(self, request: Request, breaker_id: int) -> Response:
        delete_breaker(breaker=_find(request, breaker_id), actor=actor_of(request))
        return Response(status=204)


class CloseView(ApiView):
    """Closing a breaker by hand."""

    @extend_schema(
        summary="Close a breaker for one group or for all, and let them spend again",
        description="It counts from an empty minute. Closing what is closed changes nothing.",
        request=CloseBody,
        responses={200: BreakerAnswer},
    )
    def post(self, request: Request, breaker_id: int) -> Response:
        breaker = _find(request, breaker_id)
        body = CloseBody(data=request.data, context={"breaker": breaker})
        body.is_valid(raise_exception=True)
        close_breaker(
            breaker=breaker,
            actor=actor_of(request),
            group_key=body.validated_data.get("group"),
        )
        return Response(_answer(breaker))


def _answer(breaker: Breaker) -> dict[str, Any]:
    return breaker_answers([breaker])[0]


def breaker_answers(breakers: Sequence[Breaker]) -> list[dict[str, Any]]:
    """Breakers of one tenant as the API shows them."""
    if not breakers:
        return []
    with connection.cursor() as cursor:
        ids = [breaker.id for breaker in breakers]
        found = open_groups(cursor, breakers[0].tenant_id, ids, now=timezone.now())
    return [
        {
            **BreakerBody(breaker).data,
            "open": [_group_answer(breaker, one) for one in found.get(breaker.id, ())],
        }
        for breaker in breakers
    ]


def _group_answer(breaker: Breaker, one: OpenGroup) -> dict[str, Any]:
    is_by_itself = breaker.mode != Mode.ENFORCE or breaker.close == BreakerClose.PROBE
    trial_from = one.opened_at + cool_down(breaker.cool_down_seconds)
    return {
        "group": group_values(Grouping(breaker.match, breaker.per), one.group_key),
        "since": moment_text(one.opened_at),
        "why": one.why,
        "halt": one.halt_id,
        "trial_from": moment_text(trial_from) if is_by_itself else None,
        "trial_at": moment_text(one.probe_at) if one.probe_at else None,
    }


def _find(request: Request, breaker_id: int) -> Breaker:
    breaker = Breaker.objects.filter(tenant=tenant_of(request), id=breaker_id).first()
    if breaker is None:
        raise NotFound(f"There is no breaker {breaker_id}.")
    return breaker
