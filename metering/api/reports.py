"""`POST /v1/outcomes` and `POST /v1/corrections`."""

from typing import Annotated

import msgspec
from drf_spectacular.utils import extend_schema
from msgspec import UNSET, UnsetType
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Choice,
    Flag,
    JsonMembers,
    StrictSerializer,
    Text,
    Usd,
    Value,
    read_body,
)
from common.api.structs import AmountUsd, Answer, one_of, usd_or_none
from common.errors import InvalidRequest
from common.json_bodies import JsonObject
from metering.intake.corrections import REPLACE, VOID, correct_event
from metering.usage.decoders.native import EventBody, field_problem
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

    def validate(self, attrs: JsonObject) -> JsonObject:
        if ("task" in attrs) == ("session" in attrs):
            raise serializers.ValidationError("Send either 'task' or 'session'.")
        return attrs


class CorrectionBody(StrictSerializer):
    """Which event is wrong, and what to do about it."""

    # "source" is also a name of DRF's own, so the fields are made by `get_fields`.
    def get_fields(self) -> dict[str, serializers.Field[object, object, object, object]]:
        return {
            "id": Text(),
            "source": Value(allow_blank=True, default=""),
            "action": Choice([VOID, REPLACE]),
            "event": JsonMembers(required=False, help_text="The event that is true instead."),
            "reason": Text(max_length=1000),
        }

    def validate(self, attrs: JsonObject) -> JsonObject:
        if (attrs["action"] == REPLACE) != ("event" in attrs):
            raise serializers.ValidationError(
                "'event' belongs to the action 'replace', and only there."
            )
        return attrs


class OutcomeAnswer(Answer):
    """An outcome as it is stored."""

    success: bool
    value_usd: AmountUsd | None
    task: str | UnsetType = UNSET
    session: str | UnsetType = UNSET


class CorrectionAnswer(Answer):
    """What a correction did."""

    id: str
    source: str
    action: Annotated[str, one_of([VOID, REPLACE])]
    voided_cost_usd: AmountUsd | None
    cost_usd: AmountUsd | None


class OutcomesView(ApiView):
    """Whether the work succeeded, and what that was worth."""

    write_scope = Scope.INGEST

    @extend_schema(request=OutcomeBody, responses={200: OutcomeAnswer})
    @idempotent
    def post(self, request: Request) -> Response:
        fields = read_body(OutcomeBody, request)
        outcome = report_outcome(
            tenant_id=holder_of(request).tenant_id,
            task=fields.get("task", ""),
            session=fields.get("session", ""),
            is_success=fields["success"],
            value_nanos=fields.get("value_usd"),
        )
        return Response(
            OutcomeAnswer.of(
                outcome,
                task=outcome.task or UNSET,
                session=outcome.session or UNSET,
                success=outcome.is_success,
            )
        )


class CorrectionsView(ApiView):
    """Void or replace a stored event, by a new ledger entry."""

    also_answers = {"POST": (404, 409)}

    @extend_schema(request=CorrectionBody, responses={200: CorrectionAnswer})
    def post(self, request: Request) -> Response:
        fields = read_body(CorrectionBody, request)
        corrected = correct_event(
            tenant_id=holder_of(request).tenant_id,
            source=fields["source"],
            sent_id=fields["id"],
            replacement=_replacement(fields),
            reason=fields["reason"],
            actor=actor_of(request),
        )
        return Response(
            CorrectionAnswer(
                id=fields["id"],
                source=fields["source"],
                action=fields["action"],
                voided_cost_usd=usd_or_none(corrected.voided_nanos),
                cost_usd=usd_or_none(corrected.replacement_nanos),
            )
        )


def _replacement(fields: JsonObject) -> EventBody | None:
    if "event" not in fields:
        return None
    # The event keeps its name; the replacement may repeat it and may leave it out.
    named = {"id": fields["id"], **({"source": fields["source"]} if fields["source"] else {})}
    try:
        body = msgspec.convert({**named, **fields["event"]}, EventBody)
    except msgspec.ValidationError as error:
        detail = field_problem(error, EventBody).detail
        raise InvalidRequest(f"The replacement is not an event: {detail}") from error
    if (body.id, body.source or "") != (fields["id"], fields["source"]):
        raise InvalidRequest("The replacement must keep the event's 'id' and 'source'.")
    return body
