"""`/v1/breakers`: what opens automatically for calls that spend too fast, fail, or ask for too
much.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from django.db import connection
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Choice, Count, Items, OptionalBody, Text, Timestamp, Usd, read_body
from common.api.structs import Answer, GroupValues, UtcTimestamp, about
from common.json_bodies import JsonObject
from metering.api.limit_increases import Group
from metering.configuration.breakers import (
    BREAKERS,
    CALLS_MAX,
    COOL_DOWN_SECONDS_MAX,
    LIMIT_PERCENT_MAX,
    close_breaker,
    validate_breaker,
)
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX, Grouping
from metering.core.validation import group_key_of
from metering.fields.body import Match, RowBody, errors_at_members
from metering.limits.breakers.rules import cool_down
from metering.limits.breakers.states import OpenGroup, group_values, open_groups
from metering.models import Breaker, BreakerClose, Mode
from tenants.api.resources import Resource


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
        child=Choice(choices=KNOWN_BEFORE_CALL),
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
        help_text="Open when this share of the last 60 seconds' calls failed.",
    )
    error_min_calls = Count(
        required=False, max_value=CALLS_MAX, help_text="Fewer calls say nothing about failures."
    )
    tokens_times = Count(
        required=False,
        allow_null=True,
        min_value=2,
        max_value=CALLS_MAX,
        help_text="Open for a call with this many times the usual tokens.",
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
        help_text="Manually, or by a probe: one call is let through after the cool-down.",
    )
    cool_down_seconds = Count(required=False, max_value=COOL_DOWN_SECONDS_MAX)
    created_at = Timestamp(read_only=True)

    model = Breaker
    judge = staticmethod(validate_breaker)


class OpenGroupAnswer(Answer):
    """A group for which the breaker is open."""

    group: GroupValues
    since: UtcTimestamp
    why: str
    halt: Annotated[int | None, about("The halt that it made.")]
    trial_from: Annotated[
        UtcTimestamp | None, about("When one call is let through, or by time alone it closes.")
    ]
    trial_at: Annotated[UtcTimestamp | None, about("When a probe began that has not ended.")]


@extend_schema_field(OpenGroupAnswer)  # type: ignore[arg-type]  # described by an extension
class OpenGroupField(serializers.Field[Any, object, object, object]):
    """A group as it is answered."""


class BreakerAnswer(BreakerBody):
    """A breaker, and where it is open."""

    open = serializers.ListField(child=OpenGroupField(), read_only=True)


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


class CloseBody(OptionalBody):
    """What to close. Validated for the breaker in the context."""

    group = GroupToClose(required=False, allow_null=True)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if attrs.get("group") is not None:
            with errors_at_members(self):
                attrs["group"] = group_key_of(self.context["breaker"].per, attrs["group"])
        return attrs


@extend_schema_view(
    list=extend_schema(summary="List breakers, oldest first, and where they are open"),
    create=extend_schema(summary="Add a breaker, which counts from now on"),
    retrieve=extend_schema(summary="Show a breaker, and where it is open"),
    partial_update=extend_schema(
        summary="Change a breaker",
        description="What is open stays open, unless the breaker would watch or do something else.",
    ),
    destroy=extend_schema(summary="Remove a breaker, and lift what it has open"),
)
class Breakers(Resource[Breaker]):
    """The breakers of the tenant."""

    model = Breaker
    noun = "breaker"
    kind = BREAKERS
    body = BreakerBody
    answer = BreakerAnswer

    def answers(self, rows: Sequence[Breaker]) -> Sequence[Any]:
        if not rows:
            return []
        with connection.cursor() as cursor:
            ids = [breaker.id for breaker in rows]
            groups = open_groups(cursor, self.tenant.id, ids, now=timezone.now())
        return [
            {
                **BreakerBody(breaker).data,
                "open": [_group_answer(breaker, group) for group in groups.get(breaker.id, ())],
            }
            for breaker in rows
        ]

    @extend_schema(
        summary="Close a breaker for one group or for all, and let them spend again",
        description="It counts from an empty minute. Closing what is closed changes nothing.",
        request=CloseBody,
        responses={200: BreakerAnswer},
    )
    def close(self, request: Request, breaker_id: int) -> Response:
        breaker = self.row()
        fields = read_body(CloseBody, request, breaker=breaker)
        close_breaker(breaker=breaker, actor=self.actor, group_key=fields.get("group"))
        return Response(self.answers([breaker])[0])


def _group_answer(breaker: Breaker, group: OpenGroup) -> OpenGroupAnswer:
    is_by_itself = breaker.mode != Mode.ENFORCE or breaker.close == BreakerClose.PROBE
    trial_from = group.opened_at + cool_down(breaker.cool_down_seconds)
    return OpenGroupAnswer(
        group=group_values(Grouping(breaker.match, breaker.per), group.group_key),
        since=group.opened_at,
        why=group.why,
        halt=group.halt_id,
        trial_from=trial_from if is_by_itself else None,
        trial_at=group.probe_at,
    )
