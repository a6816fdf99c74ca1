"""`GET /v1/traces/{trace}` and `GET /v1/sessions/{session}`: how calls belong together."""

from typing import Annotated, Final

from drf_spectacular.utils import extend_schema
from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.structs import AmountUsd, Answer, UtcTimestamp, about
from common.money import usd_from_nanos
from metering.api.events import EventAnswer
from metering.api.usage import MeasuresAnswer
from metering.models import UsageEvent
from metering.reporting import CallNode, call_tree, read_session
from tenants.api.views import ApiView, tenant_of

TRUNCATED: Final = "There are more than the first 10,000 events, which are shown."


class NodeAnswer(EventAnswer):
    """An event, its own cost, the cost with everything below it, and its `children`."""

    subtree_cost_usd: AmountUsd
    children: list["NodeAnswer"]


class TraceAnswer(Answer):
    """The calls of a trace as a tree."""

    trace: str
    cost_usd: AmountUsd
    event_count: int
    is_truncated: Annotated[bool, about(TRUNCATED)]
    roots: list[NodeAnswer]


class ShareAnswer(MeasuresAnswer):
    """What one agent, model or tool had of a session."""

    agent: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    tool: str | UnsetType = UNSET


class StepAnswer(EventAnswer):
    """An event of a session, and what the session had cost after it."""

    running_cost_usd: AmountUsd


class SessionOutcomeAnswer(Answer):
    """How a session ended, as it was reported."""

    success: bool
    value_usd: AmountUsd | None
    reported_at: UtcTimestamp


class SessionAnswer(Answer):
    """The calls of a session, and what they come to."""

    session: str
    total: MeasuresAnswer
    by_agent: list[ShareAnswer]
    by_model: list[ShareAnswer]
    by_tool: list[ShareAnswer]
    outcome: SessionOutcomeAnswer | None
    is_truncated: Annotated[bool, about(TRUNCATED)]
    events: list[StepAnswer]


class TraceView(ApiView):
    """One trace."""

    @extend_schema(summary="The call tree of a trace", responses={200: TraceAnswer})
    def get(self, request: Request, trace: str) -> Response:
        tree = call_tree(tenant_id=tenant_of(request).id, trace=trace)
        return Response(
            TraceAnswer.of(
                tree,
                trace=trace,
                roots=[_node_answer(root) for root in tree.roots],
            )
        )


class SessionView(ApiView):
    """One session."""

    @extend_schema(
        summary="A session in the order in which it happened", responses={200: SessionAnswer}
    )
    def get(self, request: Request, session: str) -> Response:
        calls = read_session(tenant_id=tenant_of(request).id, session=session)
        totals, outcome = calls.totals, None
        if totals.outcome is not None:
            is_success = totals.outcome.is_success
            outcome = SessionOutcomeAnswer.of(totals.outcome, success=is_success)
        return Response(
            SessionAnswer(
                session=session,
                total=MeasuresAnswer.of(totals.total),
                **{
                    f"by_{name}": [ShareAnswer.of(row.measures, **row.group) for row in rows]
                    for name, rows in totals.by_dimension.items()
                },
                outcome=outcome,
                is_truncated=calls.is_truncated,
                events=[
                    StepAnswer.telling(
                        step.event, running_cost_usd=usd_from_nanos(step.running_cost_nanos)
                    )
                    for step in calls.steps
                ],
            )
        )


def _node_answer(node: CallNode[UsageEvent]) -> NodeAnswer:
    # A tree is at most reporting.traces.DEPTH_MAX deep.
    return NodeAnswer.telling(
        node.event,
        subtree_cost_usd=usd_from_nanos(node.subtree_cost_nanos),
        children=[_node_answer(child) for child in node.children],
    )
