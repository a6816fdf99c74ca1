"""`GET /v1/decisions`: what was refused, made cheaper or objected to, and why; newest first."""

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment, Usd
from common.api.pagination import (
    ID_MAX,
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import InvalidRequest
from metering.fields.parameters import RANGE_SCHEMA, moment_of, value_of
from metering.limits.decisions import DecisionQuestion, list_decisions
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

DECISIONS: Final = ("allow", "downgrade", "refuse", "open", "close")
FILTERS: Final = ("agent", "decision", "code", "budget")


class DecisionAnswer(serializers.Serializer[Any]):
    """A decision other than a plain allow. What a member says that has no value is null."""

    id = serializers.IntegerField()
    decided_at = Moment()
    decision = serializers.ChoiceField(
        choices=DECISIONS,
        help_text="`allow`: a budget that only watches or warns would have objected; `open` and"
        " `close` are of breakers.",
    )
    code = serializers.CharField(
        allow_blank=True, help_text="Of a refusal: the code of its problem."
    )
    reservation = serializers.UUIDField(source="reservation_id", allow_null=True)
    dimensions = serializers.DictField(child=serializers.CharField())
    asked_usd = Usd(source="asked_nanos", allow_null=True)
    asked_tokens = serializers.IntegerField(allow_null=True)
    saved_usd = Usd(
        source="saved_nanos", allow_null=True, help_text="Against the best model of the route."
    )
    reasons = serializers.ListField(
        child=serializers.DictField(),
        help_text="A budget's reason names it, its group, window, level, mode and part, and what"
        " was spent, reserved and asked of which limit; money in fields that end in `_usd`.",
    )


class DecisionsView(ApiView):
    """Decisions other than a plain allow."""

    read_scope = Scope.READ
    parameters = {"GET": PAGE_PARAMETERS | {"from", "to"} | set(FILTERS)}

    @extend_schema(
        summary="Decisions other than a plain allow, newest first",
        description=f"They can be read for {settings.RETENTION_DECISIONS.days} days.",
        parameters=[
            *PAGE_SCHEMA,
            *RANGE_SCHEMA,
            OpenApiParameter("agent", str, description="Empty: without an agent."),
            OpenApiParameter("decision", str, enum=DECISIONS),
            OpenApiParameter("code", str, description="As `budget_exceeded`."),
            OpenApiParameter(
                "budget",
                {"type": "integer", "minimum": 1, "maximum": ID_MAX},
                description="Among the reasons.",
            ),
        ],
        responses=page_serializer(DecisionAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [datetime, int])
        agent = request.query_params.get("agent")
        question = DecisionQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=moment_of(request, "from"),
            ends_at=moment_of(request, "to"),
            agent=None if agent is None else value_of(agent),
            decision=_decision_of(request),
            code=request.query_params.get("code"),
            budget_id=_budget_of(request),
        )
        after = None if page.after is None else (page.after[0], page.after[1])
        rows = list_decisions(question, limit=page.limit + 1, after=after)
        return Response(
            page_answer(
                rows,
                page=page,
                answer=lambda row: DecisionAnswer(row).data,
                key=lambda row: [row.decided_at, row.id],
            )
        )


def _decision_of(request: Request) -> str | None:
    text = request.query_params.get("decision")
    if text is not None and text not in DECISIONS:
        raise InvalidRequest(f"'decision' must be one of {', '.join(DECISIONS)}.")
    return text


def _budget_of(request: Request) -> int | None:
    text = request.query_params.get("budget")
    if text is None:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= 19
    if not is_number or not 1 <= int(text) <= ID_MAX:
        raise InvalidRequest("'budget' must be the id of a budget.")
    return int(text)
