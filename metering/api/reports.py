"""`POST /v1/outcomes` and `POST /v1/corrections`."""

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Choice, Flag, StrictSerializer, Text, Usd, Value
from common.errors import InvalidRequest
from common.money import usd_from_nanos
from metering.intake.corrections import REPLACE, VOID, correct_event
from metering.usage.decoders.native import EventBody
from metering.usage.outcomes import report_outcome
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, holder_of
from tenants.roles import Scope


class OutcomeBody(StrictSerializer):
    """How a task or a session ended."""

    task = Value(required=False)
    session = Value(required=False)
    success = Flag()
    value_usd = Usd(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("task" in attrs) == ("session" in attrs):
            raise serializers.ValidationError("Send either 'task' or 'session'.")
        return attrs


class CorrectionBody(StrictSerializer):
    """Which event is wrong, and what to do about it."""

    # "source" is also a name of DRF's own, so the fields are made by `get_fields`.
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            "id": Text(),
            "source": Value(min_length=0, allow_blank=True, default=""),
            "action": Choice([VOID, REPLACE]),
            "event": serializers.DictField(
                required=False, help_text="The event that is true instead."
            ),
            "reason": Text(max_length=1000),
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (attrs["action"] == REPLACE) != ("event" in attrs):
            raise serializers.ValidationError(
                "'event' belongs to the action 'replace', and only there."
            )
        return attrs


class CorrectedBody(serializers.Serializer[Any]):
    """What a correction did."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            "id": Text(),
            "source": Text(allow_blank=True),
            "action": Choice([VOID, REPLACE]),
            "voided_cost_usd": serializers.CharField(allow_null=True),
            "cost_usd": serializers.CharField(allow_null=True),
        }


class OutcomesView(ApiView):
    """Whether the work succeeded, and what that was worth."""

    write_scope = Scope.INGEST

    @extend_schema(request=OutcomeBody, responses={200: OutcomeBody})
    @idempotent
    def post(self, request: Request) -> Response:
        asked = OutcomeBody(data=request.data)
        asked.is_valid(raise_exception=True)
        outcome = report_outcome(
            tenant_id=holder_of(request).tenant_id,
            task=asked.validated_data.get("task", ""),
            session=asked.validated_data.get("session", ""),
            is_success=asked.validated_data["success"],
            value_nanos=asked.validated_data.get("value_usd"),
        )
        value = outcome.value_nanos
        return Response(
            {
                **({"task": outcome.task} if outcome.task else {"session": outcome.session}),
                "success": outcome.is_success,
                "value_usd": None if value is None else usd_from_nanos(value),
            }
        )


class CorrectionsView(ApiView):
    """Void or replace a stored event, by a new ledger entry."""

    write_scope = Scope.MANAGE
    also_answers = {"POST": (404, 409)}

    @extend_schema(request=CorrectionBody, responses={200: CorrectedBody})
    def post(self, request: Request) -> Response:
        asked = CorrectionBody(data=request.data)
        asked.is_valid(raise_exception=True)
        facts = asked.validated_data
        corrected = correct_event(
            tenant_id=holder_of(request).tenant_id,
            source=facts["source"],
            sent_id=facts["id"],
            replacement=_replacement(facts),
            reason=facts["reason"],
            actor=actor_of(request),
        )
        return Response(
            {
                "id": facts["id"],
                "source": facts["source"],
                "action": facts["action"],
                "voided_cost_usd": _usd(corrected.voided_nanos),
                "cost_usd": _usd(corrected.replacement_nanos),
            }
        )


def _replacement(facts: dict[str, Any]) -> EventBody | None:
    if "event" not in facts:
        return None
    # The event keeps its name; the replacement may repeat it and may leave it out.
    named = {"id": facts["id"], **({"source": facts["source"]} if facts["source"] else {})}
    try:
        body = msgspec.convert({**named, **facts["event"]}, EventBody)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The replacement is not an event: {error}.") from error
    if (body.id, body.source or "") != (facts["id"], facts["source"]):
        raise InvalidRequest("The replacement must keep the event's 'id' and 'source'.")
    return body


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else usd_from_nanos(nanos)
