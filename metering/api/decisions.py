"""`GET /v1/decisions`: what was refused, made cheaper or objected to, and why; newest first."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, page_answer, page_of, read_page
from common.api.parameters import ID_SCHEMA, read_choice, read_id, read_timestamp
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of
from common.json_bodies import JsonObject
from metering.fields.parameters import RANGE_PARAMETERS, read_value
from metering.limits.decisions import DecisionQuestion, list_decisions
from tenants.api.views import ApiView, tenant_of

DECISIONS: Final = ("allow", "downgrade", "refuse", "open", "close")


class DecisionAnswer(Answer):
    """A decision other than a plain allow. What a member says that has no value is null."""

    id: int
    decided_at: UtcTimestamp
    decision: Annotated[
        str,
        one_of(
            DECISIONS,
            "`allow`: a budget that only watches or warns would have objected; `open` and `close`"
            " are of breakers.",
        ),
    ]
    code: Annotated[str, about("Of a refusal: the code of its problem.")]
    reservation: UUID | None
    dimensions: dict[str, str]
    asked_usd: AmountUsd | None
    asked_tokens: int | None
    saved_usd: Annotated[AmountUsd | None, about("Against the best model of the route.")]
    reasons: Annotated[
        list[JsonObject],
        about(
            "A budget's reason names it, its group, window, level, mode and part, and what was"
            " spent, reserved and asked of which limit; money in fields that end in `_usd`."
        ),
    ]


class DecisionsView(ApiView):
    """Decisions other than a plain allow."""

    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            *RANGE_PARAMETERS,
            OpenApiParameter("agent", str, description="Empty: without an agent."),
            OpenApiParameter("decision", str, enum=DECISIONS),
            OpenApiParameter("code", str, description="As `budget_exceeded`."),
            OpenApiParameter("budget", ID_SCHEMA, description="Among the reasons."),
        )
    }

    @extend_schema(
        summary="Decisions other than a plain allow, newest first",
        description=f"They can be read for {settings.RETENTION_DECISIONS.days} days.",
        responses=page_of(DecisionAnswer),
    )
    def get(self, request: Request) -> Response:
        page = read_page(request, (datetime, int))
        agent = request.query_params.get("agent")
        question = DecisionQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=read_timestamp(request, "from"),
            ends_at=read_timestamp(request, "to"),
            agent=None if agent is None else read_value("agent", agent),
            decision=read_choice(request, "decision", DECISIONS),
            code=request.query_params.get("code"),
            budget_id=read_id(request, "budget"),
        )
        after = None if page.after is None else (page.after[0], page.after[1])
        rows = list_decisions(question, limit=page.limit + 1, after=after)
        return Response(
            page_answer(
                rows,
                page=page,
                answers=lambda rows: [
                    DecisionAnswer.of(row, reservation=row.reservation_id) for row in rows
                ],
                key=lambda row: [row.decided_at, row.id],
            )
        )
